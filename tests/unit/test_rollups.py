"""Views rolled up over keys: a row that all shards feed is pandas' over all events, whatever becomes of the shards."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates import count, distinct, last, max, mean, sum
from headwater.clock import ManualClock
from headwater.codec import encode_batch
from headwater.config import Settings
from headwater.errors import Fenced
from headwater.ledger import Ledger
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.generations import Serving
from headwater.processors.rebuild.recompute import batch_view, differences, enriched
from headwater.processors.runners.pages import ReaderSettings
from headwater.processors.runners.shardreader import ReaderStatus, ShardReader
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.worker import ShardWorker
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.rows import ViewSettings
from headwater.sinks.views.store import ViewStore
from headwater.stream.shards import list_shards
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.fleet import Fleet
from headwater.testing.objects import MemoryObjects
from tests.streams import memory_stream

MINUTE = tumbling("1m")
PIPELINE = (
    Pipeline("rollups", contract="telemetry")
    .view("fleet", by=[], window=MINUTE, spread=3, n=count(), total=sum("value"), devices=distinct("device"))
    .view("region", by=["region"], window=MINUTE, n=count(), top=max("value"), newest=last("value"))
    .view("region_metric", by=["region", "metric"], spread=2, n=count(), average=mean("value"))
    .lake("telemetry")
)
SETTINGS = Settings(stream="s", commit_seconds=5.0, view_flush_seconds=1.0)


def events(batches: int) -> list[pa.Table]:
    """Of every tenth the region is not known; every fifth is minutes late."""
    tables = list(Fleet(devices=6, seed=3, late=0.2, report_seconds=40).batches(batches * 20, 20))
    known = pa.array(np.arange(20) % 10 > 0)
    at = tables[0].schema.get_field_index("region")
    return [table.set_column(at, "region", _only(known, table["region"].combine_chunks())) for table in tables]


def _only(known: pa.Array, column: pa.Array) -> pa.Array:
    return pa.array(
        [value if keep else None for keep, value in zip(known.to_pylist(), column.to_pylist(), strict=True)]
    )


BATCHES = events(24)


class World:
    """Shards that are read step by step, all by one thread; what was read by an owner that is gone may still be
    written."""

    def __init__(self, slots: int, pipeline: Pipeline = PIPELINE) -> None:
        self.pipeline = pipeline
        self.clock = ManualClock()
        self.kinesis = memory_stream(2, self.clock, reshard_seconds=0)
        self.dynamodb, self.objects = MemoryDynamoDB(), MemoryObjects()
        for table, names in (("ledger", ("pipeline", "item")), ("views", ("pk", "sk"))):
            self.dynamodb.create_table(TableName=table, KeySchema=[{"AttributeName": name} for name in names])
        self.ledger = Ledger(self.dynamodb, "ledger", PIPELINE.name)
        self.slots = slots
        self.readers: dict[str, ShardReader] = {}
        self.gone: list[ShardReader] = []
        self.sent: list[pa.Table] = []

    def ports(self) -> Ports:
        """With a cache of its own, as every process has."""
        views = ViewStore(self.dynamodb, "views", ViewSettings(max_item_bytes=self.slots), clock=self.clock)
        letters = DeadLetters(self.objects)
        return Ports(self.ledger, self.objects, views, letters, lambda *_: pytest.fail("no references here"))

    def put(self, where: int) -> None:
        """A batch; every third one comes a second time, to the same hash key, as after a lost answer."""
        number = len(self.sent)
        table = BATCHES[number % len(BATCHES)]
        body = encode_batch(table, PIPELINE.contract, origin="o", first_seq=number * 20)
        for _ in range(2 if number % 3 == 0 else 1):
            self.kinesis.put_record(StreamName="s", Data=body, PartitionKey="x", ExplicitHashKey=str(where))
        self.sent.append(table)

    def reshard(self, split: bool, where: float) -> None:
        shards = sorted((one for one in self.kinesis.shards("s") if one.closed is None), key=lambda one: one.start)
        if split and len(shards) < 5:
            one = shards[int(where * len(shards))]
            half = str((one.start + one.end) // 2 + 1)
            self.kinesis.split_shard(StreamName="s", ShardToSplit=one.shard_id, NewStartingHashKey=half)
        elif len(shards) > 1:
            at = int(where * (len(shards) - 1))
            left, right = shards[at].shard_id, shards[at + 1].shard_id
            self.kinesis.merge_shards(StreamName="s", ShardToMerge=left, AdjacentShardToMerge=right)

    def read(self) -> bool:
        """A step of every shard whose parents are done; whether one of them had anything."""
        found = False
        self.clock.advance(1_000)
        for shard in list_shards(self.kinesis, "s"):
            entry = self.ledger.shard(shard.shard_id)
            parents = [self.ledger.shard(name) for name in shard.parents]
            if (entry and entry.closed) or not all(one and one.closed for one in parents):
                continue
            if shard.shard_id not in self.readers:
                context = WorkerContext(self.pipeline, self.ports(), SETTINGS, self.clock, f"o{len(self.gone)}")
                worker = ShardWorker.claim(context, shard.shard_id, shard.parents, (shard.start, shard.end))
                settings_, status = ReaderSettings(max_records=2), ReaderStatus(shard.shard_id)
                self.readers[shard.shard_id] = ShardReader(self.kinesis, "s", worker, self.clock, settings_, status)
                self.readers[shard.shard_id].start()
            found |= self.readers[shard.shard_id].step() != 0
        return found

    def read_all(self) -> None:
        """Until nothing comes for longer than a commit takes to be due."""
        idle = 0
        for _ in range(1_000):
            idle = 0 if self.read() else idle + 1
            if idle > SETTINGS.commit_seconds + 1:
                return
        raise AssertionError("the shards do not end")

    def crash(self) -> None:
        """All readers are dropped; they are not told, and write once more before they find out."""
        self.gone += self.readers.values()
        self.readers = {}

    def late_writes(self) -> None:
        for reader in self.gone:
            try:
                reader.step()
            except Fenced:
                continue
        self.gone = []

    def wrong(self) -> list[str]:
        """What readers find that is not right, in whichever version serves."""
        frame = enriched(PIPELINE, pa.concat_tables([one.combine_chunks() for one in self.sent]), {})
        store = self.ports().views
        assert isinstance(store, ViewStore)
        return [
            line
            for view in Serving(self.ledger, self.pipeline, self.clock).views().values()
            for line in differences(view, batch_view(PIPELINE, view, frame), store.rows(view.spec))
        ]


STEPS: dict[str, Callable[[World, float], Any]] = {
    "put": lambda world, where: world.put(int(where * 2**128)),
    "read": lambda world, _: world.read(),
    "split": lambda world, where: world.reshard(True, where),
    "merge": lambda world, where: world.reshard(False, where),
    "crash": lambda world, _: world.crash(),
    "late writes": lambda world, _: world.late_writes(),
}
PLACES = st.floats(0, 0.999)
SCRIPTS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "put", "read", "read", "split", "merge", "crash", "late writes"]), PLACES),
    min_size=8,
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(script=SCRIPTS, slots=st.sampled_from([350_000, 300]))
def test_rolled_up_rows_are_right_across_shards_and_reshards(script: list[tuple[str, float]], slots: int) -> None:
    """Splits and merges under way, owners that die and still write, late events, copies, rows too big for an item."""
    world = World(slots)
    world.put(0)
    for what, where in script:
        STEPS[what](world, where)
    world.read_all()
    world.late_writes()
    assert world.wrong() == []
