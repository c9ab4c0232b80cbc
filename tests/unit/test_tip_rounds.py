"""A reader that runs only while there are records: of a shard that was quiet nothing is lost, whatever expired is."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.processors.ports import StreamClient
from headwater.processors.runners.tipnotes import TipRounds
from headwater.testing.kinesis import MemoryKinesis
from tests.unit.test_retention import Reader, hours, one_shard
from tests.unit.test_upstream import World


def rounds(world: World, kinesis: MemoryKinesis) -> TipRounds:
    return TipRounds(StreamClient(kinesis, "s"), world.context.ports.ledger, world.clock)  # type: ignore[arg-type]  # Kinesis in memory


@pytest.mark.parametrize("read", [True, False])
def test_a_shard_that_was_quiet_for_days_has_lost_nothing(read: bool) -> None:
    """Of it the function has read something, or it was only claimed."""
    world, kinesis = one_shard()
    reader, watch = Reader(world, kinesis), rounds(world, kinesis)
    if read:
        world.put(kinesis, 1)
        reader.to_tip()
    for _ in range(60):
        hours(world, 1)
        watch.step()
    world.put(kinesis, 2)
    reader.start()
    reader.to_tip()
    assert (world.numbers()[-1], reader.lost) == (2, 0)


def test_what_came_while_nobody_went_round_is_lost() -> None:
    """Going round again afterwards does not hide it."""
    world, kinesis = one_shard()
    reader, watch = Reader(world, kinesis), rounds(world, kinesis)
    world.put(kinesis, 1)
    reader.to_tip()
    for wait in [1] * 5 + [2]:
        hours(world, wait)
        watch.step()
    world.put(kinesis, 2)
    for wait in [26, 1, 1]:
        hours(world, wait)
        watch.step()
    world.put(kinesis, 3)
    reader.start()
    reader.to_tip()
    assert (world.numbers(), reader.lost) == ([1, 3], 1)


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_whatever_expires_unread_is_counted(seed: int) -> None:
    """The function lags, is away or reads to the tip, while somebody goes round now and then."""
    chance = random.Random(seed)
    world, kinesis = one_shard()
    reader, watch, put = Reader(world, kinesis), rounds(world, kinesis), 0
    for _ in range(chance.randint(5, 60)):
        hours(world, chance.choice([0, 0.5, 1, 3, 12, 30]) * chance.random())
        what = chance.choice(["put", "step", "tip", "round", "round", "round"])
        if what == "put":
            world.put(kinesis, put)
            put += 1
        elif what == "round":
            watch.step()
        else:
            reader.start()
            reader.to_tip() if what == "tip" else reader.step()
            reader.worker.commit()
    reader.start()
    reader.to_tip()
    missing = put - reader.worker.engine.state.counts.get("events", 0)
    assert not missing or reader.lost, f"{missing} of {put} expired unread"
