"""Which file of the lake an event belongs in: by hour, day or month of its time, and by bucket of its key. Pure.

Buckets are Iceberg's: the remainder of the key's 32-bit Murmur3 hash, so that each reader who looks for a key finds the
one bucket by itself.
"""

import json
import struct
from dataclasses import dataclass

import mmh3
import numpy as np
import pyarrow as pa

from headwater.errors import UsageError
from headwater.lineage import Ints

__all__ = ["BUCKET", "MOST_BUCKETS", "Bucket", "Partitioning", "buckets_of"]

MOST_BUCKETS = 1_024
BUCKET = b"headwater.bucket"
"""A file's own metadata: which bucket it holds, since a column's statistics cannot say."""
_UNITS = {"hour": "h", "day": "D", "month": "M"}


@dataclass(frozen=True)
class Partitioning:
    """By "hour", "day" or "month" of the column `time` (None: not by time), and by bucket of `key` (None: by none)."""

    time: str
    key: str
    unit: str | None = "day"
    buckets: int | None = None

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in _UNITS:
            raise UsageError(f"partition by 'hour', 'day', 'month' or None, not {self.unit!r}")
        if self.buckets is not None and not 2 <= self.buckets <= MOST_BUCKETS:
            raise UsageError(f"2 to {MOST_BUCKETS:,} buckets, or None, not {self.buckets!r}")

    def check(self, key: pa.DataType) -> None:
        """UsageError when there are no buckets of such a key."""
        if self.buckets is not None and not (pa.types.is_string(key) or pa.types.is_signed_integer(key)):
            raise UsageError(f"key {self.key} is a {key}: only text and whole numbers have buckets")

    def numbers(self, ts_ms: Ints) -> Ints:
        """Hours, days or months since 1970; zeros without a unit."""
        if self.unit is None:
            return np.zeros(len(ts_ms), np.int64)
        whole: Ints = ts_ms.astype("M8[ms]").astype(f"M8[{_UNITS[self.unit]}]").astype(np.int64)
        return whole

    def name(self, number: int) -> str:
        """Of one of `numbers`, such as 2026-03-31; empty without a unit."""
        return "" if self.unit is None else str(np.array(number).astype(f"M8[{_UNITS[self.unit]}]"))


@dataclass(frozen=True)
class Bucket:
    """Bucket `number` of `of`, of a column's values."""

    column: str
    number: int
    of: int

    def dumps(self) -> bytes:
        return json.dumps([self.column, self.number, self.of]).encode()

    @classmethod
    def loads(cls, text: bytes) -> "Bucket":
        return cls(*json.loads(text))

    def among(self, buckets: int) -> int | None:
        """Which of `buckets` this one lies in; None when it may lie in several."""
        return None if self.of % buckets else self.number % buckets


def buckets_of(key: pa.Array, buckets: int) -> Ints:
    """Each row's bucket. Strings, plain or as a dictionary, or integers; no nulls."""
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
