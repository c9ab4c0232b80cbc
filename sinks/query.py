"""SQL over the lake on this machine: DuckDB over the Parquet files of each table's current snapshot."""

import logging
import re
from collections.abc import Iterable, Iterator

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from headwater.config import Settings
from headwater.errors import UsageError
from sinks.catalog import open_catalog, table_names

__all__ = ["file_identities", "lake_identities", "lake_query"]

log = logging.getLogger("headwater.lake")

_IDENTITY = ["_origin", "_seq"]


def lake_query(settings: Settings, sql: str) -> pa.Table:
    """The answer of one SQL statement; tables go by name, with or without the database's.

    Only the tables that it names are opened, and of their files only the columns and row groups that it needs are read.
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
            answer = connection.sql(sql)
            if answer is None:
                raise UsageError("SQL: the statement has no result")
            return answer.to_arrow_table()
        except duckdb.CatalogException as error:
            raise UsageError(f"SQL: {_one_line(error)}; the lake has {', '.join(known) or 'no tables'}") from error
        except duckdb.Error as error:
            raise UsageError(f"SQL: {_one_line(error)}") from error


def lake_identities(table: Table) -> Iterator[pa.RecordBatch]:
    """`_origin` and `_seq` of every row of the table as it was opened, a batch at a time."""
    found = _readable(table)
    if isinstance(found, pa.Table):
        yield from found.select(_IDENTITY).to_batches()
    else:
        yield from found.to_batches(columns=_IDENTITY)


def file_identities(table: Table, uris: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """The same of data files, maybe not in the table yet. One that is not there has no rows, which is logged."""
    for uri in uris:
        bucket, _, path = uri.removeprefix("s3://").partition("/")
        assert isinstance(table.io, PyArrowFileIO)
        try:
            with table.io.fs_by_scheme("s3", bucket).open_input_file(f"{bucket}/{path}") as file:
                yield from pq.ParquetFile(file).iter_batches(columns=_IDENTITY)
        except FileNotFoundError:
            log.error("a committed file is gone", extra={"uri": uri})


def _readable(table: Table) -> ds.Dataset | pa.Table:
    """A dataset over the files, which is read in part; the whole table where only Iceberg's reader knows how."""
    tasks = list(table.scan().plan_files())
    if not tasks or _renamed(table) or any(task.delete_files for task in tasks):
        return table.scan().to_arrow()
    assert isinstance(table.io, PyArrowFileIO)
    bucket, _, _ = tasks[0].file.file_path.removeprefix("s3://").partition("/")
    paths = [task.file.file_path.removeprefix("s3://") for task in tasks]
    schema = _plain(table.schema().as_arrow())
    return ds.dataset(paths, schema=schema, filesystem=table.io.fs_by_scheme("s3", bucket), format="parquet")


def _renamed(table: Table) -> bool:
    """Whether a name ever stood for another column: then names in the files mean nothing by themselves."""
    pairs = {(one.name, one.field_id) for schema in table.schemas().values() for one in schema.fields}
    return len({name for name, _ in pairs}) < len(pairs) or len({number for _, number in pairs}) < len(pairs)


def _plain(schema: pa.Schema) -> pa.Schema:
    """Without metadata, and strings as the files hold them."""
    kinds = [pa.string() if pa.types.is_large_string(one.type) else one.type for one in schema]
    return pa.schema([pa.field(one.name, kind, nullable=True) for one, kind in zip(schema, kinds, strict=True)])


def _named(table: str, sql: str) -> bool:
    """Whether the text has the name. DuckDB's own list of names fails for some joins of tables not made yet."""
    return re.search(rf"(?<!\w){re.escape(table)}(?!\w)", sql, re.IGNORECASE) is not None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())
