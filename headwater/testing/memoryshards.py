"""Hold the shards of an in-memory stream: records, hash ranges, limits.

Values only, told the time by whoever calls; the client's calls and their errors belong in `kinesis`.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.stream.hashkeys import HASH_SPACE, hash_key_of

__all__ = ["MemoryShard", "MemoryStream", "StoredRecord", "even_ranges", "hash_of", "sequence_at"]

_FIRST = 496 * 10**53
"""Sequence numbers have 56 digits, as the service's have."""
_STEP = 1 << 40
_WRITE_BYTES = 1_000_000
_WRITE_RECORDS = 1_000
"""Into a shard, a second."""
_READ_BYTES = 2_000_000
_READ_CALLS = 5
"""Out of a shard, a second."""
MAX_ANSWER_BYTES = 10_000_000
MAX_ANSWER_RECORDS = 10_000


def sequence_at(count: int) -> int:
    """Return the sequence number of the count-th thing that happens to a stream; they grow over all shards."""
    return _FIRST + count * _STEP


def hash_of(partition_key: str, explicit: str | None) -> int:
    """Return the hash key of a record: the MD5 of its partition key, unless an ExplicitHashKey is given.

    >>> hash_of("device-1", "7")
    7
    """
    if explicit is not None:
        return int(explicit)
    return hash_key_of(partition_key)


@dataclass(frozen=True)
class StoredRecord:
    """Hold a record as the shard has it."""

    number: int
    arrived_ms: int
    partition_key: str
    data: bytes


@dataclass
class _PerSecond:
    """Hold what is left of a limit per second, of which `most` may go at once."""

    rate: float
    most: float
    at_ms: int

    def __post_init__(self) -> None:
        self.left = self.most

    def take(self, amount: float, now_ms: int, debt: bool = False) -> bool:
        """Take an amount and return whether there was enough.

        With `debt` it is enough that anything is left, and the rest is owed: a read is measured after it was answered.
        """
        self.left = min(self.most, self.left + self.rate * (now_ms - self.at_ms) / 1000)
        self.at_ms = now_ms
        if self.left < (min(amount, 1e-9) if debt else min(amount, self.most)):
            return False
        self.left -= amount
        return True

    def give(self, amount: float) -> None:
        """Put back an amount that was taken in vain."""
        self.left += amount


@dataclass
class MemoryShard:
    """Hold one shard. `end` is its last hash key, `closed` the sequence number at which it ended."""

    shard_id: str
    start: int
    end: int
    opened: int
    opened_ms: int
    parents: tuple[str, ...] = ()
    closed: int | None = None
    closed_ms: int | None = None
    records: list[StoredRecord] = field(default_factory=list)
    trimmed: int = 0
    """Records that retention took from the front."""
    taken_bytes: int = 0
    taken_records: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        now = self.opened_ms
        self._write_bytes, self._write_records = (
            _PerSecond(_WRITE_BYTES, 1 << 20, now),
            _PerSecond(_WRITE_RECORDS, _WRITE_RECORDS, now),
        )
        self._read_calls, self._read_bytes = (
            _PerSecond(_READ_CALLS, _READ_CALLS, now),
            _PerSecond(_READ_BYTES, _READ_BYTES, now),
        )

    def admits(self, size: int, now_ms: int) -> bool:
        """Return whether the write limits let in a record of this many bytes, and count it."""
        if not self._write_records.take(1, now_ms):
            self.refused += 1
            return False
        if not self._write_bytes.take(size, now_ms):
            self._write_records.give(1)
            self.refused += 1
            return False
        return True

    def append(self, record: StoredRecord) -> None:
        """Store a record behind all others."""
        self.records.append(record)
        self.taken_bytes += len(record.data) + len(record.partition_key.encode())
        self.taken_records += 1

    def may_read(self, now_ms: int) -> bool:
        """Return whether the read limits let in another call; bytes that were read too fast are owed first."""
        return self._read_bytes.take(0, now_ms, debt=True) and self._read_calls.take(1, now_ms)

    def read(self, after: int, limit: int, now_ms: int) -> list[StoredRecord]:
        """Return up to `limit` records behind a sequence number, of 10 MB at most."""
        first = bisect_right(self.records, after, key=lambda record: record.number)
        found: list[StoredRecord] = []
        size = 0
        for record in self.records[first : first + min(limit, MAX_ANSWER_RECORDS)]:
            size += len(record.data)
            if found and size > MAX_ANSWER_BYTES:
                break
            found.append(record)
        self._read_bytes.take(size, now_ms, debt=True)
        return found

    def trim(self, before_ms: int) -> None:
        """Forget the records that arrived before a time, as retention does."""
        keep = next((at for at, one in enumerate(self.records) if one.arrived_ms >= before_ms), len(self.records))
        self.trimmed += keep
        del self.records[:keep]

    def behind_ms(self, after: int, now_ms: int) -> int:
        """Return the age of the first record behind a sequence number; 0 at the tip."""
        first = bisect_right(self.records, after, key=lambda record: record.number)
        return now_ms - self.records[first].arrived_ms if first < len(self.records) else 0

    def has_more(self, after: int) -> bool:
        """Return whether a record lies behind a sequence number."""
        return bool(self.records) and self.records[-1].number > after

    def described(self) -> dict[str, Any]:
        """Return the shard as ListShards answers."""
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
        """Return the shard as GetRecords names it at the end of a parent."""
        return {"ShardId": self.shard_id, "ParentShards": list(self.parents), "HashKeyRange": self.key_range()}

    def key_range(self) -> dict[str, str]:
        """Return its HashKeyRange."""
        return {"StartingHashKey": str(self.start), "EndingHashKey": str(self.end)}


@dataclass
class MemoryStream:
    """Hold a stream and its shards, oldest first. `next_number` returns the sequence number of what happens next."""

    name: str
    created_ms: int = 0
    shards: list[MemoryShard] = field(default_factory=list)
    retention_hours: int = 24
    max_record_bytes: int = 1 << 20
    mode: str = "PROVISIONED"
    busy_until: int = 0
    updates: list[int] = field(default_factory=list)

    def open(self) -> list[MemoryShard]:
        """Return the open shards in the order of their hash keys."""
        return sorted((shard for shard in self.shards if shard.closed is None), key=lambda shard: shard.start)

    def filtered(self, wanted: Mapping[str, Any], oldest_ms: int) -> list[MemoryShard]:
        """Return the shards that a ShardFilter of ListShards lets through; retention begins at `oldest_ms`."""
        kind = wanted.get("Type", "FROM_TRIM_HORIZON")
        if kind == "AT_LATEST":
            return [shard for shard in self.shards if shard.closed is None]
        if kind == "AT_TRIM_HORIZON":
            return [shard for shard in self.shards if shard.opened_ms <= oldest_ms < (shard.closed_ms or 1 << 62)]
        if kind == "AFTER_SHARD_ID":
            return [shard for shard in self.shards if shard.shard_id > wanted["ShardId"]]
        return [shard for shard in self.shards if shard.closed_ms is None or shard.closed_ms >= oldest_ms]

    def make(self, start: int, end: int, number: int, now_ms: int, *parents: MemoryShard) -> None:
        """Open a shard with this hash range."""
        names = tuple(parent.shard_id for parent in parents)
        self.shards.append(MemoryShard(f"shardId-{len(self.shards):012d}", start, end, number, now_ms, names))

    def split(self, shard: MemoryShard, key: int, next_number: Callable[[], int], now_ms: int) -> None:
        """Close a shard and open two, the second from this hash key on."""
        shard.closed, shard.closed_ms = next_number(), now_ms
        self.make(shard.start, key - 1, next_number(), now_ms, shard)
        self.make(key, shard.end, next_number(), now_ms, shard)

    def merge(self, pair: Sequence[MemoryShard], next_number: Callable[[], int], now_ms: int) -> None:
        """Close two shards and open one: the first of the pair is the parent, the second the adjacent parent."""
        for shard in pair:
            shard.closed, shard.closed_ms = next_number(), now_ms
        start, end = min(shard.start for shard in pair), max(shard.end for shard in pair)
        self.make(start, end, next_number(), now_ms, *pair)

    def even(self, count: int, next_number: Callable[[], int], now_ms: int) -> None:
        """Split at the new boundaries, then merge over the old ones, as UpdateShardCount does."""
        wanted = even_ranges(count)
        for start, _ in wanted:
            shard = next(one for one in self.open() if one.start <= start <= one.end)
            if shard.start != start:
                self.split(shard, start, next_number, now_ms)
        for start, end in wanted:
            while len(inside := [one for one in self.open() if start <= one.start and one.end <= end]) > 1:
                self.merge(inside[:2], next_number, now_ms)


def even_ranges(count: int) -> list[tuple[int, int]]:
    """Return the first and last hash keys of `count` equal parts of the hash space.

    >>> [hex(start) for start, _ in even_ranges(2)]
    ['0x0', '0x80000000000000000000000000000000']
    """
    starts = [at * HASH_SPACE // count for at in range(count)]
    return [(start, end - 1) for start, end in zip(starts, [*starts[1:], HASH_SPACE], strict=True)]
