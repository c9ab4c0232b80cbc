"""Rows in are rows put and rows reported, whatever the bytes, and no row's verdict depends on its neighbours."""

import io
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.codec import Decoded, csvrows, decode_record
from headwater.codec.csvrows import MAX_QUOTED, count_tidy_rows, split_row, split_rows
from headwater.contract import Contract, parse_contract
from headwater.producers.files.blocks import CountedSource, csv_blocks
from headwater.producers.files.csv import CsvReader
from headwater.producers.files.files import read_events
from headwater.producers.gateway.bodies import BodyLimits, parse_body

CONTRACT = parse_contract(
    "{name: reading, version: 1, key: device, time: ts, fields: [{name: device, type: string}, "
    "{name: ts, type: timestamp}, {name: n, type: long, required: false}, "
    "{name: value, type: double, required: false}, {name: flag, type: boolean, required: false}]}",
    "test",
)
HEAD = b"device,ts,n,value,flag\n"
NOTED = parse_contract(
    "{name: noted, version: 1, key: device, time: ts, fields: [{name: device, type: string}, "
    "{name: ts, type: timestamp}, {name: note, type: string, required: false}]}",
    "test",
)
NOTED_HEAD = b"device,ts,note\n"
Report = list[tuple[int, str, bytes]]


def read(text: bytes, contract: Contract = CONTRACT) -> tuple[list[dict[str, object]], Report]:
    bad: Report = []
    source = read_events("-", contract, on_invalid=lambda *one: bad.append(one), stdin=io.BytesIO(text))
    return [row for table in source for row in table.to_pylist()], bad


def test_a_literal_inch_mark_costs_no_row() -> None:
    """103 rows with a stray quote in the second and a fault in the 53rd: 102 are put and one is named."""
    rows = [b"d%d,2026-03-01T12:00:00Z,%d,1.5," % (at, at) for at in range(103)]
    rows[1] = b'5" pipe,2026-03-01T12:00:00Z,1,1.5,'
    rows[52] = b"d52,2026-03-01T12:00:00Z,52,many,"
    found, bad = read(HEAD + b"\n".join(rows))
    assert [row["n"] for row in found] == [at for at in range(103) if at != 52]
    assert found[1]["device"] == '5" pipe'
    assert [(row, raw) for row, _, raw in bad] == [(53, rows[52])]
    body = parse_body(HEAD + b"\n".join(rows), "csv", CONTRACT, BodyLimits())
    assert (body.table.num_rows, [row.index for row in body.invalid], body.total) == (102, [52], 103)


def test_a_large_value_beside_a_broken_row_is_taken() -> None:
    """A text of 200,000 characters is no worse for the row below it; nor is a key that is too long for a row."""
    text = NOTED_HEAD + b"d,2026-03-01," + b"x" * 200_000 + b"\nd,never,\n" + b"y" * 1_025 + b",2026-03-01,\n"
    found, bad = read(text, NOTED)
    assert [len(str(row["note"])) for row in found] == [200_000]
    assert [row for row, _, _ in bad] == [2, 3]


def test_a_quote_that_is_never_closed_concerns_its_row_alone() -> None:
    """Rows behind it are read, in blocks of any size, also beyond what a quoted value may have."""
    rows = [b'"5 pipe,2026-03-01,0,1,'] + [b"d,2026-03-01,%d,1," % at for at in range(1, 60_000)]
    text = b"\n".join(rows)
    assert len(text) > MAX_QUOTED
    found, bad = read(HEAD + text)
    assert [row["n"] for row in found] == [*range(60_000)]
    assert (found[0]["device"], bad) == ('"5 pipe', [])


VALUES = st.sampled_from(
    ["d", "", '5" pipe', '"a,b"', '"a\nb"', '"a""b"', '"open', 'x"', '"a"b', '""', "1772366400000", "2026-03-01",
     "2026-03-01T12:00:00Z", "-1234", "12345", "2026", "1", "+1", "1_000", "0x1A", "1.0", "1e3", " 7 ",
     "9007199254740993", "9007199254740993.0", "9007199254740992.0", "1e400", "inf", "Infinity", "nan", "NAN", "null",
     "true", "TRUE", "tRue", " true", "1e17", ".5", "5.", "-0", "é", "\u0663", "\r", "a\rb"]
)  # fmt: skip
ROWS = st.lists(VALUES, min_size=4, max_size=6).map(",".join) | st.tuples(
    st.just("d"), st.sampled_from(["1772366400000", "2026-03-01"]), VALUES, VALUES, st.sampled_from(["", "true", "1"])
).map(",".join)


@settings(max_examples=500, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_a_block_is_read_as_its_rows_are(lines: list[str], end: str) -> None:
    """One pass over a block, and each of its rows by itself: the same events, the same refusals, none lost."""
    block = end.join(lines).encode()
    rows, consumed = split_rows(block)
    assert consumed == len(block)
    together = verdicts(block)
    apart = [verdict for row in rows for verdict in verdicts(row + b"\r\n")]
    assert together == apart
    assert len(apart) == len(rows)


def verdicts(block: bytes) -> list[object]:
    """What becomes of each row of a block: the event, or the row's bytes where it is refused."""
    bad: Report = []
    reader = CsvReader("test", CONTRACT, False, lambda *one: bad.append(one))
    reader.header(HEAD)
    events = iter(reader.read(block).to_pylist())
    refused = {row: raw for row, _, raw in bad}
    total = len(split_rows(block)[0])
    out = [refused[at] if at in refused else next(events) for at in range(1, total + 1)]
    assert next(events, None) is None
    return out


@settings(max_examples=300, deadline=None)
@given(st.text('ab,"\n\r', max_size=60), st.integers(1, 9))
def test_where_rows_end_does_not_depend_on_where_blocks_end(text: str, size: int) -> None:
    """Blocks cut the text between rows, whatever their size."""
    data = text.encode()
    blocks = list(csv_blocks(CountedSource(io.BytesIO(data)), size))
    assert b"".join(blocks) == data
    assert [row for block in blocks for row in split_rows(block)[0]] == split_rows(data)[0]


@settings(max_examples=1000, deadline=None)
@given(st.text('a,,""\n\r', max_size=60), st.integers(2, 12))
def test_values_that_are_passed_over_together_end_as_each_does(text: str, most: int) -> None:
    """Long rows are taken in windows of what a quoted value may have: no window changes where a value ends."""
    data = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvrows, "MAX_QUOTED", most)
        assert split_rows(data)[0] == one_by_one(data, most)


def one_by_one(data: bytes, most: int) -> list[bytes]:
    """The rows, with each value judged by itself."""
    rows, start, at = list[bytes](), 0, 0
    while at < len(data):
        quoted = re.compile(rb'"(?:[^"]++|"")*+"(?:\r?(?=\n|\Z)|(?=,))').match(data, at)
        long = quoted is None or len(quoted[0].removesuffix(b"\r")) > most
        at = at + len(re.split(rb"[,\n]", data[at:])[0]) if long or quoted is None else quoted.end()
        if data[at : at + 1] != b",":
            rows.append(data[start:at].removesuffix(b"\r"))
            start = at + 1
        at += 1
    return [row for row in [*rows, data[start:].removesuffix(b"\r")] if row.strip()]


@pytest.mark.parametrize("value", [b'""', b'"x"y', b'"1"', b"1", b""])
def test_a_row_of_millions_of_values_costs_what_its_bytes_cost(value: bytes) -> None:
    """A row took 8 µs a value, as each was looked at again with each block that came."""
    wide, short = b",".join([value] * 3_000_000), b"\n".join([b",".join([value] * 100)] * 30_000)
    assert cpu(wide) < 7 * cpu(short) + 0.5


def cpu(data: bytes) -> float:
    began = time.process_time()
    list(csv_blocks(CountedSource(io.BytesIO(data + b"\n")), 1 << 20))
    split_rows(data)
    return time.process_time() - began


@given(st.text('ab,"\n\r', max_size=60))
def test_the_count_of_tidy_rows_is_the_number_of_rows(text: str) -> None:
    """Wherever a count is given, the tokenizer makes as many rows."""
    rows = count_tidy_rows(text.encode())
    assert rows is None or rows == len(split_rows(text.encode())[0])


@given(st.lists(st.text(max_size=6).filter(lambda text: "\r" not in text), min_size=1, max_size=5))
def test_what_is_written_as_csv_is_read_back(values: list[str]) -> None:
    """With every value in quotes, and those in it doubled."""
    row = ",".join('"' + value.replace('"', '""') + '"' for value in values).encode()
    assert split_rows(row + b"\nx\n")[0] == [row, b"x"]
    assert split_row(row, len(values)) == values
    assert split_row(row, len(values) - 1) == values


def test_int96_times_are_what_they_are(tmp_path: Path) -> None:
    """Also before 1677 and after 2262, where nanoseconds in 64 bits overflow in silence."""
    times = [datetime(9999, 12, 31, 23, 59), datetime(1000, 1, 1), datetime(2026, 3, 1)]
    table = pa.table({"device": ["a", "b", "c"], "ts": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "f.parquet", use_deprecated_int96_timestamps=True)
    (found,) = read_events(tmp_path / "f.parquet", CONTRACT)
    assert found["ts"].to_pylist() == [time.replace(tzinfo=UTC) for time in times]


@pytest.mark.parametrize("text", ["9007199254740993.0", "9007199254740992.0", "1e17", "-9007199254740993e0"])
def test_a_whole_number_that_a_float_may_have_rounded_is_refused(text: str) -> None:
    """In JSON, in CSV and as a column of doubles; without point and exponent it is exact."""
    for number, valid in ((text, False), ("9007199254740993", True), ("9007199254740991.0", True)):
        event = f'{{"device":"d","ts":1772366400000,"n":{number}}}'.encode()
        for data in (event, event + b"\n" + event):
            found = decode_record(data, CONTRACT)
            assert isinstance(found, Decoded)
            assert bool(found.invalid) != valid
            if valid:
                assert set(found.table["n"].to_pylist()) == {int(number.removesuffix(".0"))}
        rows, bad = read(HEAD + f"d,1772366400000,{number},,\n".encode())
        assert (len(rows), len(bad)) == ((1, 0) if valid else (0, 1))
