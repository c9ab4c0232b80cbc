"""Assign events to partitions: hour, day or month of the event time, and a bucket of the key.

Pure: no I/O and nothing of pyiceberg. Buckets are Iceberg's (the 32-bit Murmur3 hash of the key modulo their number),
so any engine that looks for one key reads one bucket.
"""

import json
import struct
from dataclasses import dataclass

import mmh3
import numpy as np
import pyarrow as pa

from headwater.arrays import Ints
from headwater.contract.types import type_name
from headwater.errors import UsageError

__all__ = ["BUCKET_METADATA", "MAX_BUCKETS", "MIXED_METADATA", "KeyBucket", "Partitioning", "buckets_of"]

MAX_BUCKETS = 1_024
BUCKET_METADATA = b"headwater.bucket"
"""Key in a file's own metadata for the bucket it holds, which a column's statistics cannot say."""
MIXED_METADATA = b"headwater.mixed"
"""Key in the metadata of a file that holds rows of several partitions: more than a commit may have files for."""
_UNITS = {"hour": "h", "day": "D", "month": "M"}


@dataclass(frozen=True)
class Partitioning:
    """Say how a table is partitioned.

    `time` and `key` name columns. `unit` is "hour", "day", "month", or None for no partitions by time; `buckets` is 2
    to 1,024, or None for no partitions by key. Raise UsageError for any other value.

    >>> Partitioning("ts", "device", "month").name(675)
    '2026-04'
    >>> Partitioning("ts", "device", buckets=1)
    Traceback (most recent call last):
    headwater.errors.UsageError: 2 to 1,024 buckets, or None, not 1
    """

    time: str
    key: str
    unit: str | None = "day"
    buckets: int | None = None

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in _UNITS:
            raise UsageError(f"partition by 'hour', 'day', 'month' or None, not {self.unit!r}")
        if self.buckets is not None and not 2 <= self.buckets <= MAX_BUCKETS:
            raise UsageError(f"2 to {MAX_BUCKETS:,} buckets, or None, not {self.buckets!r}")

    def check(self, key: pa.DataType) -> None:
        """Raise UsageError when keys of this type cannot be hashed into buckets."""
        if self.buckets is not None and not (pa.types.is_string(key) or pa.types.is_signed_integer(key)):
            raise UsageError(f"key {self.key} is a {type_name(key)}: only text and whole numbers have buckets")

    def numbers(self, ts_ms: Ints) -> Ints:
        """Return for each time (epoch ms) its hour, day or month since 1970; zeros without a unit."""
        if self.unit is None:
            return np.zeros(len(ts_ms), np.int64)
        whole: Ints = ts_ms.astype("M8[ms]").astype(f"M8[{_UNITS[self.unit]}]").astype(np.int64)
        return whole

    def name(self, number: int) -> str:
        """Return the text of one of `numbers`, such as 2026-03-31; the empty text without a unit."""
        return "" if self.unit is None else str(np.array(number).astype(f"M8[{_UNITS[self.unit]}]"))


@dataclass(frozen=True)
class KeyBucket:
    """Identify one bucket: `number` out of `of`, over the values of `column`. A file says in its metadata which one it
    holds.
    """

    column: str
    number: int
    of: int

    def dumps(self) -> bytes:
        """Return the JSON that goes into a file's metadata."""
        return json.dumps([self.column, self.number, self.of]).encode()

    @classmethod
    def loads(cls, text: bytes) -> "KeyBucket":
        """Read what `dumps` has written."""
        return cls(*json.loads(text))

    def among(self, buckets: int) -> int | None:
        """Return the bucket out of `buckets` that contains this one; None when its rows may lie in several."""
        return None if self.of % buckets else self.number % buckets


def buckets_of(key: pa.Array, buckets: int) -> Ints:
    """Return each row's bucket number.

    `key` holds strings (plain or dictionary-encoded) or integers, and no nulls.
    """
    if pa.types.is_dictionary(key.type):
        rows: Ints = key.indices.to_numpy()
        return buckets_of(key.dictionary, buckets)[rows]
    if pa.types.is_integer(key.type):
        values, rows = np.unique(key.to_numpy().astype(np.int64), return_inverse=True)
        return _hashed([struct.pack("<q", value) for value in values.tolist()], buckets)[rows]
    return _hashed([value.encode() for value in key.to_pylist()], buckets)


def _hashed(values: list[bytes], buckets: int) -> Ints:
    hashes = np.fromiter(map(mmh3.hash, values), np.int64, len(values))
    found: Ints = (hashes & 0x7FFFFFFF) % buckets
    return found
