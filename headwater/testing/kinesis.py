# ruff: noqa: N803, N806 (boto3 names arguments so)
"""Kinesis in memory: the calls of the boto3 client, with the service's semantics, on a clock that the caller moves.

Real are: parents, closed shards that end, hash ranges, sequence numbers of 56 digits, PutRecords that succeed in part,
throttling in and out, size limits, iterators that expire, retention, reshards that take their time. No thread, no clock
and no randomness of its own; `faults` says what is to go wrong. The limits are those of "Quotas and limits" in the
developer guide (https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html). One contract suite shows
that it and a server that others wrote behave alike (docs/emulators.md).
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from headwater.clock import Clock
from headwater.testing.faults import Faults, client_error, error_class
from headwater.testing.memoryshards import (
    HASH_SPACE,
    MAX_ANSWER_RECORDS,
    MemoryShard,
    MemoryStream,
    Record,
    even_ranges,
    hash_of,
    sequence_at,
)

__all__ = ["MemoryKinesis"]

Refuse = Callable[[str, str], ClientError]
"""Makes an error of the service out of its code and a message."""

ITERATOR_MS = 300_000
MAX_REQUEST_BYTES = 10 << 20
MAX_REQUEST_RECORDS = 500
_UPDATES_A_DAY = 10
_DAY_MS = 86_400_000


class _Exceptions:
    def __getattr__(self, code: str) -> Any:
        return error_class(code)


class MemoryKinesis:
    """See the module. `limits=False` switches throttling off, not the size limits."""

    def __init__(self, clock: Clock, *, limits: bool = True, reshard_seconds: float = 0.0) -> None:
        self.clock = clock
        self.faults = Faults()
        self.exceptions = _Exceptions()
        self._limits = limits
        self._reshard_ms = round(reshard_seconds * 1000)
        self._streams: dict[str, MemoryStream] = {}
        self._count = 0
        self.reshards: list[str] = []
        """The operations that changed a layout, in order."""

    # Streams.

    def create_stream(
        self,
        *,
        StreamName: str,
        ShardCount: int | None = None,
        StreamModeDetails: Mapping[str, str] | None = None,
        MaxRecordSizeInKiB: int = 1024,
        **_: Any,
    ) -> dict[str, Any]:
        with self._call("create_stream") as refuse:
            if StreamName in self._streams:
                raise refuse("ResourceInUseException", f"Stream {StreamName} already exists.")
            mode = (StreamModeDetails or {}).get("StreamMode", "PROVISIONED")
            count = ShardCount or (4 if mode == "ON_DEMAND" else 0)
            if count < 1 or not 1024 <= MaxRecordSizeInKiB <= 10240:
                raise refuse("ValidationException", "ShardCount or MaxRecordSizeInKiB is out of range")
            stream = MemoryStream(StreamName, max_record_bytes=MaxRecordSizeInKiB << 10, mode=mode)
            self._streams[StreamName] = stream
            for start, end in even_ranges(count):
                stream.make(start, end, self._next(), self.clock.now_ms())
        return {}

    def delete_stream(self, *, StreamName: str, **_: Any) -> dict[str, Any]:
        with self._call("delete_stream") as refuse:
            self._stream(StreamName, refuse)
            del self._streams[StreamName]
        return {}

    def list_streams(self, **_: Any) -> dict[str, Any]:
        with self._call("list_streams"):
            return {"StreamNames": sorted(self._streams), "HasMoreStreams": False}

    def describe_stream_summary(self, *, StreamName: str) -> dict[str, Any]:
        with self._call("describe_stream_summary") as refuse:
            stream = self._stream(StreamName, refuse)
            return {
                "StreamDescriptionSummary": {
                    "StreamName": StreamName,
                    "StreamARN": _arn(StreamName),
                    "StreamStatus": self._status(stream),
                    "StreamModeDetails": {"StreamMode": stream.mode},
                    "RetentionPeriodHours": stream.retention_hours,
                    "OpenShardCount": len(stream.open()),
                    "MaxRecordSizeInKiB": stream.max_record_bytes >> 10,
                    "ConsumerCount": 0,
                    "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
                }
            }

    def increase_stream_retention_period(self, *, StreamName: str, RetentionPeriodHours: int) -> dict[str, Any]:
        with self._call("increase_stream_retention_period") as refuse:
            stream = self._stream(StreamName, refuse)
            if not stream.retention_hours <= RetentionPeriodHours <= 8760:
                raise refuse(
                    "InvalidArgumentException", "Requested retention period is not longer than the present one"
                )
            stream.retention_hours = RetentionPeriodHours
        return {}

    def decrease_stream_retention_period(self, *, StreamName: str, RetentionPeriodHours: int) -> dict[str, Any]:
        with self._call("decrease_stream_retention_period") as refuse:
            stream = self._stream(StreamName, refuse)
            if not 24 <= RetentionPeriodHours <= stream.retention_hours:
                raise refuse(
                    "InvalidArgumentException", "Requested retention period is not shorter than the present one"
                )
            stream.retention_hours = RetentionPeriodHours
        return {}

    # Shards.

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
        with self._call("list_shards") as refuse:
            if NextToken:
                StreamName, ExclusiveStartShardId, ShardFilter = json.loads(base64.b64decode(NextToken))
            stream = self._stream(StreamName, refuse)
            oldest = self.clock.now_ms() - stream.retention_hours * 3_600_000
            listed = stream.filtered(ShardFilter or {}, oldest)
            found = [shard for shard in listed if shard.shard_id > ExclusiveStartShardId]
            answer: dict[str, Any] = {"Shards": [shard.described() for shard in found[:MaxResults]]}
            if len(found) > MaxResults:
                token = json.dumps([StreamName, found[MaxResults - 1].shard_id, ShardFilter]).encode()
                answer["NextToken"] = base64.b64encode(token).decode()
            return answer

    def split_shard(self, *, StreamName: str, ShardToSplit: str, NewStartingHashKey: str) -> dict[str, Any]:
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
        with self._resharding("merge_shards", StreamName) as (stream, refuse):
            pair = [self._open_shard(stream, name, refuse) for name in (ShardToMerge, AdjacentShardToMerge)]
            low, high = sorted(pair, key=lambda shard: shard.start)
            if low.end + 1 != high.start:
                raise refuse("InvalidArgumentException", f"{ShardToMerge} and {AdjacentShardToMerge} are not adjacent")
            stream.merge(pair, self._next, self.clock.now_ms())
        return {}

    def update_shard_count(self, *, StreamName: str, TargetShardCount: int, ScalingType: str) -> dict[str, Any]:
        """Even shards, made by splits at the new boundaries and merges over the old ones."""
        with self._resharding("update_shard_count", StreamName) as (stream, refuse):
            now, count = self.clock.now_ms(), len(stream.open())
            if ScalingType != "UNIFORM_SCALING":
                raise refuse("ValidationException", "ScalingType must be UNIFORM_SCALING")
            if TargetShardCount > min(2 * count, 10_000) or 2 * TargetShardCount < count:
                raise refuse(
                    "InvalidArgumentException", f"{TargetShardCount} is more than double or less than half {count}"
                )
            stream.updates = [at for at in stream.updates if at > now - _DAY_MS]
            if len(stream.updates) >= _UPDATES_A_DAY:
                raise refuse("LimitExceededException", "UpdateShardCount was called ten times in the last 24 hours")
            stream.updates.append(now)
            stream.even(TargetShardCount, self._next, now)
        return {"StreamName": StreamName, "CurrentShardCount": count, "TargetShardCount": TargetShardCount}

    # Records.

    def put_record(
        self, *, StreamName: str, Data: bytes, PartitionKey: str, ExplicitHashKey: str | None = None, **_: Any
    ) -> dict[str, Any]:
        with self._call("put_record") as refuse:
            stream = self._stream(StreamName, refuse)
            record = {"Data": Data, "PartitionKey": PartitionKey, "ExplicitHashKey": ExplicitHashKey}
            self._check(stream, record, refuse)
            answer = self._put(stream, record)
            if "ErrorCode" in answer:
                raise refuse(answer["ErrorCode"], answer["ErrorMessage"])
            return answer

    def put_records(self, *, StreamName: str, Records: Sequence[Mapping[str, Any]], **_: Any) -> dict[str, Any]:
        with self._call("put_records") as refuse:
            stream = self._stream(StreamName, refuse)
            if not 1 <= len(Records) <= MAX_REQUEST_RECORDS:
                raise refuse(
                    "ValidationException", f"Records has {len(Records)} members; 1 to {MAX_REQUEST_RECORDS} may be"
                )
            for record in Records:
                self._check(stream, record, refuse)
            if sum(map(_size, Records)) > MAX_REQUEST_BYTES:
                raise refuse("InvalidArgumentException", "Records size exceeds 10 MiB limit")
            scripted, code = self.faults.refused()
            answers = [
                {"ErrorCode": code, "ErrorMessage": "as scripted"} if at in scripted else self._put(stream, record)
                for at, record in enumerate(Records)
            ]
            return {"FailedRecordCount": sum("ErrorCode" in one for one in answers), "Records": answers}

    def _check(self, stream: MemoryStream, record: Mapping[str, Any], refuse: Refuse) -> None:
        explicit = record.get("ExplicitHashKey")
        if not 1 <= len(record["PartitionKey"]) <= 256:
            raise refuse("ValidationException", "PartitionKey must have 1 to 256 characters")
        if explicit is not None and not (explicit.isdecimal() and int(explicit) < HASH_SPACE):
            raise refuse("InvalidArgumentException", f"Invalid ExplicitHashKey {explicit}: must be in 0 to 2^128 - 1")
        if _size(record) > stream.max_record_bytes:
            raise refuse("ValidationException", f"a record of {_size(record)} bytes; {stream.max_record_bytes} may be")

    def _put(self, stream: MemoryStream, record: Mapping[str, Any]) -> dict[str, Any]:
        key = hash_of(record["PartitionKey"], record.get("ExplicitHashKey"))
        shard = next(one for one in stream.shards if one.closed is None and one.start <= key <= one.end)
        now = self.clock.now_ms()
        if self._limits and not shard.admits(_size(record), now):
            return {
                "ErrorCode": "ProvisionedThroughputExceededException",
                "ErrorMessage": f"Rate exceeded for shard {shard.shard_id} in stream {stream.name} under account 0.",
            }
        stored = Record(self._next(), now, record["PartitionKey"], bytes(record["Data"]))
        shard.append(stored)
        return {"ShardId": shard.shard_id, "SequenceNumber": str(stored.number)}

    def get_shard_iterator(
        self,
        *,
        StreamName: str,
        ShardId: str,
        ShardIteratorType: str,
        StartingSequenceNumber: str = "",
        Timestamp: datetime | float | None = None,
    ) -> dict[str, Any]:
        with self._call("get_shard_iterator") as refuse:
            stream = self._stream(StreamName, refuse)
            shard = self._shard(stream, ShardId, refuse)
            after = 0
            if ShardIteratorType in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
                after = self._starting(shard, StartingSequenceNumber, refuse)
                after -= ShardIteratorType == "AT_SEQUENCE_NUMBER"
            elif ShardIteratorType == "LATEST":
                after = self._next()
            elif ShardIteratorType == "AT_TIMESTAMP":
                if Timestamp is None:
                    raise refuse("InvalidArgumentException", "AT_TIMESTAMP needs a Timestamp")
                seconds = Timestamp.timestamp() if isinstance(Timestamp, datetime) else float(Timestamp or 0)
                before = [one.number for one in shard.records if one.arrived_ms < seconds * 1000]
                after = before[-1] if before else 0
            elif ShardIteratorType != "TRIM_HORIZON":
                raise refuse("ValidationException", f"ShardIteratorType {ShardIteratorType} is none")
            return {"ShardIterator": self._iterator(StreamName, ShardId, after)}

    def _starting(self, shard: MemoryShard, number: str, refuse: Refuse) -> int:
        if not number.isdecimal() or int(number) < shard.opened or int(number) > (shard.closed or 1 << 256):
            raise refuse(
                "InvalidArgumentException",
                f"StartingSequenceNumber {number} used in GetShardIterator on shard {shard.shard_id} is invalid",
            )
        return int(number)

    def get_records(self, *, ShardIterator: str, Limit: int = MAX_ANSWER_RECORDS, **_: Any) -> dict[str, Any]:
        with self._call("get_records") as refuse:
            try:
                name, shard_id, after, issued_ms = json.loads(base64.b64decode(ShardIterator))
            except ValueError:
                raise refuse("InvalidArgumentException", "Invalid ShardIterator.") from None
            now = self.clock.now_ms()
            if not 1 <= Limit <= MAX_ANSWER_RECORDS:
                raise refuse("ValidationException", f"Limit {Limit} is not in 1 to {MAX_ANSWER_RECORDS}")
            if now - issued_ms > ITERATOR_MS:
                raise refuse("ExpiredIteratorException", "Iterator expired: it is older than 5 minutes.")
            stream = self._stream(name, refuse)
            shard = self._shard(stream, shard_id, refuse)
            if self._limits and not shard.may_read(now):
                raise refuse(
                    "ProvisionedThroughputExceededException", f"Rate exceeded for shard {shard_id} in stream {name}"
                )
            return self._read(stream, shard, after, Limit, now)

    def _read(self, stream: MemoryStream, shard: MemoryShard, after: int, limit: int, now: int) -> dict[str, Any]:
        shard.trim(now - stream.retention_hours * 3_600_000)
        found = shard.read(after, limit, now)
        last = found[-1].number if found else after
        answer: dict[str, Any] = {
            "Records": [
                {
                    "SequenceNumber": str(one.number),
                    "ApproximateArrivalTimestamp": datetime.fromtimestamp(one.arrived_ms / 1000, UTC),
                    "Data": one.data,
                    "PartitionKey": one.partition_key,
                }
                for one in found
            ],
            "MillisBehindLatest": shard.behind_ms(last, now),
        }
        if shard.closed is None or shard.has_more(last):
            answer["NextShardIterator"] = self._iterator(stream.name, shard.shard_id, last)
        else:
            answer["ChildShards"] = [one.as_child() for one in stream.shards if shard.shard_id in one.parents]
        return answer

    # For tests.

    def shards(self, stream: str) -> list[MemoryShard]:
        """Open and closed, oldest first."""
        return list(self._streams[stream].shards)

    def layout(self, stream: str) -> tuple[int, ...]:
        """The first hash keys of the open shards, in order."""
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
        for shard in stream.shards:
            if shard.shard_id == shard_id:
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

    def _iterator(self, stream: str, shard_id: str, after: int) -> str:
        return base64.b64encode(json.dumps([stream, shard_id, after, self.clock.now_ms()]).encode()).decode()


def _arn(name: str) -> str:
    return f"arn:aws:kinesis:us-east-1:000000000000:stream/{name}"


def _size(record: Mapping[str, Any]) -> int:
    return len(record["Data"]) + len(record["PartitionKey"].encode())
