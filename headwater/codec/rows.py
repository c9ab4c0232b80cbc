"""Turn rows, as decoders and JSON give them, into a table of the contract.

Two readers give the same answer: a column at a time where all its values are of one kind, and row by row through
`validate_row` for whatever that does not take. What a row's fields are is found by `select_row`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from headwater.codec.control import encode_control
from headwater.codec.decoded import Decoded, kept_rows
from headwater.contract import Contract, InvalidRow, conform, validate_row
from headwater.contract.selection import select_row
from headwater.contract.values import jsonable
from headwater.errors import InvalidEvent, InvalidRecord

__all__ = [
    "ARRIVAL",
    "EVENT",
    "MAX_EVENTS",
    "Row",
    "Unread",
    "decode_rows",
    "event_record",
    "one_line",
    "unwrapped",
    "with_arrival",
]

MAX_EVENTS = 1 << 20
"""Events that one record may carry."""
EVENT = "event"
"""The kind of the control record that carries one event as a row: see `event_record`."""
_FEW, _PART = 16, 256

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Unread:
    """Stand for an event that a decoder cannot read, beside others that it can: the reason, and the event's bytes."""

    reason: str
    raw: bytes


class _Arrival:
    """Stand for a time that an event lacks: its record's arrival takes its place."""

    def __repr__(self) -> str:
        return "ARRIVAL"


ARRIVAL = _Arrival()
"""Given by decoders as the value of a time that the event does not have."""


def with_arrival(rows: Sequence[Row | Unread], arrived_ms: int) -> Sequence[Row | Unread]:
    """Return the rows with the record's arrival, epoch ms, in place of every `ARRIVAL`."""
    arrived = datetime.fromtimestamp(arrived_ms / 1000, UTC)
    if not any(ARRIVAL in row.values() for row in rows if isinstance(row, Mapping)):
        return rows
    return [
        {name: arrived if value is ARRIVAL else value for name, value in row.items()}
        if isinstance(row, Mapping)
        else row
        for row in rows
    ]


def decode_rows(rows: Sequence[Row | Unread], contract: Contract, *, flat: bool = False) -> Decoded:
    """Decode one event from each row.

    What breaks the contract is an InvalidRow whose event is a record that may be sent again (`event_record`), or the
    bytes that could not be read. `flat`
    rows have the contract's own names, others are looked through by the contract's paths. Raise InvalidRecord for more
    than `MAX_EVENTS`.
    """
    if len(rows) > MAX_EVENTS:
        raise InvalidRecord(f"more than {MAX_EVENTS} events")
    selected = [row.reason if isinstance(row, Unread) else row if flat else _selected(row, contract) for row in rows]
    faults = {at: row for at, row in enumerate(selected) if isinstance(row, str)}
    good = [row for row in selected if not isinstance(row, str)]
    tables, more = _in_parts(good, contract)
    places = np.flatnonzero([not isinstance(row, str) for row in selected])
    faults |= {int(places[at]): reason for at, reason in more.items()}
    invalid = []
    for at in sorted(faults):
        row = rows[at]
        event = row.raw if isinstance(row, Unread) else event_record(row, flat=flat)
        invalid.append(InvalidRow(at, faults[at], event))
    return Decoded(
        contract=contract.name,
        version=contract.version,
        table=pa.concat_tables(tables),
        rows=kept_rows(len(rows), invalid),
        invalid=tuple(invalid),
        total=len(rows),
    )


def event_record(row: Row, *, flat: bool) -> bytes:
    """Return a control record that carries one event as a row, so that it can be sent again whatever its format was.

    `flat` is for the contract's own names, as when a user's function failed on a decoded event.
    """
    body = {"row": dict(row), "flat": flat}
    try:
        text = json.dumps(body, default=jsonable, allow_nan=False)
    except (ValueError, TypeError, RecursionError):  # numbers that JSON lacks, keys that are no text
        text = json.dumps(_tame(body, 200), default=jsonable)
    return encode_control(EVENT, json.loads(text))


def _tame(value: Any, depth: int) -> Any:
    """Return a value that JSON holds: what it lacks, and what is nested too deeply, becomes text."""
    if not depth or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _tame(one, depth - 1) for name, one in value.items()}
    return [_tame(one, depth - 1) for one in value] if isinstance(value, list | tuple) else value


def unwrapped(event: bytes) -> object:
    """Return the row in what `event_record` wrote, and the value of any other JSON. Raise ValueError for no JSON."""
    found = json.loads(event)
    if isinstance(found, dict) and isinstance(found.get("$headwater"), dict):
        return found["$headwater"].get("row")
    return found


def one_line(error: Exception) -> str:
    """Return an error's text fit for a log: one line, no half surrogates from hostile field names, not too long."""
    return " ".join(str(error).encode(errors="replace").decode().split())[:300]


def _selected(row: Row, contract: Contract) -> Row | str:
    try:
        return select_row(contract, row)
    except InvalidEvent as error:
        return one_line(error)
    except (ValueError, TypeError, RecursionError) as error:
        return f"cannot be read: {one_line(error)}"


def _in_parts(rows: Sequence[Row], contract: Contract) -> tuple[list[pa.Table], dict[int, str]]:
    """Read all rows in one pass, else in one pass a part, else one by one: a bad one costs only its neighbours."""
    found = _at_once(rows, contract) if len(rows) > _FEW else None
    if found is not None:
        return [found], {}
    if len(rows) <= _PART:
        return _row_by_row(rows, contract)
    tables, faults = list[pa.Table](), dict[int, str]()
    for start in range(0, len(rows), _PART):
        part = rows[start : start + _PART]
        found = _at_once(part, contract)
        made, more = ([found], {}) if found is not None else _row_by_row(part, contract)
        tables += made
        faults |= {start + at: reason for at, reason in more.items()}
    return tables, faults


def _row_by_row(rows: Sequence[Row], contract: Contract) -> tuple[list[pa.Table], dict[int, str]]:
    valid, faults = [], {}
    for at, row in enumerate(rows):
        try:
            valid.append(validate_row(contract, row))
        except InvalidEvent as error:
            faults[at] = one_line(error)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            faults[at] = f"cannot be read: {one_line(error)}"
    return [pa.Table.from_pylist(valid, schema=contract.arrow_schema)], faults


def _at_once(rows: Sequence[Row], contract: Contract) -> pa.Table | None:
    """Return the table of rows that all conform; None where row by row must decide."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    columns = {}
    try:
        for name in names:
            values = [row.get(name) for row in rows]
            kinds = {type(value) for value in values} - {type(None)}
            # a list of mixed kinds would be made one in Arrow's way, not in the contract's
            if len(kinds) > 1 or not kinds <= _PLAIN:
                return None
            if datetime in kinds and any(value is not None and value.tzinfo is None for value in values):
                return None
            if time in kinds and any(value is not None and value.tzinfo is not None for value in values):
                return None
            # a column has one scale for all its decimals, which would show in JSON
            if Decimal in kinds and len({value.as_tuple().exponent for value in values if value is not None}) > 1:
                return None
            columns[name] = pa.array(values)
        conformed = conform(contract, pa.table(columns))
    except (pa.ArrowException, ValueError, TypeError, OverflowError, InvalidEvent):
        return None
    return None if conformed.invalid else conformed.table.cast(contract.arrow_schema)


_PLAIN = {str, int, float, bool, datetime, time, Decimal, UUID, bytes}
