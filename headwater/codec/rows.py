"""Turn rows, as decoders and JSON give them, into a table of the contract.

`conform_events` finds a row's fields where the contract says, and `conform_rows` under their names.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.codec.bounds import TextBudget, TooLarge, bounded, row_bytes
from headwater.codec.control import encode_control
from headwater.codec.decoded import Decoded, kept_rows
from headwater.contract import Contract, InvalidRow
from headwater.contract.rowcolumns import conform_columns, conform_events, conform_rows
from headwater.contract.selection import select_columns
from headwater.contract.values import jsonable
from headwater.errors import InvalidEvent, InvalidRecord

__all__ = [
    "ARRIVAL",
    "EVENT",
    "MAX_EVENTS",
    "Gathered",
    "Row",
    "Unread",
    "decode_rows",
    "event_record",
    "lacks_time",
    "one_line",
    "unwrapped",
    "unwrapped_flat",
    "with_arrival",
]

MAX_EVENTS = 1 << 20
"""Events that one record may carry."""
EVENT = "event"
"""The kind of the control record that carries one event as a row: see `event_record`."""
_PART = 65_536
_SOME = 128
"""Rows whose fields are taken at once."""

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


def with_arrival(rows: Iterable[Row | Unread], arrived_ms: int) -> Sequence[Row | Unread]:
    """Return the rows with the record's arrival, epoch ms, in place of every `ARRIVAL`: one more than `MAX_EVENTS`
    where there are more."""
    rows = list(islice(rows, MAX_EVENTS + 1))
    if not lacks_time(rows):
        return rows
    arrived = _arrived(arrived_ms)
    return [
        {name: arrived if value is ARRIVAL else value for name, value in row.items()}
        if isinstance(row, Mapping)
        else row
        for row in rows
    ]


def _arrived(arrived_ms: int) -> datetime:
    return datetime.fromtimestamp(arrived_ms / 1000, UTC)


def lacks_time(rows: Sequence[object]) -> bool:
    """Tell whether a row has `ARRIVAL` in it."""
    mappings = [row for row in rows if type(row) is dict or isinstance(row, Mapping)]
    return _Arrival in set(map(type, chain.from_iterable([row.values() for row in mappings])))


class Gathered:
    """Gather the fields of many records' rows, for a contract that ignores what no field takes, or takes flat rows.

    Rows are let go after some hundred: of all objects that stay, the garbage collector looks at each again and again.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._columns: list[list[Any]] = [[] for _ in contract.fields]
        self._rows: list[Row] = []
        self._odd = False
        self.counts: list[int] = []
        self.total = 0

    def add(self, rows: list[Any]) -> bool:
        """Add the rows of a record; False, and none is added, where one of them is no row."""
        if type(rows[0]) is not dict if len(rows) == 1 else set(map(type, rows)) - {dict}:
            return False
        self._rows += rows
        self.counts.append(len(rows))
        self.total += len(rows)
        if len(self._rows) >= _SOME:
            self._select()
        return True

    def decoded(self, arrivals_ms: Sequence[int]) -> Decoded | None:
        """Return all events, of records that arrived then; None where one breaks the contract or all have too much."""
        self._select()
        if self._odd:
            return None
        for at, column in enumerate(self._columns):
            if _Arrival in set(map(type, column)):
                times = chain.from_iterable(map(repeat, map(_arrived, arrivals_ms), self.counts))
                self._columns[at] = [
                    time if value is ARRIVAL else value for value, time in zip(column, times, strict=True)
                ]
        try:
            table, faults = conform_columns(self._contract, self._columns, TextBudget().take)
        except TooLarge:
            return None
        if faults:
            return None
        whole = np.arange(self.total, dtype=np.int64)
        return Decoded(self._contract.name, self._contract.version, table, whole, (), self.total)

    def _select(self) -> None:
        rows, contract = self._rows, self._contract
        if contract.selects:
            values = select_columns(contract, rows)
        else:  # under their own names, and no others
            names = contract.arrow_schema.names
            self._odd = self._odd or not set().union(*set(map(tuple, rows))).issubset(names)
            values = ([row.get(name) for row in rows] for name in names)
        for column, more in zip(self._columns, values, strict=True):
            column += more
        self._rows = []


def decode_rows(rows: Sequence[Row | Unread], contract: Contract, *, flat: bool = False) -> Decoded:
    """Decode one event from each row.

    What breaks the contract is an InvalidRow whose event is a record that may be sent again (`event_record`), or the
    bytes that could not be read. `flat` rows have the contract's own names, others are looked through by the contract's
    paths. Raise InvalidRecord for more than `MAX_EVENTS`, TooLarge when their texts come to more than 64 MiB: many may
    share one.
    """
    if len(rows) > MAX_EVENTS:
        raise InvalidRecord(f"more than {MAX_EVENTS} events")
    read: Sequence[Any] = rows
    if set(map(type, rows)) != {dict}:
        read = [row for row in rows if not isinstance(row, Unread)]
    if contract.unknown not in ("refuse", "ignore"):  # what no field takes becomes a text of its own
        read = list(bounded(read, row_bytes))
    tables, broken = _in_parts(read, contract, flat=flat)
    faults = {}
    if broken or len(read) < len(rows):
        faults = {at: row.reason for at, row in enumerate(rows) if isinstance(row, Unread)}
        places = [at for at in range(len(rows)) if at not in faults]
        faults |= {places[at]: reason for at, reason in broken.items()}
    events = (
        row.raw if isinstance(row, Unread) else event_record(row, flat=flat)
        for row in map(rows.__getitem__, sorted(faults))
    )
    invalid = [
        InvalidRow(at, faults[at], event) for at, event in zip(sorted(faults), bounded(events, len), strict=True)
    ]
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
    return unwrapped_flat(event)[0]


def unwrapped_flat(event: bytes) -> tuple[object, bool]:
    """Return what `unwrapped` does, and whether that row has the contract's own names."""
    found = json.loads(event)
    if isinstance(found, dict) and isinstance(found.get("$headwater"), dict):
        return found["$headwater"].get("row"), found["$headwater"].get("flat") is True
    return found, False


def one_line(error: str | Exception) -> str:
    """Return an error's text fit for a log: one line, no half surrogates from hostile field names, not too long."""
    text = str(error)
    if not text.isprintable() or "  " in text or text[:1] == " " or text[-1:] == " ":
        text = " ".join(text.encode(errors="replace").decode().split())
    return text[:300]


def _in_parts(rows: Sequence[Row], contract: Contract, *, flat: bool) -> tuple[list[pa.Table], dict[int, str]]:
    """Hold all rows to the contract, in parts that bound the memory."""
    tables, reasons = list[pa.Table](), dict[int, str]()
    conform, budget = conform_rows if flat else conform_events, TextBudget()
    for start in range(0, len(rows) or 1, _PART):
        part = rows if len(rows) <= _PART else rows[start : start + _PART]
        table, faults = conform(contract, part, budget.take)
        tables.append(table)
        for at, fault in faults.items():
            line = one_line(fault)
            reasons[start + at] = line if isinstance(fault, str | InvalidEvent) else f"cannot be read: {line}"
    return tables, reasons
