"""Events that go on to another stream: each is read there once, whatever dies and whatever code comes after."""

from collections import Counter
from dataclasses import replace
from itertools import count as numbers
from typing import Any

import pyarrow as pa
import pytest

from headwater.codec import encode_batch
from headwater.errors import Fenced, HeadwaterError
from headwater.processors.definition.pipeline import Pipeline
from headwater.stream.record import StreamRecord
from tests.flowing import DOUBLED, READING, SHARD, START, World, first


def exact(world: World, factors: set[int]) -> None:
    """Each event came on once, computed by one of these versions of the code, and receipts tell of all and no more."""
    rows, counts = world.read_on()
    wanted = list(range(3 * len(world.records)))
    assert sorted(row["n"] for row in rows) == wanted
    assert all(row["twice"] in {row["n"] * factor for factor in factors} for row in rows)
    assert counts.get("poison_records", 0) == counts.get("conflicts", 0) == counts.get("foreign", 0) == 0
    told = Counter({name: sum(stop - start for start, stop in some) for name, some in world.accepted.items()})
    came: dict[str, set[int]] = {}
    for row in rows:
        came.setdefault(row["_origin"], set()).add(row["_seq"])
    assert told == Counter({name: len(some) for name, some in came.items()})


def test_a_life_without_faults() -> None:
    world = World()
    world.load(6)
    assert world.life(first())
    exact(world, {2})
    assert not [key for key in world.objects.list("state/") if "outgoing" in key]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("changed", "pause_ms"), [(False, 16_000), (True, 1_000)])  # with receipts in between, without
def test_whatever_call_it_dies_in_each_event_goes_on_once(when: str, changed: bool, pause_ms: int) -> None:
    """Also where other code reads on: what the first has numbered is not computed anew, and none is left out."""
    for at in numbers(1):
        world = World(pause_ms)
        world.load(5)
        ended = world.life(first(), dies=(at, when))
        if not ended:
            assert world.life(first(3) if changed else first())
        exact(world, {2, 3} if changed else {2})
        if ended:
            assert at > 40
            return


def test_bodies_too_large_for_the_ledger_wait_in_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.processors.shard.outgoing.INLINE_STATE", 10)
    for at in numbers(1, 3):
        world = World()
        world.load(4)
        ended = world.life(first(), dies=(at, "after"))
        if not ended:
            assert world.life(first())
        exact(world, {2})
        assert not [key for key in world.objects.list("state/") if "outgoing" in key]
        if ended:
            return


def test_other_code_that_sends_less_leaves_what_is_numbered_as_it_is() -> None:
    """Up to where the dead owner had numbered its code counts, after it the new one's."""
    world = World()
    world.load(6)
    worker = world.owner(first())
    worker.process(world.records[:2])
    world.clock.advance(1_000)
    worker.tick()  # numbered and put, and not committed
    assert world.life(first(lowest=100))
    rows, _ = world.read_on()
    assert sorted(row["n"] for row in rows) == list(range(6))


def test_what_is_numbered_goes_on_when_its_stream_is_no_longer_in_the_pipeline() -> None:
    """The owner died before it put it; its successor's code has another stream alone, and puts it and tells of it."""
    world = World()
    world.load(4)
    worker = world.owner(first())
    worker.process(world.records[:2])
    world.clock.advance(1_000)
    world.kinesis.faults.fail_next("put_records", "ResourceNotFoundException")
    with pytest.raises(HeadwaterError):
        worker.tick()
    world.kinesis.create_stream(StreamName="other", ShardCount=1)
    assert world.life(Pipeline("first", READING).to_stream("other", contract=READING).lake("first"))
    rows, _ = world.read_on()
    assert sorted(row["n"] for row in rows) == list(range(6))
    assert [sum(stop - start for start, stop in some) for some in world.accepted.values()] == [6]


def test_a_quiet_shard_says_nothing_more() -> None:
    world = World()
    world.load(3)
    worker = world.owner(first())
    worker.process(world.records)
    for _ in range(3):
        world.clock.advance(31_000)
        worker.tick()
    worker.commit()
    calls = world.calls
    for _ in range(100):
        world.clock.advance(31_000)
        worker.tick()
    assert world.kinesis.faults.calls["put_records"] == 1
    assert world.calls - calls <= 200  # it is looked whether a view is to begin
    exact(world, {2})


def test_an_owner_that_was_taken_over_puts_nothing_new() -> None:
    world = World()
    world.load(6)
    old = world.owner(first())
    old.process(world.records[:2])
    assert world.life(first())
    world.clock.advance(1_000)
    with pytest.raises(Fenced):
        old.tick()
    exact(world, {2})


def test_an_impure_function_is_asked_once_for_what_goes_on() -> None:
    """A second answer is not put under the number of the first."""
    for at in numbers(1, 3):
        world = World()
        world.load(4)
        answers = numbers(1_000)

        def impure(events: pa.Table, answers: Any = answers) -> pa.Table:
            return pa.table({"twice": pa.array([next(answers) for _ in range(len(events))], pa.int64())})

        def pipeline(impure: Any = impure) -> Pipeline:
            made = Pipeline("first", READING).map(impure, adds={"twice": "long"}, pure=False)
            return made.to_stream("doubled", contract=DOUBLED).lake("first")

        ended = world.life(pipeline(), dies=(at, "after"))
        if not ended:
            assert world.life(pipeline())
        rows, counts = world.read_on()
        assert sorted(row["n"] for row in rows) == list(range(12))
        assert not counts.get("conflicts")
        if ended:
            return


def test_a_refused_record_is_put_again_and_the_shard_waits() -> None:
    world = World()
    world.load(3)
    worker = world.owner(first())
    worker.process(world.records)
    world.clock.advance(1_000)
    for _ in range(3):
        world.kinesis.faults.partial([0])
    worker.tick()
    worker.commit(closed=True)
    exact(world, {2})


def test_small_records_of_large_texts_are_such_as_the_next_pipeline_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What many records bring in a second is more than one may hold, however little it is compressed."""
    field = replace(READING.fields[-1], name="text", type="string")
    texts = replace(READING, name="texts", fields=(*READING.fields, field))
    monkeypatch.setattr("tests.flowing.SECOND", Pipeline("second", texts).lake("second"))
    world = World()
    for at in range(8):
        rows = [
            {"device": "d", "ts": START, "n": n, "text": f"{n}" + "x" * 12_000}
            for n in range(at * 1_000, at * 1_000 + 1_000)
        ]
        data = encode_batch(
            pa.Table.from_pylist(rows, schema=texts.arrow_schema), texts, origin="o", first_seq=at * 1_000
        )
        world.records.append(StreamRecord(SHARD, str(100 + at), START, "k", data))
    worker = world.owner(Pipeline("first", texts).to_stream("doubled", contract=texts).lake("first"))
    worker.process(world.records)
    worker.commit(closed=True)
    came, counts = world.read_on()
    assert sorted(row["n"] for row in came) == list(range(8_000))
    assert not counts.get("poison_records")


def test_an_owner_that_stops_in_order_leaves_nothing_to_be_put_again() -> None:
    """The next one may come when the other pipeline has forgotten the first, and would take copies for new events."""
    world = World()
    world.load(3)
    worker = world.owner(first())
    worker.process(world.records)
    world.clock.advance(1_000)
    worker.tick()
    worker.commit()
    puts = world.kinesis.faults.calls["put_records"]
    world.clock.advance(31 * 86_400_000)
    worker = world.owner(first())
    world.clock.advance(1_000)
    worker.tick()
    assert world.kinesis.faults.calls["put_records"] == puts
