"""No cut of the rows, order of merging, snapshot or compaction shows in any bit, and the values are right."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import aggregates as agg
from headwater.aggregates import Aggregate, merging
from headwater.aggregates.columns import Columns
from headwater.errors import UsageError

EVERY = (
    agg.count(),
    *(make(field) for make in (agg.sum, agg.mean, agg.variance) for field in ("x", "i")),
    *(make(field) for make in (agg.min, agg.max, agg.first, agg.last, agg.distinct) for field in ("x", "i", "s", "t")),
    agg.min("b"),
    agg.quantile("x", 0.5),
    agg.quantile("x", 0.99),
)
SLOTS = 4

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-1e150, max_value=1e150),
    st.sampled_from([0.0, -0.0, 0.1, 0.2, 0.3, 1e16, -1e16]),
)
events = st.lists(
    st.fixed_dictionaries(
        {
            "slot": st.integers(0, SLOTS - 1),
            "ts": st.integers(0, 5),
            "x": st.none() | numbers,
            "i": st.none() | st.integers(-(2**63), 2**63 - 1),
            "s": st.none() | st.text(max_size=3) | st.text("\0", max_size=3),  # NULs: a sketch passes over empty texts
            "t": st.none() | st.integers(0, 10**12),
            "b": st.none() | st.booleans(),
        }
    ),
    max_size=30,
)
SCHEMA = pa.schema(
    {"x": pa.float64(), "i": pa.int64(), "s": pa.string(), "t": pa.timestamp("ms", "UTC"), "b": pa.bool_()}
)


def fold(state: Columns, rows: Sequence[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist([{name: row[name] for name in SCHEMA.names} for row in rows], SCHEMA)
    state.fold(np.array([r["slot"] for r in rows], np.int64), table, np.array([r["ts"] for r in rows], np.int64))


def folded(aggregates: Sequence[Aggregate], *calls: Sequence[dict[str, Any]]) -> Columns:
    state = Columns(aggregates)
    state.grow(SLOTS)
    for rows in calls:
        fold(state, rows)
    return state


def everything(state: Columns) -> list[bytes]:
    return state.partials(np.arange(len(state)))


@given(events, st.lists(st.integers(0, 30), max_size=5))
def test_no_cut_into_calls_shows(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    """Any cut of the rows into calls, empty calls included, leaves the same bytes."""
    edges = [0, *sorted(cuts), len(rows)]
    pieces = [rows[a:b] for a, b in itertools.pairwise(edges)]
    assert everything(folded(EVERY, *pieces)) == everything(folded(EVERY, rows[: edges[-2]], rows[edges[-2] :]))
    assert everything(folded(EVERY, *([row] for row in rows))) == everything(folded(EVERY, rows))


@given(events, events)
def test_no_snapshot_load_or_compaction_shows(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """A state restored from its table, loaded from partials, or compacted and regrown folds on to the same bytes."""
    straight = folded(EVERY, before)
    restored = Columns.from_table(EVERY, straight.to_table())
    loaded = folded(EVERY)
    for at, partial in enumerate(everything(straight)):
        loaded.load(at, partial)
    kept = folded(EVERY, before)
    kept.grow(500)
    kept.keep(np.arange(SLOTS))
    for state in (straight, restored, loaded, kept):
        everything(state)  # reading changes nothing either
        fold(state, after)
    assert everything(restored) == everything(straight)
    assert everything(loaded) == everything(straight)
    assert everything(kept) == everything(straight)


@given(events)
def test_keep_moves_slots(rows: list[dict[str, Any]]) -> None:
    """Slot idx[j] becomes slot j."""
    state = folded(EVERY, rows)
    before = everything(state)
    state.keep(np.array([2, 0]))
    assert everything(state) == [before[2], before[0]]
    state.grow(3)
    assert state.partial(2) == empty_partial()


def empty_partial() -> bytes:
    return folded(EVERY).partial(0)


@given(events, st.randoms(use_true_random=False))
def test_merging_is_commutative_and_associative(rows: list[dict[str, Any]], chance: random.Random) -> None:
    """Merging partials in any order and grouping gives the same bytes, floats and sketches included."""
    partials = everything(folded(EVERY, rows))
    expected = merging.merge(EVERY, partials)
    pool = list(partials)
    while len(pool) > 1:
        chance.shuffle(pool)
        size = chance.randint(2, len(pool))
        pool = [merging.merge(EVERY, pool[:size]), *pool[size:]]
    assert pool == [expected]


def close(found: object, expected: Any, scale: float) -> bool:
    if found is None or pd.isna(expected):
        return found is None and bool(pd.isna(expected))
    assert isinstance(found, int | float)
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12 * scale)


@given(events)
def test_merged_values_are_those_of_pandas(rows: list[dict[str, Any]]) -> None:
    """The slots merged are the batch computation over all rows."""
    merged = merging.values(EVERY, merging.merge(EVERY, everything(folded(EVERY, rows))))
    frame = pd.DataFrame(rows, columns=["slot", "ts", *SCHEMA.names])
    x, i = frame["x"].dropna().astype(float), [row["i"] for row in rows if row["i"] is not None]
    assert merged["count"] == len(rows)
    assert merged["i_sum"] == (sum(i) if i else None)
    assert merged["i_mean"] == (sum(i) / len(i) if i else None)
    assert (merged["i_min"], merged["i_max"]) == ((min(i), max(i)) if i else (None, None))
    scale = float(x.abs().sum())
    assert close(merged["x_sum"], math.fsum(x) if len(x) else None, scale)
    assert close(merged["x_mean"], math.fsum(x) / len(x) if len(x) else None, scale)
    assert close(merged["x_min"], x.min(), 0)
    assert close(merged["x_max"], x.max(), 0)
    assert close(merged["x_p50"], x.quantile(0.5), scale)
    words = [row["s"] for row in rows if row["s"] is not None]
    assert (merged["s_min"], merged["s_max"]) == ((min(words), max(words)) if words else (None, None))
    assert merged["s_distinct"] == len(set(words))
    assert merged["x_distinct"] == x.nunique()
    for field in ("s", "i"):
        timed = [(row["ts"], row[field]) for row in rows if row[field] is not None]
        assert merged[f"{field}_first"] == (min(timed)[1] if timed else None)
        assert merged[f"{field}_last"] == (max(timed)[1] if timed else None)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60), st.sampled_from([0.0, 1e9]))
def test_variance_keeps_its_digits(found: list[float], offset: float) -> None:
    """Far from zero, too, and across slots, the variance is that of the exact values."""
    rows = [dict.fromkeys(SCHEMA.names) | {"slot": at % 3, "ts": 0, "x": x + offset} for at, x in enumerate(found)]
    only = (agg.variance("x"),)
    value = merging.values(only, merging.merge(only, everything(folded(only, rows))))["x_variance"]
    exact = np.var([(x + offset) - offset for x in found], ddof=1)
    assert value == pytest.approx(exact, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("size", [1, 7, 255, 256, 20_000])
def test_large_sketches_are_deterministic_and_near(size: int) -> None:
    """Past every change of a sketch's form: cuts, snapshots and reads leave the same bytes, and errors are small."""
    rng = np.random.default_rng(size)
    x = rng.normal(size=20_000)
    table = pa.table({"x": x, "s": pa.array([f"w{one}" for one in rng.integers(0, 6000, len(x))])})
    slots, ts = rng.integers(0, 2, len(x)), np.arange(len(x))
    both = (agg.distinct("s"), agg.quantile("x", 0.9))
    whole, cut = Columns(both), Columns(both)
    whole.grow(2)
    whole.fold(slots, table, ts)
    cut.grow(2)
    for at in range(0, len(x) if size > 1 else 600, size):
        end = at + size if size > 1 or at < 599 else len(x)
        cut.fold(slots[at:end], table.slice(at, end - at), ts[at:end])
        if at % 3 == 0:
            everything(cut)
        if at % 5 == 0:
            cut = Columns.from_table(both, cut.to_table())
    assert everything(cut) == everything(whole)
    values = merging.values(both, merging.merge(both, everything(whole)))
    assert values["s_distinct"] == pytest.approx(len(set(table["s"].to_pylist())), rel=0.08)
    p90 = values["x_p90"]
    assert isinstance(p90, float)
    assert np.mean(x <= p90) == pytest.approx(0.9, abs=0.015)


def test_integer_sums_do_not_wrap() -> None:
    """Sums beyond 64 bits are exact."""
    rows = [dict.fromkeys(SCHEMA.names) | {"slot": 0, "ts": 0, "i": 2**63 - 1} for _ in range(5)]
    only = (agg.sum("i"),)
    assert merging.values(only, folded(only, rows).partial(0)) == {"i_sum": 5 * (2**63 - 1)}


def test_values_are_readable() -> None:
    """Timestamps and dates come out as ISO text, booleans as booleans."""
    table = pa.table(
        {
            "t": pa.array([1_762_160_400_123], pa.timestamp("ms", "UTC")),
            "d": pa.array([20_395], pa.date32()),
            "b": pa.array([True]),
            "s": pa.array(["a"]).dictionary_encode(),
            "f": pa.array([1.5], pa.float32()),
            "n": pa.array([None], pa.null()),
        }
    )
    wanted: tuple[Aggregate, ...] = (
        agg.max("t", "t"),
        agg.last("d", "d"),
        agg.first("b", "b"),
        agg.min("s", "s"),
        agg.sum("f", "f"),
    )
    wanted = (*wanted, agg.sum("n", "n"))
    state = Columns(wanted)
    state.grow(1)
    state.fold(np.array([0]), table, np.array([7]))
    expected = {"t": "2025-11-03T09:00:00.123Z", "d": "2025-11-03", "b": True, "s": "a", "f": 1.5, "n": None}
    assert merging.values(wanted, state.partial(0)) == expected
    assert merging.values(wanted, Columns.from_table(wanted, state.to_table()).partial(0)) == expected


def test_what_cannot_be_is_said_in_one_line() -> None:
    """Unknown columns, sums of text, a column that changes its type, another snapshot, a slot too many."""
    table, one = pa.table({"s": ["a"], "v": [1]}), np.array([0])

    def run(aggregate: Aggregate, *tables: pa.Table, slot: int = 0) -> Columns:
        state = Columns([aggregate])
        state.grow(1)
        for each in tables:
            state.fold(one + slot, each, one)
        return state

    with pytest.raises(UsageError, match="'w', which is not there: s, v"):
        run(agg.min("w"), table)
    with pytest.raises(UsageError, match="'s' holds str values"):
        run(agg.sum("s"), table)
    with pytest.raises(UsageError, match="was int and is now float"):
        run(agg.max("v"), table, pa.table({"v": [1.5]}))
    with pytest.raises(UsageError, match="aggregates were changed"):
        Columns.from_table([agg.count()], run(agg.min("v"), table).to_table())
    with pytest.raises(IndexError):
        run(agg.count(), table, slot=1)
    with pytest.raises(UsageError, match="two aggregates"):
        Columns([agg.count(), agg.min("v", "count")])
    with pytest.raises(UsageError, match="between 0 and 1"):
        agg.quantile("v", 50)
    with pytest.raises(ValueError, match="were the view's aggregates changed"):
        merging.values([agg.count()], run(agg.min("v"), table).partial(0))


def test_merged_partials_are_not_folded_into() -> None:
    """Loading a merge would lose what makes it exact."""
    only = (agg.variance("x"),)
    rows = [dict.fromkeys(SCHEMA.names) | {"slot": at % 2, "ts": 0, "x": 0.1} for at in range(4)]
    state = folded(only, rows)
    with pytest.raises(ValueError, match="load the partial of one slot"):
        state.load(3, merging.merge(only, everything(state)))
