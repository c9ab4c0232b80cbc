"""Print what commands found: tables for people, JSON lines for programs, progress on stderr."""

import base64
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from headwater.clock import Clock
from headwater.contract.scalars import decimal_text

__all__ = ["Advance", "plain", "print_json", "print_lines", "print_rows", "print_table", "progress"]

Advance = Callable[[int, int], None]
"""Takes the events and the units (rows or bytes) done in all."""
_LINE_EVERY_MS = 3_000
_MOST_ROWS = 1_000
"""Rows of one table at most."""


def print_json(found: Any) -> None:
    """Print one value as JSON on one line of stdout."""
    # what another terminal's encoding does not have is escaped as JSON escapes it
    unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    sys.stdout.write(json.dumps(plain(found), ensure_ascii=not unicode, allow_nan=False) + "\n")


def print_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON object a line."""
    for row in rows:
        print_json(row)


def print_rows(rows: Iterable[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """Print JSON lines, or a table with the columns of the first row; write `empty` to stderr when there is no row.

    A long table is printed in parts, each with its heads, so that any number of rows takes little memory.
    """
    if as_json:
        print_lines(rows)
        return
    left, columns = iter(rows), list[str]()
    while listed := list(islice(left, _MOST_ROWS)):
        columns = columns or list(listed[0])
        print_table(columns, ([row.get(column) for column in columns] for row in listed))
    if not columns:
        sys.stderr.write(f"{empty}\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table, numbers to the right; no cell is cut, however narrow the terminal (see `tables`)."""
    from rich.table import Table
    from rich.text import Text

    from headwater.commands.tables import show

    listed = [list(row) for row in rows]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for at, column in enumerate(columns):
        numbers = any(_is_number(row[at]) for row in listed)
        table.add_column(Text(column), justify="right" if numbers else "left")
    for row in listed:
        table.add_row(*(Text(_shown(value)) for value in row))
    show(table)


@contextmanager
def progress(title: str, total: int | None, clock: Clock) -> Iterator[Advance]:
    """Show progress on stderr: a bar where that is a terminal, else a line now and then.

    `total` is in the units of the second argument of what is yielded; None when it is not known.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_by_line(title, total, clock)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[events]:,} events  {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started = clock.now_ms()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, events=0, rate=0.0)

        def advance(events: int, done: int) -> None:
            seconds = max(0.001, (clock.now_ms() - started) / 1000)
            bar.update(task, completed=done, events=events, rate=events / seconds)

        yield advance


def _line_by_line(title: str, total: int | None, clock: Clock) -> Advance:
    printed_ms = started = clock.now_ms()

    def advance(events: int, done: int) -> None:
        nonlocal printed_ms
        now = clock.now_ms()
        if now - printed_ms < _LINE_EVERY_MS:
            return
        printed_ms = now
        share = f"{done / total:4.0%}  " if total else ""
        rate = events / max(0.001, (now - started) / 1000)
        sys.stderr.write(f"{title}: {share}{events:,} events, {rate:,.0f}/s\n")
        sys.stderr.flush()

    return advance


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    shown = plain(value)
    if shown is None:
        return ""
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
    # a control character in data must not move the terminal's cursor
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def plain(value: Any) -> Any:
    """Return the value as JSON has it: times in ISO 8601 (UTC as Z), numbers JSON lacks as null, bytes in base64,
    decimals with digits behind the point as text, which no reader rounds.

    >>> plain(Decimal("12345678901234567890.10")), plain(Decimal(12))
    ('12345678901234567890.10', 12)
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return int(value) if value.as_tuple().exponent == 0 else decimal_text(value)
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC)
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)
