"""Decimals, bytes, UUIDs, times of day and times in µs: one value by every way in, or one refusal by every way in."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, time
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.codec import decode_record, encode_kpl
from headwater.contract import (
    Contract,
    conform,
)
from headwater.errors import InvalidEvent, InvalidRecord
from tests.typed import FLAT, TS, arrow, batch, body, decoded, lines, of, put

CONTRACTS = {kind: of(kind) for kind in FLAT}

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


@given(st.sampled_from(FLAT), texts)
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


@given(st.sampled_from(FLAT), numbers)
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


@given(st.sampled_from(FLAT), texts)
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
    st.sampled_from([kind for kind in FLAT if kind.startswith("decimal")]),
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
