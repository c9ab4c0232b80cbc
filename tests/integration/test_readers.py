"""Other engines read the lake with their default settings: each type, as written, compacted, evolved, rows deleted.

Spark is in tests/spark, Trino in tests/trino. What an engine cannot read, or changes, is named in LIMITS, in the docs,
and still so: a limit that is gone fails here too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import chdb
import daft
import datafusion
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.catalog.glue import GlueCatalog

from headwater.aws import client
from headwater.commands.local.embedded import EmbeddedAws
from headwater.config import Settings
from headwater.sinks.lake.query import lake_query
from tests.lake import aws
from tests.readable import KINDS, STATES, Expected, fill, plain

__all__ = ["aws"]

SETTINGS = Settings(bucket="readers", database="readers")
Row = Mapping[str, Any]
LIMITS: Mapping[str, Mapping[str, str]] = {
    "datafusion": {
        "struct<new: string?, a: timestamp, b: list<decimal(9, 2)>?>": "a struct that has grown is refused",
    },
    "clickhouse": {
        "time": "cut to seconds",
        "list<long?>": "no list is an empty one",
        "list<uuid?>": "no list is an empty one",
        "map<string, timestamp>": "no map is an empty one",
        "struct<a: timestamp, b: list<decimal(9, 2)>?>": "no struct is one of nulls",
        "struct<new: string?, a: timestamp, b: list<decimal(9, 2)>?>": "no struct is one of nulls",
    },
}
"""By engine and type, what it does to it."""
REFUSED = {("daft", "uuids")}
"""Kinds of tables that an engine reads no column of."""


@pytest.fixture(scope="module")
def tables(aws: EmbeddedAws) -> Iterator[dict[tuple[str, str], Expected]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        client("s3", SETTINGS).create_bucket(Bucket=SETTINGS.bucket)
        yield {(kind, state): fill(SETTINGS, kind, state) for kind in KINDS for state in STATES}


@pytest.fixture
def opened(aws: EmbeddedAws) -> Callable[[str], Any]:
    """pyiceberg's own catalog, as anybody opens it."""
    url = aws.environment["AWS_ENDPOINT_URL"]
    of_s3 = {"endpoint": url, "region": "us-east-1", "access-key-id": "x", "secret-access-key": "x"}
    properties = {f"s3.{name}": value for name, value in of_s3.items()} | {"s3.path-style-access": "true"}
    catalog = GlueCatalog("any", **{"glue.endpoint": url, "glue.region": "us-east-1"}, **properties)
    return lambda name: catalog.load_table((SETTINGS.database, name))


def duckdb(opened: Any, url: str, table: str, columns: Sequence[str]) -> list[Row]:
    found: list[Row] = lake_query(SETTINGS, f"SELECT {', '.join(columns)} FROM {table}").to_pylist()
    return found


def pyiceberg(opened: Any, url: str, table: str, columns: Sequence[str]) -> list[Row]:
    found: list[Row] = opened(table).scan(selected_fields=tuple(columns)).to_arrow().to_pylist()
    return found


def pandas(opened: Any, url: str, table: str, columns: Sequence[str]) -> list[Row]:
    """With pandas' Arrow types: its own make a float of a number that may be null."""
    frame = opened(table).scan(selected_fields=tuple(columns)).to_arrow().to_pandas(types_mapper=pd.ArrowDtype)
    return [{str(name): None if one is pd.NA else one for name, one in row.items()} for row in frame.to_dict("records")]


def polars(opened: Any, url: str, table: str, columns: Sequence[str]) -> list[Row]:
    """With the reader of its own, which it takes where it can, and not pyiceberg's."""
    options = {"endpoint_url": url, "access_key_id": "x", "secret_access_key": "x", "region": "us-east-1"}
    storage = {f"aws_{name}": value for name, value in options.items()} | {"aws_allow_http": "true"}
    lazy = pl.scan_iceberg(opened(table), reader_override="native", storage_options=storage)
    return list(lazy.select(columns).collect().to_dicts())


def daft_(opened: Any, url: str, table: str, columns: Sequence[str]) -> list[Row]:
    s3 = daft.io.S3Config(endpoint_url=url, key_id="x", access_key="x", region_name="us-east-1", use_ssl=False)
    return list(daft.read_iceberg(opened(table), io_config=daft.io.IOConfig(s3=s3)).select(*columns).to_pylist())


def fusion(opened: Any, url: str, table: str, columns: Sequence[str]) -> list[Row]:
    context = datafusion.SessionContext()
    context.register_table("t", opened(table))
    return [row for batch in context.sql(f"SELECT {', '.join(columns)} FROM t").collect() for row in batch.to_pylist()]


def clickhouse(opened: Any, url: str, table: str, columns: Sequence[str]) -> list[Row]:
    source = f"icebergS3('{url}/{SETTINGS.bucket}/lake/{table}/', 'x', 'x')"
    sql = f"SELECT {', '.join(columns)} FROM {source} SETTINGS output_format_arrow_string_as_string = 0"
    answer = chdb.query(sql, "Arrow")
    found: list[Row] = pa.ipc.open_file(answer.bytes()).read_all().to_pylist()
    return found


READERS = {
    "duckdb": duckdb,
    "pyiceberg": pyiceberg,
    "pandas": pandas,
    "polars": polars,
    "daft": daft_,
    "datafusion": fusion,
    "clickhouse": clickhouse,
}


def compare(expected: Expected, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Assert that the rows are the table's, in the columns."""
    found = [
        {"_origin": plain("string", row["_origin"]), "_seq": row["_seq"]}
        | {name: plain(expected.columns[name], row[name]) for name in columns}
        for row in rows
    ]
    names = ("_origin", "_seq", *columns)
    assert sorted(found, key=lambda row: (row["_origin"], row["_seq"])) == [
        {name: row[name] for name in names} for row in expected.rows
    ]


@pytest.mark.parametrize("reader", READERS)
def test_an_engine_reads_each_type_in_each_state(
    reader: str, aws: EmbeddedAws, tables: Mapping[tuple[str, str], Expected], opened: Callable[[str], Any]
) -> None:
    """Exactly what was written; what an engine is known not to read is refused or changed still."""
    limits, url = LIMITS.get(reader, {}), aws.environment["AWS_ENDPOINT_URL"]
    for expected in tables.values():
        whole = (reader, expected.kind) not in REFUSED
        exact = [name for name, kind in expected.columns.items() if whole and kind not in limits]
        if exact:
            compare(expected, exact, READERS[reader](opened, url, expected.table, ["_origin", "_seq", *exact]))
        for name in expected.columns.keys() - set(exact):
            with pytest.raises(Exception):  # noqa: B017 (whatever the engine raises, or the comparison)
                compare(expected, [name], READERS[reader](opened, url, expected.table, ["_origin", "_seq", name]))
