"""Tables of every type for other engines to read: as written, compacted, evolved, and with rows deleted by others.

What each has to be read as is here in one form for all engines, see `plain`: an engine may have a type under another
name (ClickHouse a time of day as microseconds, Spark a UUID as its text), and may not change a value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import pyarrow as pa

from headwater.aws import Objects, client
from headwater.codec import Decoded, decode_record, encode_batch
from headwater.config import Settings
from headwater.contract import Contract, conform, parse_contract
from headwater.contract.iceberg import iceberg_schema
from headwater.contract.types import parse_type
from headwater.sinks.lake.buffer import LakeBuffer
from headwater.sinks.lake.catalog import IcebergTable, ensure_table, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.sinks.lake.datafiles import field_ids
from headwater.sinks.lake.partitioning import Partitioning
from headwater.sinks.lake.reading import plan
from headwater.sinks.lake.rewrite import Rewriter, SortOrder, replace_files
from tests.lake import IDENTITY, delete_rows

__all__ = ["KINDS", "STATES", "Expected", "fill", "plain"]

STATES = ("fresh", "compacted", "evolved", "deleted")
KINDS = ("types", "uuids", "times")
"""Kinds of tables: UUIDs and times of day have their own, as an engine may read no table that has such a column."""
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
_DAY = Partitioning("ts", "k", "day")
_STRUCT = {"a": NOON, "b": [Decimal("1.20")]}
_VALUES: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "types": {
        "boolean": [True, None, False],
        "int": [-(1 << 31), None, (1 << 31) - 1],
        "long": [-(1 << 63), None, (1 << 63) - 1],
        "float": [0.5, None, -(2.0**100)],
        "double": [0.1, None, -1.7976931348623157e308],
        "string": ["ä€𝄞", None, ""],
        "json": ['{"a":[1,null]}', None, "0"],
        "timestamp": [NOON, None, LAST.replace(microsecond=999_000)],
        "timestamp_us": [NOON + timedelta(microseconds=1), None, LAST],
        "date": [date(1970, 1, 1), None, date(9999, 12, 31)],
        "binary": [b"\0\xff", None, b""],
        "decimal(9, 2)": [Decimal("-1.50"), None, Decimal("9999999.99")],
        "decimal(18, 4)": [Decimal("-1.5000"), None, Decimal("99999999999999.9999")],
        "decimal(38, 10)": [Decimal("1234567890123456789012345678.0123456789"), None, Decimal("0E-10")],
        "list<long?>": [[1, None, -(1 << 63)], None, []],
        "map<string, timestamp>": [{"a": NOON}, None, {}],
        "struct<a: timestamp, b: list<decimal(9, 2)>?>": [_STRUCT, None, {"a": NOON, "b": None}],
    },
    "uuids": {"uuid": [UUID(int=1), None, UUID(int=(1 << 128) - 1)], "list<uuid?>": [[UUID(int=1), None], None, []]},
    "times": {"time": [time(1, 2, 3, 4), None, time(23, 59, 59, 999_999)]},
}
_WIDER = {"int": "long", "float": "double", "decimal(9, 2)": "decimal(12, 2)"}
_NEW_MEMBER = "struct<new: string?, a: timestamp, b: list<decimal(9, 2)>?>"


@dataclass(frozen=True)
class Expected:
    """A table of a kind, its columns with their types, and its rows by `_origin` and `_seq`, in the plain form."""

    kind: str
    table: str
    columns: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]


def plain(kind: str, value: Any) -> Any:
    """Return a value of a contract's type as any engine gives it in the one form that all are compared in."""
    return _plain(parse_type(kind), value)


def _plain(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if kind.name == "list":
        return [_plain(kind.members[0].kind, one) for one in value]
    if kind.name == "map":
        pairs = (
            value.items()
            if isinstance(value, dict)
            else [one.values() if isinstance(one, dict) else one for one in value]
        )
        return sorted([_text(name), _plain(kind.members[0].kind, one)] for name, one in pairs)
    if kind.name == "struct":
        return {one.name: _plain(one.kind, value[one.name]) for one in kind.members}
    return _SCALARS.get(kind.name, lambda one: one)(value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _uuid(value: Any) -> str:
    return str(UUID(bytes=bytes(value)) if isinstance(value, bytes | bytearray) else UUID(str(value)))


def _moment(value: Any) -> str:
    found = datetime.fromisoformat(value.replace(" UTC", "+00:00")) if isinstance(value, str) else value
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _time(value: Any) -> str:
    if isinstance(value, int):
        value = (datetime.min + timedelta(microseconds=value)).time()
    return (time.fromisoformat(value) if isinstance(value, str) else value).isoformat("microseconds")


_SCALARS: Mapping[str, Any] = {
    "string": _text,
    "json": _text,
    "uuid": _uuid,
    "binary": lambda value: (bytes.fromhex(value) if isinstance(value, str) else bytes(value)).hex(),
    "decimal": lambda value: format(Decimal(value), "f"),
    "timestamp": _moment,
    "timestamp_us": _moment,
    "date": lambda value: str(value)[:10],
    "time": _time,
    "float": float,
    "double": float,
    "boolean": bool,
    "int": int,
    "long": int,
}


def _contract(kind: str, version: int) -> Contract:
    fields = []
    for n, one in enumerate(_VALUES[kind]):
        written = _evolved(one) if version > 1 else one
        fields.append(f"{{name: x{n}, type: '{written}', required: false}}")
    name = "after, was: before" if version > 1 else "before"
    fields.append(f"{{name: {name}, type: string, required: false}}")
    if version > 1:
        fields.append("{name: added, type: int, required: false}")
    text = ", ".join(["{name: k, type: string}", "{name: ts, type: timestamp}", *fields])
    return parse_contract(f"{{name: {kind}, version: {version}, key: k, time: ts, fields: [{text}]}}", kind)


def _evolved(kind: str) -> str:
    return _NEW_MEMBER if kind.startswith("struct") else _WIDER.get(kind, kind)


def _arrow(kind: str, values: Sequence[Any]) -> pa.Array:
    """Return a column as a producer makes it: UUIDs are bytes within lists, maps are pairs."""

    def given(one: Any) -> Any:
        if isinstance(one, list):
            return [given(each) for each in one]
        return list(one.items()) if isinstance(one, dict) and kind.startswith("map") else getattr(one, "bytes", one)

    if kind == "uuid":
        return pa.array(values, parse_type(kind).arrow)
    return pa.array([given(one) for one in values], parse_type(kind).arrow)


def _batch(of: Contract, kind: str) -> pa.Table:
    """Three events of each type's values, through a sealed batch."""
    columns: dict[str, Any] = {"k": ["a"] * 3, "ts": [NOON + timedelta(milliseconds=n) for n in range(3)]}
    for n, (name, values) in enumerate(_VALUES[kind].items()):
        columns[f"x{n}"] = _arrow(name if of.version == 1 else _evolved(name), _of_version(name, values, of.version))
    columns["after" if of.version > 1 else "before"] = ["one", None, "three"]
    if of.version > 1:
        columns["added"] = pa.array([1, None, 3], pa.int32())
    found = conform(of, pa.table(columns))
    assert not found.invalid
    sent = decode_record(encode_batch(found.table, of), of)
    assert isinstance(sent, Decoded)
    return sent.table


def _of_version(kind: str, values: Sequence[Any], version: int) -> Sequence[Any]:
    if version == 1 or not kind.startswith("struct"):
        return values
    return [None if one is None else {"new": "n", **one} for one in values]


def _add(settings: Settings, table: str, of: Contract, kind: str, origin: str) -> None:
    """Publish a file of three rows, as a shard writes it."""
    own = [pa.field(one.name, one.arrow_type, nullable=not one.required) for one in of.fields]
    rows = _batch(of, kind)
    identity = {
        "_origin": [origin] * 3,
        "_seq": [0, 1, 2],
        "_arrived_at": pa.array([NOON] * 3, pa.timestamp("ms", "UTC")),
    }
    for name, values in identity.items():
        rows = rows.append_column(name, pa.array(values))
    catalog = _catalog(settings)
    was = {one.name: one.was for one in of.fields if one.was}
    made = ensure_table(catalog, settings, table, iceberg_schema(of), _DAY, was)
    buffer = LakeBuffer(pa.schema([*own, *IDENTITY]), _DAY)
    buffer.number_columns(field_ids(made))
    buffer.append(rows)
    port, objects = IcebergTable(catalog, settings.database, table), Objects(client("s3", settings), settings.bucket)
    port.read()
    (file,) = buffer.seal()
    assert port.add([objects.put(f"lake/{table}/data/{origin}.parquet", file.body)]) == {}


@lru_cache(maxsize=1)
def _opened(bucket: str, database: str, catalog: str) -> Any:
    return open_catalog(Settings(bucket=bucket, database=database, catalog=catalog))


def _catalog(settings: Settings) -> Any:
    return _opened(settings.bucket, settings.database, settings.catalog)


def _compact(settings: Settings, name: str) -> None:
    table = open_table(settings, name, _catalog(settings))
    tasks = plan(table)
    store = Objects(client("s3", settings), settings.bucket)
    made = Rewriter(table, store, SortOrder("k", "ts")).rewrite(tasks, f"lake/{name}/data/joined")
    replace_files(table, [task.file for task in tasks], made.files, {})


def fill(settings: Settings, kind: str, state: str) -> Expected:
    """Make the table of a kind in a state, and return what it holds."""
    name = f"{kind}_{state}"
    _add(settings, name, _contract(kind, 1), kind, "a")
    version = 2 if state == "evolved" else 1
    if state != "fresh":
        _add(settings, name, _contract(kind, version), kind, "b")
    if state == "compacted":
        _compact(settings, name)
    if state == "deleted":
        table = open_table(settings, name, _catalog(settings))
        (path,) = [task.file.file_path for task in plan(table) if task.file.file_path.endswith("/a.parquet")]
        delete_rows(table, path, [0])
    return Expected(kind, name, _columns(kind, version), [*_rows(kind, state, version)])


def _columns(kind: str, version: int) -> dict[str, str]:
    found = {f"x{n}": one if version == 1 else _evolved(one) for n, one in enumerate(_VALUES[kind])}
    return found | ({"before": "string"} if version == 1 else {"after": "string", "added": "int"})


def _rows(kind: str, state: str, version: int) -> Any:
    files = [("a", 1)] if state == "fresh" else [("a", 1), ("b", version)]
    for origin, written in files:
        for seq in range(3):
            if state == "deleted" and (origin, seq) == ("a", 0):
                continue
            row: dict[str, Any] = {"_origin": origin, "_seq": seq}
            for n, (name, values) in enumerate(_VALUES[kind].items()):
                value = _of_version(name, values, written)[seq]
                if version > written and name.startswith("struct") and value is not None:
                    value = {"new": None, **value}
                row[f"x{n}"] = plain(_evolved(name) if version > 1 else name, value)
            row["before" if version == 1 else "after"] = ["one", None, "three"][seq]
            if version > 1:
                row["added"] = [1, None, 3][seq] if written > 1 else None
            yield row
