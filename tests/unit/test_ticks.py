"""When a shard flushes and commits: at once after a pause, never more often than it is set to, and not for nothing."""

from collections import Counter
from typing import Any

import pytest

from headwater.aggregates import count
from headwater.config import Settings
from headwater.processors.definition.pipeline import Pipeline
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.total_shard import CONTRACTS, Shard, encoded, event

COMMIT_MS, FLUSH_MS = (round(1000 * one) for one in (Settings().commit_seconds, Settings().view_flush_seconds))


class Counted:
    """DynamoDB that counts the requests for each table."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.requests = inner, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name == "get_paginator":
            return found

        def call(**request: Any) -> Any:
            several = {one["Statement"].split('"')[1] for one in request.get("Statements", ())}
            tables = several or request.get("RequestItems") or [request["TableName"]]
            self.requests.update(list(tables))
            return found(**request)

        return call


class Counting(Shard):
    """A shard that tells what it asks of DynamoDB, and when its position was committed."""

    def __init__(self, of: Pipeline) -> None:
        self.counted, self.numbers = Counted(MemoryDynamoDB()), 0
        super().__init__(of, self.counted)

    def event(self) -> None:
        self.put(encoded(event(self.numbers)))
        self.numbers += 1

    def pause(self) -> None:
        """Until nothing has been due for long."""
        for _ in range(3):
            self.clock.advance(COMMIT_MS)
            self.worker.tick()
        assert self.worker.is_saved
        self.counted.requests.clear()


@pytest.fixture
def shard() -> Counting:
    found = Counting(Pipeline("t", CONTRACTS["none"]).view("k", by=["device"], n=count()).lake("t"))
    found.event()
    found.pause()
    return found


def test_what_comes_after_a_pause_waits_for_nothing(shard: Counting) -> None:
    """Neither for the commit nor for the view's row, whenever it comes."""
    for wait in (1, FLUSH_MS, COMMIT_MS - 1, COMMIT_MS, 7 * COMMIT_MS):
        shard.clock.advance(wait)
        shard.worker.tick()
        shard.event()
        shard.worker.tick()
        assert shard.worker.is_saved
        assert shard.counted.requests["v"]
        shard.pause()


def test_a_row_is_flushed_at_once_between_commits(shard: Counting) -> None:
    shard.event()
    shard.worker.tick()  # the commit
    shard.clock.advance(COMMIT_MS // 2)
    shard.worker.tick()
    shard.counted.requests.clear()
    shard.event()
    shard.worker.tick()
    assert shard.counted.requests["v"]
    assert not shard.worker.is_saved


def test_no_more_is_written_than_at_each_interval(shard: Counting) -> None:
    """However fast events come."""
    began, writes, positions = shard.clock.now_ms(), 0, set[str]()
    for _ in range(1_500):
        shard.clock.advance(100)
        shard.event()
        before = shard.counted.requests["v"]
        shard.worker.tick()
        writes += shard.counted.requests["v"] > before
        positions.add(shard.worker.entry.position)
    passed_ms = shard.clock.now_ms() - began
    assert 2 <= len(positions) <= passed_ms // COMMIT_MS + 1
    assert passed_ms // FLUSH_MS // 2 < writes <= passed_ms // FLUSH_MS + 1


@pytest.mark.parametrize(("took_ms", "pause_ms"), [(2 * COMMIT_MS - 1,) * 2, (9 * COMMIT_MS, 2 * COMMIT_MS)])
def test_between_flushes_records_are_read_for_as_long_as_the_last_one_took(
    shard: Counting, took_ms: int, pause_ms: int
) -> None:
    """A view of many rows, or a slow table: else it would be flushed all the time. No longer than others wait before
    they take the owner for gone."""
    write = shard.worker.context.ports.views.write
    shard.worker.context.ports.views.write = lambda *some: (shard.clock.advance(took_ms), write(*some))[1]  # type: ignore[method-assign,func-returns-value]  # a slow table
    shard.event()
    shard.worker.tick()
    assert shard.worker.is_saved
    shard.event()
    shard.clock.advance(pause_ms - 1)
    shard.counted.requests.clear()
    shard.worker.tick()
    assert not shard.counted.requests["v"]
    shard.clock.advance(1)
    shard.worker.tick()
    assert shard.worker.is_saved


def test_a_quiet_shard_asks_for_next_to_nothing(shard: Counting) -> None:
    """Once an interval whether a view is to begin: a read, and no write."""
    for _ in range(3_000):
        shard.clock.advance(100)
        shard.worker.tick()
    assert shard.counted.requests["v"] == 0
    assert shard.counted.requests["l"] <= 300_000 // COMMIT_MS + 1
