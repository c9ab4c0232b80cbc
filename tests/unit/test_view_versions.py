"""A slot is replaced by newer input, and for the same input by a later owner, whose code may be another."""

import io
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.aggregates import count, sum
from headwater.clock import ManualClock
from headwater.codec import encode_batch
from headwater.config import Settings
from headwater.contract import load_contract
from headwater.errors import Fenced
from headwater.ledger import Ledger
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.worker import ShardWorker
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.rows import ViewSettings
from headwater.sinks.views.slots import Upsert, slot_version
from headwater.sinks.views.store import ViewStore
from headwater.stream.record import StreamRecord
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects
from tests.typed import a_key
from tests.views import VIEW, memory, partial, store, version

CONTRACT, SHARD, START = load_contract("telemetry"), "shardId-000000000000", 1_762_160_400_000
Function = Callable[[float], float | None]
"""A value made of another; None where the event is filtered."""


def pipeline(function: Function) -> Pipeline:
    """A minute's number of events and sum of what the function makes of their values."""

    def made(events: pa.Table) -> pa.Table:
        return pa.table({"x": pa.array([function(one) for one in events["value"].to_pylist()], pa.float64())})

    def kept(events: pa.Table) -> pa.Array:
        return pa.array([one is not None for one in events["x"].to_pylist()])

    return (
        Pipeline("t", CONTRACT, allowed_lateness="1s")
        .map(made, adds={"x": "double"})
        .where(kept)
        .view("m", by=["device"], window=tumbling("1m"), n=count(), s=sum("x"))
        .lake("t")
    )


class Deployments:
    """One shard of nine events, three a minute, read by owners with other functions one after the other."""

    def __init__(self, max_item_bytes: int = 350_000) -> None:
        self.db, self.objects, self.clock = MemoryDynamoDB(), MemoryObjects(), ManualClock(START)
        for table, keys in {"l": ("pipeline", "item"), "v": ("pk", "sk")}.items():
            schema = [{"AttributeName": n, "KeyType": k} for n, k in zip(keys, ("HASH", "RANGE"), strict=True)]
            self.db.create_table(TableName=table, KeySchema=schema)
        self.ledger = Ledger(self.db, "l", "t")
        self.settings = ViewSettings(max_item_bytes=max_item_bytes)
        self.records = [self._record(at, at // 3) for at in range(9)]

    def _record(self, at: int, minute: int) -> StreamRecord:
        event = {"device": "d", "metric": "m", "ts": START + minute * 60_000, "value": float(at)}
        table = pa.Table.from_pylist([event], schema=CONTRACT.arrow_schema)
        return StreamRecord(
            SHARD, str(100 + at), START + at, "k", encode_batch(table, CONTRACT, origin="o", first_seq=at)
        )

    def owner(self, function: Function) -> ShardWorker:
        views = ViewStore(self.db, "v", self.settings, clock=self.clock, chance=lambda: 0.5)
        ports = Ports(self.ledger, self.objects, views, DeadLetters(self.objects), lambda _n, _u: pytest.fail("none"))
        return ShardWorker.claim(WorkerContext(pipeline(function), ports, Settings(), self.clock, "me"), SHARD)

    def flush(self, worker: ShardWorker) -> None:
        """What a tick does a second later."""
        self.clock.advance(1_500)
        worker.tick()

    def view(self) -> dict[str, tuple[object, object]]:
        rows = ViewStore(self.db, "v", self.settings, clock=self.clock).windows(pipeline(float).views[0].spec, ("d",))
        return {str(row["window_start"])[14:16]: (row["n"], row["s"]) for row in rows}

    def lake(self) -> dict[str, tuple[int, float]]:
        """The view, computed from the files that commits name."""
        found: dict[str, tuple[int, float]] = {}
        for row in self.lake_rows():
            n, s = found.get(at := f"{row['ts']:%M}", (0, 0.0))
            found[at] = (n + 1, s + row["x"])
        return found

    def lake_rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for entry in self.ledger.shards():
            for file in entry.pending:
                body = self.objects.get(file.uri.removeprefix("s3://memory/"))
                found += pq.read_table(io.BytesIO(body)).to_pylist()
        return found


@pytest.mark.parametrize("read", range(10))
@pytest.mark.parametrize("max_item_bytes", [350_000, 1])
@pytest.mark.parametrize(
    "corrected",
    [float, lambda value: None if value % 3 == 2 else value, lambda value: None if value % 3 else value],
    ids=["other value", "last event filtered", "first event kept"],
)
def test_a_view_has_what_the_new_code_computes(read: int, max_item_bytes: int, corrected: Function) -> None:
    """The old process is killed after a flush and before its commit; where it was does not show in the end."""
    world = Deployments(max_item_bytes)
    old = world.owner(lambda value: value * 1000)
    old.process(world.records[:read])
    world.flush(old)
    new = world.owner(corrected)
    for at in range(0, 9, 2):
        new.process(world.records[at : at + 2])
        world.flush(new)
    new.commit()
    assert world.view() == world.lake() != {}


def test_a_view_never_goes_back_while_the_new_owner_catches_up() -> None:
    """A flushed value stays until the next owner has taken in as many records."""
    world = Deployments()
    old = world.owner(float)
    old.process(world.records)
    world.flush(old)
    before = world.view()
    new = world.owner(float)
    for record in world.records:
        new.process([record])
        world.flush(new)
        assert world.view() == before


def test_a_process_that_was_replaced_changes_nothing_for_the_same_input() -> None:
    """It flushes no slot that is new to its successor, and its epoch is lower: what it had begun is refused."""
    world = Deployments()
    old = world.owner(lambda value: value * 1000)
    old.process(world.records)
    new = world.owner(float)
    new.process(world.records)
    new.commit()
    with pytest.raises(Fenced):
        old._flush_views()
    old._journal, old._carried = None, False
    old._flush_views()
    assert world.view() == world.lake()


def test_a_process_that_was_replaced_brings_back_nothing_that_was_committed() -> None:
    """It had to wait for what an earlier owner had flushed; then a key is forgotten."""
    world = Deployments()
    first = world.owner(float)
    first.process(world.records)
    world.flush(first)
    second = world.owner(float)
    second.process(world.records[:1])
    second.commit()
    assert any(view.is_dirty for view in second.engine.state.views.values())
    world.ledger.claim(SHARD, "forget", None, 0)
    store = ViewStore(world.db, "v", world.settings, clock=world.clock)
    assert store.remove(second.pipeline.views[0].spec, a_key("device", "d")) == 3
    with pytest.raises(Fenced):
        world.flush(second)
    assert world.view() == {}


def test_rows_from_before_epochs_were_part_of_versions_are_read_and_replaced() -> None:
    """An item without an epoch counts as an earlier owner's."""
    dynamodb = memory()
    views = store(dynamodb)

    def put(name: str, n: int, through: str = "") -> Any:
        return views.write(VIEW, [Upsert(("d",), 0, 60_000, "s/0", name, partial(n), through)])

    put(version(5), 1)
    assert put(slot_version(version(4), 2), 2, version(4)).behind == 1
    assert [row["n"] for row in views.windows(VIEW, ("d",))] == [1]
    assert put(slot_version(version(4), 2), 3, version(5)).written == 1
    assert put(version(4), 4).skipped == 1
    assert [row["n"] for row in views.windows(VIEW, ("d",))] == [3]


Write = tuple[int, int, int]
"""Epoch, position, and the last record in the slot."""


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    st.sampled_from([350_000, 1]),
)
def test_the_last_owner_prevails_once_it_has_read_as_far(writes: list[Write], max_item_bytes: int) -> None:
    """Whatever came before from whom, in an item or beside it: its own value is there, by its own code."""
    views = store(memory(), max_item_bytes=max_item_bytes)
    furthest = max(position for _, position, _ in writes)
    for epoch, position, last in [*writes, (5, furthest, 1)]:
        name = slot_version(version(min(last, position)), epoch)
        made = Upsert(("d",), 0, 60_000, "s/0", name, partial(7 if epoch == 5 else 1), version(position))
        report = views.write(VIEW, [made])
    assert report.behind == 0
    assert [row["n"] for row in views.windows(VIEW, ("d",))] == [7]
