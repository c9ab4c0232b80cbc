"""Every type through the lake: what a batch has is what pyiceberg and DuckDB read, before and after a compaction."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from headwater.aws import Objects, client
from headwater.codec import Decoded, decode_record, encode_batch
from headwater.config import Settings
from headwater.contract import Contract, conform, parse_contract
from headwater.contract.iceberg import iceberg_schema
from headwater.contract.keyvalues import KeyValue
from headwater.processors.replay.chunk import as_contract
from headwater.sinks.lake.buffer import LakeBuffer
from headwater.sinks.lake.catalog import IcebergTable, ensure_table, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.partitioning import Partitioning
from headwater.sinks.lake.query import lake_query
from headwater.sinks.lake.reading import plan
from headwater.sinks.lake.rewrite import Rewriter, SortOrder, replace_files
from tests.lake import IDENTITY, aws, settings

__all__ = ["aws", "settings"]
"""Fixtures."""

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
OTHER = {"uuid": str(UUID(int=3)), "decimal(5, 2)": "1.21", "timestamp_us": "2026-03-01T12:00:00.000001Z"}
"""Keys that no row has."""
TYPES: dict[str, list[Any]] = {
    "decimal(9, 2)": [Decimal("-1.50"), None, Decimal("9999999.99")],
    "decimal(38, 10)": [Decimal("1234567890123456789012345678.0123456789"), None, Decimal("0E-10")],
    "binary": [b"\0\xff", None, b""],
    "uuid": [UUID(int=1), None, UUID(int=(1 << 128) - 1)],
    "time": [time(1, 2, 3, 4), None, time(23, 59, 59, 999_999)],
    "list<uuid?>": [[UUID(int=1).bytes, None], None, []],
    "map<string, timestamp>": [[("a", START)], None, []],
    "struct<a: timestamp, b: list<decimal(9, 2)>?>": [
        {"a": START, "b": [Decimal("1.20")]},
        None,
        {"a": START, "b": None},
    ],
    "timestamp_us": [START + timedelta(microseconds=1), None, datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)],
}


def contract(version: int = 1, key: str = "uuid", digits: int = 9) -> Contract:
    kinds = [kind.replace("(9,", f"({digits},") for kind in TYPES]
    if version > 1:
        kinds = [kind.replace("struct<", "struct<new: string?, ") for kind in kinds]
    fields = [f"{{name: x{n}, type: '{kind}', required: false}}" for n, kind in enumerate(kinds)]
    text = ", ".join([f"{{name: k, type: {key}}}", "{name: ts, type: timestamp_us}", *fields])
    return parse_contract(f"{{name: types, version: {version}, key: k, time: ts, fields: [{text}]}}", "types")


def batch(of: Contract, key: list[Any]) -> pa.Table:
    """Three events, through a sealed batch."""
    times = [START + timedelta(microseconds=n) for n in range(3)]
    columns: dict[str, Any] = {"k": pa.array(key, of.field("k").arrow_type), "ts": times}
    for n, values in enumerate(TYPES.values()):
        columns[f"x{n}"] = pa.array(values, of.field(f"x{n}").arrow_type)
    found = conform(of, pa.table(columns))
    assert not found.invalid
    sent = decode_record(encode_batch(found.table, of), of)
    assert isinstance(sent, Decoded)
    return sent.table


def objects(settings: Settings) -> Objects:
    return Objects(client("s3", settings), settings.bucket)


def add(settings: Settings, of: Contract, rows: pa.Table, name: str) -> None:
    schema = pa.schema(
        [*(pa.field(one.name, one.arrow_type, nullable=not one.required) for one in of.fields), *IDENTITY]
    )
    buffer = LakeBuffer(schema, Partitioning("ts", "k", "day"))
    origins, arrived = pa.array([name] * 3), pa.array([START] * 3, pa.timestamp("ms", "UTC"))
    for column, values in {"_origin": origins, "_seq": pa.array([0, 1, 2]), "_arrived_at": arrived}.items():
        rows = rows.append_column(column, values)
    buffer.append(rows)
    catalog = open_catalog(settings)
    ensure_table(catalog, settings, "types", iceberg_schema(of), Partitioning("ts", "k", "day"))
    table = IcebergTable(catalog, settings.database, "types")
    table.read()
    files = [objects(settings).put(f"lake/types/{name}-{n}.parquet", file.body) for n, file in enumerate(buffer.seal())]
    assert table.add(files) == {}


def read(settings: Settings, of: Contract) -> list[list[Any]]:
    """The rows as pyiceberg reads them, held to the contract as a replay does."""
    rows = open_table(settings, "types").scan().to_arrow().sort_by([("_origin", "ascending"), ("_seq", "ascending")])
    found = conform(of, as_contract(rows, of, of))
    assert not found.invalid
    return [found.table[f"x{n}"].to_pylist() for n in range(len(TYPES))]


def _with_new(values: list[Any]) -> list[Any]:
    return [{"new": None} | one if isinstance(one, dict) else one for one in values]


@pytest.mark.parametrize("key", ["uuid", "decimal(5, 2)", "timestamp_us"])
def test_the_lake_has_what_was_put(settings: Settings, key: str) -> None:
    """Every type as a column, some as the key; with decimals and a struct that grow, and rewritten."""
    of = contract(key=f"'{key}'")
    keys = {"uuid": UUID(int=2), "decimal(5, 2)": Decimal("1.20"), "time": time(1), "timestamp_us": START}[key]
    rows = batch(of, [keys] * 3)
    wanted = [[one.bytes if isinstance(one, UUID) else one for one in values] for values in TYPES.values()]
    add(settings, of, rows, "a")
    assert read(settings, of) == wanted
    columns = ", ".join(f"x{n}" for n in range(len(TYPES)))
    sql = lake_query(settings, f"SELECT {columns} FROM types ORDER BY _seq")
    written = [[str(one) if isinstance(one, UUID) else one for one in values] for values in TYPES.values()]
    written[5] = [[str(UUID(int=1)), None], None, []]
    assert [sql[f"x{n}"].to_pylist() for n in range(len(TYPES))] == written
    named = lake_query(
        settings, f"SELECT count(*) AS n FROM types WHERE x3 = '{UUID(int=1)}' AND x0 = -1.5"
    ).to_pylist()
    assert named == [{"n": 1}]
    wider = contract(2, f"'{key}'", digits=12)
    add(settings, wider, batch(wider, [keys] * 3), "b")
    later = [_with_new(values) for values in wanted]
    assert read(settings, wider) == [2 * values for values in later]
    table = open_table(settings, "types")
    tasks = plan(table)
    made = Rewriter(table, objects(settings), SortOrder("k", "ts")).rewrite(tasks, "lake/types/c")
    replace_files(table, [task.file for task in tasks], made.files, {})
    assert made.rows == 6
    assert read(settings, wider) == [2 * values for values in later]
    gone_key, another = KeyValue(of.field("k"), str(keys)), KeyValue(of.field("k"), OTHER[key])
    one = tasks[:1]
    gone = Rewriter(table, objects(settings), SortOrder("k", "ts")).rewrite(one, "lake/types/d", without=gone_key.among)
    assert (gone.rows, gone.left_out.num_rows) == (0, 3)
    kept = Rewriter(table, objects(settings), SortOrder("k", "ts")).rewrite(one, "lake/types/e", without=another.among)
    assert (kept.rows, kept.left_out.num_rows) == (3, 0)
