"""A table of events, held to its contract.

The good case costs a few vectorised passes: string columns are never decoded, nothing is copied that fits already.
Only what a vectorised check refuses is looked at value by value, by the same reader as `validate_row`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from headwater.contract.checks import Places, long_texts, refused_rows
from headwater.contract.conversion import converted, nulls, unviewed
from headwater.contract.definition import Contract, Field
from headwater.contract.nestedcolumns import has_odd_decimal, is_alike, is_sound, nested_sizes
from headwater.contract.scalars import Refused
from headwater.contract.types import NESTED, Kind
from headwater.contract.values import missing, read_value, shown, too_long
from headwater.errors import InvalidEvent

__all__ = ["Conformed", "Fault", "InvalidRow", "check_length", "conform", "conformed", "too_many_invalid"]

Fault = str | Exception
"""Why an event is none: the reason, or an error that its values raise when they are read."""
_UNREADABLE = (ValueError, ArithmeticError, pa.ArrowException)
"""Errors of values that Arrow holds and Python does not."""
_SOME = 4_096
"""Values that are Python's at once: a text that many rows share is one for each of them there."""


class InvalidRow(NamedTuple):
    """Hold an event that breaks its contract: its place among those it came with, the reason, and itself as JSON."""

    index: int  # type: ignore[assignment]  # a tuple has a method of that name, which nobody asks a row for
    reason: str
    event: bytes = b""


@dataclass(frozen=True)
class Conformed:
    """Hold the valid events in the contract's schema, and the others. `index` of an invalid one counts in the input."""

    table: pa.Table
    invalid: tuple[InvalidRow, ...] = ()


def too_many_invalid(most: int, total: int, first: int, reason: object) -> str:
    """Return why events are refused together: each invalid one costs a hundred times what a valid one does."""
    return f"more than {most:,} of {total:,} events break the contract; the first: row {first}: {reason}"


class _CountedFaults(dict[int, Fault]):
    """Hold the reason for each invalid row; of one row the first counts. InvalidEvent for more than so many rows."""

    def __init__(self, most: int, rows: int) -> None:
        super().__init__()
        self._most, self._rows = most, rows

    def setdefault(self, index: int, reason: Fault = "", /) -> Fault:
        kept = super().setdefault(index, reason)
        if len(self) > self._most:
            first = min(self)
            raise InvalidEvent(too_many_invalid(self._most, self._rows, first, self[first]))
        return kept


def conform(contract: Contract, table: pa.Table, most: int | None = None) -> Conformed:
    """Check and convert all rows; the valid ones keep their order.

    A column may have any type that reads as its field's: narrower or wider numbers as long as every value fits, times
    in any unit and zone (without one: UTC), as whole milliseconds or as ISO 8601 text. String columns stay
    dictionary-encoded if they are. Missing optional columns become null, earlier names are renamed. What is wrong with
    the whole table (a required column missing, an unknown one, a type that cannot be read) raises InvalidEvent, and so
    do more than `most` invalid rows: each costs a hundred times what a valid one does.
    """
    faults: dict[int, Fault] = {} if most is None else _CountedFaults(most, table.num_rows)
    columns = []
    same, matched = _matched(contract, table)
    for field, column in matched:
        if column is None:
            made = nulls(field, table.num_rows)
        elif has_odd_decimal(column.type):
            raise InvalidEvent(f"field {field.name}: a column of {column.type} cannot be read as {field.type}")
        else:
            made = conformed(field, unviewed(column), faults)
            limit = contract.max_bytes.get(field.name)
            if limit is not None and not field.values:
                check_length(field, made, limit, faults)
        same = same and made is column
        columns.append(made)
    if not same or table.schema.metadata:
        table = pa.table(columns, names=contract.arrow_schema.names)
    if not faults:
        return Conformed(table)
    keep = np.ones(table.num_rows, np.bool_)
    keep[list(faults)] = False
    invalid = tuple(InvalidRow(index, str(faults[index])) for index in sorted(faults))
    return Conformed(table.filter(pa.array(keep)), invalid)


def _matched(contract: Contract, table: pa.Table) -> tuple[bool, list[tuple[Field, pa.ChunkedArray | None]]]:
    """Return the column of each field, None for an optional one that is not there; and whether they are the table's as
    is.
    """
    names = table.column_names
    if names == contract.arrow_schema.names:
        return True, list(zip(contract.fields, table.itercolumns(), strict=True))
    columns = dict(zip(names, table.itercolumns(), strict=True))
    if len(columns) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidEvent(f"field {shown(twice)}: there are two columns of that name")
    found: list[tuple[Field, pa.ChunkedArray | None]] = []
    for field in contract.fields:
        name = next(
            (name for name in (field.name, *contract.others.get(field.name, ())) if name in columns), field.name
        )
        column = columns.pop(name, None)
        if column is None and field.required:
            raise InvalidEvent(f"field {field.name}: required, but there is no such column")
        found.append((field, column))
    for name in columns:
        raise InvalidEvent(f"field {shown(name)} is not in contract {contract.name} v{contract.version}")
    return False, found


def conformed(field: Field, column: pa.ChunkedArray, faults: dict[int, Fault]) -> pa.ChunkedArray:
    """Convert the column to the field's type, and add faults for the rows that break the contract."""
    if field.kind.name in NESTED:
        return _nested(field, column, faults)
    try:
        whole = column.type == field.arrow_type and field.type != "json"
        made = column if whole else converted(field, column)
    except pa.ArrowException:
        made = _by_value(field, column, faults)
    refused = refused_rows(field, made)
    if refused is not None:
        for index, value in _shown_values(column, refused):
            faults.setdefault(index, _reason(field, value))
    _note_missing(field, made, faults)
    return made


def _note_missing(field: Field, made: pa.ChunkedArray, faults: dict[int, Fault]) -> None:
    if field.required and made.null_count:
        for index in map(int, np.flatnonzero(made.is_null().to_numpy())):
            faults.setdefault(index, missing(field))


def _nested(field: Field, column: pa.ChunkedArray, faults: dict[int, Fault]) -> pa.ChunkedArray:
    """Take a column of lists, maps or structs as it is where all of it is sound; where not, read it value by value."""
    made = column
    try:
        if column.type != field.arrow_type and is_alike(field.kind, column.type):
            if field.kind.has("decimal"):
                column.validate(full=True)  # no value has more digits than its type
            made = column.cast(field.arrow_type)
        sound = made.type == field.arrow_type and all(is_sound(field.kind, one, _is_sound_leaf) for one in made.chunks)
    except pa.ArrowException:
        sound = False
    made = made if sound else _by_value(field, column, faults)
    _note_missing(field, made, faults)
    return made


def _is_sound_leaf(kind: Kind, column: pa.Array) -> bool:
    return kind.name != "json" and refused_rows(Field("x", kind.text), pa.chunked_array([column])) is None


def check_length(field: Field, made: pa.ChunkedArray, limit: int, faults: dict[int, Fault]) -> None:
    """Add faults for the rows whose value is too long."""
    nested = field.kind.name in NESTED
    if nested:
        sizes = np.concatenate([np.zeros(0, np.int64), *map(nested_sizes, made.chunks)])
        long: Places | None = np.flatnonzero(sizes > limit)
    else:
        long = long_texts(made, limit)
    if long is not None:
        for index, value in _shown_values(made, long):
            faults.setdefault(index, too_long(field, read_value(field, value) if nested else value, limit))


def _by_value(field: Field, column: pa.ChunkedArray, faults: dict[int, Fault]) -> pa.ChunkedArray:
    """Read each value by itself; null where there is a fault."""
    parts = list[pa.Array]()
    for first in range(0, len(column), _SOME):
        read: list[object] = []
        for index, value in enumerate(_pylist(column.slice(first, _SOME)), first):
            try:
                read.append(None if value is None else read_value(field, value))
            except Refused as refused:
                faults.setdefault(index, str(refused))
                read.append(None)
        parts.append(pa.array(read, field.arrow_type))
    return pa.chunked_array(parts, field.arrow_type)


def _pylist(column: pa.ChunkedArray) -> list[object]:
    """Return the values as Python's; text for one that Python cannot hold, such as a list with a time of year 20000."""
    try:
        found: list[object] = column.to_pylist()
    except _UNREADABLE:
        found = [_value(one) for one in column]
    return found


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except _UNREADABLE as error:
        return f"a value that cannot be read: {error}"


def _shown_values(column: pa.ChunkedArray, rows: Places) -> Iterator[tuple[int, object]]:
    """Yield the places and their values, some at a time: whoever takes them may stop."""
    for first in range(0, len(rows), _SOME):
        some = rows[first : first + _SOME]
        yield from zip(some.tolist(), _values(column, some), strict=True)


def _values(column: pa.ChunkedArray, rows: Places) -> list[object]:
    taken = column.take(pa.array(rows))
    try:
        values: list[object] = taken.to_pylist()
    except _UNREADABLE:  # a time that Python cannot hold
        if pa.types.is_decimal(taken.type):
            return [_value(one) for one in taken]
        values = taken.cast(pa.int32() if pa.types.is_date32(taken.type) else pa.int64()).to_pylist()
    return values


def _reason(field: Field, value: object) -> str:
    try:
        read_value(field, value)
    except Refused as refused:
        return str(refused)
    return f"field {field.name}: {shown(value)} is out of range"
