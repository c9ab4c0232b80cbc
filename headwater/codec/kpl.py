"""Aggregates of the Kinesis Producer Library: many user records in one Kinesis record.

The format is magic, protobuf, MD5 of the protobuf (aggregation-format.md of awslabs/amazon-kinesis-producer). The
protobuf classes are aws_kinesis_agg's; its deaggregator, which builds a dictionary with base64 for every user record,
is not used.
"""

import hashlib
from collections.abc import Sequence

from aws_kinesis_agg import MAGIC
from aws_kinesis_agg.deaggregator import messages_pb2  # this module sets the import path messages_pb2 needs
from google.protobuf.message import DecodeError

from headwater.errors import InvalidRecord

__all__ = ["encode_kpl", "is_kpl", "user_payloads"]

_DIGEST_BYTES = 16


def is_kpl(data: bytes) -> bool:
    """Whether the record begins as an aggregate does."""
    return data.startswith(MAGIC)


def user_payloads(data: bytes) -> list[bytes]:
    """The payloads of the user records, in order."""
    message, digest = data[len(MAGIC) : -_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if len(data) < len(MAGIC) + _DIGEST_BYTES or _md5(message) != digest:
        raise InvalidRecord("a KPL aggregate whose checksum is wrong")
    try:
        aggregate = messages_pb2.AggregatedRecord.FromString(message)
    except DecodeError as error:
        raise InvalidRecord("a KPL aggregate that is not the protobuf it should be") from error
    return [record.data for record in aggregate.records]


def encode_kpl(payloads: Sequence[bytes], partition_key: str, explicit_hash_key: str | None) -> bytes:
    """One aggregate of all payloads, under one partition key.

    Every user record carries the outer explicit hash key: a KCL consumer drops user records whose own hash lies
    outside the shard it reads.
    """
    aggregate = messages_pb2.AggregatedRecord(partition_key_table=[partition_key])
    place = {"partition_key_index": 0}
    if explicit_hash_key is not None:
        aggregate.explicit_hash_key_table.append(explicit_hash_key)
        place["explicit_hash_key_index"] = 0
    for payload in payloads:
        aggregate.records.add(data=payload, **place)
    message: bytes = aggregate.SerializeToString()
    return bytes(MAGIC) + message + _md5(message)


def _md5(message: bytes) -> bytes:
    return hashlib.md5(message, usedforsecurity=False).digest()
