"""Fit tables to where they are printed: a terminal of any width, or a pipe. Nothing of a cell is ever cut off.

A pipe gets a table as wide as it is. On a terminal texts wrap between words; numbers and words, such as ids, stay
whole. Where not even that fits, each row becomes a block of lines: what belongs together stays readable, and an id can
be copied. No command makes a rich Console of its own for its result: that cuts lines at 80 columns in a pipe.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["show"]

_PAD = 2
_ANY_WIDTH = 1_000_000


def show(*parts: "RenderableType", console: Console | None = None) -> None:
    """Print texts, tables and groups of them. `console` is stdout unless given."""
    out = console or Console()
    width = out.width if out.is_terminal else _ANY_WIDTH
    for part in _flat(parts):
        if isinstance(part, Table):
            _show_table(out, part, width)
        else:
            # soft: a line of text is the terminal's to wrap, and in a pipe it is one line
            out.print(part, soft_wrap=True, highlight=False)


def _flat(parts: "Sequence[RenderableType]") -> "Iterator[RenderableType]":
    for part in parts:
        if isinstance(part, Group):
            yield from _flat(part.renderables)
        else:
            yield part


def _show_table(out: Console, table: Table, width: int) -> None:
    wide = Console(width=_ANY_WIDTH, file=out.file)
    measured = [_measured(wide, table, at) for at in range(len(table.columns))]
    widths = _widths(measured, width - _PAD * len(measured))
    if table.title:
        out.print(table.title, soft_wrap=True, highlight=False)
        table.title = None
    if widths is None:
        _show_blocks(out, table, width)
        return
    for column, wanted in zip(table.columns, widths, strict=True):
        column.width, column.no_wrap, column.overflow = wanted, False, "fold"
    # the table has its widths: a console of just as many columns would still cut it at the terminal's
    rendered = Console(
        width=sum(widths) + _PAD * len(widths) + 1,
        file=out.file,
        force_terminal=out.is_terminal,
        color_system=out.color_system,  # type: ignore[arg-type]  # rich names its own value by a wider type
        no_color=out.no_color,
    )
    rendered.print(table)


def _measured(wide: Console, table: Table, at: int) -> tuple[int, int]:
    """Return how wide the column must be, so that no word is broken, and how wide it is without any wrap."""
    column = table.columns[at]
    head = Measurement.get(wide, wide.options, column.header)
    cells = [Measurement.get(wide, wide.options, cell) for cell in column.cells]
    # a number with its unit, such as "3.5 min", stays on one line; a heading of many words need not
    least = [one.maximum if column.justify == "right" else one.minimum for one in cells]
    return max(1, head.minimum, *least), max(1, head.maximum, *(one.maximum for one in cells))


def _widths(measured: Sequence[tuple[int, int]], width: int) -> list[int] | None:
    """Return each column's width, or None when they do not fit. What is left over goes to those that lack least."""
    widths = [least for least, _ in measured]
    left = width - sum(widths)
    if left < 0:
        return None
    for at in sorted(range(len(measured)), key=lambda at: measured[at][1] - measured[at][0]):
        more = min(left, measured[at][1] - widths[at])
        widths[at] += more
        left -= more
    return widths


def _show_blocks(out: Console, table: Table, width: int) -> None:
    """Print a block of lines for each row. Where all but the first column are numbers, they are one line below it."""
    names = [_text(column.header) for column in table.columns]
    rows = [[_text(cell) for cell in cells] for cells in zip(*(column.cells for column in table.columns), strict=True)]
    styles = [str(row.style or "") for row in table.rows]
    numbers = [max(cell_len(one[at]) for one in (names, *rows)) for at in range(1, len(names))]
    if all(one.justify == "right" for one in table.columns[1:]) and sum(numbers) + _PAD * len(numbers) <= width:
        _print(out, names[0])
        _print(out, _line(names[1:], numbers))
        for row, style in zip(rows, styles, strict=True):
            _print(out, row[0], style)
            _print(out, _line(row[1:], numbers), style)
        return
    left = max(cell_len(name) for name in names)
    for row, style in zip(rows, styles, strict=True):
        for name, cell in zip(names, row, strict=True):
            if cell.strip():
                _print(out, f"{name:{left}}  {cell}", style)
        _print(out, "")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(" " * (_PAD + width - cell_len(cell)) + cell for cell, width in zip(cells, widths, strict=True))


def _print(out: Console, line: str, style: str = "") -> None:
    out.print(Text(line, style=style), soft_wrap=True)


def _text(cell: "RenderableType") -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
