"""Lists, maps and structs: the same value by every way in, or refused with the place of the part that is wrong."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates import count, last
from headwater.codec import Decoded, decode_record, encode_batch, encode_kpl, event_json
from headwater.codec.digest import rows_digest
from headwater.contract import Contract, check_compatible, conform, json_schema, parse_contract, validate_row
from headwater.contract.nested import nested_size
from headwater.contract.nestedcolumns import nested_sizes
from headwater.contract.types import Kind, parse_type
from headwater.errors import InvalidContract, InvalidEvent, InvalidRecord, UsageError
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.operators.contents import content_marks
from headwater.producers.files.files import read_events
from headwater.producers.gateway.bodies import BodyLimits, parse_body
from headwater.producers.outbox import Outbox
from tests.typed import ipc

TS = "2026-03-01T12:00:00Z"
KINDS = (
    "list<string>",
    "list<long?>",
    "list<list<decimal(5, 2)>>",
    "map<string, double?>",
    "map<string, list<uuid>>",
    "struct<a: string, b: int?>",
    "list<struct<at: timestamp_us, day: date?, raw: binary?, t: time, js: json?>>",
)
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text('añ😀"\\ ', max_size=4),
    "long": st.integers(-(2**63), 2**63 - 1),
    "int": st.integers(-5, 5),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "decimal": st.decimals(-999, 999, places=2, allow_nan=False, allow_infinity=False),
    "uuid": st.uuids(),
    "timestamp_us": st.datetimes(timezones=st.just(UTC)),
    "date": st.dates(),
    "binary": st.binary(max_size=4),
    "time": st.times(),
    "json": st.just('{"a":1}'),
}
WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [None, "x", 5, {}, [], [None], {"a": 1}, [[1]], {"z": [2]}, True, 1.5, [{}]]
)


def values(kind: Kind) -> st.SearchStrategy[Any]:
    parts = [values(one.kind) if one.required else st.none() | values(one.kind) for one in kind.members]
    if kind.name == "list":
        return st.lists(parts[0], max_size=3)
    if kind.name == "map":
        return st.dictionaries(st.text("ab", max_size=2), parts[0], max_size=3)
    if kind.name == "struct":
        return st.fixed_dictionaries({one.name: part for one, part in zip(kind.members, parts, strict=True)})
    return LEAVES[kind.name]


def of(kind: str, more: str = "") -> Contract:
    fields = f"{{name: k, type: string}}, {{name: ts, type: timestamp}}, {{name: x, type: '{kind}'{more}}}"
    return parse_contract(f"{{name: c, version: 1, key: k, time: ts, fields: [{fields}]}}", kind)


CONTRACTS = {kind: of(kind) for kind in KINDS}


def row(value: object) -> dict[str, object]:
    return {"k": "k", "ts": TS, "x": value}


def only(found: Any) -> object:
    """The value of the only event; the reason when it is refused."""
    if found.invalid:
        return found.invalid[0].reason
    (x,) = found.table["x"].to_pylist()
    return x


def sent(table: pa.Table, contract: Contract) -> object:
    found = decode_record(encode_batch(table, contract, origin="o", first_seq=0), contract)
    assert isinstance(found, Decoded)
    return only(found)


def put(contract: Contract, value: object) -> object:
    try:
        made = validate_row(contract, row(value))
    except InvalidEvent as error:
        return str(error)
    return sent(pa.Table.from_pylist([made], schema=contract.arrow_schema), contract)


def by_json(contract: Contract, text: bytes) -> dict[str, object]:
    found = decode_record(text, contract)
    kpl = decode_record(encode_kpl([text], "k", "0"), contract)
    csv = io.StringIO()
    csv.write("k,ts,x\nk," + TS + ',"' + json.dumps(json.loads(text)["x"]).replace('"', '""') + '"\n')
    limits = BodyLimits()
    assert isinstance(found, Decoded)
    return {
        "json": only(found),
        "kpl": only(kpl),
        "gateway": only(parse_body(b"[" + text + b"]", "json", contract, limits)),
        "csv": only(parse_body(csv.getvalue().encode(), "csv", contract, limits)),
    }


@settings(max_examples=60)
@given(st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), values(parse_type(kind)))))
def test_a_value_is_the_same_by_every_way(case: tuple[str, Any]) -> None:
    kind, value = case
    contract = CONTRACTS[kind]
    wanted = put(contract, value)
    assert not isinstance(wanted, str), wanted
    table = pa.Table.from_pylist([validate_row(contract, row(value))], schema=contract.arrow_schema)
    found = conform(contract, table)
    assert sent(found.table, contract) == wanted
    (text,) = event_json(table)
    ways = by_json(contract, text)
    assert ways == dict.fromkeys(ways, wanted)
    assert only(parse_body(ipc(table), "arrow", contract, BodyLimits())) == wanted
    read = validate_row(contract, row(value))["x"]
    assert nested_sizes(table["x"].combine_chunks()).tolist() == [nested_size(contract.field("x").kind, read)]
    again = pa.concat_tables([table, table]).combine_chunks().slice(1)
    assert content_marks(again.columns).tolist() == content_marks(table.columns).tolist()
    digests = [rows_digest(["x"], [one["x"].combine_chunks()]) for one in (table, again)]
    assert digests[0] == digests[1]


@settings(max_examples=60)
@given(st.sampled_from(KINDS), WRONG)
def test_a_value_of_another_type_is_refused_by_all_for_the_same_reason(kind: str, value: Any) -> None:
    contract = CONTRACTS[kind]
    wanted = put(contract, value)
    ways = by_json(contract, json.dumps(row(value)).encode())
    if isinstance(value, str) or value is None:  # text is read as JSON, of which CSV has one level more
        ways.pop("csv")
    for way, found in ways.items():
        assert isinstance(found, str) == isinstance(wanted, str), (way, found, wanted)
        assert found == wanted or way == "csv", (way, found, wanted)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("list<string>", [None], "has [0]: required, but missing or null"),
        ("list<struct<a: int>>", [{"a": 1}, {"a": "x"}], "has [1].a: is no whole number"),
        ("list<struct<a: int>>", [{"a": 1, "b": 2}], 'has [0]: has a field "b" that the type does not know'),
        ("struct<a: int>", {}, "has .a: required, but missing or null"),
        ("map<string, int>", {"k": 2**40}, 'has ["k"]: does not fit int'),
        ("map<string, int>", [("k", 1), ("k", 2)], "has a key twice"),
        ("list<decimal(5, 2)>", [Decimal("1.005")], "has [0]: does not fit decimal(5, 2), and nothing is rounded"),
        ("list<double>", [float("nan")], "has [0]: is not finite"),
        ("list<string>", "a", "is no list, and no JSON of one"),
        ("list<string>", "{}", "is no list"),
    ],
)
def test_the_place_of_what_is_wrong_is_named(kind: str, value: Any, reason: str) -> None:
    """By `put` and by `put_batch`."""
    contract = of(kind)
    assert str(put(contract, value)).endswith(reason)
    try:
        column = pa.array([value])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return
    found = conform(contract, pa.table({"k": ["k"], "ts": [TS], "x": column}))
    assert found.invalid[0].reason.endswith(reason)


def test_columns_of_other_writers(tmp_path: Path) -> None:
    """Large, views, other names of parts, narrower numbers, structs in another order; never a value as another."""
    cases: list[tuple[str, pa.DataType, Any]] = [
        ("list<string>", pa.large_list(pa.large_string()), ["a"]),
        ("list<string>", pa.list_(pa.string_view()), ["a"]),
        ("list<string>", pa.list_(pa.string(), 1), ["a"]),
        ("list<long>", pa.list_(pa.int8()), [1]),
        ("list<uuid>", pa.list_(pa.binary(16)), [UUID(int=1).bytes]),
        ("list<timestamp>", pa.list_(pa.timestamp("us", "UTC")), [datetime(2026, 1, 1, tzinfo=UTC)]),
        ("struct<a: string, b: int?>", pa.struct([("b", pa.int64()), ("a", pa.string_view())]), {"a": "x", "b": 1}),
        ("struct<a: string, b: int?>", pa.struct([("a", pa.string())]), {"a": "x"}),
        ("map<string, long>", pa.map_(pa.large_string(), pa.int32()), [("k", 1)]),
    ]
    for at, (kind, type_, value) in enumerate(cases):
        contract = of(kind, ", required: false")
        table = pa.table({"k": ["k"] * 3, "ts": [TS] * 3, "x": pa.array([value, None, value], type_)})
        found = conform(contract, table)
        assert found.table["x"].type == contract.field("x").arrow_type
        wanted = {"a": "x", "b": None} if value == {"a": "x"} else value
        assert found.table["x"].to_pylist() == [wanted, None, wanted], kind
        assert only(parse_body(ipc(table.slice(2)), "arrow", contract, BodyLimits())) == wanted
        if "view" not in str(type_) and not pa.types.is_fixed_size_list(type_):  # of which pyarrow reads no null
            path = tmp_path / f"{at}.parquet"
            pq.write_table(table, path)
            assert pa.concat_tables(read_events(path, contract))["x"].to_pylist() == [wanted, None, wanted]
    for kind, column in {"list<string>": pa.array([[1]]), "struct<a: int>": pa.array([{"a": 1, "b": 2}])}.items():
        assert conform(of(kind), pa.table({"k": ["k"], "ts": [TS], "x": column})).invalid
    late = pa.array([[2**62]], pa.list_(pa.timestamp("us", "UTC")))
    (bad,) = conform(of("list<timestamp_us>"), pa.table({"k": ["k"], "ts": [TS], "x": late})).invalid
    assert "is no list" in bad.reason or "cannot be read" in bad.reason


def test_what_a_column_of_the_very_type_may_not_hold() -> None:
    """Arrow holds NaN, keys that are there twice, and nulls where its own schema says there are none."""
    for kind, value, reason in (
        ("list<double>", [float("nan")], "is not finite"),
        ("map<string, int>", [("k", 1), ("k", 2)], "has a key twice"),
        ("list<int>", [None], "required, but missing or null"),
        ("list<struct<a: int>>", [{"a": None}], "required, but missing or null"),
        ("map<string, int>", [("k", None)], "required, but missing or null"),
    ):
        contract = of(kind)
        column = pa.array([value], contract.field("x").arrow_type)
        found = conform(contract, pa.table({"k": ["k"], "ts": [TS], "x": column}))
        assert found.invalid[0].reason.endswith(reason)


def test_size_is_bounded_alike() -> None:
    contract = of("list<string>", ", max_bytes: 20")
    assert put(contract, ["ab", "cd"]) == ["ab", "cd"]
    reason = "has 21 bytes, and 20 at most are taken"
    assert str(put(contract, ["ab", "cde"])).endswith(reason)
    found = conform(contract, pa.table({"k": ["k"], "ts": [TS], "x": pa.array([["ab", "cde"]])}))
    assert found.invalid[0].reason == put(contract, ["ab", "cde"])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("list", "has no <: write list<string>"),
        ("list<string", "has no >"),
        ("list<text>", "is unknown"),
        ("map<int, int>", "has texts as keys"),
        ("struct<>", "has fields with a name and a type"),
        ("struct<a: int, A: int>", "two fields of one name"),
        ("list<string>>", "has something behind it"),
        ("list<" * 6 + "int" + ">" * 6, "more than 5 types within each other"),
        ("struct<" + ", ".join(f"a{n}: int" for n in range(201)) + ">", "more than 200 fields"),
    ],
)
def test_a_wrong_type_is_refused_in_one_line(kind: str, reason: str) -> None:
    with pytest.raises(InvalidContract, match="field x: type") as caught:
        of(kind)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        ("list<int>", "list<long?>", []),
        ("list<int?>", "list<int>", ["field x.element becomes required: earlier events may lack it"]),
        ("list<int>", "list<string>", ["field x.element changes from int to string"]),
        ("struct<a: int>", "struct<b: string?, a: long>", []),
        ("struct<a: int>", "struct<a: int, b: int>", ["field x.b is new and required: earlier events do not have it"]),
        ("struct<a: int, b: int>", "struct<a: int>", ["field x.b is removed"]),
        ("map<string, decimal(5, 2)>", "map<string, decimal(7, 2)>", []),
        ("list<int>", "map<string, int>", ["field x changes from list<int> to map<string, int>"]),
        ("json", "list<int>", ["field x changes from json to list<int>"]),
    ],
)
def test_what_may_follow(old: str, new: str, faults: list[str]) -> None:
    """And what an old producer sealed is read as the new type."""
    before, after = of(old), replace(of(new), version=2)
    assert check_compatible(before, after) == faults
    value = {"list<int>": [1], "struct<a: int>": {"a": 1}}.get(old)
    if not faults and value is not None:
        table = pa.Table.from_pylist([validate_row(before, row(value))], schema=before.arrow_schema)
        found = decode_record(encode_batch(table, before), after)
        assert isinstance(found, Decoded)
        assert only(found) == ({"a": 1, "b": None} if isinstance(value, dict) else value)


def test_no_key_and_no_aggregate() -> None:
    made = of("list<int>")
    with pytest.raises(InvalidContract, match="key: field x is a list<int>, which has no one text"):
        replace(made, key="x")
    with pytest.raises(UsageError, match="'x' is list, which cannot be a key"):
        Pipeline("t", made).view("v", by=["x"], n=count())
    with pytest.raises(UsageError, match="and 'x' is list"):
        Pipeline("t", made).view("v", by=[], n=last("x"))


def test_an_outbox_keeps_them(tmp_path: Path) -> None:
    contract = CONTRACTS[KINDS[-1]]
    value = [{"at": datetime(2026, 1, 1, tzinfo=UTC), "day": None, "raw": b"\xff", "t": time(1), "js": {"a": [1.0]}}]
    made = validate_row(contract, row(value))
    box = Outbox(tmp_path / "o.db", "s", contract, "o")
    box.add([made])
    box.close()
    box = Outbox(tmp_path / "o.db", "s", contract, "p")
    (kept,) = box.events()
    box.close()
    assert kept.rows == made


def test_hostile_streams_are_refused() -> None:
    """Types that claim any number of values for no bytes."""
    ones = pa.ListArray.from_arrays(pa.array([0, 1 << 25]), pa.nulls(1 << 25))
    with pytest.raises(InvalidRecord, match="values in a list"):
        decode_record(ipc(pa.table({"x": ones})), CONTRACTS["list<string>"])
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(InvalidRecord, match="which no contract has"):
        decode_record(ipc(pa.table({"x": union})), CONTRACTS["list<string>"])


def test_json_schema() -> None:
    found = json_schema(of("list<struct<a: string, b: map<string, int?>?>>"))["properties"]["x"]
    assert found == {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "a": {"type": "string"},
                "b": {
                    "type": ["object", "null"],
                    "additionalProperties": {"type": ["integer", "null"], "minimum": -(2**31), "maximum": 2**31 - 1},
                },
            },
            "required": ["a"],
            "additionalProperties": False,
        },
    }
