"""SQL over the lake on this machine: DuckDB over the Parquet files of each table's current snapshot."""

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from headwater.config import Settings
from headwater.errors import UsageError
from sinks.catalog import open_catalog, open_table

__all__ = ["lake_identities", "lake_query"]


def lake_query(settings: Settings, sql: str) -> pa.Table:
    """The answer of one SQL statement; tables go by name, with or without the database's."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    try:
        named = connection.get_table_names(sql)
    except duckdb.Error as error:
        raise UsageError(f"SQL: {_one_line(error)}") from error
    catalog = open_catalog(settings)
    known = {name for _, name in catalog.list_tables(settings.database)}
    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{settings.database}"')
    for name in sorted(named & known):
        connection.register(f"_{name}", _readable(catalog.load_table((settings.database, name))))
        connection.execute(f'CREATE VIEW main."{name}" AS SELECT * FROM "_{name}"')
        connection.execute(f'CREATE VIEW "{settings.database}"."{name}" AS SELECT * FROM "_{name}"')
    try:
        return connection.execute(sql).to_arrow_table()
    except duckdb.Error as error:
        raise UsageError(f"SQL: {_one_line(error)}; the lake has {sorted(known)}") from error


def lake_identities(settings: Settings, table: str) -> Iterator[pa.RecordBatch]:
    """`_origin` and `_seq` of every row of the table."""
    found = _readable(open_table(settings, table))
    if isinstance(found, pa.Table):
        yield from found.select(["_origin", "_seq"]).to_batches()
    else:
        yield from found.to_batches(columns=["_origin", "_seq"])


def _readable(table: Table) -> ds.Dataset | pa.Table:
    """A dataset over the files, which DuckDB reads in part; the whole table where only Iceberg's reader knows how."""
    tasks = list(table.scan().plan_files())
    schema = _plain(table.schema().as_arrow())
    renamed = len(table.schemas()) > 1 and len({name for s in table.schemas().values() for name in s.column_names}) > len(
        schema.names
    )
    if not tasks or renamed or any(task.delete_files for task in tasks):
        return table.scan().to_arrow()
    paths = [task.file.file_path.removeprefix("s3://") for task in tasks]
    assert isinstance(table.io, PyArrowFileIO)
    return ds.dataset(paths, schema=schema, filesystem=table.io.fs_by_scheme("s3", None), format="parquet")


def _plain(schema: pa.Schema) -> pa.Schema:
    """Without metadata, and strings as the files hold them."""
    fields = [
        pa.field(one.name, pa.string() if pa.types.is_large_string(one.type) else one.type) for one in schema
    ]
    return pa.schema(fields)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())
