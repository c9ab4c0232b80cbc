"""Answer SQL over the lake on this machine: DuckDB over the Parquet files of tables' snapshots. Reads only."""

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from headwater.config import Settings
from headwater.errors import HeadwaterError, UsageError
from headwater.sinks.lake.catalog import open_table, table_names
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.reading import TableReader, empty_rows, plain_schema, plan
from headwater.sinks.lake.sqlsource import Scan, TableSource
from headwater.sinks.lake.sqltext import Named, explained, instant, named, shows_tables, travelled

__all__ = ["LakeSession", "lake_query"]

_SAMPLED_FILES = 5
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""First and last day of Python's calendar, in days since 1970."""
_ODD = ("INTERVAL", "TIME WITH TIME ZONE", "TIME_NS", "BIT", "UNION", "BIGNUM")
"""Parts of DuckDB's names of types that have no counterpart in Python, alone or within others."""


def lake_query(settings: Settings, sql: str, *, external: bool = False, as_of: str = "") -> pa.Table:
    """Run one SQL statement over the lake and return its result as an Arrow table; see `LakeSession`.

    >>> answer = lake_query(settings, "SELECT device, count(*) AS n FROM metric GROUP BY ALL ORDER BY ALL")
    >>> answer.to_pylist()
    [{'device': 'd0', 'n': 2}, {'device': 'd1', 'n': 1}]
    """
    return LakeSession(settings, external=external, as_of=as_of).query(sql)


class LakeSession:
    """Answer statements over the lake, one after the other. Nothing stays open between two of them.

    Tables go by name, with or without the database's: `telemetry`, `headwater.telemetry`; `telemetry FOR TIMESTAMP AS
    OF '2026-01-31T12:00:00Z'` and `FOR VERSION AS OF 123` are earlier states, `"telemetry$files"` and its like are
    Iceberg's own tables. `as_of` is the moment of all tables that have no other. Only tables that the text names are
    opened, and only the files, columns and row groups that the statement needs are read. Timestamps are UTC. Statements
    can read nothing else, unless `external` lets them reach files of this machine and the network.
    """

    def __init__(self, settings: Settings, *, external: bool = False, as_of: str = "") -> None:
        self._settings, self._external = settings, external
        self._at = instant(as_of) if as_of else None
        self._catalog = open_catalog(settings)

    def tables(self) -> list[str]:
        """Return the names of the lake's tables."""
        return table_names(self._catalog, self._settings)

    def open(self, name: str) -> Table:
        """Return a table; raise UsageError, which names those that there are, for another."""
        return open_table(self._settings, name, self._catalog)

    def summary(self, name: str) -> dict[str, Any]:
        """Return how large a table is, as its last commit says, and when that was."""
        table = self.open(name)
        snapshot = table.current_snapshot()
        said = dict(snapshot.summary.additional_properties) if snapshot and snapshot.summary else {}
        at = None if snapshot is None else datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
        return {
            "table": name,
            "rows": int(said.get("total-records", 0)),
            "files": int(said.get("total-data-files", 0)),
            "bytes": int(said.get("total-files-size", 0)),
            "partitions": _partitions(table),
            "committed": at,
        }

    def columns(self, name: str) -> list[dict[str, Any]]:
        """Return the columns of a table."""
        table = self.open(name)
        by = {one.source_id: f"partitioned by {one.transform}" for one in table.spec().fields}
        return [
            {
                "column": one.name,
                "type": str(one.field_type),
                "required": one.required,
                "description": "; ".join(text for text in (by.get(one.field_id, ""), one.doc or "") if text),
            }
            for one in table.schema().fields
        ]

    def sample(self, name: str, rows: int, random: Random) -> pa.Table:
        """Return some rows of a few files, any of them; a row group of each is decoded."""
        table = self.open(name)
        tasks = plan(table)
        tasks = random.sample(tasks, min(len(tasks), _SAMPLED_FILES))
        reader, found = TableReader(table), [empty_rows(plain_schema(table.schema()))]
        for task in tasks:
            batch = next(reader.batches(task), None)
            if batch is not None:
                places = random.sample(range(batch.num_rows), min(batch.num_rows, -(-rows // len(tasks))))
                found.append(pa.Table.from_batches([batch.take(pa.array(sorted(places)))]))
        return pa.concat_tables(found).slice(0, rows)

    def query(self, sql: str) -> pa.Table:
        """Run one statement. EXPLAIN gives lines of text, with the files that each scan reads of all.

        Raise UsageError for SQL that DuckDB refuses, more than one statement, or a statement without a result; the text
        lists the lake's tables when one is unknown. Raise HeadwaterError for a file that cannot be read.
        """
        if shows_tables(sql):
            return pa.table({"name": pa.array(self.tables(), pa.string())})
        sql, others = travelled(sql)
        explain, sources, known = explained(sql), list[TableSource](), self.tables()
        with duckdb.connect() as db:
            try:
                if len(db.extract_statements(sql)) != 1:
                    raise UsageError("SQL: give one statement")
                sources = self._prepare(db, sql, others, known)
                if explain is not None:
                    return _explain(db, sql, *explain, sources)
                answer = db.sql(sql)
                if answer is None:
                    raise UsageError("SQL: the statement has no result")
                return _printable(db, answer)
            except duckdb.CatalogException as error:
                raise UsageError(f"SQL: {_unknown(error, known)}") from error
            except duckdb.Error as error:
                failure = next((one.failure for one in sources if one.failure is not None), None)
                if failure is not None:
                    raise _unreadable(failure) from error
                raise UsageError(f"SQL: {_one_line(error)}") from error

    def _prepare(
        self, db: duckdb.DuckDBPyConnection, sql: str, others: Mapping[str, Named], known: Sequence[str]
    ) -> list[TableSource]:
        """Give the connection all that the statement names, and close it to everything else."""
        database, sources = _quoted(self._settings.database), list[TableSource]()
        db.execute("SET TimeZone = 'UTC'")
        db.execute(f"CREATE SCHEMA IF NOT EXISTS {database}")
        opened: dict[str, Table] = {}
        found = {_shown(one): one for one in named(sql, known)} | dict(others)
        for name, one in found.items():
            if one.table not in opened:
                opened[one.table] = self.open(one.table)
            source = _source(name, one, opened[one.table], self._at)
            if isinstance(source, TableSource):
                sources.append(source)
            db.register(f"lake table {name}", source)
            for schema in dict.fromkeys(["main", database]):
                view = f"{schema}.{_quoted(name)}"
                db.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM {_quoted(f'lake table {name}')}")
        if not self._external:
            _close(db)
        return sources


def _partitions(table: Table) -> str:
    fields = table.spec().fields
    return ", ".join(f"{one.transform}({table.schema().find_column_name(one.source_id)})" for one in fields)


def _shown(one: Named) -> str:
    return f"{one.table}${one.about}" if one.about else one.table


def _source(name: str, one: Named, table: Table, at: int | None) -> TableSource | pa.Table:
    """Return what DuckDB scans: a state of the table, or one of Iceberg's tables about it."""
    if one.about:
        return _flat(getattr(table.inspect, one.about)())
    snapshot = _snapshot(one, table, at)
    if snapshot is None:
        return TableSource(name, table, table.schema(), [])
    current = snapshot == table.current_snapshot()
    schema = table.schema() if current else _schema(table, snapshot)
    return TableSource(name, table, schema, plan(table, snapshot.snapshot_id))


def _snapshot(one: Named, table: Table, at: int | None) -> Snapshot | None:
    """Return the snapshot that is asked for; None for a table without rows. Raise UsageError when it is not there."""
    if one.version:
        number = int(one.version) if one.version.isdigit() else None
        found = table.snapshot_by_id(number) if number is not None else table.snapshot_by_name(one.version)
        if found is None:
            raise UsageError(f"table {one.table} has no snapshot {one.version}: it has expired, or never was")
        return found
    moment = one.at if one.at is not None else at
    if moment is None:
        return table.current_snapshot()
    found = table.snapshot_as_of_timestamp(moment)
    if found is None:
        raise UsageError(f"table {one.table} has no snapshot that old: it has expired, or never was")
    return found


def _schema(table: Table, snapshot: Snapshot) -> Schema:
    return table.schemas().get(snapshot.schema_id, table.schema())


def _flat(found: pa.Table) -> pa.Table:
    """Return the table without columns that DuckDB has no type for: the partition of an unpartitioned table."""
    kept = [one.name for one in found.schema if not (pa.types.is_struct(one.type) and not one.type.num_fields)]
    return found.select(kept)


def _explain(
    db: duckdb.DuckDBPyConnection, sql: str, inner: str, run: bool, sources: Sequence[TableSource]
) -> pa.Table:
    """Return the plan as lines, and what each scan reads: of a statement that is not run, before any row is known."""
    for source in sources:
        source.dry = not run
    rows = db.execute(sql).fetchall()
    lines = [line.rstrip() for row in rows for line in str(row[-1]).splitlines()]
    if not run:
        db.execute(inner).fetchall()
    lines += [_line(scan, run=run) for source in sources for scan in source.scans]
    return pa.table({"plan": pa.array([line for line in lines if line], pa.string())})


def _line(scan: Scan, *, run: bool) -> str:
    text = f"{scan.table}: {scan.files:,} of {scan.of_files:,} files, {_mb(scan.bytes)} of {_mb(scan.of_bytes)} MB"
    if run:
        counts = scan.counts
        text += f"; decoded {counts.rows:,} rows in {counts.groups:,} row groups of {counts.files:,} files"
    return text + (f"; where {scan.condition}" if scan.condition else "")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _printable(db: duckdb.DuckDBPyConnection, answer: Any) -> pa.Table:
    """Return the result, with what Python cannot show as text: intervals, say, and times beyond its calendar."""
    found = _texts(answer, [any(one in str(kind) for one in _ODD) for kind in answer.types]).to_arrow_table()
    beyond = [_is_beyond(column) for column in found.columns]
    return _texts(db.from_arrow(found), beyond).to_arrow_table() if any(beyond) else found


def _texts(relation: Any, which: Sequence[bool]) -> Any:
    """Return the relation with some columns as DuckDB shows them."""
    if not any(which):
        return relation
    columns = [
        f"CAST(#{at} AS VARCHAR) AS {_quoted(name)}" if text else f"#{at}"
        for at, (name, text) in enumerate(zip(relation.columns, which, strict=True), 1)
    ]
    return relation.project(", ".join(columns))


def _is_beyond(column: pa.ChunkedArray) -> bool:
    """Tell whether a column has times that are in no year from 1 to 9999, as infinity is."""
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        return False
    days = column.cast(pa.int32() if pa.types.is_date32(column.type) else pa.int64())
    unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}.get(getattr(column.type, "unit", ""), 0) * 86_400 or 1
    ends = [one for one in pc.min_max(days).as_py().values() if one is not None]
    return any(not _FIRST_DAY <= one // unit <= _LAST_DAY for one in ends)


def _close(connection: duckdb.DuckDBPyConnection) -> None:
    """Leave the statement the lake's tables alone: no files of this machine, no network, no objects of this process."""
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _unreadable(failure: Exception) -> Exception:
    if isinstance(failure, FileNotFoundError):
        return HeadwaterError(f"a file of the table is gone; headwater audit names it: {_one_line(failure)}")
    return failure


def _unknown(error: duckdb.CatalogException, tables: Sequence[str]) -> str:
    """Return what is unknown, and what there is. DuckDB's own suggestion is one of its system tables."""
    text = _one_line(error)
    found = re.search(r"Table with name (\S+) does not exist!", text)
    if found is None:
        return text
    near = difflib.get_close_matches(found[1].lower(), tables, 1, 0.5)
    more = f", did you mean {near[0]}?" if near else ""
    return f"there is no table {found[1]}{more}; the lake has {', '.join(tables) or 'no tables'}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())
