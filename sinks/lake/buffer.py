"""Encode rows into Parquet files for the lake: sorted by key and time, one file a partition. Pure.

Row groups are encoded as they fill, so memory holds one row group of rows and the encoded rest. Values are plain or in
dictionaries, under zstd 3: Spark reads no others by default. Iceberg's vectorized reader knows deltas
(DELTA_BINARY_PACKED) from 1.10 on, and floats split by byte (BYTE_STREAM_SPLIT) not even then. Files of a fleet's
readings are 19 % smaller without these two; doubles with all their digits are 17 % larger. Times and 32-bit floats
hardly repeat, and have no dictionary.
Files carry the numbers of their columns where the table's are known, see `fieldids`; else its name mapping gives them.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater.arrays import Ints, coded, whole
from headwater.contract.types import UUID
from headwater.lineage.origins import sorted_rows
from headwater.sinks.lake.fieldids import FieldIds, with_field_ids
from headwater.sinks.lake.partitioning import (
    BUCKET_METADATA,
    MIXED_METADATA,
    KeyBucket,
    Partitioning,
    buckets_of,
)

__all__ = ["ROW_GROUP_ROWS", "LakeBuffer", "LakeFile", "file_schema", "parquet_writer"]

ROW_GROUP_ROWS = 524_288
_FEWEST_FILES, _MOST_FILES = 64, 256
"""Bounds of the files of a seal where it says none: two days of every bucket, in between."""
_GUESSED_BYTES_A_ROW = 10.0
_ROWS_A_VALUE = 16
"""A bloom filter takes one to two bytes a value: with so many rows a value it is a hundredth of the file."""


@dataclass(frozen=True)
class LakeFile:
    """Hold a finished file; `partition` is its hour, day or month of event time, empty in a mixed file and where there
    are no partitions by time.
    """

    partition: str
    body: bytes
    rows: int
    bucket: int | None = None


def file_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of the files: timestamps in microseconds, as Iceberg has them, and strings as dictionaries."""
    coded = pa.dictionary(pa.int32(), pa.string())
    kinds = [coded if pa.types.is_string(one.type) else _file_type(one.type) for one in schema]
    return pa.schema([one.with_type(kind) for one, kind in zip(schema, kinds, strict=True)])


def _file_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC")
    if kind == UUID:
        return pa.uuid()
    if pa.types.is_map(kind):
        return pa.map_(_file_field(kind.key_field), _file_field(kind.item_field))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_file_field(kind.value_field))
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return pa.string() if pa.types.is_large_string(kind) else pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([_file_field(kind.field(at)) for at in range(kind.num_fields)])
    return kind


def _file_field(field: pa.Field) -> pa.Field:
    return field.with_type(_file_type(field.type))


_Place = tuple[int, int]
"""A partition: the number of its hour, day or month, and its bucket; zero where there is none."""
_MIXED: _Place = (1 << 62, 0)
"""The file of the rows whose partitions get no file of their own."""


@dataclass
class _OpenFile:
    sink: io.BytesIO
    writer: pq.ParquetWriter
    rows: int = 0


@dataclass
class LakeBuffer:
    """Collect rows of one table and encode them into files.

    `schema` is the table's, with `partitioning` saying which file each row belongs in. A seal makes a file for
    each of `max_files` partitions at most (by default 64, or twice the buckets, up to 256): when the rows lie in more,
    those with few rows share one mixed file, which compaction divides later. Not thread-safe.

    >>> import pyarrow as pa
    >>> schema = pa.schema([("device", pa.string()), ("ts", pa.timestamp("ms", "UTC"))])
    >>> buffer = LakeBuffer(schema, Partitioning("ts", "device"))
    >>> buffer.append(pa.table({"device": ["a", "b"], "ts": [0, 86_400_000]}, schema=schema))
    >>> [(file.partition, file.rows) for file in buffer.seal()]
    [('1970-01-01', 1), ('1970-01-02', 1)]
    """

    schema: pa.Schema
    partitioning: Partitioning
    max_files: int | None = None
    rows: int = 0
    _tables: list[pa.Table] = field(default_factory=list)
    _waiting: int = 0
    _open: dict[_Place, _OpenFile] = field(default_factory=dict)
    _bytes_a_row: float = _GUESSED_BYTES_A_ROW

    def __post_init__(self) -> None:
        self.partitioning.check(self.schema.field(self.partitioning.key).type)
        self._file_schema = file_schema(self.schema)
        usual = min(_MOST_FILES, max(_FEWEST_FILES, 2 * (self.partitioning.buckets or 1)))
        self._max_files = max(1, self.max_files or usual)

    @property
    def approx_bytes(self) -> int:
        """Return about how many bytes the files would have if they were sealed now."""
        encoded = sum(one.sink.tell() for one in self._open.values())
        return encoded + round(self._waiting * self._bytes_a_row)

    def number_columns(self, columns: FieldIds) -> None:
        """Put the table's numbers of the columns into the files from now on. Call it while the buffer is empty."""
        assert not self._open, "a file that is begun has its schema"
        self._file_schema = with_field_ids(file_schema(self.schema), columns)

    @property
    def most_files(self) -> int:
        """Return the number of files that a seal makes at most, the mixed one included."""
        return self._max_files + 1

    def append(self, table: pa.Table) -> None:
        """Take in rows; the columns are the schema's, strings plain or dictionary-encoded."""
        self._tables.append(table)
        self.rows += table.num_rows
        self._waiting += table.num_rows
        while self._waiting >= ROW_GROUP_ROWS:
            self._write_group()

    def seal(self) -> list[LakeFile]:
        """Return the finished files, ordered by partition, and leave the buffer empty."""
        while self._waiting:
            self._write_group()
        files = []
        for (number, bucket), one in sorted(self._open.items()):
            one.writer.close()
            mixed = (number, bucket) == _MIXED
            of = bucket if self.partitioning.buckets and not mixed else None
            name = "" if mixed else self.partitioning.name(number)
            files.append(LakeFile(name, one.sink.getvalue(), one.rows, of))
        if self.rows:
            self._bytes_a_row = sum(len(file.body) for file in files) / self.rows
        self._open, self.rows = {}, 0
        return files

    def _write_group(self) -> None:
        """Sort and encode the oldest rows, up to one row group."""
        group, rest = _split(self._tables, ROW_GROUP_ROWS)
        table = _one(group, self._file_schema)
        self._tables, self._waiting = rest, self._waiting - table.num_rows
        ts = table.column(self.partitioning.time).cast(pa.int64()).to_numpy() // 1000
        key = table.column(self.partitioning.key).chunk(0)
        order = _sorted(key, ts)
        places, place = self._within_bounds(*self._places(key, ts))
        if len(places) > 1:
            order = order[np.argsort(place[order], kind="stable")]
        table, start = table.take(pa.array(order)), 0
        for one, rows in zip(places, np.bincount(place, minlength=len(places)).tolist(), strict=True):
            part = table.slice(start, rows)
            part = _compact(part) if len(places) > 1 else part
            target, start = self._file(one, part), start + rows
            target.writer.write_table(part, row_group_size=ROW_GROUP_ROWS)
            target.rows += rows

    def _places(self, key: pa.Array, ts: Ints) -> tuple[list[_Place], Ints]:
        """Return the places (partitions) that the rows belong in, and for each row the index of its place."""
        count = self.partitioning.buckets or 1
        numbers = self.partitioning.numbers(ts) * count
        if self.partitioning.buckets:
            numbers += buckets_of(key, count)
        found, place = np.unique(numbers, return_inverse=True)
        return [divmod(one, count) for one in found.tolist()], place.astype(np.int32)

    def _within_bounds(self, places: list[_Place], place: Ints) -> tuple[list[_Place], Ints]:
        """Return as many places as there may be files of their own, and of all other rows the mixed one."""
        new = [at for at, one in enumerate(places) if one not in self._open]
        free = max(0, self._max_files - len(self._open.keys() - {_MIXED}))
        if len(new) <= free:
            return places, place
        rows = np.bincount(place, minlength=len(places))
        largest = sorted(new, key=lambda at: (-rows[at], at))[:free]
        keeps = {at for at in range(len(places)) if places[at] in self._open} | set(largest)
        kept = sorted(keeps)
        moved = np.full(len(places), len(kept), np.int64)
        moved[kept] = np.arange(len(kept))
        renumbered: Ints = moved[place]
        return [*(places[at] for at in kept), _MIXED], renumbered

    def _file(self, place: _Place, first: pa.Table) -> _OpenFile:
        """Return the place's open file; `first` holds its first rows when it has to be opened."""
        if place not in self._open:
            sink, name = io.BytesIO(), self.partitioning.key
            key = first.column(name).chunk(0)
            distinct = {name: len(key.dictionary)} if pa.types.is_dictionary(key.type) else {}
            writer = parquet_writer(sink, self._file_schema, first.num_rows, distinct)
            if place == _MIXED:
                writer.add_key_value_metadata({MIXED_METADATA: b"1"})
            elif self.partitioning.buckets:
                own = KeyBucket(self.partitioning.key, place[1], self.partitioning.buckets)
                writer.add_key_value_metadata({BUCKET_METADATA: own.dumps()})
            self._open[place] = _OpenFile(sink, writer)
        return self._open[place]


def _compact(table: pa.Table) -> pa.Table:
    """Drop dictionary values that no row uses: a file holds the whole of each dictionary."""
    for at, one in enumerate(table.schema):
        if pa.types.is_dictionary(one.type) and table.num_rows:
            table = table.set_column(at, one, _used(whole(table.column(at))))
    return table


def _used(column: pa.DictionaryArray) -> pa.DictionaryArray:
    used = np.flatnonzero(np.bincount(column.indices.drop_null().to_numpy(), minlength=1))
    renumbered = np.searchsorted(used, column.indices.fill_null(0).to_numpy()).astype(np.int32)
    indices = pa.array(renumbered, mask=column.indices.is_null().to_numpy(zero_copy_only=False))
    return pa.DictionaryArray.from_arrays(indices, column.dictionary.take(pa.array(used)))


def parquet_writer(
    sink: Any, schema: pa.Schema, rows: int = 0, distinct: Mapping[str, int] | None = None
) -> pq.ParquetWriter:
    """Open a Parquet writer with the lake's encodings, page statistics, and bloom filters where they cost next to
    nothing.

    `distinct` gives for some columns about how many values they have in a row group of `rows` rows; a filter answers
    falsely once in a hundred.
    """
    blooms = {name: count for name, count in (distinct or {}).items() if 0 < count * _ROWS_A_VALUE <= rows}
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=[f.name for f in schema if not (pa.types.is_timestamp(f.type) or pa.types.is_float32(f.type))],
        store_schema=False,
        write_page_index=True,
        bloom_filter_options={name: {"ndv": count, "fpp": 0.01} for name, count in blooms.items()},
    )


def _split(tables: list[pa.Table], rows: int) -> tuple[list[pa.Table], list[pa.Table]]:
    """Return the first `rows` rows, and the rest."""
    taken: list[pa.Table] = []
    for at, table in enumerate(tables):
        if table.num_rows >= rows:
            taken.append(table.slice(0, rows))
            left = table.slice(rows)
            return taken, ([left] if left.num_rows else []) + tables[at + 1 :]
        taken.append(table)
        rows -= table.num_rows
    return taken, []


def _one(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """Return one table in the schema, each column in one chunk with one dictionary."""
    columns = []
    for one in schema:
        chunks = [chunk for table in tables for chunk in table.column(one.name).chunks if len(chunk)]
        if pa.types.is_dictionary(one.type):
            columns.append(coded(pa.chunked_array([_coded(chunk) for chunk in chunks], one.type)))
        else:
            columns.append(whole(pa.chunked_array(chunks)).cast(one.type) if chunks else pa.nulls(0, one.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _coded(chunk: pa.Array) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_encode()
    return pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), chunk.dictionary.cast(pa.string()))


def _sorted(key: pa.Array, ts: Ints) -> Ints:
    """Return row numbers ordered by key, time and row."""
    if isinstance(key.type, pa.UuidType):
        key = key.cast(UUID)
    if pa.types.is_dictionary(key.type):
        rank = np.empty(len(key.dictionary), np.int64)
        rank[pc.array_sort_indices(key.dictionary).to_numpy()] = np.arange(len(key.dictionary))
        codes = rank[key.indices.to_numpy()] if len(rank) else np.zeros(len(ts), np.int64)
    else:
        codes = pc.rank(key, tiebreaker="dense").to_numpy().astype(np.int64)
    order, _, _ = sorted_rows(codes, ts)
    return order
