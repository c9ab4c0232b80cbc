"""Show the dead letters, and redrive them."""

from collections.abc import Collection
from typing import Any

from nicegui import ui

from headwater.serving.console.actions import PageActions
from headwater.serving.console.elements import card, fill_table, set_busy, table
from headwater.serving.console.formatting import legible, letter_text, moment
from headwater.serving.console.letter_reader import Letters
from headwater.serving.console.state import ConsoleState

__all__ = ["LettersPanel", "letters_summary"]

_READABLE = 100_000
"""Bytes of a payload that the dialog shows."""
_MOST_READ = 10


class LettersPanel:
    """Show the letters that wait, their payloads, and the buttons that send them again. Made inside the page."""

    def __init__(self, state: ConsoleState, actions: PageActions) -> None:
        self._state, self._actions = state, actions
        self._shown: Letters | None = None
        note = "What could not be processed, and why. Put the cause right, then send them again."
        with card("letters", "Dead letters", note, wide=True):
            with ui.row().classes("items-center"):
                self._buttons = self._controls() if state.controls.enabled else []
                ui.button("Show selected", on_click=self._read).props("outline")
                self._status = ui.label("none wait").props('role="status" aria-live="polite"')
            columns = ["letter", "reason", "arrived", "payload"]
            self._table = table(columns, "letter", pagination=10, selection="multiple", empty="none wait")

    def _controls(self) -> list[Any]:
        chosen = ui.button("Redrive selected", on_click=self._redrive_selected)
        every = ui.button("Redrive all", on_click=self._ask_for_all).props("outline")
        with ui.dialog() as self._dialog, ui.card():
            self._question = ui.label("")
            with ui.row():
                ui.button("Send all again", on_click=lambda: self._dialog.submit(True))
                ui.button("Keep them", on_click=lambda: self._dialog.submit(False)).props("outline autofocus")
        return [chosen, every]

    async def _ask_for_all(self) -> None:
        found = self._state.letters.value or Letters()
        many = f"{found.waiting:,}{' or more' if found.more else ''}"
        self._question.set_text(f"Send all letters that wait, {many}, again? Those whose cause stays come back.")
        if await self._dialog:
            await self._redrive(None)

    async def _redrive_selected(self) -> None:
        names = [row["letter"] for row in self._table.selected]
        if names:
            await self._redrive(names)
        else:
            ui.notify("choose letters first")

    async def _redrive(self, names: Collection[str] | None) -> None:
        async def sent() -> str:
            return f"{await self._state.redrive(names):,} sent again"

        await self._actions.run(self._buttons[0 if names else 1], sent)
        if not self._actions.is_closed:
            self._table.selected = []
            self.show()

    def _read(self) -> None:
        """Show the payloads of the letters chosen, in a dialog."""
        chosen = {row["letter"] for row in self._table.selected[:_MOST_READ]}
        if not chosen:
            ui.notify("choose letters first")
            return
        with ui.dialog(value=True) as dialog, ui.card().classes("w-full max-w-4xl"):
            for letter in (self._state.letters.value or Letters()).shown:
                if letter.name in chosen:
                    ui.label(legible(f"{letter.name}: {letter.reason}")).classes("text-sm font-medium")
                    ui.label(letter_text(letter, _READABLE)).classes("as-written text-xs")
            ui.button("Close", on_click=dialog.close)
        dialog.on("hide", dialog.delete)

    def show(self) -> None:
        """Show the letters read last, or how far a redrive has come."""
        found, sending = self._state.letters.value, self._state.redriving
        for button in self._buttons:
            set_busy(button, sending is not None, needless=found is None or not found.waiting)
        self._status.set_text(letters_summary(found, sending))
        if found is not None and found is not self._shown:
            self._shown = found
            fill_table(
                self._table,
                ((one.name, one.reason, moment(one.arrived_ms), letter_text(one)) for one in found.shown),
            )


def letters_summary(found: Letters | None, sending: tuple[int, int] | None) -> str:
    """Return how many letters wait and how many of them are shown, or how far a redrive has come."""
    if sending is not None:
        return f"sending: {sending[0]:,} of {sending[1]:,} …" if sending[1] else "sending …"
    if found is None:
        return "not read yet"
    if not found.waiting:
        return "none wait"
    many = f"{found.waiting:,} or more wait" if found.more else f"{found.waiting:,} wait"
    return many + (f", the first {len(found.shown):,} are shown" if len(found.shown) < found.waiting else "")
