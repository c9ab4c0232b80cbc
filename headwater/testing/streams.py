# ruff: noqa: N803, N806 (boto3 names arguments so)
"""Serve the part of Kinesis that knows no records: streams, their shards and their layouts.

Here belong the calls that make, describe and reshard streams; those on records are in `kinesis`, which a test uses.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from headwater.clock import DAY_MS, HOUR_MS, Clock
from headwater.testing.faults import Exceptions, Faults, client_error
from headwater.testing.memoryshards import MemoryShard, MemoryStream, even_ranges, sequence_at

__all__ = ["MemoryStreams", "Refuse", "as_datetime"]

Refuse = Callable[[str, str], ClientError]
"""Make an error of the service from its code and a message."""

_UPDATES_A_DAY = 10


class MemoryStreams:
    """Hold streams by name, with the calls on them; see MemoryKinesis."""

    def __init__(self, clock: Clock, *, limits: bool = True, reshard_seconds: float = 0.0) -> None:
        self.clock = clock
        self.faults = Faults()
        self.exceptions = Exceptions()
        self._limits = limits
        self._reshard_ms = round(reshard_seconds * 1000)
        self._streams: dict[str, MemoryStream] = {}
        self._count = 0
        self.reshards: list[str] = []

    def create_stream(
        self,
        *,
        StreamName: str,
        ShardCount: int | None = None,
        StreamModeDetails: Mapping[str, str] | None = None,
        MaxRecordSizeInKiB: int = 1024,
        **_: Any,
    ) -> dict[str, Any]:
        """Make a stream of even shards, ACTIVE at once; on demand begins with 4."""
        with self._call("create_stream") as refuse:
            if StreamName in self._streams:
                raise refuse("ResourceInUseException", f"Stream {StreamName} already exists.")
            mode = (StreamModeDetails or {}).get("StreamMode", "PROVISIONED")
            count = ShardCount or (4 if mode == "ON_DEMAND" else 0)
            if count < 1 or not 1024 <= MaxRecordSizeInKiB <= 10240:
                raise refuse("ValidationException", "ShardCount or MaxRecordSizeInKiB is out of range")
            stream = MemoryStream(StreamName, self.clock.now_ms(), max_record_bytes=MaxRecordSizeInKiB << 10, mode=mode)
            self._streams[StreamName] = stream
            for start, end in even_ranges(count):
                stream.make(start, end, self._next(), self.clock.now_ms())
        return {}

    def delete_stream(self, *, StreamName: str, **_: Any) -> dict[str, Any]:
        """Delete a stream; one made later under its name has other shards and none of its records."""
        with self._call("delete_stream") as refuse:
            self._stream(StreamName, refuse)
            del self._streams[StreamName]
        return {}

    def list_streams(self, **_: Any) -> dict[str, Any]:
        """Return all names, in one page."""
        with self._call("list_streams"):
            return {"StreamNames": sorted(self._streams), "HasMoreStreams": False}

    def describe_stream_summary(self, *, StreamName: str) -> dict[str, Any]:
        """Describe a stream, with its ARN and time of creation."""
        with self._call("describe_stream_summary") as refuse:
            stream = self._stream(StreamName, refuse)
            return {
                "StreamDescriptionSummary": {
                    "StreamName": StreamName,
                    "StreamARN": _arn(StreamName),
                    "StreamStatus": self._status(stream),
                    "StreamModeDetails": {"StreamMode": stream.mode},
                    "StreamCreationTimestamp": as_datetime(stream.created_ms),
                    "RetentionPeriodHours": stream.retention_hours,
                    "OpenShardCount": len(stream.open()),
                    "MaxRecordSizeInKiB": stream.max_record_bytes >> 10,
                    "ConsumerCount": 0,
                    "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
                }
            }

    def describe_stream(self, *, StreamName: str, **_: Any) -> dict[str, Any]:
        """Describe a stream with its shards, as waiters and older programs ask."""
        found = self.describe_stream_summary(StreamName=StreamName)["StreamDescriptionSummary"]
        return {
            "StreamDescription": {
                **found,
                "Shards": self.list_shards(StreamName=StreamName)["Shards"],
                "HasMoreShards": False,
            }
        }

    def list_stream_consumers(self, *, StreamName: str, **_: Any) -> dict[str, Any]:
        """Return the consumers with enhanced fan-out: there are none."""
        with self._call("list_stream_consumers") as refuse:
            self._stream(StreamName, refuse)
        return {"Consumers": []}

    def increase_stream_retention_period(self, *, StreamName: str, RetentionPeriodHours: int) -> dict[str, Any]:
        """Keep records longer, up to 8,760 hours."""
        with self._call("increase_stream_retention_period") as refuse:
            stream = self._stream(StreamName, refuse)
            if not stream.retention_hours <= RetentionPeriodHours <= 8760:
                raise refuse(
                    "InvalidArgumentException", "Requested retention period is not longer than the present one"
                )
            stream.retention_hours = RetentionPeriodHours
        return {}

    def decrease_stream_retention_period(self, *, StreamName: str, RetentionPeriodHours: int) -> dict[str, Any]:
        """Keep records shorter, down to 24 hours."""
        with self._call("decrease_stream_retention_period") as refuse:
            stream = self._stream(StreamName, refuse)
            if not 24 <= RetentionPeriodHours <= stream.retention_hours:
                raise refuse(
                    "InvalidArgumentException", "Requested retention period is not shorter than the present one"
                )
            stream.retention_hours = RetentionPeriodHours
        return {}

    def list_shards(
        self,
        *,
        StreamName: str = "",
        NextToken: str = "",
        ExclusiveStartShardId: str = "",
        MaxResults: int = 1000,
        ShardFilter: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """List shards, open and closed, that retention has not taken; in pages of MaxResults."""
        with self._call("list_shards") as refuse:
            if NextToken:
                StreamName, ExclusiveStartShardId, ShardFilter = json.loads(base64.b64decode(NextToken))
            stream = self._stream(StreamName, refuse)
            oldest = self.clock.now_ms() - stream.retention_hours * HOUR_MS
            listed = stream.filtered(ShardFilter or {}, oldest)
            found = [shard for shard in listed if shard.shard_id > ExclusiveStartShardId]
            answer: dict[str, Any] = {"Shards": [shard.described() for shard in found[:MaxResults]]}
            if len(found) > MaxResults:
                token = json.dumps([StreamName, found[MaxResults - 1].shard_id, ShardFilter]).encode()
                answer["NextToken"] = base64.b64encode(token).decode()
            return answer

    def split_shard(self, *, StreamName: str, ShardToSplit: str, NewStartingHashKey: str) -> dict[str, Any]:
        """Close a shard and open two, the second from NewStartingHashKey on."""
        with self._resharding("split_shard", StreamName) as (stream, refuse):
            shard, key = self._open_shard(stream, ShardToSplit, refuse), int(NewStartingHashKey)
            if not shard.start + 1 < key < shard.end:
                raise refuse(
                    "InvalidArgumentException",
                    f"NewStartingHashKey {key} used in SplitShard() on shard {ShardToSplit} is not both greater than "
                    f"one plus the shard's StartingHashKey {shard.start} and less than its EndingHashKey {shard.end}",
                )
            stream.split(shard, key, self._next, self.clock.now_ms())
        return {}

    def merge_shards(self, *, StreamName: str, ShardToMerge: str, AdjacentShardToMerge: str) -> dict[str, Any]:
        """Close two adjacent shards and open one."""
        with self._resharding("merge_shards", StreamName) as (stream, refuse):
            pair = [self._open_shard(stream, name, refuse) for name in (ShardToMerge, AdjacentShardToMerge)]
            low, high = sorted(pair, key=lambda shard: shard.start)
            if low.end + 1 != high.start:
                raise refuse("InvalidArgumentException", f"{ShardToMerge} and {AdjacentShardToMerge} are not adjacent")
            stream.merge(pair, self._next, self.clock.now_ms())
        return {}

    def update_shard_count(self, *, StreamName: str, TargetShardCount: int, ScalingType: str) -> dict[str, Any]:
        """Make even shards, by splits at the new boundaries and merges over the old ones."""
        with self._resharding("update_shard_count", StreamName) as (stream, refuse):
            now, count = self.clock.now_ms(), len(stream.open())
            if ScalingType != "UNIFORM_SCALING":
                raise refuse("ValidationException", "ScalingType must be UNIFORM_SCALING")
            if TargetShardCount > min(2 * count, 10_000) or 2 * TargetShardCount < count:
                raise refuse(
                    "InvalidArgumentException", f"{TargetShardCount} is more than double or less than half {count}"
                )
            stream.updates = [at for at in stream.updates if at > now - DAY_MS]
            if len(stream.updates) >= _UPDATES_A_DAY:
                raise refuse("LimitExceededException", "UpdateShardCount was called ten times in the last 24 hours")
            stream.updates.append(now)
            stream.even(TargetShardCount, self._next, now)
        return {"StreamName": StreamName, "CurrentShardCount": count, "TargetShardCount": TargetShardCount}

    # For tests.

    def shards(self, stream: str) -> list[MemoryShard]:
        """Return a stream's shards, open and closed, oldest first."""
        return list(self._streams[stream].shards)

    def layout(self, stream: str) -> tuple[int, ...]:
        """Return the first hash keys of the open shards, in order."""
        return tuple(shard.start for shard in self._streams[stream].open())

    # Behind the calls.

    @contextmanager
    def _call(self, method: str) -> Iterator[Refuse]:
        self.faults.before(method)
        yield partial(client_error, method)
        self.faults.after(method)

    @contextmanager
    def _resharding(self, method: str, name: str) -> Iterator[tuple[MemoryStream, Refuse]]:
        with self._call(method) as refuse:
            stream = self._stream(name, refuse)
            if self._status(stream) != "ACTIVE":
                raise refuse("ResourceInUseException", f"Stream {name} is not ACTIVE, instead in state UPDATING.")
            yield stream, refuse
            self.reshards.append(method)
            stream.busy_until = self.clock.now_ms() + self._reshard_ms

    def _status(self, stream: MemoryStream) -> str:
        return "UPDATING" if self.clock.now_ms() < stream.busy_until else "ACTIVE"

    def _stream(self, name: str, refuse: Refuse) -> MemoryStream:
        if name not in self._streams:
            raise refuse("ResourceNotFoundException", f"Stream {name} under account 0 not found.")
        return self._streams[name]

    def _shard(self, stream: MemoryStream, shard_id: str, refuse: Refuse) -> MemoryShard:
        oldest = self.clock.now_ms() - stream.retention_hours * HOUR_MS
        for shard in stream.shards:
            # a closed shard goes with its last record: from then on it is neither listed nor read
            if shard.shard_id == shard_id and (shard.closed_ms is None or shard.closed_ms >= oldest):
                return shard
        raise refuse("ResourceNotFoundException", f"Shard {shard_id} in stream {stream.name} does not exist")

    def _open_shard(self, stream: MemoryStream, shard_id: str, refuse: Refuse) -> MemoryShard:
        shard = self._shard(stream, shard_id, refuse)
        if shard.closed is not None:
            raise refuse("InvalidArgumentException", f"Shard {shard_id} in stream {stream.name} is not open")
        return shard

    def _next(self) -> int:
        self._count += 1
        return sequence_at(self._count)

    def _iterator(self, stream: MemoryStream, shard_id: str, after: int) -> str:
        parts = [stream.name, stream.created_ms, shard_id, after, self.clock.now_ms()]
        return base64.b64encode(json.dumps(parts).encode()).decode()


def as_datetime(ms: int) -> datetime:
    """Return a time as boto3 gives it to its callers."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def _arn(name: str) -> str:
    return f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}"
