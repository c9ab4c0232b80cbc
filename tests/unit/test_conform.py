"""Tables of events, held to their contract."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.contract import (
    Field,
    conform,
    load_contract,
    validate_row,
)
from headwater.errors import InvalidEvent
from tests.contracts import EVERYTHING, GOOD, NOON


def good_table(**columns: Any) -> pa.Table:
    rows = max([len(column) for column in columns.values()], default=2)
    made: dict[str, Any] = {
        "device": pa.array(["a"] * rows),
        "seq": pa.array(range(rows), pa.int64()),
        "ts": pa.array([NOON] * rows, pa.timestamp("ms", "UTC")),
    }
    return pa.table(made | columns)


def test_a_table_that_fits_is_not_copied_and_strings_are_not_decoded() -> None:
    contract = load_contract("telemetry")
    for index in (pa.int8(), pa.int16(), pa.uint8(), pa.int32(), pa.int64()):
        coded = pa.array(["a", "b", "a"]).dictionary_encode().cast(pa.dictionary(index, pa.string()))
        columns: dict[str, Any] = dict.fromkeys(contract.arrow_schema.names, coded)
        columns["ts"] = pa.array([NOON] * 3, pa.timestamp("ms", "UTC"))
        columns["value"] = pa.array([1.0, 2.0, 3.0])
        table = pa.table(columns)
        assert conform(contract, table).table is table


def test_the_valid_rows_of_a_dictionary_column_stay_encoded() -> None:
    coded = pa.array(["good", "ugly", None, "bad"]).dictionary_encode()
    found = conform(EVERYTHING, good_table(status=coded))
    assert pa.types.is_dictionary(found.table["status"].type)
    assert found.table["status"].to_pylist() == ["good", None, "bad"]
    assert [(row.index, row.reason) for row in found.invalid] == [(1, 'field status: "ugly" is none of "good", "bad"')]


def test_a_dictionary_may_hold_values_that_no_row_has() -> None:
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array(["good", "ugly"]))
    assert conform(EVERYTHING, good_table(status=coded)).invalid == ()


def test_null_inside_a_dictionary_is_a_missing_value() -> None:
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array([None, "x"]))
    found = conform(EVERYTHING, good_table(device=coded))
    assert [row.index for row in found.invalid] == [0, 2]
    assert found.table["device"].null_count == 0
    assert found.table["device"].to_pylist() == ["x"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_of_any_unit_and_zone(unit: str, zone: str | None) -> None:
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    counts = [1769860800 * per, -1, 0]
    column = pa.array(counts, pa.int64()).cast(pa.timestamp(unit, zone))
    found = conform(EVERYTHING, good_table(ts=column))
    assert found.table["ts"].cast(pa.int64()).to_pylist() == [count * 1000 // per for count in counts]
    assert found.table["ts"].type == pa.timestamp("ms", "UTC")


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_times_beyond_the_years_are_invalid_not_a_crash(unit: str) -> None:
    column = pa.array([0, 2**63 - 1, -(2**63), None], pa.int64()).cast(pa.timestamp(unit, "UTC"))
    found = conform(EVERYTHING, good_table(ts=column))
    assert [row.index for row in found.invalid] == [1, 2, 3]
    assert "outside the years" in found.invalid[0].reason
    assert found.invalid[2].reason == "field ts: required, but missing or null"


def test_text_times_with_and_without_a_zone() -> None:
    zoned = ["2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00Z"]
    naive = ["2026-01-31T12:00:00", "2026-01-31 12:00"]
    for texts in (zoned, naive, zoned + naive):
        for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
            assert conform(EVERYTHING, good_table(ts=pa.array(texts).cast(kind))).table["ts"].to_pylist() == [
                NOON for _ in texts
            ]
    found = conform(EVERYTHING, good_table(ts=pa.array([*zoned, "soon", None])))
    assert [row.reason for row in found.invalid] == [
        'field ts: "soon" is no ISO 8601 time',
        "field ts: required, but missing or null",
    ]


def test_renamed_missing_and_reordered_columns() -> None:
    table = good_table().rename_columns(["device", "seq", "at"]).select(["at", "seq", "device"])
    found = conform(EVERYTHING, table.replace_schema_metadata({"a": "b"})).table
    assert found.schema == EVERYTHING.arrow_schema
    assert found.schema.metadata is None
    assert found["value"].null_count == 2


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (good_table().drop_columns(["seq"]), "field seq: required, but there is no such column"),
        (good_table(colour=pa.array(["red"])), 'field "colour" is not in contract everything v3'),
        (good_table(at=pa.array([1])), 'field "at" is not in contract'),
        (good_table(seq=pa.array(["1"])), "field seq: a column of string cannot be read as long"),
        (good_table(ts=pa.array([1.5])), "field ts: a column of double cannot be read as timestamp"),
        (good_table(device=pa.array([b"x"])), "field device: a column of binary cannot be read as string"),
        (good_table(value=pa.array([True])), "field value: a column of bool cannot be read as double"),
        (good_table(ok=pa.array([[True]])), "cannot be read as boolean"),
        (good_table().append_column("seq", pa.array([1, 2])), "two columns of that name"),
    ],
)
def test_a_table_that_is_wrong_as_a_whole(table: pa.Table, reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        conform(EVERYTHING, table)
    assert reason in str(caught.value)


def test_whole_numbers_in_float_fields_are_rounded_as_python_does() -> None:
    numbers = (Field("f", "float"), Field("d", "double"))
    contract = replace(EVERYTHING, fields=(*EVERYTHING.fields[:3], *numbers))
    for number in (2**53 + 1, 2**62 + 2**38 + 1, -(2**63), 16_777_217):
        column = pa.array([number], pa.int64())
        row = conform(contract, good_table(f=column, d=column)).table.to_pylist()[0]
        assert row == validate_row(contract, GOOD | {"f": number, "d": number, "seq": 0, "ts": NOON})


def test_a_bound_is_allowed_and_a_fraction_beyond_it_is_not() -> None:
    contract = replace(EVERYTHING, fields=(*EVERYTHING.fields[:3], Field("d", "double", minimum=0, maximum=1)))
    found = conform(contract, good_table(d=pa.array([0.0, 1.0, 1.25])))
    assert [row.index for row in found.invalid] == [2]
    assert [row.index for row in conform(contract, good_table(d=pa.array([-0.25, 1.0]))).invalid] == [0]


def test_the_edges_of_integers() -> None:
    edges = [2.0**63, -(2.0**63), 2.0**31, -(2.0**31), -0.0, 2.0**63 - 1024]
    contract = replace(
        EVERYTHING, fields=(*EVERYTHING.fields[:3], Field("n", "long"), Field("i", "int", required=False))
    )
    for edge in edges:
        for name, low, high in (("n", -(2**63), 2**63 - 1), ("i", -(2**31), 2**31 - 1)):
            columns = {"n": pa.array([0])} | {name: pa.array([edge])}
            found = conform(contract, good_table(**columns))
            exact = abs(edge) < 2**53  # beyond it a float may be another number's rounding
            assert bool(found.invalid) != (low <= edge <= high and exact), (name, edge)
    for value in (2**63, 2**64 - 1):
        found = conform(contract, good_table(n=pa.array([value, 1], pa.uint64())))
        assert [row.index for row in found.invalid] == [0]


def test_chunks_and_slices_count_rows_of_the_table() -> None:
    values = pa.chunked_array([[1.0, math.nan], [], [2.0, -50.0, None]])
    found = conform(EVERYTHING, good_table(value=values))
    assert [(row.index, row.reason) for row in found.invalid] == [
        (1, "field value: nan is not finite"),
        (3, "field value: -50.0 is below the minimum -40.5"),
    ]
    found = conform(EVERYTHING, good_table(value=values).slice(1, 3))
    assert [row.index for row in found.invalid] == [0, 2]
    assert found.table["value"].to_pylist() == [2.0]


def test_finite_numbers_whose_sum_is_not() -> None:
    assert conform(EVERYTHING, good_table(value=pa.array([1.7e308, 1.7e308]))).invalid == ()


def test_no_rows_at_all() -> None:
    assert conform(EVERYTHING, good_table().slice(0, 0)).table.num_rows == 0
    assert conform(EVERYTHING, EVERYTHING.arrow_schema.empty_table()).invalid == ()


TIMES = st.one_of(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30))])).map(datetime.isoformat),
    st.datetimes().map(lambda t: t.isoformat(" ", "milliseconds")),
    st.from_regex(
        r"\A(19|20|00|99)\d\d-[01]\d-[0-3]\d([T ][0-2]\d(:[0-6]\d(:[0-6]\d([.,]\d{1,8})?)?)?)?(Z|[+-]\d\d(:?\d\d)?)?\Z"
    ),
    st.text("0123456789-:TZ+. ", max_size=25),
)


COLUMNS: Mapping[str, st.SearchStrategy[Any]] = {
    "device": st.one_of(st.text(max_size=3), st.none()),
    "seq": st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**63 - 1)),
    "ts": st.sampled_from(["text", "ms"]),
    "ok": st.booleans() | st.none(),
    "count": st.one_of(st.integers(-(2**32), 2**32), st.integers(998, 1002), st.none()),
    "ratio": st.one_of(
        st.floats(width=64), st.floats(-0.05, 0.15), st.sampled_from([0.1, 0.10000000001, 0.0]), st.none()
    ),
    "value": st.one_of(st.floats(), st.integers(-(2**60), 2**60).map(float), st.none()),
    "day": st.one_of(st.dates().map(date.isoformat), st.text("0123456789-", max_size=11), st.none()),
    "status": st.sampled_from(["good", "bad", "ugly", "", None]),
    "level": st.integers(0, 3) | st.none(),
}


@st.composite
def json_columns(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Columns of JSON-like values, each of one JSON type as Arrow would read them."""
    rows = draw(st.integers(0, 6))
    made = {}
    for name, values in COLUMNS.items():
        if name == "ts":
            values = TIMES if draw(values) == "text" else st.integers(-(10**14), 10**15)
            values = values | st.none()
        elif name == "count" and draw(st.booleans()):
            values = st.floats() | st.integers(-5, 5).map(float) | st.none()
        if name in ("device", "seq", "ts") or draw(st.booleans()):
            made[name] = draw(st.lists(values, min_size=rows, max_size=rows))
    return made


@given(json_columns(), st.booleans())
def test_tables_and_rows_are_judged_alike(columns: dict[str, list[Any]], encode: bool) -> None:
    """The same rows are valid with the same values and the same reasons, however they come."""
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    if encode:
        coded = [c.dictionary_encode() if pa.types.is_string(c.type) else c for c in table.columns]
        table = pa.table(coded, names=table.column_names)
    valid, invalid = [], []
    for index, row in enumerate(zip(*columns.values(), strict=True)):
        try:
            valid.append(validate_row(EVERYTHING, dict(zip(columns, row, strict=True))))
        except InvalidEvent as error:
            invalid.append((index, str(error)))
    found = conform(EVERYTHING, table)
    assert [(row.index, row.reason) for row in found.invalid] == invalid
    assert found.table.to_pylist() == valid
    assert found.table.column_names == EVERYTHING.arrow_schema.names
