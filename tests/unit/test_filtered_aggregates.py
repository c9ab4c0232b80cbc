"""Aggregates of the rows for which a condition is true: equal to a batch computation, a recount and every cut."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import Pipeline, hopping, tumbling
from headwater.aggregates import count, distinct, first, last, max, mean, min, quantile, sum, variance
from headwater.aggregates.columns import Columns
from headwater.aggregates.merging import merge, values
from headwater.arrays import times
from headwater.errors import UsageError
from headwater.processors.audit.places import place_hash, places_of
from headwater.processors.audit.recount import Recount
from headwater.processors.definition.parts import View
from headwater.processors.rebuild.recompute import batch_view, differences, enriched
from headwater.processors.viewtables.rows import definition_of
from headwater.testing import run_pipeline

WHERE = "value > 10 and metric = 'x'"
MINUTE = 60_000
START = 1_772_366_400_000
AGGREGATES: dict[str, Any] = {
    "n": count(),
    "high": count(where=WHERE),
    "none": count(where="value > 1e9"),
    "all": count(where="true"),
    "total": sum("value", where=WHERE),
    "rest": sum("value", where="not (value > 10 and metric = 'x')"),
    "low": min("value", where=WHERE),
    "top": max("value", where=WHERE),
    "average": mean("value", where=WHERE),
    "plain": mean("value"),
    "scatter": variance("value", where=WHERE),
    "begin": first("value", where=WHERE),
    "end": last("metric", where="value > 10"),
    "metrics": distinct("metric", where="value > 10"),
    "median": quantile("value", 0.5, where=WHERE),
}
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "device": st.sampled_from("ab"),
            "metric": st.sampled_from("xyz"),
            "ts": st.integers(START, START + 5 * MINUTE),
            "value": st.integers(-20, 40).map(float),
        }
    ),
    min_size=1,
    max_size=30,
)


def pipeline(window: Any = None) -> Pipeline:
    return Pipeline("plant", contract="telemetry").view("v", by=["device"], window=window, **AGGREGATES).lake("plant")


class TestFilteredAggregates:
    @pytest.mark.parametrize("window", [None, tumbling("1m"), hopping("2m", every="1m")])
    @settings(max_examples=15)
    @given(events=EVENTS)
    def test_rows_are_those_of_a_batch_and_of_a_recount(self, window: Any, events: list[dict[str, Any]]) -> None:
        plant = pipeline(window)
        run = run_pipeline(plant, events)
        view = plant.views[0]
        lake = run.lake.select(plant.schema.names)
        assert differences(view, batch_view(plant, view, enriched(plant, lake, {})), run.views["v"]) == []
        ts = times(lake, "ts")
        places = places_of(view, lake, ts)
        stored = {place_hash(place_of(row)): row for row in run.views["v"]}
        again = Recount(view.aggregates, stored)
        again.take(places.hash, lake.take(pa.array(places.at)), ts[places.at])
        for number, row in stored.items():
            for one in view.aggregates:
                if one.function not in ("quantile", "distinct"):
                    assert again.value(number, one) == pytest.approx(row[one.name]), one

    @settings(max_examples=25)
    @given(events=EVENTS, cuts=st.lists(st.integers(0, 30), max_size=4))
    def test_partials_are_the_same_however_rows_are_cut_and_kept(
        self, events: list[dict[str, Any]], cuts: Sequence[int]
    ) -> None:
        aggregates = tuple(one.named(name) for name, one in AGGREGATES.items())
        table = pa.Table.from_pylist(events)
        whole, parts = Columns(aggregates), Columns(aggregates)
        slots, ts = np.zeros(len(events), np.int64), table["ts"].to_numpy()
        whole.grow(1)
        parts.grow(1)
        whole.fold(slots, table, ts)
        bounds = sorted({0, len(events), *(one for one in cuts if one < len(events))})
        for start, stop in pairwise(bounds):
            parts.fold(slots[start:stop], table.slice(start, stop - start), ts[start:stop])
            parts = Columns.from_table(aggregates, parts.to_table())
        assert parts.partial(0) == whole.partial(0)
        doubled = values(aggregates, merge(aggregates, [whole.partial(0), whole.partial(0)]))
        assert doubled["high"] == 2 * int(str(values(aggregates, whole.partial(0))["high"]))

    def test_another_condition_is_another_aggregate_to_a_snapshot(self) -> None:
        table = Columns((count(where="value > 1"),)).to_table()
        with pytest.raises(UsageError, match="aggregates were changed"):
            Columns.from_table((count(where="value > 2"),), table)

    def test_another_condition_is_another_definition_of_a_table_in_the_lake(self) -> None:
        plain, one, other = (
            definition_of(View("v", ("device",), (count("n", where=where),), tumbling("1h")))
            for where in (None, "value > 1", "value > 2")
        )
        assert plain["values"] == [["n", "count", None, []]]  # as tables say that are there
        assert one != plain
        assert one != other

    def test_two_conditions_of_one_field_do_not_share_state(self) -> None:
        two = (sum("value", "a", where="value > 1"), sum("value", "b", where="value > 2"), count("c"))
        state = Columns(two)
        state.grow(1)
        state.fold(np.zeros(3, np.int64), pa.table({"value": [1.0, 2.0, 3.0]}), np.zeros(3, np.int64))
        assert values(two, state.partial(0)) == {"a": 5.0, "b": 3.0, "c": 3}

    def test_nothing_that_fits_counts_zero_and_sums_to_null(self) -> None:
        run = run_pipeline(pipeline(), [{"device": "a", "metric": "y", "ts": START, "value": 1.0}])
        row = run.views["v"][0]
        assert (row["n"], row["high"], row["total"], row["metrics"]) == (1, 0, None, 0)

    def test_a_condition_that_does_not_fit_is_refused_where_it_is_defined(self) -> None:
        with pytest.raises(UsageError, match=r"view v: high: expression .*did you mean value"):
            Pipeline("plant", contract="telemetry").view("v", by=[], high=count(where="valu > 1"))


def place_of(row: dict[str, Any]) -> tuple[str, int | None]:
    start = row.get("window_start")
    return row["device"], None if start is None else round(datetime.fromisoformat(start).timestamp() * 1000)
