"""Real producers and readers over a stream that is split and merged meanwhile: every event once, and well placed."""

import io
import random
from collections import Counter
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.aggregates import count
from headwater.clock import SystemClock
from headwater.config import Settings
from headwater.ledger import Ledger, ShardEntry
from headwater.processors.audit.audit import audit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.runners.pages import ReaderSettings
from headwater.processors.scaling.readings import heat_document
from headwater.processors.shard.context import Ports
from headwater.processors.shard.snapshots import StateStore
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings, Runtime
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.store import ViewStore
from headwater.stream import sequence
from headwater.stream.hashkeys import HASH_SPACE
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.fleet import Fleet
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.memoryshards import MemoryShard
from headwater.testing.objects import MemoryObjects

PIPELINE = Pipeline("reshard", contract="telemetry").view("n", by=["metric"], n=count()).lake("telemetry")


COLUMNS = ["device", "metric", "value"]


class Stack:
    """A stream with its limits, and a runner that reads it in threads."""

    def __init__(self, shards: int) -> None:
        clock = SystemClock()
        self.kinesis = MemoryKinesis(clock)
        self.kinesis.create_stream(StreamName="s", ShardCount=shards)
        dynamodb = MemoryDynamoDB()
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        dynamodb.create_table(TableName="ledger", KeySchema=keys)
        self.ledger, self.objects = Ledger(dynamodb, "ledger", PIPELINE.name), MemoryObjects()
        keys = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
        dynamodb.create_table(TableName="views", KeySchema=keys)
        self.views = ViewStore(dynamodb, "views")
        ports = Ports(
            ledger=self.ledger,
            objects=self.objects,
            views=self.views,
            letters=DeadLetters(self.objects),
            references=lambda _name, _uri: pytest.fail("no references here"),
        )
        settings = Settings(stream="s", commit_seconds=0.3, view_flush_seconds=0.2)
        reader = ReaderSettings(idle_seconds=0.25, backoff_seconds=0.1)
        self.runner = EmbeddedRunner(PIPELINE, self.kinesis, ports, settings, clock, "me", reader)
        self._stop = Event()
        self._thread = Thread(target=self.runner.run, args=(self._stop, 0.1), daemon=True)
        self._thread.start()

    def open_shards(self) -> list[str]:
        open_ = [shard for shard in self.kinesis.shards("s") if shard.closed is None]
        return [shard.shard_id for shard in sorted(open_, key=lambda shard: shard.start)]

    def split(self, at: int) -> None:
        shard = next(one for one in self.kinesis.shards("s") if one.shard_id == self.open_shards()[at])
        middle = str((shard.start + shard.end) // 2)
        self.kinesis.split_shard(StreamName="s", ShardToSplit=shard.shard_id, NewStartingHashKey=middle)

    def merge(self, at: int) -> None:
        left, right = self.open_shards()[at : at + 2]
        self.kinesis.merge_shards(StreamName="s", ShardToMerge=left, AdjacentShardToMerge=right)

    def stop_when_read(self) -> None:
        """Once all that is on the stream is committed, and the shards that ended are closed."""
        clock, behind = SystemClock(), [""]
        for _ in range(1_200):
            entries = {entry.shard_id: entry for entry in self.ledger.shards()}
            behind = [shard.shard_id for shard in self.kinesis.shards("s") if self._is_behind(shard, entries)]
            if not behind:
                break
            clock.sleep(0.1)
        self.stop()
        assert not behind

    @staticmethod
    def _is_behind(shard: MemoryShard, entries: Mapping[str, ShardEntry]) -> bool:
        entry = entries.get(shard.shard_id)
        if entry is None or (shard.closed is not None and not entry.closed):
            return True
        return bool(shard.records) and entry.position < sequence.pad(str(shard.records[-1].number))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def lake(self) -> pa.Table:
        entries = self.ledger.shards()
        keys = [file.uri.removeprefix("s3://memory/") for entry in entries for file in entry.pending]
        return pa.concat_tables([pq.read_table(io.BytesIO(self.objects.get(key))) for key in keys])


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_or_doubled_while_shards_are_split_and_merged(seed: int) -> None:
    """Answers lost, records refused, five reshards under load: the lake has each event once and the audit is exact."""
    stack, draw = Stack(2), random.Random(seed)
    tables = list(Fleet(devices=20, seed=seed).batches(6_000, 100))
    options = ProducerSettings(max_events=50, linger_ms=10)
    with Producer("s", "telemetry", client=stack.kinesis, settings=options, runtime=Runtime(random=draw)) as producer:
        sent = pa.concat_tables([table.select(COLUMNS) for table in tables])
        for number, table in enumerate(tables[:-5]):
            producer.put_batch(table)
            if number % 4 == 0:
                stack.kinesis.faults.lose_answer("put_records")
            if number % 3 == 0:
                stack.kinesis.faults.partial({0})
            if number % 10 == 5:  # copies of what lies in the parent come to its children
                producer.flush()
                before = stack.kinesis.faults.calls["put_records"]
                stack.kinesis.faults.lose_answer("put_records", times=2)
                producer.put_batch(tables.pop())
                while stack.kinesis.faults.calls["put_records"] == before:
                    SystemClock().sleep(0.001)
                many = len(stack.open_shards())
                if many == 1 or (many < 5 and draw.random() < 0.7):
                    stack.split(draw.randrange(many))
                else:
                    stack.merge(draw.randrange(many - 1))
    stack.stop_when_read()
    lake = stack.lake()
    seen = Counter(zip(lake["_origin"].to_pylist(), lake["_seq"].to_pylist(), strict=True))
    assert set(seen.values()) == {1}
    assert len(seen) == 6_000
    assert Counter(zip(*(lake[c].to_pylist() for c in COLUMNS), strict=True)) == Counter(
        zip(*(sent[c].to_pylist() for c in COLUMNS), strict=True)
    )
    entries = stack.ledger.shards()
    store = StateStore(PIPELINE, stack.objects)
    identities = lake.select(["_origin", "_seq"]).combine_chunks().to_batches()
    report = audit("reshard", entries, [store.load(entry) for entry in entries], identities)
    assert report.exact
    assert [origin.accepted for origin in report.origins] == [6_000]
    assert sum(entry.counts.get("duplicates", 0) for entry in entries) > 0
    assert sum(entry.closed for entry in entries) >= 5


def test_after_a_split_new_batches_go_to_the_children() -> None:
    """The producer sees the reshard in an answer, looks again, and spreads over what there is."""
    stack = Stack(1)
    rows = next(Fleet(devices=5).batches(4_000, 4_000))
    with Producer(
        "s", "telemetry", client=stack.kinesis, settings=ProducerSettings(max_events=20, linger_ms=5, receipts=False)
    ) as producer:
        producer.put_batch(rows.slice(0, 400))
        producer.flush()
        stack.split(0)
        for at in range(400, 1_200, 100):
            producer.put_batch(rows.slice(at, 100))
            producer.flush()
        low, high = (one for one in stack.kinesis.shards("s") if one.closed is None)
        assert min(low.taken_records, high.taken_records) >= 10
        assert int(low.end) < HASH_SPACE // 2
    stack.stop()


def test_what_a_shard_refuses_is_told_with_the_receipts_and_seen_in_its_heat() -> None:
    """No metric of the service is needed to see who is throttled."""
    stack = Stack(2)
    rows = next(Fleet(devices=5).batches(300, 300))
    with Producer("s", "telemetry", client=stack.kinesis) as producer:
        for at in range(0, 200, 100):  # the shards are asked for after the first answer
            producer.put_batch(rows.slice(at, 100))
            producer.flush()
        stack.kinesis.faults.partial({0})
        stack.kinesis.faults.partial({0})
        producer.put_batch(rows.slice(200, 100))
        producer.flush()
    stack.stop_when_read()
    documents = [stack.ledger.document(heat_document(shard_id))[0] for shard_id in stack.open_shards()]
    assert sum(document["sample"]["throttles_s"] for document in documents) == pytest.approx(2 / 60)


@pytest.mark.parametrize("refusing", [False, True])
def test_new_batches_stay_off_a_shard_that_refuses(refusing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lower half refuses each record twice, whatever the clock says: few go there. Else both take the same."""
    kinesis = MemoryKinesis(SystemClock(), limits=False)
    kinesis.create_stream(StreamName="s", ShardCount=2)
    low, high = sorted(kinesis.shards("s"), key=lambda shard: shard.start)
    put, refusals = kinesis.put_records, Counter[str]()

    def refuse(**request: Any) -> Any:
        keys = [record["ExplicitHashKey"] for record in request["Records"]]
        refused = [at for at, key in enumerate(keys) if refusing and int(key) <= low.end and refusals[key] < 2]
        refusals.update(keys[at] for at in refused)
        if refused:
            kinesis.faults.partial(refused)
        return put(**request)

    monkeypatch.setattr(kinesis, "put_records", refuse)
    rows = next(Fleet(devices=5).batches(4_000, 4_000))
    settings = ProducerSettings(max_events=20, linger_ms=5, receipts=False)
    runtime = Runtime(random=random.Random(1))
    with Producer("s", "telemetry", client=kinesis, settings=settings, runtime=runtime) as producer:
        for at in range(0, 4_000, 400):
            producer.put_batch(rows.slice(at, 400))
            producer.flush()
    assert low.taken_records + high.taken_records == 200
    if refusing:
        assert low.taken_records < 40
    else:
        assert abs(low.taken_records - high.taken_records) < 20
