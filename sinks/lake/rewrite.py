"""Rewrite data files: the rows of some files, all or all but some, sorted into new files that take their place.

Files of the table's present partitioning, and of one partition, become one file. Those of an earlier partitioning
become one for each partition that their rows lie in now: pyiceberg writes no other than the present.

DuckDB sorts, on disk where memory is too small; a file that only loses rows keeps its order, and passes through. What
is written is read back and compared with what was read, every column of every row, before the table hears of it. Rows
that delete files name are not read: they stay deleted.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import FileScanTask, Table
from pyiceberg.typedef import Record

from headwater.contract.written import key_texts
from headwater.errors import HeadwaterError, Retryable
from headwater.sinks.lake.buffer import file_schema, parquet_writer
from headwater.sinks.lake.committing import begin
from headwater.sinks.lake.datafiles import describe
from headwater.sinks.lake.reading import TableReader, empty_rows
from headwater.sinks.lake.split import partition_conditions, quoted

__all__ = ["MEMORY", "FileStore", "RewriteResult", "Rewriter", "SortOrder", "data_files", "replace_files", "unchanged"]

MEMORY, _MOST_MEMORY = "160MB", "1GB"
"""Memory of DuckDB: a quarter of what joining files of 128 MB takes. Arrow and the imports have the rest."""
_IDENTITY = ("_origin", "_seq")
Choice = Callable[[pa.Array], pa.BooleanArray]
"""Tells of each key of a column whether its row is chosen."""
_GROUP_ROWS = 122_880
"""Rows of a row group: as many as DuckDB hands out at a time. A query for a key reads one group of a sorted file."""


@dataclass(frozen=True)
class SortOrder:
    """Name the columns that rows are sorted by in a file: key, then time, then identity."""

    key: str
    time: str
    identity: tuple[str, ...] = _IDENTITY


class FileStore(Protocol):
    """Take whole files as objects: `headwater.aws.Objects` does so on S3."""

    def put_file(self, key: str, path: Path) -> str: ...


@dataclass(frozen=True)
class RewriteResult:
    """Hold the new files (none when no row was kept), their number of rows, and the identities of the rows left out."""

    files: tuple[DataFile, ...]
    rows: int
    left_out: pa.Table


class Rewriter:
    """Rewrite files of one state of a table.

    `memory` is what DuckDB may take; beyond it sorts on disk. What does not fit even so (very wide rows) is tried once
    more with a gigabyte.
    """

    def __init__(self, table: Table, objects: FileStore, order: SortOrder, memory: str = MEMORY) -> None:
        self._table = table
        self._objects = objects
        self._order = order
        self._memory = memory
        self._schema = file_schema(schema_to_pyarrow(table.schema(), include_field_ids=False))
        self._written = file_schema(schema_to_pyarrow(table.schema(), include_field_ids=True))

    def rewrite(
        self,
        tasks: Sequence[FileScanTask],
        key: str,
        without: Choice | None = None,
        progress: Callable[[int], object] = lambda _: None,
    ) -> RewriteResult:
        """Write new objects `key`-NNNN.parquet with the rows of the files, except those whose key `without` chooses.

        Nothing is written when no row is kept. The files are of one partition of one partitioning. `progress` is called
        with the rows done so far, each counted when read and when written; what it raises ends the rewrite. Raise
        HeadwaterError when what was written is not what was read.
        """
        try:
            return self._rewrite(tasks, key, without, progress, self._memory)
        except duckdb.OutOfMemoryException:
            return self._rewrite(tasks, key, without, progress, _MOST_MEMORY)

    def _rewrite(
        self,
        tasks: Sequence[FileScanTask],
        key: str,
        without: Choice | None,
        progress: Callable[[int], object],
        memory: str,
    ) -> RewriteResult:
        with (
            tempfile.TemporaryDirectory(prefix="headwater-rewrite-") as place,
            duckdb.connect(f"{place}/sort.db") as db,
        ):
            db.execute("SET TimeZone = 'UTC'")
            db.execute("SET arrow_lossless_conversion = true")  # without it a UUID comes back as text
            db.execute(f"SET memory_limit = '{memory}'")
            db.execute("SET threads = 2")
            passes = len(tasks) == 1 and tasks[0].file.spec_id == self._table.metadata.default_spec_id
            write = self._passed if passes and without is not None else self._resorted
            written = write(db, tasks, Path(place), without, progress)
            _check_rows(tasks, written.rows + written.left_out.num_rows)
            bodies = written.bodies if written.rows else []
            if bodies:
                _same(db, bodies, written)
            uris = [self._objects.put_file(f"{key}-{body.name}", body) for body in bodies]
        io, metadata = self._table.io, self._table.metadata
        new = tuple(describe(io, metadata, u, partition=p) for u, p in zip(uris, written.partitions, strict=False))
        return RewriteResult(new, written.rows, written.left_out)

    def _passed(
        self,
        db: duckdb.DuckDBPyConnection,
        tasks: Sequence[FileScanTask],
        place: Path,
        without: Choice | None,
        progress: Callable[[int], object],
    ) -> "_Bodies":
        """Write the rows of one file that stay, in their order."""
        (task,) = tasks
        found = _Bodies([place / "0000.parquet"], [task.file.partition], 0, 0, _identities([]))
        out: list[pa.Table] = []
        groups = _grouped(self._staying(db, task, without, out, found, progress), _GROUP_ROWS)
        first = next(groups, None)
        if first is not None:
            with (
                found.bodies[0].open("wb") as sink,
                parquet_writer(sink, self._written, first.num_rows, self._distinct_in(first)) as writer,
            ):
                for group in chain([first], groups):
                    writer.write_table(self._as_written(group), _GROUP_ROWS)
        found.left_out = _identities(out)
        return found

    def _staying(
        self,
        db: duckdb.DuckDBPyConnection,
        task: FileScanTask,
        without: Choice | None,
        out: list[pa.Table],
        found: "_Bodies",
        progress: Callable[[int], object],
    ) -> Iterator[pa.Table]:
        """Yield the rows that stay, counted and hashed into `found`; those that go are put into `out`."""
        read = 0
        for batch in self._batches([task]):
            stays = self._parted(batch, without, out)
            found.rows += stays.num_rows
            found.hashes += _hashes(db, stays)
            read += 2 * batch.num_rows
            progress(read)
            yield stays

    def _resorted(
        self,
        db: duckdb.DuckDBPyConnection,
        tasks: Sequence[FileScanTask],
        place: Path,
        without: Choice | None,
        progress: Callable[[int], object],
    ) -> "_Bodies":
        """Write the rows of all files that stay, sorted, a file for each partition."""
        out: list[pa.Table] = []
        read = self._read(db, tasks, without, out, progress)
        parts = self._parts(db, tasks[0].file)
        bodies = [place / f"{number:04d}.parquet" for number in range(len(parts))]
        rows = 0
        for (_, where), body in zip(parts, bodies, strict=True):
            rows += self._sorted(db, where, body, partial(_offset, progress, read + rows))
        return _Bodies(bodies, [part for part, _ in parts], rows, _hashes(db, "read"), _identities(out))

    def _read(
        self,
        db: duckdb.DuckDBPyConnection,
        tasks: Sequence[FileScanTask],
        without: Choice | None,
        out: list[pa.Table],
        progress: Callable[[int], object],
    ) -> int:
        """Read the rows that stay into the table `read`; those that go are put into `out`. Return how many were
        read.
        """
        db.register("none", empty_rows(_plain(self._schema)))
        db.execute("CREATE TABLE read AS SELECT * FROM none")
        rows = 0
        for batch in self._batches(tasks):
            db.register("source", self._parted(batch, without, out))
            db.execute("INSERT INTO read SELECT * FROM source")
            rows += batch.num_rows
            progress(rows)
        return rows

    def _parts(self, db: duckdb.DuckDBPyConnection, file: DataFile) -> list[tuple[Record, str]]:
        """Return the present partitions of the rows read, each with the SQL condition of its rows."""
        metadata = self._table.metadata
        if file.spec_id == metadata.default_spec_id:
            return [(file.partition, "TRUE")]
        return partition_conditions(db, "read", metadata.spec(), metadata.schema())

    def _batches(self, tasks: Sequence[FileScanTask]) -> Iterator[pa.RecordBatch]:
        """Yield the rows as the table's present schema has them, some at a time."""
        reader, plain = TableReader(self._table), _plain(self._schema)
        for task in tasks:
            for batch in reader.batches(task):
                yield batch.cast(plain)

    def _parted(self, batch: pa.RecordBatch, without: Choice | None, out: list[pa.Table]) -> pa.Table:
        """Return the rows that stay, and put the identities of those that go into `out`."""
        rows = pa.Table.from_batches([batch])
        if without is None:
            return rows
        goes = without(batch.column(self._order.key))
        out.append(rows.select(_IDENTITY).filter(goes))
        return rows.filter(pc.invert(goes))

    def _sorted(self, db: duckdb.DuckDBPyConnection, where: str, body: Path, progress: Callable[[int], object]) -> int:
        """Write the rows that meet the condition into a Parquet file, sorted; return how many."""
        by = ", ".join(quoted(name) for name in (self._order.key, self._order.time, *self._order.identity))
        group, distinct = self._distinct(db, where)
        reader = db.sql(f"SELECT * FROM read WHERE {where} ORDER BY {by}").to_arrow_reader(_GROUP_ROWS)
        rows = 0
        with body.open("wb") as sink, parquet_writer(sink, self._written, group, distinct) as writer:
            for batch in reader:
                writer.write_table(self._as_written(pa.Table.from_batches([batch])), _GROUP_ROWS)
                rows += batch.num_rows
                progress(rows)
        return rows

    def _as_written(self, rows: pa.Table) -> pa.Table:
        columns = [rows.column(one.name).combine_chunks().cast(one.type) for one in self._written]
        return pa.Table.from_arrays(columns, schema=self._written)

    def _distinct_in(self, group: pa.Table) -> dict[str, int]:
        """Return how many values key and origin have in a row group."""
        texts = {name: key_texts(group.column(name)) for name in (self._order.key, self._order.identity[0])}
        return {name: pc.count_distinct(column).as_py() for name, column in texts.items()}

    def _distinct(self, db: duckdb.DuckDBPyConnection, where: str) -> tuple[int, dict[str, int]]:
        """Return the rows of one row group, and about how many values key and origin have in one."""
        key, origin = self._order.key, self._order.identity[0]
        counts = f"count(*), approx_count_distinct({quoted(key)}), approx_count_distinct({quoted(origin)})"
        rows, keys, origins = db.execute(f"SELECT {counts} FROM read WHERE {where}").fetchall()[0]
        groups = max(1, -(-rows // _GROUP_ROWS))
        return rows // groups, {key: -(-keys // groups), origin: origins}


def _offset(progress: Callable[[int], object], before: int, rows: int) -> None:
    """Report progress on top of what was done before."""
    progress(before + rows)


def data_files(table: Table) -> list[DataFile]:
    """Return every data file of the table's current snapshot."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    return [
        entry.data_file
        for manifest in manifests
        if manifest.content == ManifestContent.DATA
        for entry in manifest.fetch_manifest_entry(table.io)
    ]


def replace_files(
    table: Table,
    old: Sequence[DataFile],
    new: Sequence[DataFile],
    why: dict[str, str],
    properties: Mapping[str, str] | None = None,
) -> None:
    """Replace files in one commit, on top of exactly the state that `table` is; `why` goes into the snapshot's summary.

    The same commit sets the table's `properties`.

    Raise Retryable when another writer was faster. An error of botocore does not say whether the commit got through:
    read the table.
    """
    if any(file.spec_id != table.metadata.default_spec_id for file in new):
        raise Retryable("the table has been partitioned otherwise since the files were written")
    try:
        with begin(table) as change:
            if properties:
                change.set_properties(dict(properties))
            with change.update_snapshot(snapshot_properties=why).overwrite() as overwrite:
                for file in old:
                    overwrite.delete_data_file(file)
                for file in new:
                    overwrite.append_data_file(file)
    except (CommitFailedException, ValidationException) as error:
        raise Retryable(f"another writer was faster: {' '.join(str(error).split())}") from error


@dataclass
class _Bodies:
    """Hold what was written on this machine: files, their partitions, rows, the sum of the hashes of the rows that were
    read, and the identities of those that go.
    """

    bodies: list[Path]
    partitions: list[Record]
    rows: int
    hashes: int
    left_out: pa.Table


def _identities(tables: Sequence[pa.Table]) -> pa.Table:
    schema = pa.schema([("_origin", pa.string()), ("_seq", pa.int64())])
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])


def _grouped(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows again, so many at a time."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows)
            held, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held)


def _check_rows(tasks: Sequence[FileScanTask], read: int) -> None:
    """Raise HeadwaterError when fewer rows were read than the files have, and no delete file says which those are."""
    there = sum(task.file.record_count for task in tasks)
    if read != there and not (read < there and any(task.delete_files for task in tasks)):
        raise HeadwaterError(f"{there} rows were to be rewritten, {read} were read: nothing was changed")


def _hashes(db: duckdb.DuckDBPyConnection, rows: pa.Table | str) -> int:
    """Return the sum of the hashes of all rows, all columns, of a table in memory or one that DuckDB has."""
    name = rows if isinstance(rows, str) else "hashed"
    if not isinstance(rows, str):
        db.register(name, rows)
    ((found,),) = db.execute(f"SELECT sum(hash(r)::HUGEINT) FROM {name} r").fetchall()
    return int(found or 0)


def _same(db: duckdb.DuckDBPyConnection, bodies: Sequence[Path], written: _Bodies) -> None:
    """Raise HeadwaterError unless the files have the rows that were read, by number and by sum of hashes."""
    query = "SELECT count(*), sum(hash(r)::HUGEINT) FROM read_parquet(?) r"
    (got,) = db.execute(query, [[*map(str, bodies)]]).fetchall()
    if got != (written.rows, written.hashes):
        raise HeadwaterError(
            f"a rewritten file has other rows than were read ({written.rows} and {got}): nothing was changed"
        )


def unchanged(task: FileScanTask, now: Sequence[FileScanTask]) -> bool:
    """Tell whether the table still has the file, with the same delete files: others would mean fewer rows."""
    return any(one.file.file_path == task.file.file_path and _deletes(one) == _deletes(task) for one in now)


def _deletes(task: FileScanTask) -> set[str]:
    return {one.file_path for one in task.delete_files}


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return the schema with dictionaries as plain values."""

    def kind(one: Any) -> Any:
        return one.value_type if pa.types.is_dictionary(one) else one

    return pa.schema([pa.field(one.name, kind(one.type)) for one in schema])
