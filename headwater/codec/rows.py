"""Turn rows, as decoders and JSON give them, into a table of the contract.

`conform_events` finds a row's fields where the contract says, and `conform_rows` under their names.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice, repeat
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from headwater.codec.bounds import TextBudget, TooLarge, bounded, row_bytes
from headwater.codec.control import encode_control
from headwater.codec.decoded import Decoded, kept_rows
from headwater.codec.tagged import tagged, untagged
from headwater.contract import Contract, InvalidRow
from headwater.contract.conform import too_many_invalid
from headwater.contract.rowcolumns import conform_columns, conform_events, conform_rows
from headwater.contract.selection import select_columns, values_within
from headwater.contract.values import jsonable
from headwater.contract.written import EXACT, exact_json
from headwater.errors import InvalidEvent, InvalidRecord

__all__ = [
    "ARRIVAL",
    "EVENT",
    "MAX_EVENTS",
    "Arriving",
    "Gathered",
    "Row",
    "RowColumns",
    "Unread",
    "Values",
    "carried",
    "decode_rows",
    "event_record",
    "lacks_time",
    "one_line",
    "rows_of_each",
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
Values: TypeAlias = "Sequence[Any] | pa.ChunkedArray"


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


class Arriving:
    """Ask a decoder for the rows of a record that arrived then: its arrival takes the place of every `ARRIVAL`."""

    def __init__(self, decoder: Callable[[bytes], Any], arrived_ms: int) -> None:
        self._decoder, self._arrived_ms = decoder, arrived_ms
        self.reads_empty: bool = getattr(decoder, "reads_empty", False)

    def __call__(self, data: bytes) -> "pa.Table | Sequence[Row | Unread]":
        """Return what the decoder makes of the bytes."""
        found = self._decoder(data)
        return found if isinstance(found, pa.Table) else with_arrival(found, self._arrived_ms)


def _arrived(arrived_ms: int) -> datetime:
    return datetime.fromtimestamp(arrived_ms / 1000, UTC)


def lacks_time(rows: Sequence[object]) -> bool:
    """Tell whether a row has `ARRIVAL` in it."""
    mappings = [row for row in rows if type(row) is dict or isinstance(row, Mapping)]
    return _Arrival in set(map(type, chain.from_iterable([row.values() for row in mappings])))


class RowColumns:
    """Hold the rows of some records, which all have the same names: as many values for each name.

    `counts` has the number of rows of each record.

    >>> [*RowColumns(["a", "b"], [[1, 2], [3, 4]], [2])]
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    """

    def __init__(self, names: Sequence[str], values: Sequence[Values], counts: Sequence[int]) -> None:
        self.names, self.values, self.counts = names, values, counts

    def __iter__(self) -> Iterator[Row]:
        rows = zip(*map(_listed, self.values), strict=True)
        return (dict(zip(self.names, row, strict=True)) for row in rows)


def _listed(values: Values) -> Sequence[Any]:
    found: Sequence[Any] = values.to_pylist() if isinstance(values, pa.ChunkedArray) else values
    return found


def _joined(parts: Sequence[Values]) -> Values:
    columns: list[Any] = [one for one in parts if isinstance(one, pa.ChunkedArray)]
    if parts and len(columns) == len(parts) and len({one.type for one in columns}) == 1:
        return pa.chunked_array([chunk for one in columns for chunk in one.chunks])
    return [*chain.from_iterable(map(_listed, parts))]


class Gathered:
    """Gather the fields of many records' rows, for a contract that ignores what no field takes, or takes flat rows.

    Rows are let go after some hundred: of all objects that stay, the garbage collector looks at each again and again.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._columns: list[list[Values]] = [[] for _ in contract.fields]
        self._rows: list[Row] = []
        self._odd = False
        self.counts: list[int] = []
        self.total = 0

    def add(self, found: RowColumns | Sequence[list[Any]]) -> bool:
        """Add the rows of some records; False, and none is added, where one of them is no row, or columns do not tell
        what a field's value is."""
        if isinstance(found, RowColumns):
            columns, counts = self._taken(found), found.counts
            if columns is None:
                return False
            self._select()
            for column, more in zip(self._columns, columns, strict=True):
                column.append(more)
        else:
            rows = [*chain.from_iterable(found)]
            if set(map(type, rows)) - {dict}:
                return False
            self._rows += rows
            counts = [*map(len, found)]
        self.counts += counts
        self.total += sum(counts)
        if len(self._rows) >= _SOME:
            self._select()
        return True

    def _taken(self, found: RowColumns) -> list[Values] | None:
        """Return the values of each field; None where the rows have several of a field's names."""
        values, none = dict(zip(found.names, found.values, strict=True)), [None] * sum(found.counts)
        within: dict[tuple[str, ...], Sequence[Any]]
        within = {(name,): none if isinstance(one, pa.ChunkedArray) else one for name, one in values.items()}
        places = dict(self._contract.places) if self._contract.selects else {}
        columns: list[Values] = []
        for field in self._contract.fields:
            paths = [path for path in places.get(field.name, ((field.name,),)) if path[0] in values]
            if len(paths) > 1:
                return None
            if paths and len(paths[0]) > 1:
                columns.append(values_within(within, paths[0]))
            else:
                columns.append(values[paths[0][0]] if paths else none)
        if not self._contract.selects:
            self._odd = self._odd or not values.keys() <= {*self._names()}
        return columns

    def _names(self) -> list[str]:
        names: list[str] = self._contract.arrow_schema.names
        return names

    def decoded(self, arrivals_ms: Sequence[int]) -> Decoded | None:
        """Return all events, of records that arrived then; None where one breaks the contract or all have too much."""
        self._select()
        if self._odd:
            return None
        columns = [*map(_joined, self._columns)]
        for at, column in enumerate(columns):
            if isinstance(column, list) and _Arrival in set(map(type, column)):
                times = chain.from_iterable(map(repeat, map(_arrived, arrivals_ms), self.counts))
                columns[at] = [time if value is ARRIVAL else value for value, time in zip(column, times, strict=True)]
        try:
            table = conform_columns(self._contract, columns, TextBudget().take)
        except (TooLarge, InvalidEvent):
            return None
        whole = np.arange(self.total, dtype=np.int64)
        return Decoded(self._contract.name, self._contract.version, table, whole, (), self.total)

    def _select(self) -> None:
        rows, contract = self._rows, self._contract
        if not rows:
            return
        if contract.selects:
            values = select_columns(contract, rows)
        else:  # under their own names, and no others
            names = self._names()
            self._odd = self._odd or not set().union(*set(map(tuple, rows))).issubset(names)
            values = ([row.get(name) for row in rows] for name in names)
        for column, more in zip(self._columns, values, strict=True):
            column.append(more)
        self._rows = []


def rows_of_each(
    datas: Sequence[bytes], decoder: Callable[[bytes], Any], most: int
) -> RowColumns | list[list[Row]] | None:
    """Return what a decoder gives of some records that are plain, from all together where it can; None where one cannot
    be read so, or all have more than `most` rows."""
    together = getattr(decoder, "together", None)
    found: list[list[Row]] = []
    try:
        if together is not None and (columns := together(datas)) is not None:
            return columns if sum(columns.counts) <= most else None
        for data in datas:
            rows = decoder(data)
            if type(rows) is not list:
                return None
            most -= len(rows)
            if most < 0:
                return None
            found.append(rows)
    except Exception:  # a user's function may raise anything; `decode_contents` tells
        return None
    return found


def decode_rows(
    rows: Sequence[Row | Unread], contract: Contract, *, flat: bool = False, most: int = MAX_EVENTS
) -> Decoded:
    """Decode one event from each row.

    What breaks the contract is an InvalidRow whose event is a record that may be sent again (`event_record`), or the
    bytes that could not be read. `flat` rows have the contract's own names, others are looked through by the contract's
    paths. Raise InvalidRecord for more than `MAX_EVENTS`, and once more than `most` are invalid; TooLarge when their
    texts come to more than 64 MiB: many may share one.
    """
    if len(rows) > MAX_EVENTS:
        raise InvalidRecord(f"more than {MAX_EVENTS} events")
    read: Sequence[Any] = rows
    places: Sequence[int] = range(len(rows))
    faults = dict[int, str]()
    if set(map(type, rows)) != {dict}:
        faults = {at: row.reason for at, row in enumerate(rows) if isinstance(row, Unread)}
        places = [at for at in places if at not in faults]
        read = [rows[at] for at in places]
    if contract.unknown not in ("refuse", "ignore"):  # what no field takes becomes a text of its own
        read = list(bounded(read, row_bytes))
    tables = list[pa.Table]()
    for table, broken in _in_parts(read, contract, flat=flat):
        tables.append(table)
        faults |= {places[at]: reason for at, reason in broken.items()}
        if len(faults) > most:
            raise InvalidRecord(too_many_invalid(most, len(rows), min(faults), faults[min(faults)]))
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
    body: dict[str, Any] = {"row": dict(row), "flat": flat}
    with suppress(ValueError, TypeError, RecursionError):
        found, has_tags = tagged(body["row"])
        # under a name of its own, lest a version that knows no tags take them for values
        body = {"typed": found, "flat": flat} if has_tags else body
    with suppress(ValueError, TypeError, RecursionError):  # of what JSON lacks, as below
        return encode_control(EVENT, body)
    try:
        text = exact_json(body, _ENCODER)
    except (ValueError, TypeError, RecursionError):  # numbers that JSON lacks, keys that are no text
        text = exact_json(_tame(body, 200), _ENCODER)
    return encode_control(EVENT, EXACT.decode(text))


_ENCODER = json.JSONEncoder(allow_nan=False, default=jsonable)


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
        return carried(found["$headwater"]), found["$headwater"].get("flat") is True
    return found, False


def carried(body: Mapping[str, Any]) -> object:
    """Return the row in the body of what `event_record` wrote."""
    return untagged(body["typed"]) if "typed" in body else body.get("row")


def one_line(error: str | Exception) -> str:
    """Return an error's text fit for a log: one line, no half surrogates from hostile field names, not too long; and
    what Python says to programmers in the words of data.

    >>> one_line(RecursionError("maximum recursion depth exceeded"))
    'nested too deeply'
    """
    text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    if "set_int_max_str_digits" in text:
        text = "a whole number of more than 4,300 digits"
    if not text.isprintable() or "  " in text or text[:1] == " " or text[-1:] == " ":
        text = " ".join(text.encode(errors="replace").decode().split())
    return text[:300]


def _in_parts(rows: Sequence[Row], contract: Contract, *, flat: bool) -> Iterator[tuple[pa.Table, dict[int, str]]]:
    """Hold all rows to the contract, in parts that bound the memory; yield tables, and reasons by place."""
    conform, budget = conform_rows if flat else conform_events, TextBudget()
    for start in range(0, len(rows) or 1, _PART):
        part = rows if len(rows) <= _PART else rows[start : start + _PART]
        table, faults = conform(contract, part, budget.take)
        yield table, {start + at: _reason(fault) for at, fault in faults.items()}


def _reason(fault: str | Exception) -> str:
    line = one_line(fault)
    return line if isinstance(fault, str | InvalidEvent) else f"cannot be read: {line}"
