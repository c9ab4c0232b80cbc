"""A letter that is sent again is the same event, with the exact value of every type, whatever it was refused for."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from headwater.clock import ManualClock
from headwater.codec import decode_record, encode_batch, encode_control, encode_kpl, event_bodies, event_json
from headwater.codec.decoded import Decoded
from headwater.codec.rows import decode_rows, event_record
from headwater.contract import Contract, conform, parse_contract
from headwater.contract.types import TYPES
from headwater.contract.written import EXACT
from headwater.errors import InvalidRecord
from headwater.processors.definition.pipeline import Pipeline
from headwater.producers.redriving import Redrive
from headwater.sinks.deadletter import DeadLetters
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.objects import MemoryObjects
from headwater.testing.pipelines import run_pipeline
from tests.typed import ipc

FINE = datetime(2026, 3, 1, 12, 0, 0, 5, UTC)
VALUES: dict[str, list[Any]] = {
    "string": ['é\n"\\\u2028', "1.50", ""],
    "boolean": [True, False],
    "int": [-(2**31)],
    "long": [2**63 - 1, -(2**63)],
    "float": [0.10000000149011612, -0.0, 3.4028234663852886e38],
    "double": [0.1, -0.0, 5e-324, 1.7976931348623157e308, 2.0**60],
    "timestamp": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)],
    "timestamp_us": [FINE, datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)],
    "date": [date(1, 1, 1), date(9999, 12, 31)],
    "time": [time(0), time(23, 59, 59, 999_999)],
    "uuid": [UUID(int=0), UUID(int=(1 << 128) - 1)],
    "binary": [b"", b"\0\xff", b"True"],
    "json": ['{"a":[1.50,0.1234567890123456789,1e400,-0.0,12345678901234567890123]}', '"text"', "[]", "null", "1.0"],
    "decimal(38, 18)": [Decimal("12345678901234567890.012345678901234567"), Decimal("0E-18"), Decimal("-1.5")],
    "decimal(38, 0)": [Decimal("9" * 38)],
    "list<decimal(9, 2)?>": [[Decimal("1.20"), None], []],
    "list<json>": [['{"a":0.1234567890123456789}', "1.50"]],
    "struct<a: timestamp_us, b: struct<c: binary?, d: uuid>?>": [
        {"a": FINE, "b": {"c": b"\xff", "d": UUID(int=7)}},
        {"a": FINE, "b": None},
    ],
    "map<string, list<time>>": [{"k": [time(1, 2, 3, 4)], "": []}],
    "map<string, double>": [{"k": 0.1, "l": 5e-324}],
}


def contract(kind: str, *, version: int = 1, path: bool = False) -> Contract:
    """A contract with a field of the type, and, where events come as others write them, times in a format of theirs."""
    bound = ", maximum: 5" if version == 1 else ""
    where = ", from: deep.x" if path else ""
    ts = ", format: '%d.%m.%Y %H:%M:%S'" if path else ""
    return parse_contract(
        f"{{name: c, version: {version}, key: k, time: ts, fields: [{{name: k, type: string}}, "
        f"{{name: ts, type: timestamp{ts}}}, {{name: n, type: long{bound}}}, {{name: x, type: '{kind}'{where}}}]}}",
        "here",
    )


def table(of: Contract, values: list[Any], n: int) -> pa.Table:
    found = conform(of, pa.Table.from_pylist([{"k": "k", "ts": FINE, "n": n, "x": one} for one in values], _given(of)))
    assert not found.invalid
    return found.table


def _given(of: Contract) -> pa.Schema:
    return pa.schema([pa.field(one.name, one.arrow_type) for one in of.fields])


def fails(events: pa.Table) -> pa.Table:
    """A function of a user's that cannot take any event."""
    raise ValueError("unlucky")


def relaxed(of: Contract, *, path: bool = False) -> Contract:
    return contract(of.field("x").type, version=2, path=path)


Way = Callable[[pa.Table, Contract], tuple[list[bytes], Callable[[bytes], Any] | None]]


def _python(rows: pa.Table, of: Contract) -> tuple[list[bytes], Callable[[bytes], Any]]:
    """What a decoder of a format with types of its own gives, such as Avro's."""
    found = rows.to_pylist()
    for row in found:
        row["x"] = UUID(bytes=row["x"]) if of.field("x").type == "uuid" else row["x"]
    return [str(at).encode() for at in range(len(found))], lambda data: [found[int(data)]]


def _deep(rows: pa.Table) -> list[bytes]:
    """Events as others write them, with the value at a path."""
    found = [json.loads(line) for line in event_json(rows)]
    return [json.dumps({"deep": {"x": row.pop("x")}, **row, "ts": "01.03.2026 12:00:00"}).encode() for row in found]


def _arrow(rows: pa.Table) -> bytes:
    """An Arrow stream with other types for the same bytes."""
    kind = rows.schema.field("x").type
    if pa.types.is_fixed_size_binary(kind):
        rows = rows.set_column(3, "x", rows["x"].cast(pa.binary()))
    return ipc(rows)


def _csv(data: bytes) -> list[Mapping[str, Any]]:
    """What a decoder of lines makes of them, and of nothing else."""
    k, ts, n, x = data.decode().split(",")
    return [{"k": k, "ts": ts, "n": n, "x": x}]


def _read(data: bytes) -> list[Mapping[str, Any]]:
    found: Mapping[str, Any] = EXACT.decode(data.decode())
    return [found]


WAYS: dict[str, Way] = {
    "batch": lambda rows, of: ([encode_batch(rows, of)], None),
    "json": lambda rows, _: (event_json(rows), None),
    "array": lambda rows, _: ([b"[" + b",".join(event_json(rows)) + b"]"], None),
    "kpl": lambda rows, _: ([encode_kpl(event_json(rows), "k", None)], None),
    "decoded": _python,
    "decoded json": lambda rows, _: (event_json(rows), _read),
    "batch beside others": lambda rows, of: ([encode_batch(rows, of)], None),
    "batch beside a decoder": lambda rows, of: ([encode_batch(rows, of)], _csv),
    "arrow of others": lambda rows, _: ([_arrow(rows)], None),
    "path": lambda rows, _: (_deep(rows), None),
}


def again(run: Any, of: Contract) -> list[bytes]:
    """Records that a redrive of all letters puts."""
    kinesis, letters = MemoryKinesis(ManualClock()), DeadLetters(MemoryObjects())
    kinesis.create_stream(StreamName="s", ShardCount=1)
    letters.write("p", run.dead_letters)
    assert letters.redrive("p", Redrive(kinesis, "s", of, ManualClock()).put) == len(run.dead_letters)
    assert list(letters.list("p")) == []
    (shard,) = kinesis.list_shards(StreamName="s")["Shards"]
    at = kinesis.get_shard_iterator(StreamName="s", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
    return [record["Data"] for record in kinesis.get_records(ShardIterator=at["ShardIterator"])["Records"]]


def test_each_type_is_here() -> None:
    kinds = " ".join(VALUES)
    assert [kind for kind in [*TYPES, "decimal", "list", "map", "struct"] if kind not in kinds] == []


@pytest.mark.parametrize("fault", ["a function", "a bound"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", VALUES)
def test_what_is_sent_again_is_the_same_event(kind: str, way: str, fault: str) -> None:
    path = way in ("path", "batch beside others")
    of = contract(kind, path=path)
    rows = table(relaxed(of), VALUES[kind], 9 if fault == "a bound" else 1)
    records, decoder = WAYS[way](rows, of)
    pipeline = Pipeline("p", of).lake("p")
    taking = Pipeline("p", relaxed(of, path=path)).lake("p")
    if decoder is not None:
        pipeline, taking = pipeline.decode(decoder), taking.decode(decoder)
    if fault == "a function":
        pipeline = pipeline.map(fails, adds={"y": "double"})
    refused = run_pipeline(pipeline, records)
    assert (refused.lake.num_rows, len(refused.dead_letters)) == (0, len(VALUES[kind]))
    still = run_pipeline(pipeline, again(refused, of))
    assert [one.reason for one in still.dead_letters] == [one.reason for one in refused.dead_letters]
    taken = run_pipeline(taking, again(still, of))
    assert taken.dead_letters == []
    found = taken.lake.column("x")
    assert sorted(map(repr, found.to_pylist())) == sorted(map(repr, rows["x"].to_pylist()))
    assert {*taken.lake.column("ts").to_pylist()} == {FINE.replace(microsecond=0)}


GIVEN: list[tuple[str, Any]] = [
    ("long", np.int64(5)),
    ("boolean", np.bool_(1)),
    ("float", np.float32(0.1)),
    ("double", np.float64(0.1)),
    ("double", math.nan),
    ("double", np.float32("inf")),
    ("string", math.nan),
    ("json", [-math.inf]),
    ("json", {"a": np.int32(5)}),
    ("json", {"a": Decimal("1.5"), "$bytes": {"$bytes": "eA=="}}),
    ("json", {"$": {"$decimal": "1"}, True: b"x"}),
    ("list<long>", (np.int64(5), np.int8(6))),
    ("map<string, long>", [("a", 1), ("a", 2)]),
    ("timestamp", pd.NaT),
    ("timestamp", pd.Timestamp("2026-01-01T00:00:00.123456789Z")),
    ("timestamp_us", np.datetime64("2026-01-01T00:00:00.123456789")),
    ("timestamp_us", np.datetime64("NaT")),
    ("timestamp_us", np.datetime64("30000-01-01")),
]
"""Values that a decoder may give, by the type of their field; some are none of it."""


@pytest.mark.parametrize(("kind", "given"), GIVEN)
def test_what_a_decoder_gave_is_read_the_second_time_as_the_first(kind: str, given: Any) -> None:
    of = contract(kind)
    row = {"k": "k", "ts": FINE, "n": 1, "x": given}
    first = decode_rows([row], of, flat=True)
    again = decode_record(event_record(row, flat=True), of)
    assert isinstance(again, Decoded)
    assert again.table.equals(first.table)
    assert again.total == first.total == 1


def test_a_version_that_knows_no_tags_finds_no_row() -> None:
    """It read them as values of json fields; so the event is in its letters, whole, until it is of a newer version."""
    plain, typed = (json.loads(event_record({"x": one}, flat=True))["$headwater"] for one in ("eA==", b"x"))
    assert plain == {"kind": "event", "row": {"x": "eA=="}, "flat": True}
    assert typed == {"kind": "event", "typed": {"x": {"$bytes": "eA=="}}, "flat": True}


@pytest.mark.parametrize("value", [{"$interval": "P1D"}, [{"$bytes": 7}], {"a": {"$tuple": {}}}, {"$": []}])
def test_a_type_of_a_later_version_is_no_text(value: Any) -> None:
    """Keep the record a letter, whole, after a roll back, until a version reads it that knows the type."""
    record = encode_control("event", {"typed": {"k": "k", "ts": FINE.isoformat(), "n": 1, "x": value}, "flat": True})
    with pytest.raises(InvalidRecord, match="no type that this version writes"):
        decode_record(record, contract("json"))


SIXTEEN, NONE = b"abcdefghijklmnop", b"abc"
COLUMNS = {
    "bytes": pa.array([SIXTEEN, NONE, None, b""], pa.binary()),
    "large bytes": pa.array([SIXTEEN, NONE], pa.large_binary()),
    "viewed bytes": pa.array([SIXTEEN, NONE], pa.binary_view()),
    "coded bytes": pa.array([SIXTEEN, NONE, SIXTEEN]).dictionary_encode(),
    "sixteen bytes": pa.array([SIXTEEN, None], pa.binary(16)),
    "UUIDs": pa.array([SIXTEEN], pa.binary(16)).cast(pa.uuid()),
    "a text": pa.array(["abcdefghijklmnop"]),
    "text": pa.array(["eA==", "abcdefghijklmnop", "abc", str(UUID(int=7)), str(UUID(int=7)).upper(), ""]),
    "viewed text": pa.array(["eA==", "abcdefghijklmnop"], pa.string_view()),
    "coded text": pa.array(["eA==", "abcdefghijklmnop"]).dictionary_encode(),
}
"""Columns that others may send, with values that are right and such that are not, side by side."""


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("kind", ["uuid", "binary"])
def test_bytes_and_texts_of_a_batch_are_in_its_letters_what_they_were(kind: str, column: str) -> None:
    of, given = contract(kind), COLUMNS[column]
    rows = pa.table({"k": ["k"] * len(given), "ts": [FINE] * len(given), "n": [1] * len(given), "x": given})
    bodies = event_bodies(rows, of)
    found = []
    for record in [*[ipc(rows.slice(at, 1)) for at in range(len(given))], *bodies]:
        decoded = decode_record(record, of)
        assert type(decoded) is Decoded
        found.append("refused" if decoded.invalid else decoded.table["x"].to_pylist())
    assert found[: len(given)] == found[len(given) :]


PAIRS = pa.map_(pa.string(), pa.int64())
MADE: list[tuple[str, pa.Array]] = [
    ("map<string, long>", pa.array([[("a", 1), ("a", 2)], [("a", 1), ("b", 2)]], PAIRS)),
    ("map<string, long>", pa.array([[(1, 1)]], pa.map_(pa.int64(), pa.int64()))),
    ("map<string, long>", pa.array([[1], []])),
    ("json", pa.array([[("a", 1), ("a", 2)]], PAIRS)),
    ("list<double>", pa.array([[Decimal("1.5")]])),
    ("list<string>", pa.array([[Decimal("1.5")]])),
    ("list<string>", pa.array([[FINE]])),
    ("list<uuid>", pa.array([[SIXTEEN], [NONE]])),
    ("list<binary>", pa.array([[SIXTEEN]], pa.list_(pa.binary(16)))),
    ("struct<a: uuid, b: json>", pa.array([{"a": SIXTEEN, "b": FINE}])),
    ("json", pa.array([FINE, None])),
    ("json", pa.array([FINE]).dictionary_encode()),
    ("json", pa.array([Decimal("1.50")])),
    ("json", pa.array([SIXTEEN], pa.binary(16))),
    ("json", pa.array([math.nan, 1.5])),
    ("list<json>", pa.array([[math.nan], [1.5]])),
]
"""Columns of which JSON makes other values than the contract reads from them; some are refused."""


@pytest.mark.parametrize(("kind", "column"), MADE)
def test_what_json_has_otherwise_is_in_a_batchs_letters_what_it_was(kind: str, column: pa.Array) -> None:
    """A key that a map had twice was gone from the letter, and the rest of the event was taken then."""
    of = contract(kind)
    rows = pa.table({"k": ["k"] * len(column), "ts": [FINE] * len(column), "n": [1] * len(column), "x": column})
    bodies = event_bodies(rows, of)
    found = [decode_record(one, of) for one in [*[ipc(rows.slice(at, 1)) for at in range(len(column))], *bodies]]
    values = ["refused" if one.invalid else one.table["x"].to_pylist() for one in found if type(one) is Decoded]
    assert values[: len(column)] == values[len(column) :]


UNITS = ["s", "ms", "us", "ns"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", ["ts", "at"])
def test_times_of_a_batch_stay_what_they_were_where_texts_have_a_format(name: str, unit: str) -> None:
    """By an earlier name, too, and those that no datetime holds."""
    of = parse_contract(
        "{name: c, version: 1, key: k, time: ts, fields: [{name: k, type: string}, {name: n, type: long, maximum: 5}, "
        "{name: ts, type: timestamp, format: '%d.%m.%Y', was: [at]}]}",
        "here",
    )
    seconds = [1_772_366_400, 0 if unit == "ns" else 10**12, None]
    given = pa.array([at if at is None else at * 1_000 ** UNITS.index(unit) for at in seconds], pa.int64())
    rows = pa.table({"k": ["k"] * 3, "n": [1] * 3, name: given.cast(pa.timestamp(unit))})
    found = [decode_record(body, of) for body in event_bodies(rows, of)]
    known = [one.table["ts"].cast(pa.int64()).to_pylist() or None for one in found if type(one) is Decoded]
    assert known == [[1_772_366_400_000], [0] if unit == "ns" else None, None]
