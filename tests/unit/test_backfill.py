"""A backfill bears what a worker may do: go back to its last commit, and bury the record that the engine fails on."""

from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import pytest

from headwater.clock import ManualClock
from headwater.config import Settings
from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.replay.backfill import fill
from headwater.processors.shard.worker import ShardWorker
from headwater.rates import Pace
from headwater.stream.record import StreamRecord
from tests.unit.test_upstream import START, World, batch


@pytest.mark.parametrize("fails_at", [1, 3, 4])
def test_a_backfill_goes_on_after_the_worker_went_back(fails_at: int) -> None:
    """The engine fails on a record: what was not committed is made again, and the record ends as a dead letter."""
    world = World(ManualClock(START))
    world.context = replace(world.context, settings=Settings(stream="s", commit_seconds=2.0))
    worker = ShardWorker.claim(world.context, "backfill")
    records = [StreamRecord("backfill", str(at), START, "o", batch(10 * at, 10)) for at in range(1, 5)]
    broken = records[fails_at - 1].data
    process = Engine.process

    def failing(self: Engine, some: Sequence[StreamRecord]) -> Effects:
        if any(one.data == broken for one in some):
            raise ZeroDivisionError("planted")
        return process(self, some)

    def advance(_: int, __: int) -> None:
        world.clock.advance(1_500)

    with mock.patch.object(Engine, "process", failing):
        done = fill(worker, lambda: [([one], 10) for one in records], Pace(None, world.clock), advance)
        worker.commit(closed=True)
    assert done == 40
    assert world.numbers() == [
        number for at in range(1, 5) if at != fails_at for number in range(10 * at, 10 * at + 10)
    ]
    assert worker.engine.state.counts["poison_records"] == 1
