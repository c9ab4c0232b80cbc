"""What the commands print: tables for people, JSON lines for programs, progress on stderr."""

import base64
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from headwater.clock import Clock

__all__ = ["Advance", "print_json", "print_lines", "print_rows", "print_table", "progress"]

Advance = Callable[[int, int], None]
"""Called with events and units (rows or bytes) done in all."""


def print_json(found: Any) -> None:
    """One value on one line of stdout."""
    sys.stdout.write(json.dumps(_plain(found), ensure_ascii=False, allow_nan=False) + "\n")


def print_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    for row in rows:
        print_json(row)


def print_rows(rows: Iterable[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    """JSON lines, or a table with the columns of the first row; `empty` is said on stderr when there is no row."""
    if as_json:
        print_lines(rows)
        return
    listed = list(rows)
    if not listed:
        sys.stderr.write(f"{empty}\n")
        return
    columns = list(listed[0])
    print_table(columns, ([row.get(column) for column in columns] for row in listed))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Numbers to the right. A pipe gets the table as wide as it is, a terminal at its own width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    listed = [list(row) for row in rows]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for at, column in enumerate(columns):
        numbers = any(_is_number(row[at]) for row in listed)
        table.add_column(Text(column), justify="right" if numbers else "left", no_wrap=True, overflow="ellipsis")
    for row in listed:
        table.add_row(*(Text(_shown(value)) for value in row))
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=max(80, _width(columns, listed)))
    console.print(table)


@contextmanager
def progress(title: str, total: int | None, clock: Clock, every_seconds: float = 3.0) -> Iterator[Advance]:
    """A bar on stderr where that is a terminal, else a line now and then. `total` is in the units of the second
    argument of what is yielded; None when it is not known."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_by_line(title, total, clock, every_seconds)
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


def _line_by_line(title: str, total: int | None, clock: Clock, every_seconds: float) -> Advance:
    said = started = clock.now_ms()

    def advance(events: int, done: int) -> None:
        nonlocal said
        now = clock.now_ms()
        if now - said < every_seconds * 1000:
            return
        said = now
        share = f"{done / total:4.0%}  " if total else ""
        rate = events / max(0.001, (now - started) / 1000)
        sys.stderr.write(f"{title}: {share}{events:,} events, {rate:,.0f}/s\n")
        sys.stderr.flush()

    return advance


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _width(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    from rich.cells import cell_len

    widths = [
        max(cell_len(column), *(cell_len(_shown(row[at])) for row in rows)) if rows else cell_len(column)
        for at, column in enumerate(columns)
    ]
    return sum(widths) + 2 * len(widths)


def _shown(value: Any) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    # a control character in data must not move the terminal's cursor
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _plain(value: Any) -> Any:
    """As JSON has it: times in ISO 8601 (UTC as Z), numbers that JSON lacks as null, bytes in base64."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return _plain(int(value) if value == value.to_integral_value() else float(value))
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC)
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)
