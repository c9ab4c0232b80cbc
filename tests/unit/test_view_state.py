"""The state of a view is the same however its events are cut into calls, whether calls are small or large beside it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.aggregates import count, last, mean
from headwater.contract import Contract, Field
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import Window, hopping, tumbling
from headwater.processors.operators.aggregate import Partial, ViewState

FIELDS = (Field("device", "string"), Field("ts", "timestamp"), Field("value", "double"), Field("note", "string"))
CONTRACT = Contract("reading", 1, FIELDS, key="device", time="ts")


def state_of(window: Window | None) -> ViewState:
    pipeline = Pipeline("p", CONTRACT).view("v", by=["device"], window=window, n=count(), m=mean("value"), l=last("ts"))
    return ViewState(pipeline.views[0], 0)


def fold(state: ViewState, devices: list[int], first: int) -> None:
    """An event each, a second apart, each of a record of its own; the first is the `first`-th of all."""
    ts = np.arange(first, first + len(devices)) * 1_000
    table = pa.table(
        {
            "device": [f"d{number}" for number in devices],
            "ts": pa.array(ts).cast(pa.timestamp("ms", "UTC")),
            "value": ts / 7,
            "note": ["other columns"] * len(devices),
        }
    )
    versions = np.array([f"{first + at:056d}" for at in range(len(devices))], "S56")
    state.fold(table, ts, np.zeros(len(devices), np.int64), versions, np.arange(len(devices)))


def content(state: ViewState) -> list[Partial]:
    return sorted(state.dirty(), key=lambda one: (one.key, one.window_start_ms or 0, one.bucket))


@pytest.mark.parametrize("window", [None, tumbling("10s"), hopping("10s", every="5s")])
@given(more=st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_how_events_are_cut_into_calls_does_not_matter(window: Window | None, more: list[int]) -> None:
    """Also where the state has many times as many slots as the call has events."""
    together, one_by_one = state_of(window), state_of(window)
    for state in (together, one_by_one):
        fold(state, [*range(150)], 0)
        state.clean()
    fold(together, more, 150)
    for at, device in enumerate(more, 150):
        fold(one_by_one, [device], at)
    assert content(together) == content(one_by_one)
    assert {one.version for one in content(together)} <= {f"{150 + at:056d}" for at in range(len(more))}


def test_a_hopping_window_that_only_counts_needs_no_column() -> None:
    pipeline = Pipeline("p", CONTRACT).view("v", by=[], window=hopping("10s", every="5s"), n=count())
    state = ViewState(pipeline.views[0], 0)
    fold(state, [1, 2, 3], 0)
    assert {one.window_start_ms: one.partial for one in state.dirty()} == {-5_000: b"[3]", 0: b"[3]"}
