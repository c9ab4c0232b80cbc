"""Decimals, bytes, UUIDs, times of day and times in µs: one value by every way in, or one refusal by every way in."""

import base64
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.clock import SystemClock
from headwater.codec import Decoded, decode_record, encode_batch, encode_kpl, event_json
from headwater.contract import (
    Contract,
    InvalidRow,
    check_compatible,
    conform,
    json_schema,
    parse_contract,
    validate_row,
)
from headwater.errors import InvalidContract, InvalidEvent, InvalidRecord
from headwater.producers.files.files import read_events
from headwater.producers.gateway.bodies import BodyLimits, parse_body
from headwater.producers.outbox import Outbox
from headwater.producers.producer import Producer
from headwater.testing.kinesis import MemoryKinesis
from headwater.web.problems import Problem

KINDS = (
    "decimal(5, 2)",
    "decimal(38, 10)",
    "decimal(38, 18)",
    "decimal(20, 20)",
    "binary",
    "uuid",
    "time",
    "timestamp_us",
)
TS = "2026-03-01T12:00:00Z"


def of(kind: str, more: str = "") -> Contract:
    fields = f"{{name: k, type: string}}, {{name: ts, type: timestamp}}, {{name: x, type: '{kind}'{more}}}"
    return parse_contract(f"{{name: c, version: 1, key: k, time: ts, fields: [{fields}]}}", kind)


CONTRACTS = {kind: of(kind) for kind in KINDS}

digits = st.text("0123456789", min_size=1, max_size=12)
numbers = st.one_of(
    st.builds(lambda sign, a, b: f"{sign}{a}.{b}", st.sampled_from(["", "-", "+"]), digits, digits),
    st.builds(lambda a, e: f"{a}e{e}", digits, st.integers(-25, 25)),
    st.builds(lambda a, e: f"{a}e{e}", digits, st.integers(-400, 400)),
    st.builds(lambda a, b: f"{a}.{b}", st.text("0123456789", max_size=42), st.text("0001", min_size=1, max_size=42)),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-1000, max_value=1000).map(str),
)
clocks = st.one_of(
    st.times().map(time.isoformat),
    st.builds("{:02d}:{:02d}:{:02d}.{}".format, st.integers(0, 25), st.integers(0, 61), st.integers(0, 61), digits),
)
moments = st.one_of(
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.builds("2026-03-01T12:00:00.{}Z".format, digits),
)
odd = st.sampled_from(
    ["", "0", "-0", ".5", "5.", "+1", " 1", "1 ", "1_0", "0x10", "null", "AA==", "AA=", "12:30", "24:00:00", TS]
)
texts = st.one_of(
    numbers,
    clocks,
    moments,
    odd,
    st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode()),
    st.uuids().map(str),
    st.uuids().map(lambda one: str(one).upper()),
    st.text("0123456789abcdefABCDEF-", min_size=30, max_size=36),
)


def rows_of(value: object, count: int) -> list[dict[str, object]]:
    return [{"k": f"k{n}", "ts": TS, "x": value} for n in range(count)]


def one(found: Decoded | None, contract: Contract) -> object:
    """The value of the only event, as Arrow's Python has it; the reason when it is refused."""
    assert found is not None
    if found.invalid:
        return found.invalid[0].reason
    (x,) = set(found.table["x"].to_pylist())
    assert found.table.schema.field("x").type == contract.arrow_schema.field("x").type
    return x


def body(data: bytes, kind: str, contract: Contract) -> object:
    try:
        found = parse_body(data, kind, contract, BodyLimits())
    except Problem as problem:
        return problem.detail
    return found.invalid[0].reason if found.invalid else next(iter(set(found.table["x"].to_pylist())))


def arrow(column: pa.Array) -> bytes:
    table = pa.table({"k": ["k"] * len(column), "ts": [TS] * len(column), "x": column})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def put(contract: Contract, value: object) -> object:
    """The value of `put`, through the batch that it is sealed in."""
    try:
        row = validate_row(contract, rows_of(value, 1)[0])
    except InvalidEvent as error:
        return str(error)
    sent = decode_record(encode_batch(pa.Table.from_pylist([row], schema=contract.arrow_schema), contract), contract)
    assert isinstance(sent, Decoded)
    return one(sent, contract)


def batch(contract: Contract, column: pa.Array) -> object:
    """The value of `put_batch`, through the batch that it is sealed in."""
    found = conform(contract, pa.table({"k": ["k"] * len(column), "ts": [TS] * len(column), "x": column}))
    if found.invalid:
        return found.invalid[0].reason
    sent = decode_record(encode_batch(found.table, contract), contract)
    assert isinstance(sent, Decoded)
    return one(sent, contract)


def decoded(data: bytes, contract: Contract) -> object:
    found = decode_record(data, contract)
    assert isinstance(found, Decoded)
    return one(found, contract)


def lines(value: object, count: int) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows_of(value, count)]


TEXT_WAYS: dict[str, Callable[[Contract, str], object]] = {
    "put": put,
    "json": lambda c, v: decoded(lines(v, 1)[0], c),
    "json lines": lambda c, v: decoded(b"\n".join(lines(v, 20)), c),
    "json array": lambda c, v: decoded(b"[" + b",\n".join(lines(v, 3)) + b"]", c),
    "kpl": lambda c, v: decoded(encode_kpl(lines(v, 3), "k", "0"), c),
    "gateway json": lambda c, v: body(b"[" + b", ".join(lines(v, 20)) + b"]", "json", c),
    "gateway ndjson": lambda c, v: body(b"\n".join(lines(v, 20)), "ndjson", c),
    "gateway arrow": lambda c, v: body(arrow(pa.array([v] * 3)), "arrow", c),
    "gateway arrow views": lambda c, v: body(arrow(pa.array([v] * 3, pa.string_view())), "arrow", c),
    "put_batch": lambda c, v: batch(c, pa.array([v] * 3)),
    "put_batch large": lambda c, v: batch(c, pa.array([v] * 3, pa.large_string())),
    "put_batch views": lambda c, v: batch(c, pa.array([v] * 3, pa.string_view())),
    "put_batch coded": lambda c, v: batch(c, pa.array([v] * 3).dictionary_encode()),
}


def agreed(found: dict[str, object]) -> object:
    """The value or reason that all ways come to."""
    values = {way: value for way, value in found.items() if value != found["put"]}
    assert not values, (found["put"], values)
    return found["put"]


@given(st.sampled_from(KINDS), texts)
@example("decimal(5, 2)", "1e2")
@example("decimal(5, 2)", "1.005")
@example("decimal(5, 2)", "1.00000000000000000000000000000000000000000000000")
@example("decimal(38, 18)", "4933758887325716871822276")
@example("decimal(5, 2)", "1e-41")
@example("decimal(5, 2)", "720720e-146")
@example("time", "12:30:15.1234567")
@example("timestamp_us", "2026-03-01T12:00:00.1234567Z")
@example("uuid", "01234567-89AB-cdef-0123-456789abcdef")
def test_a_text_is_one_value_by_every_way_or_refused_by_all(kind: str, text: str) -> None:
    contract = CONTRACTS[kind]
    agreed({way: take(contract, text) for way, take in TEXT_WAYS.items()})


@given(st.sampled_from(KINDS), numbers)
@example("decimal(38, 10)", "0.1234567891")
@example("decimal(38, 10)", "1234567890123456789.0123456789")
@example("decimal(5, 2)", "1E-1")
@example("decimal(38, 18)", "4933758887325716871822276")
@example("decimal(5, 2)", "1e-41")
@example("decimal(5, 2)", "720720e-146")
def test_a_number_of_json_keeps_all_its_digits(kind: str, number: str) -> None:
    """It is read as the text is, by every way, and never by way of a float."""
    try:
        json.loads(number)
    except ValueError:
        return
    contract = CONTRACTS[kind]
    if not kind.startswith("decimal"):
        return
    line = b'{"k": "k", "ts": "%s", "x": %s}' % (TS.encode(), number.encode())
    found = {
        "json": decoded(line, contract),
        "json lines": decoded(b"\n".join([line] * 20), contract),
        "json array": decoded(b"[" + b",".join([line] * 3) + b"]", contract),
        "kpl": decoded(encode_kpl([line], "k", "0"), contract),
        "gateway json": body(b"[" + b", ".join([line] * 20) + b"]", "json", contract),
    }
    text = put(contract, number)
    for way, value in found.items():
        assert value == text or (isinstance(value, str) and isinstance(text, str)), (way, value, text)


@given(
    st.sampled_from(["decimal(38, 18)", "decimal(38, 10)", "decimal(5, 2)"]),
    st.one_of(
        st.builds("1{}".format, st.text("0123456789", min_size=19, max_size=42)),
        st.builds("1{}.{}".format, digits, st.text("012", min_size=1, max_size=42)),
        st.builds("{}e-{}".format, st.integers(1, 999_999), st.integers(39, 400)),
    ),
)
def test_a_decimal_of_too_many_digits_or_zeros_is_none(kind: str, text: str) -> None:
    """As text and as number, many at once: scaled to the field's, it needs more bits than Arrow has or looks at."""
    contract = CONTRACTS[kind]
    alone = put(contract, text)
    line = b'{"k": "k", "ts": "%s", "x": %s}' % (TS.encode(), text.encode())
    assert batch(contract, pa.array([text] * 2)) == alone
    assert decoded(b"\n".join(lines(text, 20)), contract) == alone
    number = decoded(b"\n".join([line] * 20), contract)
    assert number == alone or (isinstance(number, str) and isinstance(alone, str))


@given(st.sampled_from(KINDS), texts)
@example("binary", "null")
@example("uuid", "NA")
def test_csv_reads_a_text_as_a_row_alone_and_in_a_block(kind: str, text: str) -> None:
    contract = CONTRACTS[kind]
    if text.strip(" \t") != text:
        return
    rows = b"".join(b'k%d,%s,"%s"\n' % (n, TS.encode(), text.encode()) for n in range(20))
    found = body(b"k,ts,x\n" + rows, "csv", contract)
    mixed = body(b"k,ts,x\n" + rows + b'a,b",c\n', "csv", contract)  # the stray quote has all read row by row
    null = kind != "binary" and text in ("", "NA", "null")
    wanted = put(contract, None if null else text)
    assert found == wanted
    assert mixed == wanted or (isinstance(mixed, str) and not isinstance(wanted, str))


@given(
    st.sampled_from([kind for kind in KINDS if kind.startswith("decimal")]),
    st.integers(1, 76).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, p), st.integers(1 - 10**p, 10**p - 1))),
    st.integers(0, 76),
)
@example("decimal(38, 18)", (38, 0, 4933758887325716871822276), 0)
@example("decimal(38, 18)", (76, 0, 4933758887325716871822276), 0)
def test_a_column_of_decimals_is_read_as_each_value_is(kind: str, of_: tuple[int, int, int], zeros: int) -> None:
    """Whatever its digits and those of the field are together: also within a list, and in 128 bits and in 256."""
    digits_, scale, unscaled = of_
    unscaled = unscaled // 10 ** min(zeros, digits_) * 10 ** min(zeros, digits_) if unscaled > 0 else unscaled
    value = Decimal(f"{unscaled}E{-scale}")
    wide = [pa.decimal256(digits_, scale)] + ([pa.decimal128(digits_, scale)] if digits_ <= 38 else [])
    contract, nested = CONTRACTS[kind], of(f"list<{kind}>")
    alone = put(contract, value)
    for type_ in wide:
        size = type_.bit_width // 8
        data = pa.py_buffer(unscaled.to_bytes(size, "little", signed=True) * 2)
        column = pa.Array.from_buffers(type_, 2, [None, data])
        lists = pa.ListArray.from_arrays([0, 1, 2], column)
        assert batch(contract, column) == body(arrow(column), "arrow", contract) == alone
        found = conform(nested, pa.table({"k": ["k"] * 2, "ts": [TS] * 2, "x": lists}))
        assert found.table["x"].to_pylist() == ([] if isinstance(alone, str) else [[alone]] * 2)


ODD = [pa.decimal128(38, 10_000_000), pa.decimal128(38, 39), pa.decimal128(38, -100), pa.decimal256(5, 6)]


@pytest.mark.parametrize("type_", ODD, ids=str)
@pytest.mark.parametrize(
    "kind", ["decimal(5, 2)", "list<decimal(5, 2)>", "json", "struct<a: decimal(5, 2)?>", "string"]
)
def test_decimals_of_odd_scales_are_refused_by_their_type(kind: str, type_: pa.DataType) -> None:
    """Before a value of theirs is read: Arrow looks up the power of ten in a table without looking at its end."""
    bits = pa.py_buffer((1).to_bytes(type_.bit_width // 8, "little"))
    column = pa.Array.from_buffers(type_, 1, [None, bits])
    contract = of(kind)
    made = [
        column,
        pa.ListArray.from_arrays([0, 1], column),
        pa.StructArray.from_arrays([column], ["a"]),
        pa.MapArray.from_arrays([0, 1], pa.array(["a"]), column),
        pa.StructArray.from_arrays([pa.ListArray.from_arrays([0, 1], column)], ["a"]),
        pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), column),
    ]
    for one_ in made:
        with pytest.raises(InvalidEvent, match="cannot be read as"):
            conform(contract, pa.table({"k": ["k"], "ts": [TS], "x": one_}))
        with pytest.raises(InvalidRecord, match="which no contract has"):
            decode_record(arrow(one_), contract)
        assert "which no contract has" in str(body(arrow(one_), "arrow", contract))


LONG = Decimal("1234567890123456789012345678.0123456789")
VALUES: list[tuple[str, object, object]] = [
    ("decimal(5, 2)", Decimal("1.50"), Decimal("1.50")),
    ("decimal(5, 2)", 12, Decimal("12.00")),
    ("decimal(5, 2)", 0.1, Decimal("0.10")),
    ("decimal(5, 2)", Decimal("-0"), Decimal("0.00")),
    ("decimal(5, 2)", Decimal("1.005"), "nothing is rounded"),
    ("decimal(5, 2)", 0.1 + 0.2, "may have been rounded"),
    ("decimal(5, 2)", 1000, "does not fit"),
    ("decimal(5, 2)", 10**5000, "does not fit"),
    ("decimal(5, 2)", Decimal("NaN"), "not finite"),
    ("decimal(5, 2)", float("inf"), "not finite"),
    ("decimal(5, 2)", True, "no number"),
    (
        "decimal(38, 10)",
        Decimal("1234567890123456789012345678.0123456789"),
        Decimal("1234567890123456789012345678.0123456789"),
    ),
    ("decimal(38, 10)", float(2**53), "may have been rounded"),
    ("binary", b"\0\xff", b"\0\xff"),
    ("binary", b"", b""),
    ("binary", 5, "neither bytes"),
    ("binary", "A", "base64"),
    ("uuid", UUID(int=5), UUID(int=5).bytes),
    ("uuid", b"0123456789abcdef", b"0123456789abcdef"),
    ("uuid", b"short", "no UUID"),
    ("time", time(1, 2, 3, 4), time(1, 2, 3, 4)),
    ("time", 86_399_999_999, time(23, 59, 59, 999_999)),
    ("time", 86_400_000_000, "outside the day"),
    ("time", -1, "outside the day"),
    ("timestamp_us", datetime(2026, 1, 1, 0, 0, 0, 123_456, UTC), datetime(2026, 1, 1, 0, 0, 0, 123_456, UTC)),
    ("timestamp_us", datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
    ("timestamp", datetime(2026, 1, 1, 0, 0, 0, 123_456, UTC), datetime(2026, 1, 1, 0, 0, 0, 123_000, UTC)),
]


@pytest.mark.parametrize(("kind", "given_", "wanted"), VALUES, ids=range(len(VALUES)))
def test_values_of_python(kind: str, given_: Any, wanted: Any, tmp_path: Path) -> None:
    """`put` and `put_batch` take them alike, and so do an outbox and the dead letter that was made of it."""
    contract = of(kind)
    found = put(contract, given_)
    assert wanted in found if isinstance(wanted, str) and isinstance(found, str) else found == wanted
    try:
        column = pa.array([given_] * 3)
    except (pa.ArrowInvalid, OverflowError):
        return  # of no type of Arrow's
    if isinstance(found, str) and (pa.types.is_boolean(column.type) or kind == "binary"):
        return  # refused by the column's type
    assert batch(contract, column) == found
    if isinstance(found, str):
        return
    table = pa.table({"k": ["k"], "ts": [TS], "x": column[:1]})
    (again,) = event_json(conform(contract, table).table)
    assert decoded(again, contract) == found
    row = validate_row(contract, rows_of(given_, 1)[0])
    box = Outbox(tmp_path / "o.db", "s", contract, "o")
    box.add([row])
    box.close()
    box = Outbox(tmp_path / "o.db", "s", contract, "p")
    (kept,) = box.events()
    assert kept.rows == row
    box.close()


TYPED = {
    "decimal(5, 2)": [pa.decimal128(9, 4), pa.decimal256(50, 2), pa.decimal32(5, 2), pa.decimal64(7, 2)],
    "binary": [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)],
    "uuid": [pa.binary(16), pa.uuid(), pa.binary(), pa.large_binary()],
    "time": [pa.time64("us"), pa.time64("ns"), pa.time32("ms"), pa.time32("s")],
    "timestamp_us": [
        pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in ("UTC", None, "Asia/Tokyo")
    ],
}
SAMPLES: dict[str, Any] = {
    "decimal(5, 2)": Decimal("-7.25"),
    "binary": b"\0ab",
    "uuid": UUID(int=7).bytes,
    "time": time(1, 2, 3),
    "timestamp_us": datetime(2026, 1, 1, 5, tzinfo=UTC),
}


@pytest.mark.parametrize(("kind", "type_"), [(kind, one) for kind, types in TYPED.items() for one in types])
def test_columns_of_other_writers(kind: str, type_: pa.DataType, tmp_path: Path) -> None:
    """By `put_batch`, an Arrow body and a Parquet file, with nulls beside, sliced and in dictionaries."""
    contract, value = of(kind, ", required: false"), SAMPLES[kind]
    naive = value.replace(tzinfo=None) if pa.types.is_timestamp(type_) and not type_.tz else value
    stored = pa.binary(16) if type_ == pa.uuid() else type_
    column = pa.array([naive, None, naive], stored).cast(type_)
    wanted = [value, None, value]
    for one_ in (column, pa.concat_arrays([column, column]).slice(3, 3)):
        found = conform(contract, pa.table({"k": ["k"] * 3, "ts": [TS] * 3, "x": one_}))
        assert found.table["x"].to_pylist() == wanted
        sent = decode_record(encode_batch(found.table, contract), contract)
        assert isinstance(sent, Decoded)
        assert sent.table["x"].to_pylist() == wanted
    assert parse_body(arrow(column), "arrow", contract, BodyLimits()).table["x"].to_pylist() == wanted
    if pa.types.is_binary_view(type_):
        return
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"k": ["k"] * 3, "ts": [TS] * 3, "x": column}), path)
    assert pa.concat_tables(read_events(path, contract))["x"].to_pylist() == wanted


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("decimal", "as in decimal(10, 2)"),
        ("decimal(39, 2)", "1 to 38 digits"),
        ("decimal(2, 3)", "1 to 38 digits"),
        ("decimal(0, 0)", "1 to 38 digits"),
        ("decimal(a, b)", "as in decimal(10, 2)"),
        ("numeric(10, 2)", "is unknown"),
        ("uuid4", "is unknown"),
    ],
)
def test_a_wrong_type_is_refused_in_one_line(kind: str, reason: str) -> None:
    with pytest.raises(InvalidContract, match=r"field x: type") as caught:
        of(kind)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_roles_and_bounds() -> None:
    """A key has one text, and bounds are values of their type."""
    text = "{{name: c, version: 1, key: x, time: ts, fields: [{{name: x, type: '{}'}}, {{name: ts, type: {}}}]}}"
    for kind in ("decimal(5, 2)", "uuid", "time", "timestamp_us"):
        assert parse_contract(text.format(kind, "timestamp_us"), "c").key == "x"
    with pytest.raises(InvalidContract, match="key: field x is a binary"):
        parse_contract(text.format("binary", "timestamp"), "c")
    assert of("decimal( 5,2 )").field("x").type == "decimal(5, 2)"
    bounded = of("decimal(5, 2)", ", minimum: 0.01, maximum: 5")
    assert "below the minimum" in str(put(bounded, "0.00"))
    assert "above the maximum" in str(batch(bounded, pa.array([Decimal("5.01")])))
    assert batch(bounded, pa.array([Decimal("5.00"), None, Decimal("5.00")]).drop_null()) == Decimal("5.00")
    with pytest.raises(InvalidContract, match=r"minimum 0\.001 is no decimal"):
        of("decimal(5, 2)", ", minimum: 0.001")
    sized = of("binary", ", max_bytes: 2")
    assert "has 3 bytes" in str(put(sized, b"abc"))
    assert "has 3 bytes" in str(batch(sized, pa.array([b"abc"])))


@pytest.mark.parametrize(
    ("old", "new", "may"),
    [
        ("decimal(5, 2)", "decimal(9, 2)", True),
        ("decimal(9, 2)", "decimal(5, 2)", False),
        ("decimal(5, 2)", "decimal(9, 3)", False),
        ("decimal(5, 2)", "double", False),
        ("long", "decimal(38, 0)", False),
        ("timestamp", "timestamp_us", False),
        ("uuid", "string", False),
        ("binary", "string", False),
    ],
)
def test_what_may_follow(old: str, new: str, may: bool) -> None:
    from dataclasses import replace

    faults = check_compatible(of(old), replace(of(new), version=2))
    assert faults == ([] if may else [f"field x changes from {old} to {new}"])


def test_an_unreadable_column_is_refused_by_its_type() -> None:
    for kind, column in {"uuid": pa.array([5]), "binary": pa.array([5]), "time": pa.array([1.5])}.items():
        with pytest.raises(InvalidEvent, match=f"cannot be read as {kind}"):
            conform(of(kind), pa.table({"k": ["k"], "ts": [TS], "x": column}))


def test_dead_letters_can_be_sent_again() -> None:
    """A batch's invalid event is written as JSON that reads as the event did, whatever the others' types."""
    fields = ", ".join(f"{{name: f{n}, type: '{kind}'}}" for n, kind in enumerate(SAMPLES))
    fields = f"{{name: k, type: string}}, {{name: ts, type: timestamp}}, {fields}, {{name: v, type: int, maximum: 1}}"
    contract = parse_contract(f"{{name: c, version: 1, key: k, time: ts, fields: [{fields}]}}", "c")
    row: dict[str, Any] = {"k": ["k"], "ts": [TS]}
    for n, value in enumerate(SAMPLES.values()):
        row[f"f{n}"] = pa.array([value], contract.field(f"f{n}").arrow_type)
    found = decode_record(_ipc(pa.table(row | {"v": [2]})), contract)
    assert isinstance(found, Decoded)
    (letter,) = found.invalid
    assert isinstance(letter, InvalidRow)
    mended = json.loads(letter.event) | {"v": 1}
    again = decode_record(json.dumps(mended).encode(), contract)
    assert isinstance(again, Decoded)
    assert [again.table[f"f{n}"].to_pylist() for n in range(len(SAMPLES))] == [[value] for value in SAMPLES.values()]


def _ipc(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_views_of_long_texts_are_bounded() -> None:
    """An Arrow stream of views names one text for many rows, which would be written out for each."""
    one, rows = pa.array(["x" * 1000], pa.string_view()).buffers(), 600_000
    views = pa.py_buffer(one[1].to_pybytes()[:16] * rows)
    column = pa.StringViewArray.from_buffers(pa.string_view(), rows, [None, views, one[2]])
    with pytest.raises(InvalidRecord, match="MiB of text"):
        decode_record(_ipc(pa.table({"k": column})), of("uuid"))


def test_json_schema_says_what_is_taken() -> None:
    said = {kind: json_schema(of(kind))["properties"]["x"] for kind in KINDS}
    assert said["decimal(5, 2)"]["type"] == ["string", "number"]
    assert said["binary"] == {"type": "string", "contentEncoding": "base64"}
    assert said["uuid"]["format"] == "uuid"
    assert said["time"]["maximum"] == 86_399_999_999
    assert said["timestamp_us"]["format"] == "date-time"


def test_frames_of_polars_are_taken(tmp_path: Path) -> None:
    """Its texts are views, its lists large, and its categories dictionaries of views."""
    fields = "{name: k, type: string}, {name: ts, type: timestamp}, {name: l, type: list<string>}"
    more = "{name: d, type: 'decimal(9, 2)'}, {name: c, type: string}, {name: b, type: binary}, {name: t, type: time}"
    contract = parse_contract(f"{{name: c, version: 1, key: k, time: ts, fields: [{fields}, {more}]}}", "c")
    rows: dict[str, Any] = {"k": ["a", "b"], "ts": [datetime(2026, 3, 1, tzinfo=UTC)] * 2, "l": [["x"], []]}
    rows |= {"d": [Decimal("1.20"), Decimal("-3")], "b": [b"\0", b""], "t": [time(1), time(2)]}
    frame = pl.DataFrame(rows | {"c": pl.Series(["u", "v"], dtype=pl.Categorical)})
    kinesis = MemoryKinesis(SystemClock())
    kinesis.create_stream(StreamName="s", ShardCount=1)
    with Producer("s", contract, client=kinesis, outbox=tmp_path / "o.db") as producer:
        for future in producer.put_batch(frame):
            future.result(30)
    found = conform(contract, pa.table(frame)).table
    assert found.to_pylist() == pl.DataFrame(rows | {"c": ["u", "v"]}).to_dicts()
    bad = frame.with_columns(d=pl.Series([Decimal("1.20"), Decimal("3.005")]))
    with pytest.raises(InvalidEvent, match="row 1: field d"):
        producer.put_batch(bad)
