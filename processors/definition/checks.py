"""Check a pipeline's parts where they are defined, so that what cannot run is refused before a record is read.

Each check raises UsageError with one line that names the part, the column and what is possible instead.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from headwater.aggregates import Aggregate
from headwater.arguments import duration_ms
from headwater.contract.types import type_name
from headwater.errors import UsageError
from headwater.expressions.compiling import condition
from headwater.processors.alerts import Rule
from headwater.processors.definition.naming import check_name, check_table_name
from headwater.processors.definition.parts import Lake, ToStream, View
from headwater.processors.definition.windows import Window

__all__ = [
    "check_aggregates",
    "check_alert",
    "check_columns",
    "check_keep",
    "check_keys",
    "check_names",
    "check_stream",
    "check_table",
    "refuse_unknown",
]

TABLE_COLUMNS = ("window_start", "window_end", "_revision")
"""Columns that a view's table has beside keys and values."""
JUDGED_WITHIN_MS = 600_000
"""Time that an alert's view keeps its rows at least beyond the allowed lateness and what a rule looks back at: for
commits, turns and short pauses."""
_NOT_IN_NAMES = frozenset("@/{}?#")
_OF_NUMBERS = frozenset({"sum", "mean", "variance", "quantile"})
_OF_ANY_COLUMN = frozenset({"min", "max", "first", "last"})
"""Their values are of the column's type."""


def refuse_unknown(what: str, unknown: Iterable[str], known: Sequence[str]) -> None:
    """Raise UsageError for the first unknown option, with the known name that is most like it."""
    for option in unknown:
        near = difflib.get_close_matches(option, known, 1, 0.6)
        more = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
        raise UsageError(f"{what} has no option {option!r}: {more}")


def check_columns(where: str, columns: Iterable[str], schema: pa.Schema) -> None:
    """Refuse a column that the schema does not have, and one text where a list of columns belongs."""
    if isinstance(columns, str):
        raise UsageError(f"{where}: {columns!r} is to be a list of columns: [{columns!r}]")
    for column in columns:
        if column not in schema.names:
            near = difflib.get_close_matches(str(column), schema.names, 1, 0.6)
            more = f", did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{where} has no column {column!r}; it has {schema.names}{more}")


def check_names(view: str, columns: Sequence[str]) -> None:
    """Refuse names that a URL or a row could not hold: a view's name is a part of a path, and rows have `final`."""
    refused = sorted(_NOT_IN_NAMES & set(view))
    if refused or view != view.strip():
        why = repr(refused[0]) if refused else "blanks at its ends"
        raise UsageError(f"a view cannot be named {view!r}: a name has no {why}")
    if "final" in columns:
        raise UsageError(f"view {view}: 'final' is what rows say of their windows; give the column another name")


def check_aggregates(view: str, aggregates: Mapping[str, object], options: Sequence[str], schema: pa.Schema) -> None:
    """Refuse what is no aggregate, and an aggregate of a column whose type it cannot take in.

    Without this check the first record would be refused by the aggregate's state, and the shard would restart for ever.
    """
    for name, aggregate in aggregates.items():
        if not isinstance(aggregate, Aggregate):
            refuse_unknown(f"view {view}", [name], options)
            continue
        if aggregate.where is not None:
            check_where(f"view {view}: {name}", aggregate.where, schema)
        if aggregate.field is None:
            continue
        check_columns(f"view {view}: {name}={aggregate.function}({aggregate.field!r})", [aggregate.field], schema)
        kind = schema.field(aggregate.field).type
        if aggregate.function in _OF_NUMBERS and not (_holds_numbers(kind) or pa.types.is_boolean(kind)):
            raise UsageError(
                f"view {view}: {name}={aggregate.function}({aggregate.field!r}) needs a column of numbers or "
                f"booleans (int, long, float, double, decimal, boolean), and {aggregate.field!r} is {type_name(kind)}"
            )
        if pa.types.is_binary(kind) or pa.types.is_nested(kind):
            raise UsageError(
                f"view {view}: {name}={aggregate.function}({aggregate.field!r}) needs a column of texts, times, UUIDs, "
                f"numbers or booleans, and {aggregate.field!r} is {type_name(kind)}"
            )


def check_where(what: str, where: str, schema: pa.Schema) -> None:
    """Refuse a condition that cannot be read, or that does not fit the schema."""
    try:
        condition(where, schema)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None


def check_keys(where: str, by: Sequence[str], schema: pa.Schema) -> None:
    """Refuse key columns whose values have no one text."""
    for name in by:
        kind = schema.field(name).type
        if pa.types.is_binary(kind) or pa.types.is_nested(kind):
            raise UsageError(f"{where}: {name!r} is {type_name(kind)}, which cannot be a key")


def check_keep(view: str, keep: str | None, window: Window | None, lateness_ms: int) -> int | None:
    """Return for how long rows are kept, in ms; refuse a time without windows to count from, and one that is too short.

    >>> check_keep("hourly", None, None, 0) is None
    True
    """
    keep_ms = None if keep is None else duration_ms(keep)
    if keep_ms is not None and window is None:
        raise UsageError(f"view {view} has no window, so its rows have no end to count keep={keep!r} from")
    if keep_ms is not None and keep_ms < lateness_ms:
        raise UsageError(f"view {view}: keep={keep!r} is less than the lateness that the pipeline allows")
    return keep_ms


def check_table(view: View, others: Iterable[View], lake: Lake | None) -> None:
    """Refuse a table in the lake for a view whose rows are never final, and a table that has another use."""
    if view.table is None:
        return
    check_table_name(view.table)
    if view.window is None:
        raise UsageError(f"view {view.name} has no window, so its rows are never final: table={view.table!r} needs one")
    if view.window.unit is not None:
        raise UsageError(f"view {view.name} has calendar windows: table={view.table!r} takes tumbling or hopping ones")
    for one in others:
        if one.table == view.table:
            raise UsageError(
                f"view {view.name}, version {view.version}: table {view.table!r} is that of view {one.name}, version "
                f"{one.version}; each definition needs a table of its own"
            )
    if lake is not None and lake.table == view.table:
        raise UsageError(f"view {view.name}: table {view.table!r} is that of the events; give it another name")
    columns = [column.lower() for column in (*view.by, *(one.name for one in view.aggregates), *TABLE_COLUMNS)]
    for name in columns:
        if columns.count(name) > 1:
            raise UsageError(
                f"view {view.name}: table {view.table!r} would have two columns {name!r}; name one otherwise"
            )


def _holds_numbers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def check_alert(rule: Rule, view: View, schema: pa.Schema, lateness_ms: int) -> None:
    """Refuse a rule over a column that is no number, and one whose rows would be gone before it is judged."""
    if rule.window.unit is not None:
        raise UsageError(
            f"alert {rule.name}: view {view.name} has calendar windows, which no alert judges: put it on a view with "
            "tumbling or hopping windows"
        )
    numbers = [one.name for one in view.aggregates if _is_number(one, schema)]
    if rule.when.kind != "absent" and rule.when.column not in numbers:
        raise UsageError(f"alert {rule.name}: {rule.when.column!r} is no number in view {view.name}; it has {numbers}")
    needed = lateness_ms + rule.lookback_ms + JUDGED_WITHIN_MS
    if view.keep_ms is not None and view.keep_ms < needed:
        raise UsageError(
            f"alert {rule.name}: view {view.name} keeps rows for {view.keep_ms / 1000:g} s, and to be judged they "
            f"have to be there for {needed / 1000:g} s: give it a longer keep"
        )


def _is_number(aggregate: Aggregate, schema: pa.Schema) -> bool:
    """Return True when the aggregate's values are numbers."""
    if aggregate.field is None or aggregate.function not in _OF_ANY_COLUMN:
        return True
    return _holds_numbers(schema.field(aggregate.field).type)


def check_stream(pipeline: str, step: ToStream, others: Iterable[ToStream], schema: pa.Schema) -> None:
    """Refuse a second stream of a name, and a contract with an id of its own or a field that the events do not have.

    Copies of an own id are dropped where they meet on one shard, and nothing brings a pipeline's events there.
    """
    check_name("stream", step.stream)
    if any(one.stream == step.stream for one in others):
        raise UsageError(f"pipeline {pipeline} has two streams named {step.stream}")
    where, contract = f"pipeline {pipeline}, stream {step.stream}", step.contract
    if contract.id is not None:
        raise UsageError(f"{where}: contract {contract.name} has an id of its own; leave it out: events are numbered")
    check_columns(where, contract.arrow_schema.names, schema)
    for field in contract.arrow_schema:
        found = schema.field(field.name).type
        if found != field.type:
            raise UsageError(
                f"{where}: contract {contract.name} has {field.name} as {type_name(field.type)}, and the events have "
                f"it as {type_name(found)}"
            )
