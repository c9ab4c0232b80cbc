"""Make the elements that several sections of the page share: cards, tables, buttons."""

from collections.abc import Iterable, Sequence
from typing import Any

from nicegui import ui

from headwater.serving.console.formatting import legible

__all__ = ["BY_NUMBER", "PHONE", "card", "fill_table", "replace_options", "set_busy", "table"]

BY_NUMBER = """
window.byNumber = (a, b) => {
  const number = (text) => {
    const found = /(-?[\\d.]+(?:e[+-]?\\d+)?)\\s*(kB|MB|GB|ms|min|h|d)?/.exec(String(text).replaceAll(",", ""));
    const units = { kB: 1e3, MB: 1e6, GB: 1e9, ms: 1e-3, min: 60, h: 3600, d: 86400 };
    return found ? found[1] * (units[found[2]] || 1) : -1;
  };
  return number(a) - number(b);
};
"""
"""Script of the page that sorts figures with their units; text without a figure comes first."""
_CHOOSE = """<q-checkbox v-model="props.selected" dense :aria-label="'choose ' + props.key" />"""
_CHOOSE_ALL = """<q-checkbox v-model="props.selected" dense aria-label="choose all that are shown" />"""
_PLAIN = """<q-td :props="props" :title="props.row._titles[props.col.name] || null">{{ props.value }}</q-td>"""
PHONE = "Quasar.Screen.lt.sm"
"""Script that says whether the page is on a phone."""


def card(title: str, note: str = "", *, wide: bool = False) -> Any:
    """Return a section with its heading, on a wide screen over half or all of its width."""
    section = ui.card().classes("w-full min-w-0 overflow-x-auto" + (" xl:col-span-2" if wide else ""))
    with section:
        ui.label(title).classes("text-lg font-medium").props('role="heading" aria-level="2"')
        if note:
            ui.label(note).classes("text-sm opacity-80")
    return section


def table(columns: Sequence[str], key: str, *, empty: str = "nothing", cards: bool = True, **more: Any) -> Any:
    """Return a table of plain text cells; a column whose name ends in `>` holds numbers.

    On a phone each row is a card unless `cards` is False.
    """
    spec = [
        {
            "name": name.rstrip(">"),
            "label": legible(name.rstrip(">")),
            "field": name.rstrip(">"),
            "align": "right" if name.endswith(">") else "left",
            "sortable": True,
        }
        | ({":sort": "window.byNumber"} if name.endswith(">") else {})
        for name in columns
    ]
    made = ui.table(columns=spec, rows=[], row_key=key, **more).classes("w-full")
    made.props(f'dense flat wrap-cells no-data-label="{empty}"' + (f' :grid="{PHONE}"' if cards else ""))
    made.add_slot("body-cell", _PLAIN)
    if more.get("selection") == "multiple":
        made.add_slot("body-selection", _CHOOSE)
        made.add_slot("header-selection", _CHOOSE_ALL)
    return made


def fill_table(where: Any, rows: Iterable[Sequence[str | tuple[str, str]]]) -> None:
    """Put rows into a table; a cell is its text, or a pair of the text shown and the whole text.

    Nothing is sent when nothing has changed. Rows that are gone are not selected any more.
    """
    names = [column["field"] for column in where.columns]
    new = [_row(names, row) for row in rows]
    if new != where.rows:
        where.rows = new
        kept = {row[where.row_key] for row in new}
        where.selected = [row for row in where.selected if row[where.row_key] in kept]
        where.update()


def _row(names: Sequence[str], cells: Sequence[str | tuple[str, str]]) -> dict[str, object]:
    row: dict[str, object] = {}
    titles = {}
    for name, cell in zip(names, cells, strict=True):
        shown, whole = map(legible, (cell, "") if isinstance(cell, str) else cell)
        row[name] = shown
        if whole and whole != shown:
            titles[name] = whole
    return row | {"_titles": titles}


def replace_options(chart: Any, options: dict[str, Any]) -> None:
    """Replace a chart's options; nothing is sent when nothing has changed."""
    if chart.options == options:
        return
    chart.options.clear()
    chart.options.update(options)
    chart.update()


def set_busy(button: Any, is_busy: bool, *, needless: bool = False) -> None:
    """Disable a button while it is busy, with a turning wheel, or while it is needless."""
    button.set_enabled(not (is_busy or needless))
    if is_busy:
        button.props("loading")
    else:
        button.props(remove="loading")
