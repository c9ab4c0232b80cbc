"""Shards of an in-memory stream: records, hash ranges, limits. Values only; `kinesis` has the calls."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["HASH_SPACE", "MemoryShard", "MemoryStream", "Record", "even_ranges", "hash_of", "sequence_at"]

HASH_SPACE = 1 << 128
_FIRST = 496 * 10**53
"""Sequence numbers have 56 digits, as the service's have."""
_STEP = 1 << 40
WRITE_BYTES = 1_000_000
WRITE_RECORDS = 1_000

READ_BYTES = 2_000_000
READ_CALLS = 5
MAX_ANSWER_BYTES = 10_000_000
MAX_ANSWER_RECORDS = 10_000


def sequence_at(count: int) -> int:
    """The sequence number of the count-th thing that happens to a stream: they grow over all shards."""
    return _FIRST + count * _STEP


def hash_of(partition_key: str, explicit: str | None) -> int:
    """Where a record lies: by the MD5 of its partition key, unless it says so itself."""
    if explicit is not None:
        return int(explicit)
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")


@dataclass(frozen=True)
class Record:
    """A record as stored."""

    number: int
    arrived_ms: int
    partition_key: str
    data: bytes


@dataclass
class _Bucket:
    """What is left of a limit per second; so much as `most` may go at once."""

    rate: float
    most: float
    at_ms: int

    def __post_init__(self) -> None:
        self.left = self.most

    def take(self, amount: float, now_ms: int, debt: bool = False) -> bool:
        """Whether there was enough. With `debt` it is enough that anything is left, and the rest is owed; and so it
        is for what is more than may ever go at once."""
        self.left = min(self.most, self.left + self.rate * (now_ms - self.at_ms) / 1000)
        self.at_ms = now_ms
        if self.left < (min(amount, 1e-9) if debt else min(amount, self.most)):
            return False
        self.left -= amount
        return True

    def give(self, amount: float) -> None:
        self.left += amount


@dataclass
class MemoryShard:
    """One shard. `end` is its last hash key; `closed` the sequence number at which it ended."""

    shard_id: str
    start: int
    end: int
    opened: int
    opened_ms: int
    parents: tuple[str, ...] = ()
    closed: int | None = None
    closed_ms: int | None = None
    records: list[Record] = field(default_factory=list)
    trimmed: int = 0
    """How many records retention took from the front."""
    taken_bytes: int = 0
    taken_records: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        now = self.opened_ms
        self._write_bytes, self._write_records = _Bucket(WRITE_BYTES, 1 << 20, now), _Bucket(1e3, 1e3, now)
        self._read_calls, self._read_bytes = _Bucket(READ_CALLS, READ_CALLS, now), _Bucket(READ_BYTES, READ_BYTES, now)

    def admits(self, size: int, now_ms: int) -> bool:
        """Whether the write limits let a record of so many bytes in; counts it."""
        if not self._write_records.take(1, now_ms):
            self.refused += 1
            return False
        if not self._write_bytes.take(size, now_ms):
            self._write_records.give(1)
            self.refused += 1
            return False
        return True

    def append(self, record: Record) -> None:
        self.records.append(record)
        self.taken_bytes += len(record.data) + len(record.partition_key.encode())
        self.taken_records += 1

    def may_read(self, now_ms: int) -> bool:
        """Whether the read limits let another call in; bytes that were read too fast are owed first."""
        return self._read_bytes.take(0, now_ms, debt=True) and self._read_calls.take(1, now_ms)

    def read(self, after: int, limit: int, now_ms: int) -> list[Record]:
        """Up to so many records behind a sequence number, of 10 MB at most."""
        first = bisect_right(self.records, after, key=lambda record: record.number)
        found: list[Record] = []
        size = 0
        for record in self.records[first : first + min(limit, MAX_ANSWER_RECORDS)]:
            size += len(record.data)
            if found and size > MAX_ANSWER_BYTES:
                break
            found.append(record)
        self._read_bytes.take(size, now_ms, debt=True)
        return found

    def trim(self, before_ms: int) -> None:
        """Forget records that arrived before."""
        keep = next((at for at, one in enumerate(self.records) if one.arrived_ms >= before_ms), len(self.records))
        self.trimmed += keep
        del self.records[:keep]

    def behind_ms(self, after: int, now_ms: int) -> int:
        """How old the first unread record is; 0 at the tip."""
        first = bisect_right(self.records, after, key=lambda record: record.number)
        return now_ms - self.records[first].arrived_ms if first < len(self.records) else 0

    def has_more(self, after: int) -> bool:
        return bool(self.records) and self.records[-1].number > after

    def described(self) -> dict[str, Any]:
        """As ListShards answers."""
        numbers = {"StartingSequenceNumber": str(self.opened)}
        if self.closed is not None:
            numbers["EndingSequenceNumber"] = str(self.closed)
        return {
            "ShardId": self.shard_id,
            **dict(zip(("ParentShardId", "AdjacentParentShardId"), self.parents, strict=False)),
            "HashKeyRange": self.key_range(),
            "SequenceNumberRange": numbers,
        }

    def as_child(self) -> dict[str, Any]:
        """As GetRecords names it at the end of a parent."""
        return {"ShardId": self.shard_id, "ParentShards": list(self.parents), "HashKeyRange": self.key_range()}

    def key_range(self) -> dict[str, str]:
        return {"StartingHashKey": str(self.start), "EndingHashKey": str(self.end)}


@dataclass
class MemoryStream:
    """A stream and its shards, oldest first. `next_number` gives the sequence number of what happens next."""

    name: str
    shards: list[MemoryShard] = field(default_factory=list)
    retention_hours: int = 24
    max_record_bytes: int = 1 << 20
    mode: str = "PROVISIONED"
    busy_until: int = 0
    updates: list[int] = field(default_factory=list)

    def open(self) -> list[MemoryShard]:
        """In the order of their hash keys."""
        return sorted((shard for shard in self.shards if shard.closed is None), key=lambda shard: shard.start)

    def filtered(self, wanted: Mapping[str, Any], oldest_ms: int) -> list[MemoryShard]:
        """What a ShardFilter of ListShards lets through, with the retention's beginning."""
        kind = wanted.get("Type", "FROM_TRIM_HORIZON")
        if kind == "AT_LATEST":
            return [shard for shard in self.shards if shard.closed is None]
        if kind == "AT_TRIM_HORIZON":
            return [shard for shard in self.shards if shard.opened_ms <= oldest_ms < (shard.closed_ms or 1 << 62)]
        if kind == "AFTER_SHARD_ID":
            return [shard for shard in self.shards if shard.shard_id > wanted["ShardId"]]
        return [shard for shard in self.shards if shard.closed_ms is None or shard.closed_ms >= oldest_ms]

    def make(self, start: int, end: int, number: int, now_ms: int, *parents: MemoryShard) -> None:
        """Open a shard."""
        names = tuple(parent.shard_id for parent in parents)
        self.shards.append(MemoryShard(f"shardId-{len(self.shards):012d}", start, end, number, now_ms, names))

    def split(self, shard: MemoryShard, key: int, next_number: Callable[[], int], now_ms: int) -> None:
        shard.closed, shard.closed_ms = next_number(), now_ms
        self.make(shard.start, key - 1, next_number(), now_ms, shard)
        self.make(key, shard.end, next_number(), now_ms, shard)

    def merge(self, pair: Sequence[MemoryShard], next_number: Callable[[], int], now_ms: int) -> None:
        """The first of the pair is the parent, the second the adjacent parent."""
        for shard in pair:
            shard.closed, shard.closed_ms = next_number(), now_ms
        start, end = min(shard.start for shard in pair), max(shard.end for shard in pair)
        self.make(start, end, next_number(), now_ms, *pair)

    def even(self, count: int, next_number: Callable[[], int], now_ms: int) -> None:
        """Splits at the new boundaries, then merges over the old ones, as UpdateShardCount does."""
        wanted = even_ranges(count)
        for start, _ in wanted:
            shard = next(one for one in self.open() if one.start <= start <= one.end)
            if shard.start != start:
                self.split(shard, start, next_number, now_ms)
        for start, end in wanted:
            while len(inside := [one for one in self.open() if start <= one.start and one.end <= end]) > 1:
                self.merge(inside[:2], next_number, now_ms)


def even_ranges(count: int) -> list[tuple[int, int]]:
    """The hash space in so many equal parts: first and last keys."""
    starts = [at * HASH_SPACE // count for at in range(count)]
    return [(start, end - 1) for start, end in zip(starts, [*starts[1:], HASH_SPACE], strict=True)]
