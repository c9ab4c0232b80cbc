"""The embedded runner's view of other owners, and its pauses between restarts."""

import logging
import time
from threading import Event, Thread
from typing import Any

import pytest

from headwater.clock import ManualClock, SystemClock
from headwater.ledger import ShardEntry
from headwater.processors.runners.embedded import EmbeddedRunner, is_held
from headwater.testing.faults import client_error
from tests.unit.test_upstream import PIPELINE, START, World
from tests.waiting import until


def test_a_shard_is_left_to_an_owner_that_goes_on_committing() -> None:
    """Not to one that has stopped, nor to ourselves; a shard that nobody has is free."""
    entry = ShardEntry("p", "s", 3, "other", updated_ms=10_000)
    assert is_held(entry, "me", 12_999, 3_000)
    assert not is_held(entry, "me", 13_000, 3_000)
    assert not is_held(entry, "other", 10_000, 3_000)
    assert not is_held(None, "me", 0, 3_000)


class Breaking:
    """A Kinesis client of which the next reads fail for good."""

    def __init__(self, kinesis: Any) -> None:
        self._kinesis, self.fails = kinesis, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kinesis, name)

    def get_records(self, **request: Any) -> Any:
        if self.fails:
            self.fails -= 1
            raise client_error("get_records", "ValidationException", "broken on purpose")
        return self._kinesis.get_records(**request)


def test_the_pause_before_a_restart_is_short_again_after_a_commit(caplog: pytest.LogCaptureFixture) -> None:
    """It doubles while a shard fails again and again; failures of different days are no row."""
    world = World(ManualClock(START))
    stream = world.stream()
    kinesis = Breaking(stream)
    runner = EmbeddedRunner(PIPELINE, kinesis, world.context.ports, world.settings, world.clock, "owner")
    stop = Event()
    thread = Thread(target=runner.run, args=(stop, 0.02))

    def pauses() -> list[float]:
        return [record.pause_s for record in caplog.records if hasattr(record, "pause_s")]

    def reach(number: int, fails: int) -> None:
        """Let it fail so often, then read an event."""
        kinesis.fails = fails
        world.put(stream, number)

        def read() -> bool:
            world.clock.advance(1_000)
            return number in world.numbers()

        until(read, 60)

    with caplog.at_level(logging.INFO, "headwater.processor"):
        thread.start()
        try:
            reach(1, fails=3)
            assert pauses() == [2, 4, 8]
            reach(2, fails=2)
            assert pauses() == [2, 4, 8, 2, 4]
        finally:
            stop.set()
            thread.join(30)
    said = [record for record in caplog.records if record.getMessage() == "stopped"]
    assert [(vars(one)["shards"], vars(one)["unfinished"]) for one in said] == [(1, [])]


def test_two_runners_whose_commits_take_longer_than_a_lease_get_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lease grow: on a slow machine each would take the shard before the other has committed, for ever."""
    world = World(SystemClock())
    stream = world.stream()
    put, lease = world.objects.put, 3 * world.settings.commit_seconds

    def slow(key: str, body: bytes) -> str:
        time.sleep(7 * lease)
        return put(key, body)

    monkeypatch.setattr(world.objects, "put", slow)
    world.put(stream, *range(40))
    stop, threads = Event(), list[Thread]()
    try:
        for owner in ("one", "two"):
            runner = EmbeddedRunner(PIPELINE, stream, world.context.ports, world.settings, world.clock, owner)
            threads.append(Thread(target=runner.run, args=(stop, 0.02)))
            threads[-1].start()
            time.sleep(3 * lease)
        until(lambda: world.numbers() == list(range(40)), 30, lambda: [entry.epoch for entry in world.ledger.shards()])
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
