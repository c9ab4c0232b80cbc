"""Make the elements that several sections of the page share: cards, tables, buttons."""

from collections.abc import Iterable, Sequence
from typing import Any

from nicegui import ElementFilter, app, ui

from headwater.serving.console.formatting import legible

__all__ = [
    "BY_NUMBER",
    "FOCUS",
    "PHONE",
    "Cell",
    "card",
    "fill_table",
    "fit_tables",
    "replace_options",
    "set_busy",
    "table",
]

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
FOCUS = """
{
  let held, place;
  const name = (one) => [one.tagName, one.getAttribute("aria-label"), one.getAttribute("href"), one.textContent].join();
  const alike = (one) => [...document.getElementsByTagName(one.tagName)].filter((other) => name(other) === name(one));
  addEventListener("focusin", (event) => {
    held = event.target;
    place = alike(held).indexOf(held);
  });
  addEventListener("focusout", (event) => {
    const left = event.target;
    queueMicrotask(() => left === held && left.isConnected && (held = null));
  });
  addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
    if (held && !held.isConnected && document.activeElement === document.body) {
      alike(held)[place]?.focus({ preventScroll: true });
    }
  }).observe(document.body, { childList: true, subtree: true }));
}
"""
"""Script of the page that gives the focus back: tables make their headings, links and boxes anew at each redraw."""
_CHOOSE = """<q-checkbox v-model="props.selected" dense :aria-label="'choose ' + props.key" />"""
_CHOOSE_ALL = """<q-checkbox v-model="props.selected" dense aria-label="choose all that are shown" />"""
_TEXT = """<a v-if="props.row._links[%(name)s]" class="inward" :href="props.row._links[%(name)s]">{{ %(value)s }}</a>
<template v-else>{{ %(value)s }}</template>"""
_CELL = f"""<q-td :props="props" :title="props.row._titles[props.col.name] || null">
{_TEXT % {"name": "props.col.name", "value": "props.value"}}</q-td>"""
_HEAD = """<q-th :props="props" :aria-sort="props.col.__thClass.includes(' sorted')
? (props.col.__thClass.includes('sort-desc') ? 'descending' : 'ascending') : 'none'">
<button type="button" class="sorts">{{ props.col.label }}</button></q-th>"""
"""The heading of a column; a press of the button, by mouse or keyboard, is one of the heading around it."""
_PHONE_ROW = """<div class="q-table__grid-item col-12"><div class="q-table__grid-item-card">
%s<div v-for="col in props.cols" :key="col.name"><div v-if="col.value !== ''" class="q-table__grid-item-row"
 :title="props.row._titles[col.name] || null">
<div class="q-table__grid-item-title">{{ col.label }}</div><div class="q-table__grid-item-value">
%s</div></div></div></div></div>"""
"""A row on a phone, without what is empty: what chooses it, and a value."""
PHONE = "Quasar.Screen.lt.sm"
"""Script that says whether the page is on a phone."""
_ROWS_ON_A_PHONE = 4

Cell = str | tuple[str, str] | tuple[str, str, str]
"""A cell's text; or the text shown and the whole text; or both and the link of a place."""


def card(place: str, title: str, note: str = "", *, wide: bool = False) -> Any:
    """Return the section of a place with its heading, on a wide screen over half or all of its width."""
    section = ui.card().classes("w-full min-w-0 overflow-x-auto" + (" xl:col-span-2" if wide else ""))
    with section.props(f'role="region" aria-label="{title}" data-place="{place}"'):
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
    made.props(f'dense flat wrap-cells loading no-data-label="{empty}" loading-label="reading …"')
    if cards:
        made.props(f':grid="{PHONE}"')
    made.add_slot("body-cell", _CELL)
    made.add_slot("header-cell", _HEAD)
    made.add_slot("loading", "")  # the text says it; the bar in its place has no name for a screen reader
    choose = _CHOOSE if more.get("selection") == "multiple" else ""
    made.add_slot("item", _PHONE_ROW % (choose, _TEXT % {"name": "col.name", "value": "col.value"}))
    if more.get("selection") == "multiple":
        made.add_slot("body-selection", _CHOOSE)
        made.add_slot("header-selection", _CHOOSE_ALL)
    if app.storage.client.get("phone"):
        _fit(made)
    return made


def fit_tables() -> None:
    """Show fewer rows a table from now on, as the page is on a phone, where a few fill the screen."""
    app.storage.client["phone"] = True
    for made in ElementFilter(kind=ui.table):
        _fit(made)


def _fit(made: Any) -> None:
    if made.pagination["rowsPerPage"]:
        made.pagination = {**made.pagination, "rowsPerPage": _ROWS_ON_A_PHONE}


def fill_table(where: Any, rows: Iterable[Sequence[Cell]]) -> None:
    """Put rows into a table, which says until the first time that they are being read.

    Nothing is sent when nothing has changed. Rows that are gone are not selected any more.
    """
    names = [column["field"] for column in where.columns]
    new = [_row(names, row) for row in rows]
    was_loading = where.props.pop("loading", None)
    if new != where.rows or was_loading:
        where.rows = new
        kept = {row[where.row_key] for row in new}
        where.selected = [row for row in where.selected if row[where.row_key] in kept]
        where.update()


def _row(names: Sequence[str], cells: Sequence[Cell]) -> dict[str, object]:
    row: dict[str, object] = {}
    titles, links = {}, {}
    for name, cell in zip(names, cells, strict=True):
        shown, whole, link = (cell, "", "") if isinstance(cell, str) else (*cell, "")[:3]
        row[name] = legible(shown)
        if whole and whole != shown:
            titles[name] = legible(whole)
        if link:
            links[name] = link
    return row | {"_titles": titles, "_links": links}


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
