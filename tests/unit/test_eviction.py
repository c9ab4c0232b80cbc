"""A slot that has left the state is entered by no event: else its next write would replace what was counted before."""

import numpy as np
import pyarrow as pa
import pytest

from headwater import aggregates as agg
from headwater.clock import HOUR_MS
from headwater.contract import Contract, Field
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import hopping, tumbling
from headwater.processors.operators.aggregate import Partial, ViewState

MINUTE = 60_000
LATENESS = 2 * MINUTE
CONTRACT = Contract("reading", 1, (Field("device", "string"), Field("ts", "timestamp")), key="device", time="ts")
TUMBLING, HOPPING = (
    Pipeline("p", CONTRACT, allowed_lateness="2m").view("v", by=["device"], window=window, n=agg.count()).views[0]
    for window in (tumbling("1m"), hopping("2m", every="1m"))
)


def fold(state: ViewState, ts: int, max_ts_before: int, record: int) -> None:
    """One event, of the `record`-th record."""
    table = pa.table({"device": ["a"], "ts": pa.array([ts]).cast(pa.timestamp("ms", "UTC"))})
    versions = np.array([f"{record:056d}"], "S56")
    state.fold(table, np.array([ts]), np.array([max_ts_before]), versions, np.array([0]))


def written(state: ViewState) -> set[tuple[int | None, int]]:
    """Write what is dirty; which slots that were."""
    found: list[Partial] = state.dirty()
    state.clean()
    return {(one.window_start_ms, one.bucket) for one in found}


def slots(state: ViewState) -> set[tuple[int | None, int]]:
    """Those that are in the state."""
    state.mark_all()
    return written(state)


@pytest.mark.parametrize("view", [TUMBLING, HOPPING])
@pytest.mark.parametrize("off", [-1, 0, 1])
@pytest.mark.parametrize("start", [10 * MINUTE, HOUR_MS - MINUTE, HOUR_MS])
def test_an_evicted_slot_is_never_entered_again(view: object, off: int, start: int) -> None:
    """At the very millisecond in which a window's end meets the watermark, and one before and behind it."""
    state = ViewState(view, LATENESS)  # type: ignore[arg-type]  # each of them is a view
    fold(state, start, start, 1)
    before = written(state)
    max_ts = start + MINUTE + LATENESS + off
    state.evict(max_ts)
    gone = before - slots(state)
    fold(state, start, max_ts, 2)
    assert not gone & slots(state), "its second write has the later event alone, and replaces the first"


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_late_bucket_is_evicted_once_the_watermark_has_left_its_hour(off: int) -> None:
    """And not before: the hour's last late event would begin the bucket anew."""
    state = ViewState(TUMBLING, LATENESS)
    max_ts = 2 * HOUR_MS + LATENESS - 1
    fold(state, MINUTE, max_ts, 1)
    before = written(state)
    assert before == {(MINUTE, 1)}
    later = max_ts + 1 + off
    state.evict(later)
    gone = before - slots(state)
    assert bool(gone) == (off >= 0)
    fold(state, MINUTE, later, 2)
    assert not gone & slots(state)


def test_what_was_not_written_stays() -> None:
    """However far the watermark is."""
    state = ViewState(TUMBLING, LATENESS)
    fold(state, MINUTE, MINUTE, 1)
    assert state.evict(100 * HOUR_MS) == 0
    assert written(state) == {(MINUTE, 0)}
    assert state.evict(100 * HOUR_MS) == 1
