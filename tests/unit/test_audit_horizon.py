"""The audit after months: shards forget an origin 30 days after its last event, and the lake keeps its rows."""

from collections.abc import Iterable

import pyarrow as pa
import pytest

from headwater.codec import encode_control
from headwater.lineage.origins import OriginSets
from headwater.processors.audit.audit import audit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.stream.record import StreamRecord

DAY = 86_400_000
PIPELINE = Pipeline("p", "telemetry").lake("t")
Row = tuple[str, int, int]
"""Origin, number, and the day of arrival."""


def lake(rows: Iterable[Row]) -> list[pa.RecordBatch]:
    """Rows as the lake has them."""
    listed = list(rows)
    return [
        pa.record_batch(
            {
                "_origin": pa.array([origin for origin, _, _ in listed], pa.string()),
                "_seq": pa.array([seq for _, seq, _ in listed], pa.int64()),
                "_arrived_at": pa.array([day * DAY for _, _, day in listed], pa.timestamp("ms", "UTC")),
            }
        )
    ]


def shard(rows: Iterable[Row]) -> ShardState:
    """A shard that has read these rows, committed and taken up again after each."""
    state = ShardState(PIPELINE)
    for origin, seq, day in rows:
        state.seen.add_intervals(origin, [(seq, seq + 1)], day * DAY)
        state.max_arrived = max(state.max_arrived, day * DAY)
        state = ShardState.loads(PIPELINE, state.dumps())
    return state


def test_sessions_of_which_nothing_came_for_thirty_days_are_not_unexpected() -> None:
    """A deploy a day for 40 days: every event is in the lake once, and the audit is exact."""
    rows = [(f"process of day {day}", seq, day) for day in range(40) for seq in range(10)]
    report = audit("p", [], [shard(rows)], lake(rows))
    assert report.exact
    assert (report.in_lake, report.missing, report.unexpected) == (400, 0, 0)
    assert report.expired == 10 * sum(39 - day > 30 for day in range(40))


def test_what_no_shard_has_processed_is_unexpected_within_the_horizon() -> None:
    """The horizon pardons what is old, and nothing else."""
    rows = [("known", seq, 40) for seq in range(5)]
    strange = [("stranger", 7, 40), ("stranger", 8, 1)]
    report = audit("p", [], [shard(rows)], lake([*rows, *strange]))
    (one,) = [found for found in report.origins if found.origin == "stranger"]
    assert one.unexpected == ((7, 8),)
    assert one.expired == 1
    assert not report.exact


def test_a_copy_taken_after_its_origin_was_forgotten_is_a_copy() -> None:
    """Sent again after months it is in the lake twice, whatever the shards remember."""
    rows = [("o", 0, 1), ("o", 0, 40)]
    report = audit("p", [], [shard(rows)], lake(rows))
    assert report.duplicates == 1
    assert not report.exact


@pytest.mark.parametrize(("day", "missing"), [(1, 0), (39, 3)])
def test_an_idle_shard_remembers_receipts_that_the_busy_one_has_forgotten(day: int, missing: int) -> None:
    """A receipt is on every shard; one that has been idle since keeps it for good, and proves no loss after months."""
    idle = ShardState(PIPELINE)
    idle.accepted.add_intervals("o", [(0, 3)], day * DAY)
    idle.max_arrived = day * DAY
    busy = [("other", seq, 2 + seq) for seq in range(39)]
    report = audit("p", [], [idle, shard(busy)], lake(busy))
    assert report.missing == missing


@pytest.mark.parametrize("lost", [0, 2])
def test_an_origin_that_comes_back_after_months_is_judged_by_what_is_recent(lost: int) -> None:
    """With ids of its own. A shard that has ended knows receipts for good, the one with the events does not."""
    ended = ShardState(PIPELINE)
    ended.accepted.add_intervals("o", [(0, 3)], DAY)
    ended.max_arrived = DAY
    rows = [*(("o", seq, 1) for seq in range(3)), ("o", 7, 40)]
    busy = shard(rows[3:])
    busy.accepted.add_intervals("o", [(7, 8 + lost)], 40 * DAY)
    report = audit("p", [], [ended, busy], lake(rows))
    assert (report.missing, report.exact) == (lost, not lost)


def test_a_receipt_after_months_does_not_make_those_before_it_recent() -> None:
    """On a shard that has none of the origin's events, whatever is committed in between."""
    for commits in (False, True):
        state = ShardState(PIPELINE)
        for day, span in [(1, [0, 3]), (20, [3, 5]), (60, [7, 8])]:
            body = {"contract": PIPELINE.contract.name, "intervals": {"o": [span]}}
            record = StreamRecord("shard-1", str(1000 + day), day * DAY, "k", encode_control("receipt", body))
            Engine(PIPELINE, "shard-1", state, pytest.fail).process([record])  # type: ignore[arg-type]  # loads no reference
            if commits:
                state = ShardState.loads(PIPELINE, state.dumps())
            assert list(state.accepted.get("o")) == {1: [(0, 3)], 20: [(0, 5)], 60: [(7, 8)]}[day]


def test_the_horizon_is_that_of_the_sets() -> None:
    """The audit judges by the horizon that the shards forget by."""
    assert ShardState(PIPELINE).seen.horizon_ms == OriginSets().horizon_ms == 30 * DAY
