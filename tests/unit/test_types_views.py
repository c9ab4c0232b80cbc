"""Views of decimals, UUIDs and fine times: exact, whatever the cuts, and the same as counted a second time."""

import builtins
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates import (
    Aggregate,
    count,
    distinct,
    first,
    last,
    max,
    mean,
    min,
    quantile,
    sum,
    variance,
)
from headwater.aggregates.columns import Columns
from headwater.aggregates.merging import merge, values
from headwater.codec import encode_batch, event_json
from headwater.contract import conform, parse_contract, validate_row
from headwater.errors import UsageError
from headwater.processors.audit.places import place_hash, places_of
from headwater.processors.audit.recount import Recount
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.rebuild.recompute import equal_values
from headwater.producers.lanes import by_lane, lane_of
from headwater.sinks.views.rows import ViewRows
from tests.total_shard import DEVICES, START, Shard

BIG = Decimal(10) ** 28 - 1
COLUMNS: dict[str, tuple[pa.DataType, Any]] = {
    "d": (pa.decimal128(38, 10), st.decimals(-BIG, BIG, places=10, allow_nan=False)),
    "u": (pa.binary(16), st.uuids().map(lambda one: one.bytes)),
    "t": (pa.time64("us"), st.times()),
    "m": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
}
OF_ANY = [make(name) for name in COLUMNS for make in (min, max, first, last, distinct)]
ALL = (count(), *OF_ANY, sum("d"), mean("d"))
rows_of = st.lists(
    st.fixed_dictionaries({name: st.none() | strategy for name, (_, strategy) in COLUMNS.items()}),
    min_size=1,
    max_size=8,
)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, (kind, _) in COLUMNS.items()})


def folded(rows: pa.Table, times: list[int], through_snapshot: bool = False) -> Columns:
    state = Columns(ALL)
    state.grow(1)
    for at in range(rows.num_rows):
        state.fold(np.zeros(1, np.int64), rows.slice(at, 1), np.array(times[at : at + 1]))
        if through_snapshot:
            state = Columns.from_table(ALL, state.to_table())
    return state


def written(value: Any) -> Any:
    if isinstance(value, bytes):
        return str(UUID(bytes=value))
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, time) else format(value, "f") if isinstance(value, Decimal) else value


@settings(max_examples=25)
@given(rows_of, rows_of)
def test_no_cut_snapshot_or_merge_shows_and_values_are_exact(
    one: list[dict[str, Any]], other: list[dict[str, Any]]
) -> None:
    rows = table(one)
    times = [7 * at % 3 for at in range(len(one))]
    whole = Columns(ALL)
    whole.grow(1)
    whole.fold(np.zeros(len(one), np.int64), rows, np.array(times))
    assert whole.partial(0) == folded(rows, times).partial(0) == folded(rows, times, through_snapshot=True).partial(0)
    two = folded(table(other), [1] * len(other)).partial(0)
    merged = merge(ALL, [whole.partial(0), two])
    assert merged == merge(ALL, [two, whole.partial(0)])
    got = values(ALL, merged)
    for name in COLUMNS:
        there = [row[name] for row in one + other if row[name] is not None]
        assert got[f"{name}_min"] == (written(builtins.min(there)) if there else None)
        assert got[f"{name}_max"] == (written(builtins.max(there)) if there else None)
    decimals = [Fraction(row["d"]) for row in one + other if row["d"] is not None]
    assert got["d_sum"] is None if not decimals else Fraction(str(got["d_sum"])) == builtins.sum(decimals)
    assert got["d_mean"] is None if not decimals else got["d_mean"] == float(builtins.sum(decimals) / len(decimals))
    again = Recount(ALL, {})
    again.take(np.zeros(len(one), np.uint64), rows, np.array(times))
    for aggregate in (*OF_ANY, sum("d"), mean("d")):
        right, stored = again.value(0, aggregate), values(ALL, whole.partial(0))[aggregate.name]
        if aggregate.function != "distinct":
            assert equal_values(right, stored), (aggregate, right, stored)


TEXT = """
{name: c, version: 1, key: u, time: m, fields: [
  {name: u, type: uuid}, {name: m, type: timestamp_us}, {name: d, type: 'decimal(9, 2)'}, {name: t, type: time},
  {name: b, type: binary, required: false}]}
"""
CONTRACT = parse_contract(TEXT, "c")


def of(**aggregates: Aggregate) -> Pipeline:
    by, options = ["u", "d", "t"], dict[str, Any](aggregates)
    return Pipeline("t", CONTRACT).view("v", by=by, window=tumbling("1m"), n=count(), **options).lake("t")


def test_rows_of_a_view_have_keys_as_text() -> None:
    """From a batch through a shard to the store; and the audit names the same places."""
    pipeline = of(s=sum("d"), q=quantile("d", 0.5), v=variance("d"), first=first("m"))
    shard, moment = Shard(pipeline), datetime.fromtimestamp(START / 1000, UTC) + timedelta(microseconds=5)
    rows = {
        "u": [UUID(int=1)] * 2,
        "m": [moment, moment],
        "d": [Decimal("1.20")] * 2,
        "t": [time(1), time(1)],
        "b": [b"x", None],
    }
    table = conform(CONTRACT, pa.table(rows)).table
    shard.put(encode_batch(table, CONTRACT, origin="o", first_seq=0))
    shard.commit()
    shard.check()
    (row,) = ViewRows(shard.db, "v").rows(pipeline.views[0].spec)
    wanted = {"u": str(UUID(int=1)), "d": "1.20", "t": "01:00:00", "s": "2.40", "n": 2, "q": 1.2, "v": 0.0}
    assert {name: row[name] for name in wanted} == wanted
    assert row["first"] == moment.isoformat().replace("+00:00", "Z")
    places = places_of(pipeline.views[0], table, np.array([START, START]))
    assert places.place(0) == (f"{UUID(int=1)}|1.20|01:00:00", START // 60_000 * 60_000)
    assert int(places.hash[0]) == place_hash(places.place(0))
    assert shard.letters() == []


@pytest.mark.parametrize(
    ("define", "reason"),
    [
        (lambda: of(x=max("b")), "needs a column of texts, times, UUIDs, numbers or booleans, and 'b' is binary"),
        (lambda: of(x=sum("u")), "and 'u' is uuid"),
        (lambda: of(x=mean("t")), "and 't' is time"),
        (lambda: of(x=sum("m")), "and 'm' is timestamp_us"),
        (lambda: Pipeline("t", CONTRACT).view("v", by=["b"], n=count()), "'b' is binary, which cannot be a key"),
        (lambda: Pipeline("t", CONTRACT).view("v", by=["u"], n=count()).lake("t", buckets=4), "have buckets"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_defined(define: Any, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        define()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_of_json_becomes_the_same_row() -> None:
    """And one with a digit too many is a dead letter that says so."""
    shard = Shard(of(s=sum("d")))
    good = b'{"u": "%s", "m": "2026-03-01T12:00:00.000005Z", "d": 1.20, "t": "01:00:00", "b": "AA=="}'
    shard.put(good % str(UUID(int=1)).encode(), good.replace(b"1.20", b"1.205") % str(UUID(int=1)).encode())
    shard.commit()
    shard.check()
    (letter,) = shard.letters()
    assert letter.reason == "field d: 1.205 does not fit decimal(9, 2), and nothing is rounded"


KEYS: dict[str, list[Any]] = {
    "uuid": [UUID(int=(1 << 128) - 1), UUID("80ff00c3-28a0-4c1b-9fff-fefdfcfb0001")],
    "decimal(9, 8)": [Decimal("0E-8"), Decimal("-0.00000001")],
    "time": [time(23, 59, 59, 999_999), time(1)],
    "timestamp_us": [datetime(2026, 3, 1, 12, 0, 0, 7, UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)],
    "timestamp": [datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 13, tzinfo=UTC)],
    "date": [datetime(2026, 3, 1, tzinfo=UTC).date(), datetime(2026, 3, 2, tzinfo=UTC).date()],
    "boolean": [True, False],
    "double": [1.5, -0.5],
    "long": [1, 2],
    "string": ["a|b", "\\N"],
}


@pytest.mark.parametrize("kind", KEYS)
def test_every_type_of_key_goes_through_a_shard(kind: str) -> None:
    """Joined, grouped, counted, measured, snapshotted, written and read; each key has one row, under one text."""
    fields = f"{{name: k, type: '{kind}'}}, {{name: m, type: timestamp_us}}"
    contract = parse_contract(f"{{name: c, version: 1, key: k, time: m, fields: [{fields}]}}", "c")
    made = Pipeline("t", contract).enrich(DEVICES, on="k").view("v", by=["k"], n=count(), a=distinct("k"), z=last("k"))
    shard, moment = Shard(made.lake("t")), datetime.fromtimestamp(START / 1000, UTC)
    column = pa.array(KEYS[kind] * 2, contract.arrow_schema.field("k").type)
    table = conform(contract, pa.table({"k": column, "m": [moment] * 4})).table
    shard.put(encode_batch(table, contract, origin="o", first_seq=0), *event_json(table.slice(0, 2)))
    shard.commit()
    shard.check()
    assert shard.letters() == []
    rows = list(ViewRows(shard.db, "v").rows(made.views[0].spec))
    assert [row["n"] for row in rows] == [3, 3]
    assert len({str(row["k"]) for row in rows}) == 2
    assert all(row["a"] == 1 for row in rows)
    places = places_of(made.views[0], table, np.array([START] * 4))
    assert set(places.keys.to_pylist()) == set(ViewRows(shard.db, "v").keys(made.views[0].spec))
    shard.worker = shard.claim()
    shard.put(encode_batch(table, contract, origin="p", first_seq=0))
    shard.commit()
    assert [row["n"] for row in ViewRows(shard.db, "v").rows(made.views[0].spec)] == [5, 5]
    lanes = {lane: part.num_rows for lane, part in by_lane(table, "k", 16)}
    alone = [lane_of(validate_row(contract, {"k": key, "m": moment})["k"], 16) for key in KEYS[kind] * 2]
    assert lanes == {lane: alone.count(lane) for lane in alone}
