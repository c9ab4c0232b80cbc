"""Show the rows of views."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from headwater.processors.definition.parts import View
from headwater.serving.console.actions import PageActions
from headwater.serving.console.charts import view_options, window_times
from headwater.serving.console.elements import card, fill_table, replace_options, table
from headwater.serving.console.formatting import clock_time, failure, figure, legible
from headwater.serving.console.places import link_to
from headwater.serving.console.spans import SPANS, outside_text, span_of
from headwater.serving.console.state import ConsoleState

__all__ = ["ViewsPanel", "cell_text"]

_EXPLORED = 8, 60
"""Keys of a view that are shown, and windows of each."""
_SECONDS = 10.0
_TYPED_MS = 500
_ROW = "#"
"""The hidden column that tells rows apart."""


class ViewsPanel:
    """Show the newest windows of a view's first keys, read when something is chosen, and every few seconds."""

    def __init__(self, state: ConsoleState, actions: PageActions) -> None:
        self._state, self._actions = state, actions
        self._views: Sequence[View] = state.collector.pipeline.views
        self._found: tuple[View, list[dict[str, object]]] | None = None
        self._turn = 0
        self._is_placing = False
        self._wanted = ""
        with card("views", "Views", "Rows merged over all shards: the last 60 windows of the first 8 keys.", wide=True):
            if not self._views:
                ui.label("this pipeline has no views")
                return
            self._choices([view.name for view in self._views])
            self._chart = ui.echart(view_options((), (), ""), renderer="svg").classes("w-full h-72")
            self._outside = ui.label("").classes("text-sm").props('role="status"')
            self._holder = ui.element("div").classes("w-full")
            self._table: Any = None
        ui.timer(_SECONDS, self._read)

    def _choices(self, names: list[str]) -> None:
        with ui.row().classes("items-center"):
            choose, draw = self._chosen(self._read), self._chosen(self._draw)
            self._view = ui.select(_options(names), value=names[0], label="view", on_change=choose).classes("w-40")
            self._prefix = ui.input("key begins with", on_change=choose).props(f"debounce={_TYPED_MS} clearable")
            self._value = ui.select({}, label="chart", on_change=draw).classes("w-40")
            self._span = ui.select(SPANS, value="", label="time", on_change=draw).classes("w-40")
            self._wheel = ui.spinner(size="sm").props('aria-label="reading"')
            self._status = ui.label("").classes("text-sm opacity-80").props('role="status"')

    def _chosen(self, then: Callable[[], Any]) -> Callable[[], Any]:
        """Return what follows a choice: the page's URL names it, so that it can be sent to others, and it is shown."""

        def chosen() -> Any:
            if not self._is_placing:
                ui.navigate.history.replace(self.link)
            return then()

        return chosen

    @property
    def link(self) -> str:
        """Return the link of what is chosen."""
        names = (self._view.value, self._prefix.value or "", self._value.value or "", self._span.value)
        return link_to("views", *names)

    def open(self, names: Sequence[str]) -> None:
        """Choose what a link names: a view, the beginning of a key, a column and a span, as far as they are there."""
        if not self._views or not names:
            return
        view, prefix, column, span, *_ = (*names, "", "", "")
        self._is_placing = True
        try:
            self._wanted = column
            if view in self._view.options:
                self._view.set_value(view)
            self._prefix.set_value(prefix)
            self._span.set_value(span if span in SPANS else "")
            if column in self._value.options:
                self._value.set_value(column)
        finally:
            self._is_placing = False

    async def _read(self) -> None:
        """Read the rows chosen, and show them unless something else has been chosen meanwhile."""
        self._turn += 1
        turn, collector, name, at_ms = self._turn, self._state.collector, self._view.value, self._state.clock.now_ms()
        self._wheel.set_visibility(True)
        try:
            view = await self._state.call(collector.view, name)
            rows = await self._state.call(collector.view_rows, name, self._prefix.value or "", *_EXPLORED)
        except Exception as error:  # shown, and read again in a few seconds
            if turn == self._turn and not self._actions.is_closed:
                self._wheel.set_visibility(False)
                self._status.set_text(legible(f"cannot be read: {failure(error)}"))
            return
        if turn == self._turn and not self._actions.is_closed:
            self._found = (view, rows)
            self._wheel.set_visibility(False)
            nothing = "no such key" if self._prefix.value else "no rows yet"
            self._status.set_text(f"as of {clock_time(at_ms)}" if rows else f"{nothing} as of {clock_time(at_ms)}")
            self._show()

    def _show(self) -> None:
        assert self._found is not None
        view, rows = self._found
        options = _options([aggregate.name for aggregate in view.aggregates])
        if options != self._value.options:
            self._is_placing = True
            self._value.set_options(options, value=self._wanted if self._wanted in options else next(iter(options)))
            self._is_placing = False
        self._draw()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        if self._table is None or [one["field"] for one in self._table.columns] != [_ROW, *columns]:
            self._holder.clear()
            with self._holder:
                self._table = table([_ROW, *columns], _ROW, pagination=10)
                self._table.props["visible-columns"] = columns  # as a value: text would be read as further properties
        fill_table(
            self._table, ((str(at), *(cell_text(row.get(name)) for name in columns)) for at, row in enumerate(rows))
        )

    def _draw(self) -> None:
        if self._found is not None:
            view, rows = self._found
            times = window_times(rows)
            span = span_of(times, self._span.value)
            self._chart.set_visibility(view.window is not None)
            replace_options(self._chart, view_options(rows, view.by, self._value.value, span))
            self._outside.set_text(outside_text(times, span))


def _options(names: Sequence[str]) -> dict[str, str]:
    return {name: legible(name) for name in names}


def cell_text(value: object) -> str:
    """Return a view's value as the text of a cell."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return figure(value)
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)
