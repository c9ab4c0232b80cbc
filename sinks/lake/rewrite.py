"""Rewrite data files: the rows of some files, all or all but some, sorted into new files that take their place.

Files of the table's present partitioning, and of one partition, become one file. Those of an earlier partitioning
become one for each partition that their rows lie in now: pyiceberg writes no other than the present.

DuckDB sorts, on disk where memory is too small. What is written is read back and compared with what was read, every
column of every row, before the table hears of it.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import FileScanTask, Table
from pyiceberg.typedef import Record

from headwater.errors import HeadwaterError, Retryable
from headwater.sinks.lake.buffer import file_schema, parquet_writer
from headwater.sinks.lake.datafiles import describe
from headwater.sinks.lake.split import partition_conditions, quoted
from headwater.stores import ObjectStore

__all__ = ["RewriteResult", "Rewriter", "SortOrder", "data_files", "replace_files"]

_IDENTITY = ("_origin", "_seq")
_GROUP_ROWS = 122_880
"""Rows of a row group: as many as DuckDB hands out at a time. A query for a key reads one group of a sorted file."""


@dataclass(frozen=True)
class SortOrder:
    """Name the columns that rows are sorted by in a file: key, then time, then identity."""

    key: str
    time: str


@dataclass(frozen=True)
class RewriteResult:
    """Hold the new files (none when no row was kept), their number of rows, and the identities of the rows left out."""

    files: tuple[DataFile, ...]
    rows: int
    left_out: pa.Table


class Rewriter:
    """Rewrite files of one state of a table.

    `memory` is what DuckDB may take, such as "1GB"; beyond it sorts on disk.
    """

    def __init__(self, table: Table, objects: ObjectStore, order: SortOrder, memory: str = "1GB") -> None:
        self._table = table
        self._objects = objects
        self._order = order
        self._memory = memory
        self._schema = file_schema(schema_to_pyarrow(table.schema(), include_field_ids=False))
        ids = {one.name: str(one.field_id) for one in table.schema().fields}
        self._written = pa.schema([one.with_metadata({"PARQUET:field_id": ids[one.name]}) for one in self._schema])

    def rewrite(
        self,
        files: Sequence[DataFile],
        key: str,
        without: object = None,
        progress: Callable[[int], object] = lambda _: None,
    ) -> RewriteResult:
        """Write new objects `key`-NNNN.parquet with the rows of the files, except those whose key column is `without`.

        Nothing is written when no row is kept, or when `without` is given and no row has it. The files are of one
        partition of one partitioning. `progress` is called with the rows done so far, each counted when read and when
        sorted; what it raises ends the rewrite. Raise HeadwaterError when what was written is not what was read.
        """
        with (
            tempfile.TemporaryDirectory(prefix="headwater-rewrite-") as place,
            duckdb.connect(f"{place}/sort.db") as db,
        ):
            db.execute("SET TimeZone = 'UTC'")
            db.execute("SET arrow_lossless_conversion = true")  # without it a UUID comes back as text
            db.execute(f"SET memory_limit = '{self._memory}'")
            db.execute("SET threads = 2")
            read = self._read(db, files, progress)
            left_out = self._leave_out(db, without)
            if without is not None and not left_out.num_rows:
                return RewriteResult((), 0, left_out)
            parts = self._parts(db, files[0])
            bodies = [Path(place) / f"{number:04d}.parquet" for number in range(len(parts))]
            rows = 0
            for (_, where), body in zip(parts, bodies, strict=True):
                rows += self._sorted(db, where, body, partial(_offset, progress, read + rows))
            if not rows:
                return RewriteResult((), 0, left_out)
            _same(db, bodies, rows)
            uris = [self._objects.put(f"{key}-{body.name}", body.read_bytes()) for body in bodies]
        io, metadata = self._table.io, self._table.metadata
        new = [describe(io, metadata, uri, partition=part) for uri, (part, _) in zip(uris, parts, strict=True)]
        return RewriteResult(tuple(new), rows, left_out)

    def _read(self, db: duckdb.DuckDBPyConnection, files: Sequence[DataFile], progress: Callable[[int], object]) -> int:
        """Read all rows into the table `read` and return how many there are."""
        db.register("none", _plain(self._schema).empty_table())
        db.execute("CREATE TABLE read AS SELECT * FROM none")
        rows = 0
        for batch in self._batches(files):
            db.register("source", pa.Table.from_batches([batch]))
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

    def _batches(self, files: Sequence[DataFile]) -> Iterator[pa.RecordBatch]:
        """Yield the rows as the table's present schema has them, a file at a time."""
        scan = ArrowScan(self._table.metadata, self._table.io, self._table.schema(), AlwaysTrue())
        plain = _plain(self._schema)
        for file in files:
            for batch in scan.to_record_batches([FileScanTask(file)]):
                yield pa.RecordBatch.from_arrays([batch.column(one.name).cast(one.type) for one in plain], schema=plain)

    def _leave_out(self, db: duckdb.DuckDBPyConnection, without: object) -> pa.Table:
        """Delete the rows whose key is `without` from `read` and return their identities."""
        column = quoted(self._order.key)
        names = ", ".join(_IDENTITY)
        query = f"SELECT {names} FROM read WHERE CAST({column} AS VARCHAR) = ? ORDER BY ALL"
        found: pa.Table = db.sql(query, params=[None if without is None else str(without)]).to_arrow_table()
        if found.num_rows:
            db.execute(f"DELETE FROM read WHERE CAST({column} AS VARCHAR) = ?", [str(without)])
        return found

    def _sorted(self, db: duckdb.DuckDBPyConnection, where: str, body: Path, progress: Callable[[int], object]) -> int:
        """Write the rows that meet the condition into a Parquet file, sorted; return how many."""
        by = ", ".join(quoted(name) for name in (self._order.key, self._order.time, *_IDENTITY))
        group, distinct = self._distinct(db, where)
        reader = db.sql(f"SELECT * FROM read WHERE {where} ORDER BY {by}").to_arrow_reader(_GROUP_ROWS)
        rows = 0
        with body.open("wb") as sink, parquet_writer(sink, self._written, group, distinct) as writer:
            for batch in reader:
                columns = [batch.column(one.name).cast(one.type) for one in self._written]
                writer.write_table(pa.Table.from_arrays(columns, schema=self._written), _GROUP_ROWS)
                rows += batch.num_rows
                progress(rows)
        return rows

    def _distinct(self, db: duckdb.DuckDBPyConnection, where: str) -> tuple[int, dict[str, int]]:
        """Return the rows of one row group, and about how many values key and origin have in one."""
        key, origin = self._order.key, _IDENTITY[0]
        counts = f"count(*), approx_count_distinct({quoted(key)}), approx_count_distinct({origin})"
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


def replace_files(table: Table, old: Sequence[DataFile], new: Sequence[DataFile], why: dict[str, str]) -> None:
    """Replace files in one commit, on top of exactly the state that `table` is; `why` goes into the snapshot's summary.

    Raise Retryable when another writer was faster. An error of botocore does not say whether the commit got through:
    read the table.
    """
    if any(file.spec_id != table.metadata.default_spec_id for file in new):
        raise Retryable("the table has been partitioned otherwise since the files were written")
    try:
        with table.transaction() as change, change.update_snapshot(snapshot_properties=why).overwrite() as overwrite:
            for file in old:
                overwrite.delete_data_file(file)
            for file in new:
                overwrite.append_data_file(file)
    except (CommitFailedException, ValidationException) as error:
        raise Retryable(f"another writer was faster: {' '.join(str(error).split())}") from error


def _same(db: duckdb.DuckDBPyConnection, bodies: Sequence[Path], rows: int) -> None:
    """Raise HeadwaterError unless the files have the rows that were read, by number and by sum of hashes."""
    wanted = db.execute("SELECT count(*), sum(hash(r)::HUGEINT) FROM read r").fetchone()
    got = db.execute("SELECT count(*), sum(hash(r)::HUGEINT) FROM read_parquet(?) r", [[*map(str, bodies)]]).fetchone()
    if wanted != got or wanted is None or wanted[0] != rows:
        raise HeadwaterError(
            f"a rewritten file has other rows than were read ({wanted} and {got}): nothing was changed"
        )


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return the schema with dictionaries as plain values."""

    def kind(one: Any) -> Any:
        return one.value_type if pa.types.is_dictionary(one) else one

    return pa.schema([pa.field(one.name, kind(one.type)) for one in schema])
