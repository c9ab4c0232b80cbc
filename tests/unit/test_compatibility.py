"""Which contract may follow another, and what it is to others: JSON Schema, Iceberg, the data dictionary."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
    json_schema,
    load_contract,
    validate_row,
)
from headwater.contract.dictionary import dictionary
from headwater.contract.iceberg import iceberg_schema
from headwater.contract.parsing import shipped
from headwater.errors import InvalidContract, InvalidEvent
from tests.contracts import EVERYTHING, GOOD, NOON

jsonschema = pytest.importorskip("jsonschema")


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


def test_the_json_schema_takes_what_the_contract_takes() -> None:
    schema = json_schema(EVERYTHING)
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
