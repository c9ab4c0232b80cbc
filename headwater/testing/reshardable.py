"""A small in-memory Kinesis for resharding and write limits: the calls of the boto3 client that those need.

Rules as the service states them: a split's key leaves both children two hash keys, only neighbours merge,
UpdateShardCount at most doubles or halves and takes ten calls in 24 hours, one reshard at a time, 1 MB/s and 1,000
records/s into a shard (a second's worth may come at once). Time is the clock passed in; a reshard takes
`reshard_seconds` of it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from headwater.clock import Clock

__all__ = ["Reshardable"]

HASH_SPACE = 1 << 128


@dataclass
class _Shard:
    shard_id: str
    start: int
    end: int
    parent: str | None = None
    adjacent: str | None = None
    closed: bool = False
    taken_bytes: int = 0
    taken_records: int = 0
    refused: int = 0
    bytes_left: float = 0.0
    records_left: float = 0.0
    at_ms: int = 0
    records: list[bytes] = field(default_factory=list)


class Reshardable:
    """One stream. `fail(operation, error)` makes the next such call raise; `lose(operation)` carries it out first."""

    def __init__(
        self,
        stream: str,
        shards: int,
        clock: Clock,
        reshard_seconds: float = 30.0,
        write_bytes: float = 1e6,
        write_records: float = 1e3,
    ) -> None:
        self._stream, self.clock = stream, clock
        self._reshard_ms = round(reshard_seconds * 1000)
        self._limits = (write_bytes, write_records)
        self._busy_until = 0
        self._count = 0
        self._updates: list[int] = []
        self._faults: dict[str, list[tuple[Exception, bool]]] = {}
        self.calls: list[str] = []
        self.keep = False
        """Keep the data of records taken."""
        self.shards: list[_Shard] = []
        self._even(shards, ())

    def fail(self, operation: str, error: Exception) -> None:
        self._faults.setdefault(operation, []).append((error, False))

    def lose(self, operation: str, error: Exception) -> None:
        self._faults.setdefault(operation, []).append((error, True))

    @property
    def layout(self) -> tuple[int, ...]:
        return tuple(shard.start for shard in self._open())

    def list_shards(self, *, StreamName: str = "", NextToken: str = "", **_: Any) -> dict[str, Any]:  # noqa: N803
        if StreamName and StreamName != self._stream:
            raise _error("ResourceNotFoundException", f"no stream {StreamName}", "ListShards")
        first = int(NextToken or 0)
        answer: dict[str, Any] = {"Shards": [_answer(shard) for shard in self.shards[first : first + 100]]}
        if first + 100 < len(self.shards):
            answer["NextToken"] = str(first + 100)
        return answer

    def describe_stream_summary(self, *, StreamName: str) -> dict[str, Any]:  # noqa: N803
        del StreamName
        status = "UPDATING" if self.clock.now_ms() < self._busy_until else "ACTIVE"
        return {"StreamDescriptionSummary": {"StreamStatus": status, "OpenShardCount": len(self._open())}}

    def split_shard(self, *, StreamName: str, ShardToSplit: str, NewStartingHashKey: str) -> dict[str, Any]:  # noqa: N803, ARG002
        def act() -> None:
            shard, key = self._named(ShardToSplit, "SplitShard"), int(NewStartingHashKey)
            if not shard.start + 1 < key < shard.end:
                raise _error(
                    "InvalidArgumentException",
                    f"NewStartingHashKey {key} is not both greater than 1 + {shard.start} and less than {shard.end}",
                    "SplitShard",
                )
            shard.closed = True
            self._make(shard.start, key - 1, shard.shard_id)
            self._make(key, shard.end, shard.shard_id)

        return self._reshard("split_shard", "SplitShard", act)

    def merge_shards(self, *, StreamName: str, ShardToMerge: str, AdjacentShardToMerge: str) -> dict[str, Any]:  # noqa: N803, ARG002
        def act() -> None:
            one, other = self._named(ShardToMerge, "MergeShards"), self._named(AdjacentShardToMerge, "MergeShards")
            if one.end + 1 != other.start and other.end + 1 != one.start:
                raise _error("InvalidArgumentException", "the shards are not adjacent", "MergeShards")
            one.closed = other.closed = True
            self._make(min(one.start, other.start), max(one.end, other.end), one.shard_id, other.shard_id)

        return self._reshard("merge_shards", "MergeShards", act)

    def update_shard_count(self, *, StreamName: str, TargetShardCount: int, ScalingType: str) -> dict[str, Any]:  # noqa: N803, ARG002
        def act() -> None:
            now, count = self.clock.now_ms(), len(self._open())
            self._updates = [ms for ms in self._updates if ms > now - 86_400_000]
            if len(self._updates) >= 10:
                raise _error("LimitExceededException", "more than ten times in 24 hours", "UpdateShardCount")
            if TargetShardCount > min(2 * count, 10_000) or 2 * TargetShardCount < count:
                raise _error("InvalidArgumentException", "more than double or less than half", "UpdateShardCount")
            self._updates.append(now)
            old = self._open()
            for shard in old:
                shard.closed = True
            self._even(TargetShardCount, old)

        return self._reshard("update_shard_count", "UpdateShardCount", act)

    def put_records(self, *, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        del StreamName
        out: list[dict[str, Any]] = []
        for record in Records:
            explicit = record.get("ExplicitHashKey")
            digest = hashlib.md5(record["PartitionKey"].encode(), usedforsecurity=False).digest()
            key = int(explicit) if explicit is not None else int.from_bytes(digest, "big")
            shard = next(shard for shard in self._open() if shard.start <= key <= shard.end)
            size = len(record["Data"]) + len(record["PartitionKey"])
            if self._admit(shard, size):
                out.append({"ShardId": shard.shard_id, "SequenceNumber": str(shard.taken_records)})
                if self.keep:
                    shard.records.append(record["Data"])
            else:
                code = "ProvisionedThroughputExceededException"
                out.append({"ErrorCode": code, "ErrorMessage": f"Rate exceeded for shard {shard.shard_id}"})
        return {"FailedRecordCount": sum("ErrorCode" in row for row in out), "Records": out}

    def _admit(self, shard: _Shard, size: int) -> bool:
        now = self.clock.now_ms()
        gone = (now - shard.at_ms) / 1000
        bytes_s, records_s = self._limits
        shard.bytes_left = min(bytes_s, shard.bytes_left + gone * bytes_s)
        shard.records_left = min(records_s, shard.records_left + gone * records_s)
        shard.at_ms = now
        if shard.bytes_left < size or shard.records_left < 1:
            shard.refused += 1
            return False
        shard.bytes_left -= size
        shard.records_left -= 1
        shard.taken_bytes += size
        shard.taken_records += 1
        return True

    def _reshard(self, method: str, operation: str, act: Callable[[], None]) -> dict[str, Any]:
        fault, lost = self._faults.get(method, []).pop(0) if self._faults.get(method) else (None, False)
        if fault is not None and not lost:
            raise fault
        if self.clock.now_ms() < self._busy_until:
            raise _error("ResourceInUseException", f"stream {self._stream} is not ACTIVE, but UPDATING", operation)
        act()
        self.calls.append(operation)
        self._busy_until = self.clock.now_ms() + self._reshard_ms
        if fault is not None:
            raise fault
        return {}

    def _open(self) -> list[_Shard]:
        return sorted((shard for shard in self.shards if not shard.closed), key=lambda shard: shard.start)

    def _named(self, shard_id: str, operation: str) -> _Shard:
        found = next((shard for shard in self.shards if shard.shard_id == shard_id), None)
        if found is None or found.closed:
            raise _error("ResourceNotFoundException", f"no open shard {shard_id}", operation)
        return found

    def _even(self, count: int, old: Any) -> None:
        starts = [at * HASH_SPACE // count for at in range(count)]
        for start, end in zip(starts, [*starts[1:], HASH_SPACE], strict=True):
            parent = next((shard.shard_id for shard in old if shard.start <= start <= shard.end), None)
            self._make(start, end - 1, parent)

    def _make(self, start: int, end: int, parent: str | None, adjacent: str | None = None) -> None:
        name = f"shardId-{self._count:012d}"
        self._count += 1
        shard = _Shard(name, start, end, parent, adjacent, at_ms=self.clock.now_ms())
        shard.bytes_left, shard.records_left = self._limits
        self.shards.append(shard)


def _answer(shard: _Shard) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "ShardId": shard.shard_id,
        "HashKeyRange": {"StartingHashKey": str(shard.start), "EndingHashKey": str(shard.end)},
        "SequenceNumberRange": {"StartingSequenceNumber": "1"},
    }
    if shard.closed:
        answer["SequenceNumberRange"]["EndingSequenceNumber"] = "2"
    if shard.parent:
        answer["ParentShardId"] = shard.parent
    if shard.adjacent:
        answer["AdjacentParentShardId"] = shard.adjacent
    return answer


def _error(code: str, message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)
