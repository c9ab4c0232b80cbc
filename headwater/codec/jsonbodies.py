"""Events as JSON again: the lines of a table's rows, and records of them that can be sent again."""

import json
from contextlib import suppress
from datetime import datetime

import pyarrow as pa

from headwater.codec.rows import event_record
from headwater.contract import Contract
from headwater.contract.conversion import unviewed
from headwater.contract.written import bytes_as_json, json_values

__all__ = ["event_bodies", "event_json"]


def event_bodies(table: pa.Table, contract: Contract, *, foreign: bool = False) -> list[bytes]:
    """Return each event of a table of the contract's own names as a record that can be sent again.

    `foreign` is for streams whose writers use other names: these events are in a record of ours then, as they are where
    the contract looks for its fields, or reads times in a format of their own.
    """
    table = _bytes_as_declared(table, contract)
    events = event_json(table)
    own = contract.all_names
    formatted = [
        one.name
        for one in table.schema
        if pa.types.is_timestamp(one.type) and one.name in own and contract.field(own[one.name]).format
    ]
    if not foreign and not contract.selects and not formatted:
        return events
    rows = list(map(json.loads, events))
    for row in rows:
        for name in formatted:
            with suppress(ValueError, TypeError):  # null, or outside the years of a datetime: refused as the text it is
                row[name] = datetime.fromisoformat(row[name])
    return [event_record(row, flat=True) for row in rows]


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
