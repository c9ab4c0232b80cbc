"""Aggregates of the Kinesis Producer Library: many user records in one Kinesis record.

The format is magic, protobuf, MD5 of the protobuf (aggregation-format.md of awslabs/amazon-kinesis-producer). Its
messages are defined here: aws_kinesis_agg, which has them too, changes `sys.path` of whoever imports it. They are in a
pool of their own, so that a program may use both.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from headwater.errors import InvalidRecord
from headwater.stream.hashkeys import hash_key_of

__all__ = ["UserRecord", "encode_kpl", "is_kpl", "user_payloads", "user_records"]

MAGIC = b"\xf3\x89\x9a\xc2"
_DIGEST_BYTES = 16
_PACKAGE = "aws.kinesis.protobuf"
_MESSAGES = {
    "Tag": (("key", 1, "required string"), ("value", 2, "optional string")),
    "Record": (
        ("partition_key_index", 1, "required uint64"),
        ("explicit_hash_key_index", 2, "optional uint64"),
        ("data", 3, "required bytes"),
        ("tags", 4, "repeated Tag"),
    ),
    "AggregatedRecord": (
        ("partition_key_table", 1, "repeated string"),
        ("explicit_hash_key_table", 2, "repeated string"),
        ("records", 3, "repeated Record"),
    ),
}
"""Name, number, label and type of each message's fields."""


@cache
def _aggregated_record() -> Any:
    """Return the message class of an aggregate. Protobuf is loaded with the first one: most streams have none."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="aggregate.proto", package=_PACKAGE, syntax="proto2")
    field = descriptor_pb2.FieldDescriptorProto
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for name, number, kind in fields:
            label, _, type_ = kind.partition(" ")
            one = made.field.add(name=name, number=number, label=field.Label.Value(f"LABEL_{label.upper()}"))
            if type_ in _MESSAGES:
                one.type, one.type_name = field.Type.Value("TYPE_MESSAGE"), f".{_PACKAGE}.{type_}"
            else:
                one.type = field.Type.Value(f"TYPE_{type_.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.AggregatedRecord"))


def is_kpl(data: bytes) -> bool:
    """Tell whether the record begins as an aggregate does."""
    return data.startswith(MAGIC)


class UserRecord(NamedTuple):
    """Hold one user record of an aggregate. `hash_key` is None where the aggregate's tables lack its key."""

    payload: bytes
    partition_key: str
    hash_key: int | None


def user_records(data: bytes) -> list[UserRecord]:
    """Return the user records in order, each with the hash key that it would have on its own.

    That is its explicit hash key, else the MD5 of its partition key, as aggregation-format.md says. Raises
    InvalidRecord for what is no aggregate.
    """
    aggregate = _parsed(data)
    names = list(aggregate.partition_key_table)
    hashed = [hash_key_of(name) for name in names]
    explicit = [_number(key) for key in aggregate.explicit_hash_key_table]
    out = []
    for record in aggregate.records:
        at = record.partition_key_index
        name, key = (names[at], hashed[at]) if at < len(names) else ("", None)
        if record.HasField("explicit_hash_key_index"):
            place = record.explicit_hash_key_index
            key = explicit[place] if place < len(explicit) else None
        out.append(UserRecord(record.data, name, key))
    return out


def user_payloads(data: bytes) -> list[bytes]:
    """Return the payloads of the user records, in order."""
    return [record.data for record in _parsed(data).records]


def encode_kpl(payloads: Sequence[bytes], partition_key: str, explicit_hash_key: str | None) -> bytes:
    """Encode all payloads as one aggregate, under one partition key.

    Every user record carries the outer explicit hash key: a KCL consumer drops user records whose own hash lies outside
    the shard it reads.
    """
    aggregate = _aggregated_record()(partition_key_table=[partition_key])
    place = {"partition_key_index": 0}
    if explicit_hash_key is not None:
        aggregate.explicit_hash_key_table.append(explicit_hash_key)
        place["explicit_hash_key_index"] = 0
    for payload in payloads:
        aggregate.records.add(data=payload, **place)
    message: bytes = aggregate.SerializeToString()
    return MAGIC + message + _md5(message)


def _parsed(data: bytes) -> Any:
    message, digest = data[len(MAGIC) : -_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if len(data) < len(MAGIC) + _DIGEST_BYTES or _md5(message) != digest:
        raise InvalidRecord("a KPL aggregate whose checksum is wrong")
    from google.protobuf.message import DecodeError

    try:
        return _aggregated_record().FromString(message)
    except DecodeError as error:
        raise InvalidRecord("a KPL aggregate that is not the protobuf it should be") from error


def _number(text: str) -> int | None:
    """Return a hash key of at most 39 digits, which is what 2^128 has; None for any other text."""
    return int(text) if len(text) <= 39 and text.isascii() and text.isdecimal() else None


def _md5(message: bytes) -> bytes:
    return hashlib.md5(message, usedforsecurity=False).digest()
