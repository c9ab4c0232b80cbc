"""Slots that a dead owner flushed and that the next one, by other code, does not make: they do not count."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import aggregates as agg
from headwater.codec import encode_batch
from headwater.config import Settings
from headwater.errors import Fenced
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.operators.aggregate import SlotName
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.flushes import FlushJournal, flush_document, forget_flushed
from headwater.processors.shard.worker import ShardWorker
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.store import ViewStore
from headwater.stream.record import StreamRecord
from tests.typed import a_key
from tests.unit.test_view_versions import CONTRACT, SHARD, START, Deployments


def pipeline(keep: Callable[[float], bool], lateness: str, band: int, pure: bool = True) -> Pipeline:
    """A version of the code: what it keeps, how late an event may be, and how it groups."""

    def made(events: pa.Table) -> pa.Table:
        return pa.table({"band": pa.array([int(one) % band for one in events["value"].to_pylist()], pa.int64())})

    def kept(events: pa.Table) -> pa.Array:
        return pa.array([keep(one) for one in events["value"].to_pylist()])

    return (
        Pipeline("t", CONTRACT, allowed_lateness=lateness)
        .map(made, adds={"band": "long"}, pure=pure)
        .where(kept)
        .view("minutes", by=["device"], window=tumbling("1m"), n=agg.count(), s=agg.sum("value"))
        .view("bands", by=["band"], n=agg.count(), highest=agg.max("value"))
        .lake("t")
    )


class Shard(Deployments):
    """Events of any minutes in any order, read by owners of other code one after the other."""

    def load(self, minutes: list[int]) -> None:
        self.records = []
        for at, minute in enumerate(minutes):
            event = {"device": "d", "metric": "m", "ts": START + minute * 60_000, "value": float(at)}
            table = pa.Table.from_pylist([event], schema=CONTRACT.arrow_schema)
            data = encode_batch(table, CONTRACT, origin="o", first_seq=at)
            self.records.append(StreamRecord(SHARD, str(100 + at), START + at, "k", data))

    def owner_of(self, code: Pipeline) -> ShardWorker:
        views = ViewStore(self.db, "v", self.settings, clock=self.clock, chance=lambda: 0.5)
        ports = Ports(self.ledger, self.objects, views, DeadLetters(self.objects), lambda _n, _u: pytest.fail("none"))
        return ShardWorker.claim(WorkerContext(code, ports, Settings(), self.clock, "me"), SHARD)

    def rows(self, code: Pipeline) -> dict[object, tuple[object, object]]:
        views = ViewStore(self.db, "v", self.settings, clock=self.clock)
        found: dict[object, tuple[object, object]] = {}
        for row in views.rows(code.views[0].spec):
            found[str(row["window_start"])[11:16]] = (row["n"], row["s"])
        for row in views.rows(code.views[1].spec):
            found[row["band"]] = (row["n"], row["highest"])
        return found

    def expected(self) -> dict[object, tuple[object, object]]:
        """The views, computed from the files that commits name."""
        found: dict[object, tuple[Any, Any]] = {}
        for row in self.lake_rows():
            n, s = found.get(f"{row['ts']:%H:%M}", (0, 0.0))
            found[f"{row['ts']:%H:%M}"] = (n + 1, s + row["value"])
            n, s = found.get(row["band"], (0, 0.0))
            found[row["band"]] = (n + 1, s if s > row["value"] else row["value"])
        return found


OLD = pipeline(lambda _: True, "1s", 3)
CODES = {
    "the same": OLD,
    "another filter": pipeline(lambda value: value % 2 == 0, "1s", 3),
    "a longer lateness": pipeline(lambda _: True, "10m", 3),
    "other keys": pipeline(lambda _: True, "1s", 5),
    "all of it": pipeline(lambda value: value % 3 > 0, "10m", 7),
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("committed", [0, 4])
def test_what_the_new_code_does_not_make_does_not_count(code: str, committed: int) -> None:
    """The old process is killed after a flush and before its commit."""
    world = Shard()
    world.load([0, 0, 1, 2, 0, 5, 1, 7, 2, 0])
    old = world.owner_of(OLD)
    old.process(world.records[:committed])
    if committed:
        old.commit()
    old.process(world.records[committed:])
    world.flush(old)
    new = world.owner_of(CODES[code])
    new.process(world.records)
    new.commit()
    assert world.rows(CODES[code]) == world.expected() != {}


def test_a_longer_lateness_opens_no_slot_that_has_left() -> None:
    """Its slot has left the state of the old code: a new one of that name would replace it."""
    world = Shard()
    world.load([0, 0, 3, 0, 0])
    old = world.owner_of(OLD)
    old.process(world.records[:3])
    old.commit()
    new = world.owner_of(CODES["a longer lateness"])
    new.process(world.records)
    new.commit()
    assert world.rows(OLD) == world.expected()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("pure", [True, False])
def test_a_shard_is_not_closed_before_its_views_are_written(pure: bool) -> None:
    """Nobody claims a closed shard: what its last owner left undone would stay so."""
    code = pipeline(lambda _: True, "1m", 3, pure)
    world = Shard()
    world.load([0, 1, 2])
    old = world.owner_of(code)
    old.process(world.records)

    def killed(*_: Any) -> Any:
        raise Killed

    object.__setattr__(old._ports.views, "write", killed)
    with pytest.raises(Killed):
        old.commit(closed=True)
    assert [entry.closed for entry in world.ledger.shards()] == [False]
    new = world.owner_of(code)
    new.process(world.records)
    new.commit(closed=True)
    assert [entry.closed for entry in world.ledger.shards()] == [True]
    assert world.rows(code) == world.expected()


def test_an_owner_that_was_replaced_flushes_nothing_that_nobody_knows_of() -> None:
    """Its first flush of a new slot comes after the other's claim: it is fenced before it writes a row."""
    world = Shard()
    world.load([0, 1, 2])
    old = world.owner_of(OLD)
    old.process(world.records)
    new = world.owner_of(CODES["another filter"])
    with pytest.raises(Fenced):
        world.flush(old)
    new.process(world.records)
    new.commit()
    assert world.rows(OLD) == world.expected()


def test_a_late_write_of_the_dead_owner_brings_nothing_back() -> None:
    """It was under way when the other claimed, and lands after the slot was emptied."""
    world = Shard()
    world.load([0, 1, 2])
    old = world.owner_of(OLD)
    old.process(world.records)
    held: list[Any] = []
    views = old._ports.views
    write = views.write

    def hold(*args: Any) -> Any:
        held.append(args)
        return write(args[0], [])

    object.__setattr__(views, "write", hold)
    old._flush_views()
    new = world.owner_of(CODES["another filter"])
    new.process(world.records)
    new.commit()
    for args in held:
        write(*args)
    assert world.rows(OLD) == world.expected()


Step = tuple[str, str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["flush", "commit", "late flush"]), st.sampled_from([*CODES]), st.integers(1, 5)),
    min_size=1,
    max_size=6,
)


@given(st.lists(st.integers(0, 9), min_size=4, max_size=16), steps)
@settings(max_examples=60, deadline=None)
def test_whatever_owners_die_the_view_is_that_of_the_lake(minutes: list[int], owners: list[Step]) -> None:
    """Each reads some records, flushes or commits, and dies; one may write once more after its successor's claim."""
    world = Shard()
    world.load(minutes)
    zombie: ShardWorker | None = None
    worker = world.owner_of(OLD)
    for what, code, much in owners:
        worker = world.owner_of(CODES[code])
        if zombie is not None:
            try:
                zombie._flush_views()
            except Fenced:
                zombie = None
        start = sum(int(one.sequence_number) <= int(worker.position) for one in world.records)
        worker.process(world.records[: start + much])
        if what == "late flush":
            zombie = worker
        else:
            worker.commit() if what == "commit" else world.flush(worker)
    last = CODES[owners[-1][1]]
    worker = world.owner_of(last)
    worker.process(world.records)
    worker.commit()
    if zombie is not None and not zombie.is_saved:  # else it has nothing to commit
        with pytest.raises(Fenced):
            zombie.commit()
    stored, right = world.rows(last), world.expected()
    assert stored == right


def test_many_slots_lie_in_the_bucket() -> None:
    """The ledger item stays small, and only the newest list is kept."""
    world = Shard()
    journal = FlushJournal(world.ledger, world.objects, ("t", SHARD), 1, "")

    many = [SlotName((f"device-{number * 7919 % 100_003}",), START, START + 60_000, 0) for number in range(20_000)]
    journal.note({"minutes": many[:15_000]}, "5")
    journal.note({"minutes": many[15_000:]}, "6")
    assert len([name for name in world.objects.bodies if "flushed" in name]) == 1
    assert "slots" not in world.ledger.document(flush_document(SHARD))[0]
    next_ = FlushJournal(world.ledger, world.objects, ("t", SHARD), 2, "5")
    assert len(next_.orphans("minutes", "6")) == 5_000
    forget_flushed(world.ledger, world.objects, SHARD, {"minutes": ["device"]}, a_key("device", str(many[-1].key[0])))
    again = FlushJournal(world.ledger, world.objects, ("t", SHARD), 3, "")
    assert len(again.orphans("minutes", "6")) == 20_000 - 1
