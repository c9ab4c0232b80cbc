"""Lake files: every row once, in the file of its partition, sorted, and encoded as Iceberg and Athena read it."""

import io
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.contract.types import UUID
from headwater.errors import UsageError
from headwater.sinks.lake import buffer as lake
from headwater.sinks.lake.buffer import LakeBuffer, LakeFile
from headwater.sinks.lake.partitioning import MIXED_METADATA, Partitioning

SCHEMA = pa.schema(
    [
        pa.field("device", pa.string(), nullable=False),
        pa.field("ts", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("unit", pa.string()),
        pa.field("status", pa.int32()),
        pa.field("_origin", pa.string(), nullable=False),
        pa.field("_seq", pa.int64(), nullable=False),
        pa.field("_arrived_at", pa.timestamp("ms", "UTC"), nullable=False),
    ]
)
NOON = int(datetime(2026, 3, 31, 12, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000
Row = tuple[str, int, float, str | None, int | None]


def table(rows: Sequence[Row], first: int = 0, *, coded: bool = True) -> pa.Table:
    """Rows in the schema; strings as dictionaries of their own, or plain."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    n = len(rows)
    values = [*columns, ["session"] * n, range(first, first + n), [NOON + HOUR] * n]
    built = pa.table([pa.array(list(v), f.type) for v, f in zip(values, SCHEMA, strict=True)], schema=SCHEMA)
    if not coded:
        return built
    return pa.table({f.name: _coded(built[f.name], f.type) for f in SCHEMA})


def _coded(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column.dictionary_encode() if pa.types.is_string(kind) else column


def read(file: LakeFile) -> pa.Table:
    return pq.read_table(io.BytesIO(file.body))


def filled(partition: str | None, *tables: pa.Table, buckets: int | None = None) -> LakeBuffer:
    buffer = LakeBuffer(SCHEMA, Partitioning("ts", "device", partition, buckets))
    for one in tables:
        buffer.append(one)
    return buffer


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["c", "a", "b", "ä", ""]),
        st.integers(NOON - 40 * HOUR, NOON + 40 * HOUR),
        st.floats(allow_nan=False),
        st.sampled_from([None, "C", "hPa"]),
        st.none() | st.integers(-(2**31), 2**31 - 1),
    ),
    max_size=60,
)
NAMES = {None: "", "hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}


@given(st.lists(st.tuples(ROWS, st.booleans()), max_size=5), st.sampled_from(list(NAMES)), st.integers(1, 40))
def test_every_row_is_in_the_file_of_its_partition_once_and_sorted(
    parts: list[tuple[list[Row], bool]], partition: str | None, group: int
) -> None:
    """However rows come in, coded or plain: all are there, each row group sorted by key and time."""
    first, tables = 0, []
    for rows, coded in parts:
        tables.append(table(rows, first, coded=coded))
        first += len(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake, "ROW_GROUP_ROWS", group)
        buffer = filled(partition, *tables)
        assert buffer.rows == first
        files = buffer.seal()
    expected = [row for one in tables for row in one.cast(SCHEMA).to_pylist()]
    found = [row for file in files for row in read(file).to_pylist()]
    assert Counter(map(str, found)) == Counter(map(str, expected))
    assert len({file.partition for file in files}) == len(files)
    for file in files:
        parquet = pq.ParquetFile(io.BytesIO(file.body))
        assert file.rows == parquet.metadata.num_rows > 0
        assert {ts.strftime(NAMES[partition]) for ts in read(file)["ts"].to_pylist()} == {file.partition}
        for number in range(parquet.num_row_groups):
            one = parquet.read_row_group(number)
            keys = list(zip(one["device"].to_pylist(), one["ts"].to_pylist(), strict=True))
            assert keys == sorted(keys)
            assert len(keys) <= group


@given(ROWS, st.integers(0, 60))
def test_where_the_calls_are_cut_does_not_matter(rows: list[Row], cut: int) -> None:
    """The same rows in the same order make files of the same rows in the same order, whatever the dictionaries."""
    whole = filled("day", table(rows)).seal()
    parts = filled("day", table(rows[:cut]), table(rows[cut:], len(rows[:cut]))).seal()
    assert [(file.partition, read(file)) for file in whole] == [(file.partition, read(file)) for file in parts]


def test_the_same_calls_make_the_same_bytes() -> None:
    """A retry after a crash writes the very same objects."""
    rows: list[Row] = [("b", NOON, 1.0, "C", 1), ("a", NOON + HOUR, 2.0, None, None)]
    assert filled("hour", table(rows)).seal() == filled("hour", table(rows)).seal()


def test_a_sealed_buffer_is_empty_and_serves_again() -> None:
    """What one seal returned no other returns."""
    buffer = filled("day", table([("a", NOON, 1.0, "C", 1)]))
    assert [file.rows for file in buffer.seal()] == [1]
    assert (buffer.rows, buffer.approx_bytes, buffer.seal()) == (0, 0, [])
    buffer.append(table([("b", NOON, 1.0, "C", 1)], 1))
    assert [read(file)["_seq"].to_pylist() for file in buffer.seal()] == [[1]]


def test_files_hold_what_iceberg_defines() -> None:
    """Plain strings and microseconds without an Arrow schema or field ids; required columns are required."""
    (file,) = filled("day", table([("a", NOON, 1.0, None, None)])).seal()
    parquet = pq.ParquetFile(io.BytesIO(file.body))
    assert parquet.metadata.metadata is None
    arrow = parquet.schema_arrow
    assert arrow.field("device").type == pa.string()
    assert arrow.field("ts").type == pa.timestamp("us", "UTC")
    assert [f.nullable for f in arrow] == [f.nullable for f in SCHEMA]
    assert all(f.metadata is None for f in arrow)


def test_encodings_are_those_that_every_engine_reads() -> None:
    """zstd everywhere, values plain or in dictionaries; of every type, nested ones too."""
    kinds = {
        "i": pa.int32(),
        "u": UUID,
        "d": pa.decimal128(38, 10),
        "f": pa.float32(),
        "t": pa.time64("us"),
        "b": pa.binary(),
        "o": pa.bool_(),
        "l": pa.list_(pa.int64()),
        "m": pa.map_(pa.string(), pa.timestamp("us", "UTC")),
        "s": pa.struct([("x", pa.float64()), ("y", pa.list_(pa.int64()))]),
    }
    rows: list[Row] = [("a", NOON + i, i / 7, "C", 3) for i in range(2000)]
    wide = table(rows)
    for name, kind in kinds.items():
        wide = wide.append_column(name, pa.nulls(len(rows), kind))
    buffer = LakeBuffer(wide.schema, Partitioning("ts", "device", "day"))
    buffer.append(wide)
    (file,) = buffer.seal()
    group = pq.ParquetFile(io.BytesIO(file.body)).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert all(columns[one.name].is_stats_set for one in SCHEMA), "Iceberg derives a file's partition from them"
    assert {name for column in columns.values() for name in column.encodings} <= {"PLAIN", "RLE", "RLE_DICTIONARY"}
    for name in ("device", "unit", "_origin", "value", "_seq"):
        assert "RLE_DICTIONARY" in columns[name].encodings
    for name in ("ts", "_arrived_at"):
        assert "RLE_DICTIONARY" not in columns[name].encodings


def bloom_filters(file: LakeFile, folder: Path) -> tuple[set[str], int]:
    """The columns that have one, and the bytes of all."""
    path = folder / "file.parquet"
    path.write_bytes(file.body)
    sql = "SELECT path_in_schema, bloom_filter_length FROM parquet_metadata(?) WHERE bloom_filter_length IS NOT NULL"
    found = duckdb.execute(sql, [str(path)]).fetchall()
    return {name for name, _ in found}, sum(size for _, size in found)


def test_a_bloom_filter_is_written_where_it_costs_a_hundredth(tmp_path: Path) -> None:
    """With many rows to a key; and it says of keys that are not there that they are not."""
    values = np.random.default_rng(7).normal(20, 5, 50_000).tolist()
    rows: list[Row] = [(f"dev-{n % 500:04}", NOON + n, value, "C", 3) for n, value in enumerate(values)]
    (file,) = filled("day", table(rows)).seal()
    columns, size = bloom_filters(file, tmp_path)
    assert columns == {"device"}
    assert size < len(file.body) / 100
    probe = "SELECT bloom_filter_excludes FROM parquet_bloom_probe(?, 'device', ?)"
    path = str(tmp_path / "file.parquet")
    assert duckdb.execute(probe, [path, "dev-0042"]).fetchall() == [(False,)]
    others = [duckdb.execute(probe, [path, f"dev-{n:04}x"]).fetchall() == [(True,)] for n in range(100)]
    assert sum(others) > 90
    (file,) = filled("day", table(rows[:5_000])).seal()
    assert bloom_filters(file, tmp_path) == (set(), 0)


def test_the_size_is_told_before_sealing() -> None:
    """After a first seal the estimate is right to a fifth, encoded row groups or not."""
    rng = np.random.default_rng(7)
    rows: list[Row] = [
        (f"dev-{d}", NOON + i * 20, round(v, 2), "C", 0)
        for i, (d, v) in enumerate(zip(rng.integers(0, 50, 20_000).tolist(), rng.normal(20, 5, 20_000), strict=True))
    ]
    buffer = filled("day", table(rows))
    buffer.seal()
    for group in (lake.ROW_GROUP_ROWS, 6_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lake, "ROW_GROUP_ROWS", group)
            buffer.append(table(rows))
            told = buffer.approx_bytes
            (file,) = buffer.seal()
        assert told == pytest.approx(len(file.body), rel=0.2)


def test_unknown_partitions_are_refused() -> None:
    """The reason names the choices."""
    with pytest.raises(UsageError, match="'hour', 'day', 'month' or None, not 'week'"):
        filled("week")
    with pytest.raises(UsageError, match="2 to 1,024 buckets, or None, not 1"):
        filled("day", buckets=1)
    with pytest.raises(UsageError, match="key value is a double: only text and whole numbers have buckets"):
        LakeBuffer(SCHEMA, Partitioning("ts", "value", "day", 4))


@given(st.integers(1, 8), st.sampled_from([None, 4]), st.lists(ROWS, min_size=1, max_size=3))
def test_files_are_bounded_whatever_the_dates(most: int, buckets: int | None, groups: list[list[Row]]) -> None:
    """Every row is in one file; beyond the bound the smallest partitions share one, which says so."""
    buffer = LakeBuffer(SCHEMA, Partitioning("ts", "device", "hour", buckets), max_files=most)
    first = 0
    for rows in groups:
        buffer.append(table(rows, first))
        buffer._write_group() if buffer._waiting else None
        first += len(rows)
    files = buffer.seal()
    assert len(files) <= most + 1
    assert sorted(seq for file in files for seq in read(file)["_seq"].to_pylist()) == list(range(first))
    mixed = [MIXED_METADATA in (pq.ParquetFile(io.BytesIO(file.body)).metadata.metadata or {}) for file in files]
    assert sum(mixed) <= 1
    for file, several in zip(files, mixed, strict=True):
        hours = {ts.strftime(NAMES["hour"]) for ts in read(file)["ts"].to_pylist()}
        assert several or hours == {file.partition}
