"""Say what a view's table in the lake looks like, and turn partials into its rows. Pure.

A row is a window of a key in one revision: key columns, `window_start`, `window_end`, the values, and `_revision`,
which is higher in a row that amends another. Each value has a column of the type that holds every value it can have.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from headwater.aggregates import Aggregate
from headwater.aggregates.merging import values
from headwater.contract.types import MOST_DIGITS, UUID
from headwater.processors.definition.checks import TABLE_COLUMNS
from headwater.processors.definition.parts import View
from headwater.processors.operators.aggregate import ALWAYS, Partial
from headwater.sinks.lake.rewrite import SortOrder

__all__ = ["POSITION", "TablePosition", "column_docs", "definition_of", "sort_order", "table_columns", "table_rows"]

POSITION = "headwater.view"
"""The table's property that says how far it was written: it changes in the commit that brings the rows."""
_TIME = pa.timestamp("ms", "UTC")


@dataclass(frozen=True)
class TablePosition:
    """Say what a table has: all windows that end by `through_ms`, with every event of the snapshot `events`."""

    definition: Mapping[str, Any]
    events: int
    revision: int
    """The `_revision` of the rows written last."""
    through_ms: int = ALWAYS

    def dumps(self) -> str:
        """Return the text of the table's property."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "TablePosition":
        """Read what `dumps` has written."""
        return cls(**json.loads(text))


def definition_of(view: View) -> dict[str, Any]:
    """Return what the rows of a view depend on, as JSON has it."""
    assert view.window is not None
    named = [
        [one.name, one.function, one.field, list(one.params), *([one.where] if one.where else [])]
        for one in view.aggregates
    ]
    return {"by": list(view.by), "window": [view.window.size_ms, view.window.every_ms], "values": named}


def table_columns(view: View, schema: pa.Schema) -> pa.Schema:
    """Return the table's columns for a view over events of this schema.

    >>> from headwater.aggregates import count, mean
    >>> from headwater.processors.definition.windows import tumbling
    >>> view = View("hourly", ("device",), (count("n"), mean("value", "mean")), tumbling("1h"))
    >>> table_columns(view, pa.schema([("device", pa.string()), ("value", pa.float64())])).names
    ['device', 'window_start', 'window_end', 'n', 'mean', '_revision']
    """
    start, end, revision = TABLE_COLUMNS
    return pa.schema(
        [
            *(pa.field(name, schema.field(name).type) for name in view.by),
            pa.field(start, _TIME, nullable=False),
            pa.field(end, _TIME, nullable=False),
            *(pa.field(one.name, _kind(one, schema)) for one in view.aggregates),
            pa.field(revision, pa.int64(), nullable=False),
        ]
    )


def _kind(one: Aggregate, schema: pa.Schema) -> pa.DataType:
    """Return the type of a value's column."""
    if one.field is None or one.function == "distinct":
        return pa.int64()
    kind = schema.field(one.field).type
    if one.function == "sum":
        if pa.types.is_decimal(kind):
            return pa.decimal128(MOST_DIGITS, kind.scale)
        if pa.types.is_int64(kind):  # of two already more than 64 bits
            return pa.decimal128(MOST_DIGITS, 0)
        return pa.float64() if pa.types.is_floating(kind) else pa.int64()
    return pa.float64() if one.function in ("mean", "variance", "quantile") else kind


def sort_order(view: View) -> SortOrder:
    """Return the order of rows in a joined file: by key, window and revision."""
    start, _, revision = TABLE_COLUMNS
    first, *others = (*view.by, start)
    return SortOrder(first, start, (*others, revision))


def column_docs(view: View) -> dict[str, str]:
    """Return the comment of each column."""
    start, end, revision = TABLE_COLUMNS
    said = {one.name: one.said if one.field or one.where else "Number of events." for one in view.aggregates}
    return said | {
        start: "Beginning of the window, event time.",
        end: "End of the window, not in it.",
        revision: "Of the rows of a key and window the one with the highest counts: it has the late events, too.",
    }


def table_rows(
    view: View, columns: pa.Schema, partials: Sequence[Partial], revision: int
) -> tuple[pa.Table, list[str]]:
    """Return the rows of these windows, and the values that their columns cannot hold, which are null in the rows.

    Those are times and dates beyond the years 1 to 9999 and sums of more than 38 digits.
    """
    found: dict[str, list[object]] = {name: [] for name in columns.names}
    start, end, revised = TABLE_COLUMNS
    for one in partials:
        row = dict(zip(view.by, one.key, strict=True)) | values(view.aggregates, one.partial)
        row |= {start: one.window_start_ms, end: one.window_end_ms, revised: revision}
        for name in columns.names:
            found[name].append(row[name])
    unfit: list[str] = []
    arrays = [_array(one, found[one.name], unfit) for one in columns]
    return pa.Table.from_arrays(arrays, schema=columns), unfit


def _array(column: pa.Field, held: Sequence[object], unfit: list[str]) -> pa.Array:
    """Return the values as a column; what it cannot hold becomes null, and is named in `unfit`."""
    try:
        return pa.array([_typed(value, column.type) for value in held], column.type)
    except (ValueError, TypeError, ArithmeticError):
        return pa.array([_fitting(column, value, unfit) for value in held], column.type)


def _fitting(column: pa.Field, value: object, unfit: list[str]) -> object:
    try:
        return pa.scalar(_typed(value, column.type), column.type).as_py()
    except (ValueError, TypeError, ArithmeticError):
        unfit.append(f"{column.name}: {str(value)[:100]}")
        return None


def _typed(value: Any, kind: pa.DataType) -> object:
    """Return a value, as rows of views have it, as Arrow takes it for a column of this type."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str) and not pa.types.is_string(kind):
        return _read(value, kind)
    return round(value) if isinstance(value, float) and pa.types.is_integer(kind) else value


def _read(text: str, kind: pa.DataType) -> object:
    if kind == UUID:
        return uuid.UUID(text).bytes
    if pa.types.is_decimal(kind):
        return Decimal(text)
    if pa.types.is_date(kind):
        return date.fromisoformat(text)
    if pa.types.is_time(kind):
        return time.fromisoformat(text)
    if pa.types.is_timestamp(kind):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    raise ValueError(f"{text!r} is no {kind}")
