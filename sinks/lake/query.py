"""Answer SQL over the lake on this machine: DuckDB over the Parquet files of each table's current snapshot."""

import difflib
import re
from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from headwater.config import Settings
from headwater.errors import UsageError
from headwater.sinks.lake.catalog import open_catalog, table_names

__all__ = ["lake_query"]


def lake_query(settings: Settings, sql: str, *, external: bool = False) -> pa.Table:
    """Run one SQL statement over the lake and return its result as an Arrow table.

    Tables go by name, with or without the database's: `telemetry`, `headwater.telemetry`. Only the tables that the text
    names are opened, and only the columns and row groups that the statement needs are read. Timestamps are UTC. The
    statement can read nothing else, unless `external` lets it reach files of this machine and the network.

    Raise UsageError for SQL that DuckDB refuses, more than one statement, or a statement without a result; the text
    lists the lake's tables when one is unknown.

    >>> answer = lake_query(settings, "SELECT device, count(*) AS n FROM metric GROUP BY ALL ORDER BY ALL")
    >>> answer.to_pylist()
    [{'device': 'd0', 'n': 2}, {'device': 'd1', 'n': 1}]
    """
    catalog = open_catalog(settings)
    known = table_names(catalog, settings)
    database = _quoted(settings.database)
    with duckdb.connect() as connection:
        try:
            if len(connection.extract_statements(sql)) != 1:
                raise UsageError("SQL: give one statement")
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {database}")
            for name in known:
                if _named(name, sql):
                    source = f"iceberg table {name}"
                    connection.register(source, _readable(catalog.load_table((settings.database, name))))
                    for schema in dict.fromkeys(["main", database]):
                        view = f"{schema}.{_quoted(name)}"
                        connection.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM {_quoted(source)}")
            if not external:
                _close(connection)
            answer = connection.sql(sql)
            if answer is None:
                raise UsageError("SQL: the statement has no result")
            return answer.to_arrow_table()
        except duckdb.CatalogException as error:
            raise UsageError(f"SQL: {_unknown(error, known)}") from error
        except duckdb.Error as error:
            raise UsageError(f"SQL: {_one_line(error)}") from error


def _close(connection: duckdb.DuckDBPyConnection) -> None:
    """Leave the statement the lake's tables alone: no files of this machine, no network, no objects of this process."""
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _unknown(error: duckdb.CatalogException, tables: Sequence[str]) -> str:
    """Return what is unknown, and what there is. DuckDB's own suggestion is one of its system tables."""
    text = _one_line(error)
    named = re.search(r"Table with name (\S+) does not exist!", text)
    if named is None:
        return f"{text}; the lake has {', '.join(tables) or 'no tables'}"
    near = difflib.get_close_matches(named[1].lower(), tables, 1, 0.5)
    more = f", did you mean {near[0]}?" if near else ""
    return f"there is no table {named[1]}{more}; the lake has {', '.join(tables) or 'no tables'}"


def _readable(table: Table) -> ds.Dataset | pa.Table:
    """Return a dataset over the table's files, read in part; the whole table where only Iceberg's own reader gives the
    rows.
    """
    tasks = list(table.scan().plan_files())
    if not tasks or _renamed(table) or any(task.delete_files for task in tasks):
        return table.scan().to_arrow()
    assert isinstance(table.io, PyArrowFileIO)
    bucket, _, _ = tasks[0].file.file_path.removeprefix("s3://").partition("/")
    paths = [task.file.file_path.removeprefix("s3://") for task in tasks]
    schema = _plain(table.schema().as_arrow())
    return ds.dataset(paths, schema=schema, filesystem=table.io.fs_by_scheme("s3", bucket), format="parquet")


def _renamed(table: Table) -> bool:
    """Return whether a column name ever stood for another column, so that names in old files prove nothing."""
    pairs = {(one.name, one.field_id) for schema in table.schemas().values() for one in schema.fields}
    return len({name for name, _ in pairs}) < len(pairs) or len({number for _, number in pairs}) < len(pairs)


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return the schema without metadata, and with strings as the files hold them."""
    kinds = [pa.string() if pa.types.is_large_string(one.type) else one.type for one in schema]
    return pa.schema([pa.field(one.name, kind, nullable=True) for one, kind in zip(schema, kinds, strict=True)])


def _named(table: str, sql: str) -> bool:
    """Return whether the SQL text has the table's name. DuckDB's own list of names fails for some joins of unknown
    tables.
    """
    return re.search(rf"(?<!\w){re.escape(table)}(?!\w)", sql, re.IGNORECASE) is not None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())
