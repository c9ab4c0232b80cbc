"""An event source mapping: polls every shard, batches, invokes, retries, bisects, gives up, and tells of it.

As https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html has it: batches of a shard one after the other (or by
partition key side by side with a parallelization factor), parents before children, the checkpoint of
ReportBatchItemFailures, retries until they are used up or the record too old, then the on-failure destination.
"""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from headwater.stream.shards import Shard, list_shards
from tests.lambda_runtime import Answer

__all__ = ["MappingSettings", "SourceMapping", "kinesis_event"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class MappingSettings:
    """Named as the service names them."""

    batch_size: int = 100
    window_seconds: float = 0.0
    retries: int = -1
    age_seconds: float = -1
    bisect: bool = True
    report: bool = True
    parallelization: int = 1
    to_queue: bool = True
    """The on-failure destination is a queue that invokes the function."""


class SourceMapping:
    """`start`, then `stop`. A thread a shard, started once its parents are read."""

    def __init__(
        self, kinesis: Any, stream: str, invoke: Callable[[Mapping[str, Any]], Answer], settings: MappingSettings
    ) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._invoke = invoke
        self._settings = settings
        self._stop = Event()
        self._threads: dict[str, Thread] = {}
        self._ended: set[str] = set()
        self._queue: list[dict[str, Any]] = []
        self.errors: list[str] = []
        """What invocations failed with."""
        self.given_up = self.partial = self.bisected = 0
        self.crashed: list[BaseException] = []

    def __enter__(self) -> "SourceMapping":
        self._main = Thread(target=self._guard, args=(self._run,), daemon=True)
        self._main.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in (self._main, *self._threads.values()):
            thread.join(60)
            assert not thread.is_alive(), thread.name
        assert not self.crashed, self.crashed

    def _guard(self, job: Callable[..., None], *args: Any) -> None:
        try:
            job(*args)
        except BaseException as error:
            self.crashed.append(error)

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            for shard in list_shards(self._kinesis, self._stream):
                ready = shard.shard_id not in self._threads and self._ended.issuperset(shard.parents)
                if ready:
                    thread = Thread(target=self._guard, args=(self._shard, shard), daemon=True)
                    self._threads[shard.shard_id] = thread
                    thread.start()
            self._deliver_messages()

    def _deliver_messages(self) -> None:
        """The queue's own mapping: what is reported comes again."""
        messages, self._queue = self._queue, []
        if messages:
            answer = self._invoke({"Records": messages})
            self._note(answer)
            again = {one["itemIdentifier"] for one in (answer.result or {}).get("batchItemFailures", [])}
            self._queue += [one for one in messages if answer.error or one["messageId"] in again]

    def _shard(self, shard: Shard) -> None:
        where = {"StreamName": self._stream, "ShardId": shard.shard_id}
        iterator = self._kinesis.get_shard_iterator(**where, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        batch: list[Record] = []
        since = time.monotonic()
        while iterator and not self._stop.is_set():
            room = self._settings.batch_size - len(batch)
            answer = self._kinesis.get_records(ShardIterator=iterator, Limit=room)
            batch += answer["Records"]
            iterator = answer.get("NextShardIterator")
            due = time.monotonic() - since >= self._settings.window_seconds
            if batch and (due or len(batch) >= self._settings.batch_size or not iterator):
                self._deliver(shard.shard_id, batch)
                batch = []
            if not batch:
                since = time.monotonic()
            if not answer["Records"]:
                self._stop.wait(0.1)
        if not iterator:
            self._ended.add(shard.shard_id)

    def _deliver(self, shard_id: str, batch: Sequence[Record]) -> None:
        """Side by side by partition key with a parallelization factor; each part in order."""
        factor = self._settings.parallelization
        parts: list[list[Record]] = [[] for _ in range(factor)]
        for record in batch:
            parts[hashlib.md5(record["PartitionKey"].encode()).digest()[0] % factor].append(record)
        with ThreadPoolExecutor(factor) as pool:
            list(pool.map(lambda part: self._until_done(shard_id, part), filter(None, parts)))

    def _until_done(self, shard_id: str, batch: Sequence[Record], attempts: int = 0) -> None:
        while batch and not self._stop.is_set():
            answer = self._invoke(kinesis_event(self._stream, shard_id, batch))
            self._note(answer)
            failed_at = self._failed_at(answer, batch)
            if failed_at is None:
                return
            attempts += 1
            if failed_at:
                self.partial += 1
                batch = batch[failed_at:]
            too_old = (
                0 <= self._settings.age_seconds < time.time() - batch[0]["ApproximateArrivalTimestamp"].timestamp()
            )
            if self._settings.bisect and len(batch) > 1 and not too_old:
                self.bisected += 1
                middle = len(batch) // 2
                self._until_done(shard_id, batch[:middle], attempts - 1)  # splitting uses no retry up
                batch = batch[middle:]
                attempts -= 1
                continue
            if too_old or 0 <= self._settings.retries < attempts:
                self._give_up(shard_id, batch)
                return
            self._stop.wait(0.05)

    def _failed_at(self, answer: Answer, batch: Sequence[Record]) -> int | None:
        """Index of the first record to deliver again; None when all is well."""
        if answer.error:
            return 0
        if not self._settings.report or not answer.result["batchItemFailures"]:
            return None
        numbers = [record["SequenceNumber"] for record in batch]
        named = [one["itemIdentifier"] for one in answer.result["batchItemFailures"]]
        return min(numbers.index(name) for name in named) if set(named) <= set(numbers) else 0

    def _note(self, answer: Answer) -> None:
        if answer.error:
            self.errors.append(answer.error)

    def _give_up(self, shard_id: str, batch: Sequence[Record]) -> None:
        self.given_up += len(batch)
        if self._settings.to_queue:
            info = {
                "shardId": shard_id,
                "startSequenceNumber": batch[0]["SequenceNumber"],
                "endSequenceNumber": batch[-1]["SequenceNumber"],
                "batchSize": len(batch),
                "streamArn": _arn(self._stream),
            }
            body = json.dumps({"requestContext": {"condition": "RetryAttemptsExhausted"}, "KinesisBatchInfo": info})
            self._queue.append({"messageId": uuid.uuid4().hex, "eventSource": "aws:sqs", "body": body})


def _arn(stream: str) -> str:
    return f"arn:aws:kinesis:us-east-1:1:stream/{stream}"


def kinesis_event(stream: str, shard_id: str, records: Sequence[Record]) -> dict[str, Any]:
    """The event of a batch, as the service writes it."""
    return {"Records": [_item(stream, shard_id, record) for record in records]}


def _item(stream: str, shard_id: str, record: Record) -> dict[str, Any]:
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": base64.b64encode(record["Data"]).decode(),
            "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard_id}:{record['SequenceNumber']}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::1:role/processor",
        "awsRegion": "us-east-1",
        "eventSourceARN": _arn(stream),
    }
