"""Show one thing of a section by itself: what is known of it, one fact a line, below a link back to the others."""

from collections.abc import Iterable
from typing import Any

from nicegui import ui

from headwater.serving.console.elements import Cell, fill_table, table
from headwater.serving.console.formatting import legible
from headwater.serving.console.places import SECTIONS, link_to

__all__ = ["Detail"]


class Detail:
    """Hold the facts of what is open in a section, in place of `others`, the elements that list all. Made inside it."""

    def __init__(self, section: str, others: Iterable[Any]) -> None:
        self.name: str | None = None
        self._others = [*others]
        with ui.element("div").classes("w-full") as self._holder:
            ui.link(f"← all of {SECTIONS[section]}", link_to(section)).classes("inward")
            self._title = ui.label("").classes("text-base font-medium break-all").props('role="heading" aria-level="3"')
            self._facts = table(["what", "value"], "what", cards=False, empty="not known, or not any more")
        self.open(None)

    def open(self, name: str | None) -> None:
        """Open the thing of this name; with None, show the others again."""
        if name != self.name:
            self._facts.props["loading"] = True
            self._facts.rows = []
        self.name = name
        self._title.set_text(legible(name or ""))
        self._holder.set_visibility(name is not None)
        for element in self._others:
            element.set_visibility(name is None)

    def show(self, facts: Iterable[tuple[str, Cell]]) -> None:
        """Show what is known; nothing when the thing is not there."""
        fill_table(self._facts, facts)
