"""Read the rows of a lake table file by file and some at a time: needed columns only, by field id, deleted rows aside.

Memory holds one batch, the compressed columns of one row group, and the deleted places of one file, however large the
table is. A column is found by its number: by the ids in the file, or, where it has none, by the table's name mapping.
Row groups whose statistics rule a condition out are not read; `prune` leaves out the files whose bounds do.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import ValidationError
from pyiceberg.io.pyarrow import deletion_vectors_from_puffin_file, schema_to_pyarrow
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.puffin import PuffinFile

from headwater.arrays import Ints, Mask
from headwater.errors import HeadwaterError

__all__ = ["BATCH_ROWS", "ReadCounts", "TableReader", "empty_rows", "plain_schema", "plan", "prune"]

BATCH_ROWS = 65_536
_ID = b"PARQUET:field_id"


@dataclass
class ReadCounts:
    """Count what was opened and decoded: files, row groups, and rows of these."""

    files: int = 0
    groups: int = 0
    rows: int = 0


def plan(table: Table, snapshot_id: int | None = None) -> list[FileScanTask]:
    """Return the data files of a snapshot (the current one), each with its delete files.

    Raise HeadwaterError for a table with deletes that cannot be read (equality deletes of Flink).
    """
    try:
        return list(table.scan(snapshot_id=snapshot_id).plan_files())
    except ValueError as error:
        raise HeadwaterError(f"table {'.'.join(table.name())}: {' '.join(str(error).split())}") from error


def plain_schema(schema: Schema, columns: Sequence[str] | None = None) -> pa.Schema:
    """Return the Arrow schema of these columns (all of them), nullable, strings and bytes in their short forms."""
    arrow = schema_to_pyarrow(schema, include_field_ids=False)
    names = arrow.names if columns is None else columns
    return pa.schema([pa.field(name, _short(arrow.field(name).type)) for name in names])


def empty_rows(schema: pa.Schema) -> pa.Table:
    """Return a table without rows. Arrow's own has no UUID within a list or struct."""
    return pa.Table.from_arrays([pa.nulls(0, one.type) for one in schema], schema=schema)


def _short(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(_short(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([one.with_type(_short(one.type)) for one in kind])
    if pa.types.is_map(kind):
        return pa.map_(_short(kind.key_type), kind.item_field.with_type(_short(kind.item_type)))
    return kind


class TableReader:
    """Read files of one state of a table, under the names of `schema` (the table's present one).

    What was opened and decoded so far is in `counts`.
    """

    def __init__(self, table: Table, schema: Schema | None = None) -> None:
        self._table = table
        self._schema = schema or table.schema()
        mapping = table.name_mapping() or table.schema().name_mapping
        self._ids = {name: one.field_id for one in mapping for name in one.names}
        self.counts = ReadCounts()

    def batches(
        self,
        task: FileScanTask,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
        *,
        coded: Sequence[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a file in its order, `BATCH_ROWS` at most at a time, in these columns (all of them).

        `where` is of the table's columns; only rows for which it is true come. Strings named in `coded` come as
        dictionaries. Raise FileNotFoundError when the object is gone, and ArrowInvalid when it is no Parquet file.
        """
        wanted = plain_schema(self._schema, columns)
        deleted = self._deleted(task)
        with self._table.io.new_input(task.file.file_path).open() as source:
            file = pq.ParquetFile(source, pre_buffer=True)
            found = self._columns(file.schema_arrow)
            needed = plain_schema(self._schema, [*wanted.names, *_named_beside(where, wanted.names, self._schema)])
            here = {name: found[number] for name, number in self._numbers(needed.names).items() if number in found}
            codes = [here[name] for name in coded if name in here and pa.types.is_string(needed.field(name).type)]
            if codes:
                file = pq.ParquetFile(source, pre_buffer=True, read_dictionary=codes)
            self.counts.files += 1
            for group, first in self._groups(file, where, here):
                for batch in self._read(file, group, here, needed, deleted, first):
                    kept = batch if where is None else batch.filter(where).select(wanted.names)
                    if kept.num_rows:
                        yield kept

    def _read(
        self,
        file: pq.ParquetFile,
        group: int,
        here: Mapping[str, str],
        needed: pa.Schema,
        deleted: Ints,
        first: int,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the undeleted rows of one row group, whose first row is row `first` of the file."""
        self.counts.groups += 1
        names = list(here.values())
        if not names:  # rows that have none of the columns are rows all the same
            nothing = pa.array([None] * file.metadata.row_group(group).num_rows)
            read: Iterable[pa.RecordBatch] = [pa.RecordBatch.from_arrays([nothing], [""])]
        else:
            read = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=names)
        for batch in read:
            self.counts.rows += batch.num_rows
            low, high = np.searchsorted(deleted, [first, first + batch.num_rows])
            if low < high:
                keep: Mask = np.ones(batch.num_rows, np.bool_)
                keep[deleted[low:high] - first] = False
                first += batch.num_rows
                batch = batch.filter(pa.array(keep))
            else:
                first += batch.num_rows
            yield self._shaped(batch, here, needed)

    def _shaped(self, batch: pa.RecordBatch, here: Mapping[str, str], needed: pa.Schema) -> pa.RecordBatch:
        """Return the batch under the table's names and types; a column that the file lacks has its default or null."""
        if not len(needed):
            return pa.RecordBatch.from_struct_array(pa.array([{}] * batch.num_rows, pa.struct([])))
        columns, fields = [], []
        for one in needed:
            if one.name in here:
                column = batch.column(here[one.name])
                coded = pa.types.is_dictionary(column.type)
                column = column if coded or column.type == one.type else column.cast(one.type, safe=False)
            else:
                default = getattr(self._schema.find_field(one.name), "initial_default", None)
                none = default is None  # of which Arrow makes no scalar in every type
                column = (
                    pa.nulls(batch.num_rows, one.type)
                    if none
                    else pa.repeat(pa.scalar(default, one.type), batch.num_rows)
                )
            columns.append(column)
            fields.append(one.with_type(column.type))
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

    def _numbers(self, names: Sequence[str]) -> dict[str, int]:
        return {name: self._schema.find_field(name).field_id for name in names}

    def _columns(self, arrow: pa.Schema) -> dict[int, str]:
        """Return the file's columns by field id; a column that the table does not know is left out."""
        own = {int(one.metadata[_ID]): one.name for one in arrow if _ID in (one.metadata or {})}
        return own or {self._ids[name]: name for name in arrow.names if name in self._ids}

    def _groups(
        self, file: pq.ParquetFile, where: pc.Expression | None, here: Mapping[str, str]
    ) -> Iterator[tuple[int, int]]:
        """Yield the row groups that may have rows for the condition, each with the number of its first row."""
        metadata, first = file.metadata, 0
        places = {metadata.schema.column(at).path: at for at in range(metadata.num_columns)}
        used = {name: places[column] for name, column in here.items() if column in places and _mentions(where, name)}
        kept = set(range(metadata.num_row_groups))
        if where is not None and used:
            kept = set(_possible(where, plain_schema(self._schema), self._guarantees(metadata, used)))
        for group in range(metadata.num_row_groups):
            if group in kept:
                yield group, first
            first += metadata.row_group(group).num_rows

    def _guarantees(self, metadata: Any, used: Mapping[str, int]) -> list[pc.Expression | None]:
        kinds = plain_schema(self._schema, list(used))

        def of(group: Any) -> pc.Expression | None:
            parts = []
            for name, at in used.items():
                found = group.column(at).statistics
                if found is not None and found.has_min_max:
                    nulls = not found.has_null_count or found.null_count > 0
                    parts.append(_between(kinds.field(name), found.min, found.max, nulls=nulls))
            return _all(parts)

        return [of(metadata.row_group(group)) for group in range(metadata.num_row_groups)]

    def _deleted(self, task: FileScanTask) -> Ints:
        """Return the numbers of the file's rows that delete files name, in order."""
        found = [self._places(one, task.file.file_path) for one in task.delete_files]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def _places(self, file: DataFile, path: str) -> Ints:
        import pyarrow.dataset as ds

        with self._table.io.new_input(file.file_path).open() as source:
            if file.file_format == FileFormat.PUFFIN:
                vectors = deletion_vectors_from_puffin_file(PuffinFile(source.read()))
                places = [one.to_vector().to_numpy() for one in vectors if one.referenced_data_file == path]
                return np.concatenate(places).astype(np.int64) if places else np.zeros(0, np.int64)
            if file.file_format != FileFormat.PARQUET:
                raise HeadwaterError(f"delete file {file.file_path}: {file.file_format} cannot be read")
            # sorted by path: of a file for many others few row groups are read
            fragment = ds.ParquetFileFormat().make_fragment(source)
            found: Ints = fragment.to_table(columns=["pos"], filter=pc.field("file_path") == path)["pos"].to_numpy()
            return found


def prune(tasks: Sequence[FileScanTask], schema: Schema, where: pc.Expression | None) -> list[FileScanTask]:
    """Return the files that may have rows for the condition, by their bounds in the manifests."""
    if where is None:
        return list(tasks)
    kinds = plain_schema(schema)
    used = [one for one in schema.fields if _mentions(where, one.name)]
    guarantees = [
        _all([part for one in used if (part := _bounded(task.file, one, kinds.field(one.name))) is not None])
        for task in tasks
    ]
    return [tasks[at] for at in _possible(where, kinds, guarantees)]


def _bounded(file: DataFile, field: Any, kind: pa.Field) -> pc.Expression | None:
    """Return what the file's bounds say of a column; None when they say nothing."""
    lower, upper = ((bounds or {}).get(field.field_id) for bounds in (file.lower_bounds, file.upper_bounds))
    if lower is None or upper is None or not field.field_type.is_primitive:
        return None
    try:
        ends = from_bytes(field.field_type, lower), from_bytes(field.field_type, upper)
    except (ValueError, struct.error, ValidationError):
        return None
    return _between(kind, *ends, nulls=(file.null_value_counts or {}).get(field.field_id) != 0)


def _between(kind: pa.Field, lowest: object, highest: object, *, nulls: bool) -> pc.Expression | None:
    """Return that a column lies between two values, or is null; None for a type whose order is not ours.

    NaN, which the bounds of floats leave out, is DuckDB's highest number.
    """
    ordered = (pa.types.is_integer, pa.types.is_string, pa.types.is_timestamp, pa.types.is_date, pa.types.is_boolean)
    if not any(is_one(kind.type) for is_one in ordered):
        return None
    try:
        low, high = pa.scalar(lowest, kind.type), pa.scalar(highest, kind.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None
    column = pc.field(kind.name)
    inside = (column >= low) & (column <= high)
    return inside | column.is_null() if nulls else inside


def _all(parts: Iterable[pc.Expression | None]) -> pc.Expression | None:
    whole = None
    for part in parts:
        if part is not None:
            whole = part if whole is None else whole & part
    return whole


def _possible(where: pc.Expression, schema: pa.Schema, guarantees: Sequence[pc.Expression | None]) -> list[int]:
    """Return the places of the guarantees that the condition does not contradict.

    Arrow decides that of fragments of a dataset; these are never opened.
    """
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    kind, place = ds.ParquetFileFormat(), LocalFileSystem()
    fragments = [
        kind.make_fragment(str(at), place, **({} if one is None else {"partition_expression": one}))
        for at, one in enumerate(guarantees)
    ]
    dataset = ds.FileSystemDataset(fragments, schema, kind, place)
    return [int(one.path) for one in dataset.get_fragments(where)]


def _mentions(where: pc.Expression | None, name: str) -> bool:
    """Tell whether the condition may be about the column: Arrow shows an expression with the names as they are."""
    return where is not None and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(where)) is not None


def _named_beside(where: pc.Expression | None, names: Sequence[str], schema: Schema) -> list[str]:
    return [one.name for one in schema.fields if one.name not in names and _mentions(where, one.name)]
