"""Events as JSON again: the lines of a table's rows, and records of them that can be sent again."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from headwater.codec.rows import event_record
from headwater.contract import Contract, Field
from headwater.contract.conversion import unviewed
from headwater.contract.scalars import Refused
from headwater.contract.values import read_value
from headwater.contract.written import bytes_as_json, json_values

__all__ = ["event_bodies", "event_json"]


def event_bodies(table: pa.Table, contract: Contract, *, foreign: bool = False) -> list[bytes]:
    """Return each event of a table of the contract's own names as a record that can be sent again.

    `foreign` is for streams whose writers use other names: these events are in a record of ours then, as they are where
    the contract looks for its fields, or reads another value from what JSON makes of one.
    """
    table = _bytes_as_declared(table, contract)
    events = event_json(table)
    odd = [_OddColumn(field, name, _values(table.column(name))) for name, field in _fields(table, contract).items()]
    foreign = foreign or contract.selects
    return [_body(event, at, odd, foreign=foreign) for at, event in enumerate(events)] if foreign or odd else events


class _OddColumn(NamedTuple):
    field: Field
    name: str
    values: list[Any]


def _fields(table: pa.Table, contract: Contract) -> dict[str, Field]:
    """Return the fields, without their bounds, of the columns whose values JSON may not have."""
    fields = {name: contract.field(own) for name, own in contract.all_names.items()}
    return {
        one.name: replace(fields[one.name], minimum=None, maximum=None, values=())
        for one in table.schema
        if one.name in fields and _may_differ(one.type, fields[one.name])
    }


def _may_differ(kind: pa.DataType, field: Field) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_nested(kind):
        return True
    return (field.type == "json" or bool(field.format)) and not pa.types.is_string(kind)


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return the values; none for a time outside the years of a datetime, which is refused as the text it is."""
    try:
        found: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        found = [None] * len(column)
        for at, one in enumerate(column):
            with suppress(ValueError, OverflowError):
                found[at] = one.as_py()
    return found


def _body(event: bytes, at: int, odd: Sequence[_OddColumn], *, foreign: bool) -> bytes:
    row: dict[str, Any] = json.loads(event)
    for field, name, values in odd:
        value = values[at]
        if value is not None and not _is_same(field, value, row[name]):
            row[name], foreign = value, True
    return event_record(row, flat=True) if foreign else event


def _is_same(field: Field, value: Any, written: Any) -> bool:
    """Tell whether the field reads the same from what JSON makes of a value; most often it is the value itself."""
    if value == written or (isinstance(written, dict) and field.kind.name == "map" and value == [*written.items()]):
        return True
    return _read(field, value) == _read(field, written)


def _read(field: Field, value: object) -> object:
    """Return the value that the field has then; of what it refuses, none."""
    try:
        return read_value(field, value)
    except Refused:
        return None


def _bytes_as_declared(table: pa.Table, contract: Contract) -> pa.Table:
    """Return the table with bytes as the text of their fields: by their own type, those of a UUID may be any others."""
    for at, name in enumerate(table.column_names):
        kind = contract.field(contract.all_names[name]).type if name in contract.all_names else None
        if kind in ("uuid", "binary"):
            table = table.set_column(at, name, bytes_as_json(unviewed(table.column(at)), kind))
    return table


def event_json(table: pa.Table) -> list[bytes]:
    """Write each row as one JSON object on one line; what JSON has no type for is text (`json_values`)."""
    names = table.column_names
    columns = [json_values(column) for column in table.columns]
    return [
        json.dumps(dict(zip(names, row, strict=True)), separators=(",", ":"), ensure_ascii=False, default=str).encode()
        for row in zip(*columns, strict=True)
    ]
