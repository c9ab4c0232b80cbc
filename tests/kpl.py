"""Aggregates as the KPL writes them: each user record under a key of its own."""

import hashlib

from aws_kinesis_agg import MAGIC
from aws_kinesis_agg.deaggregator import messages_pb2

__all__ = ["aggregate"]


def aggregate(*users: tuple[str, bytes] | tuple[str, bytes, int]) -> bytes:
    """Of user records given by partition key, payload and, for some, explicit hash key."""
    message = messages_pb2.AggregatedRecord()
    for place, (key, payload, *explicit) in enumerate(users):
        message.partition_key_table.append(key)
        record = message.records.add(data=payload, partition_key_index=place)
        if explicit:
            record.explicit_hash_key_index = len(message.explicit_hash_key_table)
            message.explicit_hash_key_table.append(str(explicit[0]))
    body: bytes = message.SerializeToString()
    return bytes(MAGIC) + body + hashlib.md5(body).digest()
