"""Files of events: the same tables from every format, faults named by row, bounded blocks."""

import contextlib
import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.codec import event_json
from headwater.codec.csvrows import split_row, split_rows
from headwater.contract import load_contract
from headwater.errors import HeadwaterError, InvalidEvent, UsageError
from headwater.producers.files.blocks import CountedSource, lines_blocks
from headwater.producers.files.files import read_events
from headwater.testing.fleet import Fleet

TELEMETRY = load_contract("telemetry")
EVENTS = next(Fleet(devices=50).batches(60_000, 60_000)).cast(TELEMETRY.arrow_schema)
HEAD = b"device,metric,ts,value,unit,region,firmware,status\n"
GOOD = b'{"device":"a","metric":"m","ts":1762160400000,"value":1.5}\n'

Bad = list[tuple[int, str, bytes]]


def written(path: Path, table: pa.Table = EVENTS) -> Path:
    name = path.name
    if ".parquet" in name:
        pq.write_table(table, path, row_group_size=7_000)
    elif ".csv" in name:
        pacsv.write_csv(table, path)
    else:
        path.write_bytes(b"\n".join(event_json(table)))
    return path


def read(path: Path | str, stdin: bytes = b"", ignore_unknown: bool = False) -> tuple[list[dict[str, object]], Bad]:
    bad: Bad = []
    source = read_events(
        path,
        TELEMETRY,
        ignore_unknown=ignore_unknown,
        on_invalid=lambda *one: bad.append(one),
        stdin=io.BytesIO(stdin),
    )
    return [row for table in source for row in table.to_pylist()], bad


@pytest.mark.parametrize("name", ["e.parquet", "e.csv", "e.ndjson", "e.jsonl", "e"])
def test_every_format_gives_the_same_events(tmp_path: Path, name: str) -> None:
    source = read_events(written(tmp_path / name), TELEMETRY)
    tables = [table.cast(TELEMETRY.arrow_schema) for table in source]
    assert pa.concat_tables(tables).equals(EVENTS)
    assert len(tables) > 1 or name == "e.parquet"
    assert max(table.num_rows for table in tables) <= 70_000
    assert source.total_rows == (60_000 if name == "e.parquet" else None)
    assert source.total_bytes == (tmp_path / name).stat().st_size
    if name != "e.parquet":
        assert source.bytes_read == source.total_bytes


def test_compressed_text(tmp_path: Path) -> None:
    for name in ("e.csv", "e.ndjson"):
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress(written(tmp_path / name).read_bytes()))
        tables = [table.cast(TELEMETRY.arrow_schema) for table in read_events(packed, TELEMETRY)]
        assert pa.concat_tables(tables).equals(EVENTS)


def test_stdin_is_ndjson_or_csv() -> None:
    assert read("-", GOOD * 3)[0] == read("-", HEAD + b"a,m,1762160400000,1.5,,,,\n" * 3)[0]
    assert len(read("-", GOOD * 3)[0]) == 3
    assert read("-", b"") == ([], [])


def test_broken_json_rows_are_reported_by_line_and_the_others_kept() -> None:
    lines = [GOOD.strip()] * 6
    lines[1] = b"{oops"
    lines[3] = b""
    lines[4] = b'{"device":"a","metric":"m","ts":1762160400000,"value":"x"}'
    rows, bad = read("-", b"\n".join(lines))
    assert len(rows) == 3
    assert [(row, raw) for row, _, raw in bad] == [(2, lines[1]), (5, lines[4])]
    assert "not JSON" in bad[0][1]
    assert "field value" in bad[1][1]


def test_broken_csv_rows_are_reported_by_row_and_the_others_kept() -> None:
    lines = [b"a,m,1762160400000,1.5,,,,"] * 6
    lines[1] = b"a,m"
    lines[3] = b"a,m,yesterday,1,,,,"
    lines[4] = b"a,m,2025-11-03 09:00:00,abc,,,,"
    lines[5] = b'"a\nb",m,2025-11-03T09:00:00Z,2,"x,y",,,'
    rows, bad = read("-", HEAD + b"\n".join(lines))
    assert [(row, raw) for row, _, raw in bad] == [(2, lines[1]), (4, lines[3]), (5, lines[4])]
    assert bad[0][1] == "2 values for 8 columns"
    assert "field ts" in bad[1][1]
    assert "field value" in bad[2][1]
    assert len(rows) == 3
    assert (rows[2]["device"], rows[2]["unit"]) == ("a\nb", "x,y")
    assert rows[0]["unit"] is None


def test_rows_below_several_blocks_keep_their_numbers(tmp_path: Path) -> None:
    for name, broken in (("e.csv", b"a,m,never,1,,,,"), ("e.ndjson", b"[]")):
        path = written(tmp_path / name)
        lines = path.read_bytes().splitlines()
        lines[55_000] = broken
        path.write_bytes(b"\n".join(lines))
        rows, bad = read(path)
        assert len(rows) == 59_999
        assert [(row, raw) for row, _, raw in bad] == [(55_000 if name == "e.csv" else 55_001, broken)]


def test_without_a_callback_the_first_broken_row_raises(tmp_path: Path) -> None:
    with pytest.raises(InvalidEvent, match=r"-: row 2: not JSON"):
        list(read_events("-", TELEMETRY, stdin=io.BytesIO(GOOD + b"{\n" + GOOD)))
    path = written(tmp_path / "e.parquet", EVENTS.slice(0, 3).set_column(3, "value", pa.array([1.0, None, 1.0])))
    with pytest.raises(InvalidEvent, match=r"row 2: field value"):
        list(read_events(path, TELEMETRY))


@pytest.mark.parametrize("name", ["e.csv", "e.ndjson", "e.parquet"])
def test_an_unknown_column_is_named_unless_ignored(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, EVENTS.slice(0, 10).append_column("colour", pa.array(["red"] * 10)))
    with pytest.raises(UsageError, match=rf"{name}: (column|field) colour is not in contract telemetry v1"):
        list(read_events(path, TELEMETRY))
    rows, bad = read(path, ignore_unknown=True)
    assert (rows, bad) == (EVENTS.slice(0, 10).to_pylist(), [])


@pytest.mark.parametrize("name", ["e.csv", "e.parquet"])
def test_a_missing_column_is_named_an_optional_one_is_null(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="column value is missing"):
        read_events(written(tmp_path / name, EVENTS.slice(0, 9).drop_columns(["value"])), TELEMETRY)
    rows, _ = read(written(tmp_path / name, EVENTS.slice(0, 9).drop_columns(["unit", "status"])))
    assert {row["unit"] for row in rows} == {None}


def test_whole_numbers_written_by_pandas_as_floats_are_read() -> None:
    flights = load_contract("flights")
    names = [field.name for field in flights.fields]
    values = {field.name: "7" for field in flights.fields} | {"year": "2013.0", "time_hour": "2013-01-01 05:00:00"}
    text = ",".join(names) + "\n" + ",".join(values[name] for name in names) + "\n"
    (table,) = read_events("-", flights, stdin=io.BytesIO(text.encode()))
    assert table.to_pylist()[0]["year"] == 2013


def test_files_that_cannot_be_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "e.parquet").write_bytes(b"no parquet at all")
    (tmp_path / "e.json").write_bytes(b'[{"device": "a"}]')
    (tmp_path / "e.csv").write_bytes(b"")
    (tmp_path / "e.bin").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "e.csv.gz").write_bytes(b"no gzip")
    for name, said in {
        "nowhere.csv": "No such file",
        ".": "is a directory",
        "e.parquet": "no Parquet file",
        "e.json": "a JSON array",
        "e.csv": "no header",
        "e.bin": "neither NDJSON nor CSV nor Parquet",
        "e.csv.gz": "cannot be read",
    }.items():
        with pytest.raises(HeadwaterError, match=said) as caught:
            list(read_events(tmp_path / name, TELEMETRY))
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, UsageError)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_blocks_are_whole_lines_and_lose_nothing(data: bytes, size: int) -> None:
    data = data.replace(b"a", b"\n")
    blocks = list(lines_blocks(CountedSource(io.BytesIO(data)), size))
    assert b"".join(blocks) == data
    assert all(block.endswith(b"\n") for block in blocks[:-1])


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_raise_anything_but_our_errors(lines: list[bytes]) -> None:
    for head in (b"", HEAD, GOOD):
        with contextlib.suppress(HeadwaterError):
            read("-", head + b"\n".join(lines))


@given(st.text("ab,\r\n \u00e9", max_size=30).map(str.encode))
def test_a_text_without_quotes_is_split_as_beside_one_that_has_some(text: bytes) -> None:
    """The short way of the tokenizer is the long one."""
    quoted = split_rows(text + b'\n"q"')[0][:-1]
    assert split_rows(text)[0] == quoted
    for row in quoted:
        assert split_row(row, 99) == split_row(row + b',"q"', 99)[:-1]
