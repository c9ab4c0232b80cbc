"""What the sections of the page are made of."""

from collections.abc import Iterable, Sequence
from typing import Any

from nicegui import ui

__all__ = ["card", "fill", "replace_options", "table"]


def card(title: str, note: str = "", *, wide: bool = False) -> Any:
    """A section with its heading, on a wide screen over half or all of its width."""
    section = ui.card().classes("w-full min-w-0 overflow-x-auto" + (" xl:col-span-2" if wide else ""))
    with section:
        ui.label(title).classes("text-lg font-medium").props('role="heading" aria-level="2"')
        if note:
            ui.label(note).classes("text-sm opacity-70")
    return section


def table(columns: Sequence[str], key: str, **more: Any) -> Any:
    """A table of plain text cells; a column whose name ends in `>` holds numbers."""
    spec = [
        {
            "name": name.rstrip(">"),
            "label": name.rstrip(">"),
            "field": name.rstrip(">"),
            "align": "right" if name.endswith(">") else "left",
            "sortable": True,
        }
        for name in columns
    ]
    return ui.table(columns=spec, rows=[], row_key=key, **more).classes("w-full").props("dense flat wrap-cells")


def fill(where: Any, rows: Iterable[Sequence[str]]) -> None:
    """Put rows into a table; nothing is sent when nothing has changed."""
    names = [column["field"] for column in where.columns]
    new = [dict(zip(names, row, strict=True)) for row in rows]
    if new != where.rows:
        where.rows = new
        where.update()


def replace_options(chart: Any, options: dict[str, Any]) -> None:
    """Show other options; nothing is sent when nothing has changed."""
    if chart.options == options:
        return
    chart.options.clear()
    chart.options.update(options)
    chart.update()
