"""The section of the page that has the jobs, and ends them."""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from headwater.console.desk import Desk
from headwater.console.elements import card, fill, table
from headwater.console.shared import Shared
from headwater.console.words import moment

__all__ = ["JobsPanel", "job_cells"]

_COLUMNS = ["job", "of", "state", "done>", "began", "heard of", "message"]


class JobsPanel:
    """Made inside the page. Where nothing may be cancelled there is nothing to choose."""

    def __init__(self, shared: Shared, desk: Desk) -> None:
        self._shared, self._desk = shared, desk
        controls = shared.collector.controls
        with card("Jobs", "Long commands: those that run, and the last that ended.", wide=True):
            if controls:
                self._button = ui.button("Cancel selected", on_click=self._cancel)
            self._table: Any = table(
                _COLUMNS, "job", pagination=5, selection="multiple" if controls else "none", empty="none"
            )

    async def _cancel(self) -> None:
        names = [row["job"] for row in self._table.selected]
        if not names:
            ui.notify("choose jobs first")
            return

        async def cancelled() -> str:
            return cancel_words(names, await self._shared.ask(self._shared.collector.cancel, names))

        await self._desk.act(self._button, cancelled)
        if not self._desk.closed:
            self._table.selected = []

    def show(self, rows: Sequence[Mapping[str, object]]) -> None:
        """As `Jobs.shown` gives them."""
        fill(self._table, map(job_cells, rows))


def cancel_words(names: Sequence[str], refused: Mapping[str, str]) -> str:
    """Which jobs were asked to end, and why the others were not."""
    asked = [name for name in names if name not in refused]
    return "; ".join([f"{', '.join(asked)} asked to end"] * bool(asked) + list(refused.values()))


def job_cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """A job's line in the table."""
    done, total = int(str(row["done"])), row["total"]
    return (
        str(row["id"]),
        str(row["subject"]),
        str(row["state"]),
        f"{done / int(str(total)):.0%}" if total else f"{int(str(row['events'])):,}",
        moment(int(str(row["started_ms"]))),
        moment(int(str(row["updated_ms"]))),
        str(row["message"]),
    )
