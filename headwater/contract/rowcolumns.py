"""Hold many events, given as mappings, to their contract: a column at a time, whatever is wrong with some of them.

What comes out is what `validate_row` says of each event by itself. Values of the usual types are checked by vectorised
passes, and only the others are read one by one.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from datetime import datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.contract.conform import Fault, check_length, conformed
from headwater.contract.conversion import converted, seconds_column
from headwater.contract.definition import Contract, Field
from headwater.contract.rows import unknown_field
from headwater.contract.scalars import JsonNumber, Refused
from headwater.contract.selection import select_columns, select_row
from headwater.contract.types import TIMES
from headwater.contract.values import TIME, missing, read_value, reason_of, worded
from headwater.errors import InvalidEvent

__all__ = ["Fault", "conform_columns", "conform_events", "conform_rows", "read_column"]

_READING: dict[str, dict[type, pa.DataType | None]] = {
    "string": {str: pa.string()},
    "boolean": {bool: pa.bool_()},
    "int": {int: pa.int64()},
    "long": {int: pa.int64()},
    "float": {float: pa.float64(), JsonNumber: pa.float64()},
    "double": {float: pa.float64(), JsonNumber: pa.float64()},
    "date": {str: pa.string()},
    "timestamp": {str: pa.string(), int: pa.int64(), datetime: pa.timestamp("us", "UTC")},
    "decimal": {str: pa.string(), Decimal: None},
    "uuid": {str: pa.string(), UUID: None},
    "binary": {str: pa.string(), bytes: pa.binary()},
    "time": {str: pa.string(), time: pa.time64("us")},
}
"""Types of values that are read many at once, by the kind of the field, each with the Arrow type to read them as; None
where Arrow finds it by itself."""
_TAKEN = {
    "string": (str,),
    "boolean": (bool,),
    "int": (int, float),
    "long": (int, float),
    "float": (int, float),
    "double": (int, float),
    "date": (str,),
    "timestamp": (str, int, float),
}
"""Types of JSON's values that may be right, by the kind of the field; any other is refused by its type alone."""
_JSON = (str, bool, int, float, list, dict)
_FEW, _PIECE = 8, 32
_BROKEN = (ValueError, TypeError, OverflowError, RecursionError)
Values = Sequence[object]
Take = Callable[[Values, Set[type]], None]


def _anything(values: Values, kinds: Set[type]) -> None:
    """Take as many values as there are."""


def conform_rows(
    contract: Contract, rows: Sequence[Mapping[str, object]], take: Take = _anything
) -> tuple[pa.Table, dict[int, Fault]]:
    """Return the valid events in the contract's schema, in their order, and for the others by their places why not.

    `take` gets the values of each column before it is made, and may raise an error for too many.
    """
    return _conform_rows(contract, rows, {}, take)


def conform_events(
    contract: Contract, events: Sequence[Mapping[str, object]], take: Take = _anything
) -> tuple[pa.Table, dict[int, Fault]]:
    """Return what `conform_rows` does, of events whose fields lie where the contract says: see `select_row`."""
    faults: dict[int, Fault] = {}
    if not contract.selects:
        return _conform_rows(contract, events, faults, take)
    if contract.unknown == "ignore":  # nothing is asked of the event but its fields
        table = _table(contract, select_columns(contract, events), faults, take)
        return _without(table, faults), faults
    rows: list[Mapping[str, object]] = []
    for at, event in enumerate(events):
        try:
            rows.append(select_row(contract, event))
        except (InvalidEvent, *_BROKEN) as error:
            faults[at] = error
            rows.append({})
    return _conform_rows(contract, rows, faults, take)


class _AnyFault(dict[int, Fault]):
    """Raise InvalidEvent for the first fault: nobody asks for the others."""

    def setdefault(self, index: int, reason: Fault = "", /) -> Fault:
        raise InvalidEvent(f"row {index}: {reason}")


def conform_columns(contract: Contract, columns: Sequence[Values], take: Take) -> pa.Table:
    """Return the table of all events, whose values of each field these are. A column may be Arrow's, of a type that
    Python's values have. Raise InvalidEvent where one of them is invalid."""
    return _table(contract, columns, _AnyFault(), take)


def _conform_rows(
    contract: Contract, rows: Sequence[Mapping[str, object]], faults: dict[int, Fault], take: Take
) -> tuple[pa.Table, dict[int, Fault]]:
    """Add to the faults that are known already: of one event the first counts."""
    there = set[str]().union(*rows)
    table = _table(contract, (_values(contract, field, rows, there) for field in contract.fields), faults, take)
    known = frozenset(contract.arrow_schema.names)
    for at, row in enumerate(rows) if not there <= known else ():
        if not row.keys() <= known and (reason := unknown_field(contract, row)) is not None:
            faults.setdefault(at, reason)
    return _without(table, faults), faults


def _table(contract: Contract, values: Iterable[Values], faults: dict[int, Fault], take: Take) -> pa.Table:
    columns = []
    for field, found in zip(contract.fields, values, strict=True):
        if isinstance(found, pa.ChunkedArray):
            take(found, {str} if pa.types.is_string(found.type) else set())
            column = conformed(field, found, faults).cast(field.arrow_type)
        else:
            kinds = set(map(type, found))
            take(found, kinds)
            column = _column(field, found, kinds, faults)
        if field.name in contract.max_bytes and not field.values:
            check_length(field, column, contract.max_bytes[field.name], faults)
        columns.append(column)
    return pa.table(columns, schema=contract.arrow_schema)


def _without(table: pa.Table, faults: Collection[int]) -> pa.Table:
    if not faults:
        return table
    keep = np.ones(table.num_rows, np.bool_)
    keep[list(faults)] = False
    return table.filter(pa.array(keep))


def read_column(contract: Contract, name: str, rows: Sequence[Mapping[str, object]]) -> list[object]:
    """Return each event's value of one field, as `validate_row` reads it; None where it has none that is right."""
    field, there = contract.field(name), set[str]().union(*rows)
    values = _values(contract, field, rows, there)
    read: list[object] = _column(field, values, set(map(type, values)), {}).to_pylist()
    return read


def _values(contract: Contract, field: Field, rows: Sequence[Mapping[str, object]], there: Collection[str]) -> Values:
    names = [name for name in (field.name, *contract.others.get(field.name, ())) if name in there]
    if not names:
        return [None] * len(rows)
    if len(names) == 1:
        return [row.get(names[0]) for row in rows]
    return [row.get(next((name for name in names if name in row), "")) for row in rows]


def _column(field: Field, values: Values, kinds: Set[type], faults: dict[int, Fault]) -> pa.ChunkedArray:
    """Return the column of values of these types, null where there is a fault, and add the faults."""
    if len(kinds) == 2 and type(None) in kinds:
        made = _with_nulls(field, next(iter(kinds - {type(None)})), values, faults)
        if made is not None:
            return made
    groups = _groups(field, values, kinds)
    if len(groups) == 1:
        kind = next(iter(groups))
        return pa.chunked_array([_of_kind(field, kind, values, range(len(values)), faults)], field.arrow_type)
    arrays, order = [], list[int]()
    for kind, places in groups.items():
        arrays.append(_of_kind(field, kind, [values[at] for at in places], places, faults))
        order += places
    return pa.chunked_array(arrays, field.arrow_type).take(pa.array(np.argsort(np.array(order, np.int64))))


def _with_nulls(field: Field, kind: type, values: Values, faults: dict[int, Fault]) -> pa.ChunkedArray | None:
    """Return the column of values of one type and nulls among them, where Arrow finds the nulls; None for others."""
    reading = _READING.get(field.kind.name, {})
    if reading.get(kind) is None or kind is datetime or kind is time or len(values) < _FEW:
        return None
    found: dict[int, Fault] = {}
    try:
        made = _together(field, pa.array(values, reading[kind]), range(len(values)), found)
    except (pa.ArrowException, *_BROKEN):
        return None
    _note(faults, found)
    return pa.chunked_array([made], field.arrow_type)


class _NoTime(str):
    """Stand for the type of texts that have not the shape of a time."""


def _groups(field: Field, values: Values, kinds: Collection[type]) -> dict[type, Sequence[int]]:
    """Return the places of the values of each type; one that is the only one has no list made for it."""
    groups: dict[type, Sequence[int]] = {kind: range(len(values)) for kind in kinds}
    if len(kinds) > 1:
        groups = {kind: [at for at, value in enumerate(values) if type(value) is kind] for kind in kinds}
    if field.type in TIMES and str in groups and not field.format:
        shapeless = [at for at in groups[str] if not TIME.fullmatch(values[at])]  # type: ignore[call-overload]  # all of them are text
        if shapeless:
            left = set(groups.pop(str)).difference(shapeless)
            groups |= {_NoTime: shapeless} | ({str: sorted(left)} if left else {})
    return groups


def _of_kind(field: Field, kind: type, values: Values, places: Sequence[int], faults: dict[int, Fault]) -> pa.Array:
    """Read values that are all of one Python type."""
    if kind is type(None):
        if field.required:
            _note(faults, dict.fromkeys(places, missing(field)))
        return pa.nulls(len(values), field.arrow_type)
    name = "timestamp" if field.type in TIMES else field.kind.name
    if kind is _NoTime or (kind in _JSON and kind not in _TAKEN.get(name, _JSON)):
        return _none_right(field, values, places, faults)
    reading = _READING.get(name, {})
    if kind in (float, JsonNumber) and field.type in TIMES and field.epoch == "s" and len(values) >= _FEW:
        counted = seconds_column(values)
        if counted is not None and pc.min(counted.cast(pa.int64())).as_py() >= field.earliest_ms * 1000:
            return _together(field, counted, places, faults)
    if kind not in reading or field.format or len(values) < _FEW or not _alike(kind, values):
        return _one_by_one(field, values, places, faults)
    try:
        return _together(field, pa.array(values, reading[kind]), places, faults)
    except (pa.ArrowException, *_BROKEN):  # half surrogates, numbers beyond 64 bits
        return _one_by_one(field, values, places, faults)


def _together(field: Field, array: pa.Array, places: Sequence[int], faults: dict[int, Fault]) -> pa.Array:
    """Read values of one Arrow type; texts piece by piece where one is no time: a piece with one is read slowly."""
    pieces = [array]
    if pa.types.is_string(array.type) and field.type != "string":
        try:
            converted(field, pa.chunked_array([array]))
        except pa.ArrowException:
            pieces = [array[at : at + _PIECE] for at in range(0, len(array), _PIECE)]
    made, start = [], 0
    for piece in pieces:
        found: dict[int, Fault] = {}
        made += conformed(field, pa.chunked_array([piece]), found).cast(field.arrow_type).chunks
        _note(faults, {places[start + at]: reason for at, reason in found.items()})
        start += len(piece)
    return made[0] if len(made) == 1 else pa.concat_arrays(made)


def _alike(kind: type, values: Values) -> bool:
    """Tell whether one column can hold these values as they are: with zones or without, decimals of one scale."""
    some: Sequence[Any] = values  # all of the kind
    if kind is datetime:
        return None not in {value.tzinfo for value in some}
    if kind is time:
        return {value.tzinfo for value in some} == {None}
    return kind is not Decimal or len({value.as_tuple().exponent for value in some}) == 1


def _none_right(field: Field, values: Values, places: Sequence[int], faults: dict[int, Fault]) -> pa.Array:
    """Refuse values of a type that is none of the field's: for the same reason, whatever they are."""
    try:
        why = reason_of(field, values[0])
        for at, value in zip(places, values, strict=True):
            faults.setdefault(at, worded(field, value, why))
    except _BROKEN:  # lists that are nested too deeply to be shown
        return _one_by_one(field, values, places, faults)
    return pa.nulls(len(values), field.arrow_type)


def _one_by_one(field: Field, values: Values, places: Sequence[int], faults: dict[int, Fault]) -> pa.Array:
    read: list[object] = []
    for at, value in zip(places, values, strict=True):
        made = None
        try:
            made = read_value(field, value)
        except Refused as refused:
            faults.setdefault(at, str(refused))
        except _BROKEN as error:
            faults.setdefault(at, error)
        read.append(made)
    return pa.array(read, field.arrow_type)


def _note(faults: dict[int, Fault], more: Mapping[int, Fault]) -> None:
    """Add reasons; of one event the first counts."""
    for at, reason in more.items():
        faults.setdefault(at, reason)
