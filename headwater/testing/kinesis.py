# ruff: noqa: N803 (boto3 names arguments so)
"""Serve Kinesis from memory: the boto3 client's calls, with the service's semantics, on a clock that the caller moves.

Real are: parents, closed shards that end, hash ranges, sequence numbers of 56 digits, PutRecords that succeed in part,
throttling in and out, size limits, iterators that expire, retention and shards that go with it, reshards that take
their time, streams deleted and made again. No thread, no clock and no randomness of its own. Here belong the calls on
records; those on streams and layouts are in `streams`, what one shard holds and admits is in `memoryshards`.

The limits are those of "Quotas and limits" in the developer guide
(https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html). One contract suite shows that it and a
server that others wrote behave alike (docs/emulators.md).
"""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from headwater.clock import HOUR_MS
from headwater.stream.hashkeys import HASH_SPACE
from headwater.testing.memoryshards import (
    MAX_ANSWER_RECORDS,
    MemoryShard,
    MemoryStream,
    StoredRecord,
    hash_of,
)
from headwater.testing.streams import MemoryStreams, Refuse, as_datetime

__all__ = ["MemoryKinesis"]

ITERATOR_MS = 300_000
MAX_REQUEST_BYTES = 10 << 20
MAX_REQUEST_RECORDS = 500


class MemoryKinesis(MemoryStreams):
    """Hold streams by name; not thread-safe.

    `limits=False` switches throttling off, not the limits of size. A reshard lasts `reshard_seconds`, in which another
    is refused. `faults` scripts what goes wrong next; ClientErrors are as boto3 raises them. `reshards` are the
    operations that changed a layout, in order.

    >>> from headwater.clock import ManualClock
    >>> clock = ManualClock()
    >>> kinesis = MemoryKinesis(clock)
    >>> _ = kinesis.create_stream(StreamName="s", ShardCount=1)
    >>> _ = kinesis.put_record(StreamName="s", Data=b"a", PartitionKey="k")
    >>> start = {"ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    >>> first = kinesis.get_shard_iterator(StreamName="s", **start)["ShardIterator"]
    >>> [record["Data"] for record in kinesis.get_records(ShardIterator=first)["Records"]]
    [b'a']
    >>> clock.sleep(301)
    >>> kinesis.get_records(ShardIterator=first)
    Traceback (most recent call last):
    headwater.testing.faults.ExpiredIteratorException: An error occurred (ExpiredIteratorException) when calling the \
GetRecords operation: Iterator expired: it is older than 5 minutes.
    """

    def put_record(
        self, *, StreamName: str, Data: bytes, PartitionKey: str, ExplicitHashKey: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Put one record; throttled, it raises."""
        with self._call("put_record") as refuse:
            stream = self._stream(StreamName, refuse)
            record = {"Data": Data, "PartitionKey": PartitionKey, "ExplicitHashKey": ExplicitHashKey}
            self._check(stream, record, refuse)
            answer = self._put(stream, record)
            if "ErrorCode" in answer:
                raise refuse(answer["ErrorCode"], answer["ErrorMessage"])
            return answer

    def put_records(self, *, StreamName: str, Records: Sequence[Mapping[str, Any]], **_: Any) -> dict[str, Any]:
        """Put up to 500 records; those refused have an ErrorCode in their place."""
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
        stored = StoredRecord(self._next(), now, record["PartitionKey"], bytes(record["Data"]))
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
        """Return an iterator, good for five minutes."""
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
            return {"ShardIterator": self._iterator(stream, ShardId, after)}

    def _starting(self, shard: MemoryShard, number: str, refuse: Refuse) -> int:
        if not number.isdecimal() or int(number) < shard.opened or int(number) > (shard.closed or 1 << 256):
            raise refuse(
                "InvalidArgumentException",
                f"StartingSequenceNumber {number} used in GetShardIterator on shard {shard.shard_id} is invalid",
            )
        return int(number)

    def get_records(self, *, ShardIterator: str, Limit: int = MAX_ANSWER_RECORDS, **_: Any) -> dict[str, Any]:
        """Read up to Limit records of 10 MB together; at a closed shard's end the answer names its children."""
        with self._call("get_records") as refuse:
            try:
                name, created_ms, shard_id, after, issued_ms = json.loads(base64.b64decode(ShardIterator))
            except ValueError:
                raise refuse("InvalidArgumentException", "Invalid ShardIterator.") from None
            now = self.clock.now_ms()
            if not 1 <= Limit <= MAX_ANSWER_RECORDS:
                raise refuse("ValidationException", f"Limit {Limit} is not in 1 to {MAX_ANSWER_RECORDS}")
            if now - issued_ms > ITERATOR_MS:
                raise refuse("ExpiredIteratorException", "Iterator expired: it is older than 5 minutes.")
            stream = self._stream(name, refuse)
            if stream.created_ms != created_ms:
                raise refuse("InvalidArgumentException", "Invalid ShardIterator: it is of a stream that was deleted.")
            shard = self._shard(stream, shard_id, refuse)
            if self._limits and not shard.may_read(now):
                raise refuse(
                    "ProvisionedThroughputExceededException", f"Rate exceeded for shard {shard_id} in stream {name}"
                )
            return self._read(stream, shard, after, Limit, now)

    def _read(self, stream: MemoryStream, shard: MemoryShard, after: int, limit: int, now: int) -> dict[str, Any]:
        shard.trim(now - stream.retention_hours * HOUR_MS)
        found = shard.read(after, limit, now)
        last = found[-1].number if found else after
        answer: dict[str, Any] = {
            "Records": [
                {
                    "SequenceNumber": str(one.number),
                    "ApproximateArrivalTimestamp": as_datetime(one.arrived_ms),
                    "Data": one.data,
                    "PartitionKey": one.partition_key,
                }
                for one in found
            ],
            "MillisBehindLatest": shard.behind_ms(last, now),
        }
        if shard.closed is None or shard.has_more(last):
            answer["NextShardIterator"] = self._iterator(stream, shard.shard_id, last)
        else:
            answer["ChildShards"] = [one.as_child() for one in stream.shards if shard.shard_id in one.parents]
        return answer


def _size(record: Mapping[str, Any]) -> int:
    return len(record["Data"]) + len(record["PartitionKey"].encode())
