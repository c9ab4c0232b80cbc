"""Data files written anew: rows of some files, all or all but some, sorted into new files and put in their place.

Files of the table's present partitioning, and of one partition, become one file. Those of an earlier partitioning
become one for each partition that their rows lie in now: pyiceberg writes no other than the present.

DuckDB sorts, on disk where memory does not do. What is written is read back and compared with what was read, every
column of every row, before the table hears of it.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import FileScanTask, Table
from pyiceberg.typedef import Record

from headwater.errors import HeadwaterError, Retryable
from sinks.datafiles import describe
from sinks.dividing import divided, quoted
from sinks.lake import file_schema, parquet_writer

__all__ = ["Order", "Rewriter", "Written", "data_files", "replace_files"]

_IDENTITY = ("_origin", "_seq")
_GROUP_ROWS = 122_880
"""Of a row group, as many as DuckDB hands out at a time. In a sorted file a query for a key reads one of them."""


class _Objects(Protocol):
    def put(self, key: str, body: bytes) -> str: ...


@dataclass(frozen=True)
class Order:
    """What rows are sorted by in a file: key, then time, then identity."""

    key: str
    time: str


@dataclass(frozen=True)
class Written:
    """The new files (none when no row was kept), how many rows they have, and the identities of those left out."""

    files: tuple[DataFile, ...]
    rows: int
    left_out: pa.Table


class Rewriter:
    """Over one state of a table. `memory` is what DuckDB may take, such as "1GB"."""

    def __init__(self, table: Table, objects: _Objects, order: Order, memory: str = "1GB") -> None:
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
        told: Callable[[int], object] = lambda _: None,
    ) -> Written:
        """New objects `key`-NNNN.parquet with the rows of the files, but for those whose key is `without`.

        Nothing is written when no row is kept, or when none was to be left out. The files are of one partition of one
        partitioning. HeadwaterError when what was written is not what was read. `told` hears how many rows are done,
        each as it is read and as it is sorted, and ends it by what it raises.
        """
        with (
            tempfile.TemporaryDirectory(prefix="headwater-rewrite-") as place,
            duckdb.connect(f"{place}/sort.db") as db,
        ):
            db.execute("SET TimeZone = 'UTC'")
            db.execute(f"SET memory_limit = '{self._memory}'")
            db.execute("SET threads = 2")
            read = self._read(db, files, told)
            left_out = self._leave_out(db, without)
            if without is not None and not left_out.num_rows:
                return Written((), 0, left_out)
            parts = self._parts(db, files[0])
            bodies = [Path(place) / f"{number:04d}.parquet" for number in range(len(parts))]
            rows = 0
            for (_, where), body in zip(parts, bodies, strict=True):
                rows += self._sorted(db, where, body, partial(_beyond, told, read + rows))
            if not rows:
                return Written((), 0, left_out)
            _same(db, bodies, rows)
            uris = [self._objects.put(f"{key}-{body.name}", body.read_bytes()) for body in bodies]
        io, metadata = self._table.io, self._table.metadata
        new = [describe(io, metadata, uri, partition=part) for uri, (part, _) in zip(uris, parts, strict=True)]
        return Written(tuple(new), rows, left_out)

    def _read(self, db: duckdb.DuckDBPyConnection, files: Sequence[DataFile], told: Callable[[int], object]) -> int:
        """All rows into a table of their own; how many."""
        db.register("none", _plain(self._schema).empty_table())
        db.execute("CREATE TABLE read AS SELECT * FROM none")
        rows = 0
        for batch in self._batches(files):
            db.register("source", pa.Table.from_batches([batch]))
            db.execute("INSERT INTO read SELECT * FROM source")
            rows += batch.num_rows
            told(rows)
        return rows

    def _parts(self, db: duckdb.DuckDBPyConnection, file: DataFile) -> list[tuple[Record, str]]:
        """The present partitions of the rows read, and the condition for each: all where the file is of one itself."""
        metadata = self._table.metadata
        if file.spec_id == metadata.default_spec_id:
            return [(file.partition, "TRUE")]
        return divided(db, "read", metadata.spec(), metadata.schema())

    def _batches(self, files: Sequence[DataFile]) -> Iterator[pa.RecordBatch]:
        """The rows as the table's present schema has them, a file at a time."""
        scan = ArrowScan(self._table.metadata, self._table.io, self._table.schema(), AlwaysTrue())
        plain = _plain(self._schema)
        for file in files:
            for batch in scan.to_record_batches([FileScanTask(file)]):
                yield pa.RecordBatch.from_arrays([batch.column(one.name).cast(one.type) for one in plain], schema=plain)

    def _leave_out(self, db: duckdb.DuckDBPyConnection, without: object) -> pa.Table:
        column = quoted(self._order.key)
        names = ", ".join(_IDENTITY)
        query = f"SELECT {names} FROM read WHERE CAST({column} AS VARCHAR) = ? ORDER BY ALL"
        found: pa.Table = db.sql(query, params=[None if without is None else str(without)]).to_arrow_table()
        if found.num_rows:
            db.execute(f"DELETE FROM read WHERE CAST({column} AS VARCHAR) = ?", [str(without)])
        return found

    def _sorted(self, db: duckdb.DuckDBPyConnection, where: str, body: Path, told: Callable[[int], object]) -> int:
        by = ", ".join(quoted(name) for name in (self._order.key, self._order.time, *_IDENTITY))
        group, distinct = self._distinct(db, where)
        reader = db.sql(f"SELECT * FROM read WHERE {where} ORDER BY {by}").to_arrow_reader(_GROUP_ROWS)
        rows = 0
        with body.open("wb") as sink, parquet_writer(sink, self._written, group, distinct) as writer:
            for batch in reader:
                columns = [batch.column(one.name).cast(one.type) for one in self._written]
                writer.write_table(pa.Table.from_arrays(columns, schema=self._written), _GROUP_ROWS)
                rows += batch.num_rows
                told(rows)
        return rows

    def _distinct(self, db: duckdb.DuckDBPyConnection, where: str) -> tuple[int, dict[str, int]]:
        """Rows of a row group of the sorted rows, and about how many values key and origin have in one."""
        key, origin = self._order.key, _IDENTITY[0]
        counts = f"count(*), approx_count_distinct({quoted(key)}), approx_count_distinct({origin})"
        rows, keys, origins = db.execute(f"SELECT {counts} FROM read WHERE {where}").fetchall()[0]
        groups = max(1, -(-rows // _GROUP_ROWS))
        return rows // groups, {key: -(-keys // groups), origin: origins}


def _beyond(told: Callable[[int], object], before: int, rows: int) -> None:
    told(before + rows)


def data_files(table: Table) -> list[DataFile]:
    """Every data file of the table's current snapshot."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    return [
        entry.data_file
        for manifest in manifests
        if manifest.content == ManifestContent.DATA
        for entry in manifest.fetch_manifest_entry(table.io)
    ]


def replace_files(table: Table, old: Sequence[DataFile], new: Sequence[DataFile], why: dict[str, str]) -> None:
    """One commit on top of exactly the state that `table` is; Retryable when another writer was faster.

    An error of botocore says nothing about whether it got through: read the table.
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
    """HeadwaterError unless the files have the very rows that were read: their number and the sum of their hashes."""
    wanted = db.execute("SELECT count(*), sum(hash(r)::HUGEINT) FROM read r").fetchone()
    got = db.execute("SELECT count(*), sum(hash(r)::HUGEINT) FROM read_parquet(?) r", [[*map(str, bodies)]]).fetchone()
    if wanted != got or wanted is None or wanted[0] != rows:
        raise HeadwaterError(
            f"a rewritten file has other rows than were read ({wanted} and {got}): nothing was changed"
        )


def _plain(schema: pa.Schema) -> pa.Schema:
    def kind(one: Any) -> Any:
        return one.value_type if pa.types.is_dictionary(one) else one

    return pa.schema([pa.field(one.name, kind(one.type)) for one in schema])
