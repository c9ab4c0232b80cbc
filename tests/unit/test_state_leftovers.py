"""What owners that died have left of a shard's states on S3: gone by the next owner's first commit."""

from collections.abc import Callable
from typing import Any

import pytest

from headwater.processors.erasure.ports import change_state
from headwater.processors.ports import PipelineStores
from headwater.processors.shard import flushes, snapshots
from headwater.processors.shard.worker import ShardWorker
from tests.typed import a_key
from tests.unit.test_view_versions import SHARD, Deployments

MOST = 3
"""The state that the ledger names, the one before, and the journal of what was flushed since."""


@pytest.fixture(autouse=True)
def _large_states(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (snapshots, flushes):
        monkeypatch.setattr(module, "INLINE_STATE", 16)


def states(world: Deployments) -> list[str]:
    return list(world.objects.list("state/"))


def dies(world: Deployments, calls: int) -> Callable[..., Any]:
    """The ledger's table, where this call of all writes never comes."""
    update, left = world.db.update_item, [calls]

    def call(**request: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt  # killed
        return update(**request)

    return call


def work(world: Deployments, worker: ShardWorker) -> None:
    for _ in range(8):
        world.flush(worker)
        worker.commit()
        worker.count("again")


@pytest.mark.parametrize("calls", range(6))
def test_dead_owners_leave_nothing_for_good(world: Deployments, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write they died before: the states do not become more with the deaths."""
    for at in range(8):
        with monkeypatch.context() as killed:
            worker = world.owner(float)
            worker.process([world.records[at]])
            killed.setattr(world.db, "update_item", dies(world, calls))
            with pytest.raises(KeyboardInterrupt):
                work(world, worker)
        last = world.owner(float)
        last.process(world.records[at : at + 1])
        last.count("again")
        last.commit()
        assert len(states(world)) <= MOST
    last.process(world.records[8:])
    world.flush(last)
    last.commit()
    assert world.view() == world.lake() != {}


@pytest.fixture
def world() -> Deployments:
    return Deployments()


def test_a_successor_goes_on_with_what_is_kept(world: Deployments) -> None:
    """The state and the journal that a sweep has left are those that are read."""
    for at in range(0, 9, 3):
        worker = world.owner(float)
        worker.process(world.records[at : at + 3])
        world.flush(worker)
        worker.commit()
        worker.process(world.records[at + 3 : at + 4])
        world.flush(worker)  # and it dies
    assert ShardWorker.claim(worker.context, SHARD).engine.state.seen.count() == 9


def test_no_state_has_a_key_that_was_forgotten(world: Deployments) -> None:
    """Also none of those that dead owners have left."""
    for at in range(3):
        worker = world.owner(float)
        worker.process(world.records[3 * at : 3 * at + 3])
        world.flush(worker)
        if at != 2:
            worker.commit()
    stores = PipelineStores(worker.pipeline, world.ledger, world.objects, world.clock)  # type: ignore[arg-type]  # objects in memory
    change_state(stores, SHARD, "forget", lambda state: state.forget(a_key("device", "d"), is_origin=False))
    (entry,) = world.ledger.shards()
    document, _ = world.ledger.document(flushes.flush_document(SHARD))
    assert set(states(world)) == {entry.state_key, document["key"]}
