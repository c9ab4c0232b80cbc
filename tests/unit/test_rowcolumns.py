"""Events held to their contract a column at a time: what `validate_row` says of each by itself."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.contract import Contract, Field, parse_contract, validate_row
from headwater.contract.rowcolumns import conform_events, conform_rows
from headwater.contract.scalars import JsonNumber
from headwater.contract.selection import select_row
from headwater.errors import InvalidEvent
from tests.contracts import EVERYTHING

NESTED: list[Any] = []
for _ in range(3000):
    NESTED = [NESTED]

MORE = (
    Field("body", "json", required=False, max_bytes=12),
    Field("note", "string", required=False, max_bytes=6, was=("remark", "text")),
    Field("at_hour", "timestamp", required=False, format="%d.%m.%Y %H"),
    Field("sent", "timestamp", required=False, epoch="s"),
    Field("fine", "timestamp_us", required=False),
    Field("price", "decimal(9, 2)", required=False),
    Field("clock", "time", required=False),
    Field("uid", "uuid", required=False),
    Field("raw", "binary", required=False, max_bytes=8),
    Field("tags", "list<int>", required=False, max_bytes=9),
)
CONTRACT = replace(EVERYTHING, fields=(*EVERYTHING.fields, *MORE))
TIMES = [
    "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.5+01:00", "2026-01-31", "2026-13-31T12:00:00Z", "2026-01-31T12:00:00",
    "soon", "31.01.2026 12", "2026-01-31T12:00:00Z\n", "", "0001-01-01T00:00:00+14:00",
]  # fmt: skip
VALUES: st.SearchStrategy[object] = st.one_of(
    st.sampled_from(TIMES),
    st.sampled_from(TIMES[:2]),
    st.integers(0, 3),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=8),
    st.sampled_from(["good", "ugly", "\ud800", "x" * 2000, '{"a": 1}', b"raw", Decimal("1.50"), Decimal("NaN")]),
    st.sampled_from([np.int64(3), np.float32(0.5), np.datetime64("NaT"), np.str_("a"), date(2026, 1, 31)]),
    st.sampled_from([UUID(int=7), str(UUID(int=7)), time(13, 45), "13:45:00.5", "AAEC", JsonNumber("1.50"), "1.505"]),
    st.sampled_from([[], [1], [2**40, None], {}, {"a": [1]}, [None], NESTED]),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30))])),
    st.datetimes(),
)
NAMES = [name for field in CONTRACT.fields for name in (field.name, *field.was)]


@st.composite
def events(draw: st.DrawFn) -> list[Mapping[str, object]]:
    """Events that are alike but for some of their values, as a writer's are that errs."""
    usual = {"device": "a", "seq": 1, "ts": draw(st.sampled_from(TIMES) | st.integers(0, 2**41))}
    usual |= draw(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
    changes = st.dictionaries(st.sampled_from([*NAMES, "surplus"]), VALUES, max_size=2)
    return [usual | change for change in draw(st.lists(st.just({}) | changes, max_size=40))]


@settings(max_examples=150, deadline=None)
@given(events())
def test_what_is_said_of_many_is_what_is_said_of_each(rows: list[Mapping[str, object]]) -> None:
    """Valid ones have the same values, and the others the same reasons, whatever their neighbours are."""
    valid, reasons = [], {}
    for at, row in enumerate(rows):
        try:
            valid.append(validate_row(CONTRACT, row))
        except InvalidEvent as error:
            reasons[at] = str(error)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            reasons[at] = f"{type(error).__name__}: {error}"
    table, faults = conform_rows(CONTRACT, rows)
    said = {at: one if isinstance(one, str) else f"{type(one).__name__}: {one}" for at, one in faults.items()}
    assert {at: reason.replace(" while getting the repr of an object", "") for at, reason in said.items()} == {
        at: reason.replace(" while getting the repr of an object", "") for at, reason in reasons.items()
    }
    assert table.to_pylist() == valid
    assert table.schema == CONTRACT.arrow_schema


@pytest.mark.parametrize("name", ["device", "was_device"])
def test_a_text_is_as_long_as_may_be_by_whatever_name(name: str) -> None:
    """A key under an earlier name is bounded as under its own."""
    fields = (replace(EVERYTHING.fields[0], was=("was_device",)), *EVERYTHING.fields[1:])
    contract: Contract = replace(EVERYTHING, fields=fields)
    row = {name: "d" * 1_025, "seq": 1, "ts": TIMES[0]}
    with pytest.raises(InvalidEvent, match="1,025 bytes"):
        validate_row(contract, row)
    assert "1,025 bytes" in str(conform_rows(contract, [row] * 20)[1][7])


def test_no_events_at_all() -> None:
    """An empty table of the contract."""
    table, faults = conform_rows(EVERYTHING, [])
    assert (table.num_rows, table.schema, faults) == (0, EVERYTHING.arrow_schema, {})


def test_a_contract_of_two_fields_by_hand() -> None:
    """The first fault of an event counts, in the order of the fields; unknown fields come last."""
    contract = parse_contract(
        "{name: c, version: 1, key: k, time: t, fields: [{name: k, type: string}, {name: t, type: timestamp}]}", "here"
    )
    rows: list[dict[str, object]] = [
        {"k": "a", "t": TIMES[0]},
        {"k": 1, "t": "never", "x": 0},
        {"k": "a", "t": "never"},
        {"k": "a", "t": 5, "x": 0},
    ]
    table, faults = conform_rows(contract, rows)
    assert table.num_rows == 1
    assert faults == {
        1: "field k: 1 is no string",
        2: 'field t: "never" is no ISO 8601 time',
        3: "field t: 5 counted in ms is before 2000-01-01: is it in another unit? Name it in the contract with epoch, "
        "or an earlier date with earliest",
    }


PLACES = {"seq": ("n",), "ts": ("at",), "price": ("detail", "price"), "fine": ("detail", "at")}


@pytest.mark.parametrize("unknown", ["ignore", "refuse", "rest"])
@settings(max_examples=100, deadline=None)
@given(events(), st.data())
def test_fields_that_are_looked_for_are_found_in_many_as_in_each(
    unknown: str, rows: list[Mapping[str, object]], data: st.DataObject
) -> None:
    """Whatever the contract says of fields that it does not name, and wherever its own lie."""
    fields = tuple(replace(field, path=PLACES.get(field.name, ())) for field in CONTRACT.fields)
    fields += (Field("rest", "json", required=False),)
    contract = replace(CONTRACT, fields=fields, unknown=unknown)
    found: st.SearchStrategy[object] = st.dictionaries(st.sampled_from(["price", "at", "x"]), VALUES, max_size=3)
    moved: list[Mapping[str, object]] = []
    for row in rows:
        named = {".".join(PLACES.get(name, (name,))): value for name, value in row.items()}
        detail = {name[7:]: named.pop(name) for name in [*named] if name.startswith("detail.")}
        other: object = data.draw(found | VALUES)
        moved.append(named | ({"detail": detail or other} if data.draw(st.booleans()) else {}))
    valid, reasons = [], {}
    for at, event in enumerate(moved):
        try:
            valid.append(validate_row(contract, select_row(contract, event)))
        except (InvalidEvent, ValueError, TypeError, OverflowError, RecursionError) as error:
            reasons[at] = str(error).replace(" while getting the repr of an object", "")
    table, faults = conform_events(contract, moved)
    said = {at: str(one).replace(" while getting the repr of an object", "") for at, one in faults.items()}
    assert (said, table.to_pylist(), table.schema) == (reasons, valid, contract.arrow_schema)
