"""Show the jobs, and cancel them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nicegui import ui

from headwater.serving.console.actions import PageActions
from headwater.serving.console.details import Detail
from headwater.serving.console.elements import Cell, card, fill_table, table
from headwater.serving.console.formatting import moment
from headwater.serving.console.places import link_to
from headwater.serving.console.state import ConsoleState

__all__ = ["JobsPanel", "job_cells", "job_facts"]

_COLUMNS = ["job", "of", "state", "done>", "began", "heard of", "message"]


class JobsPanel:
    """Show long commands. Rows can be chosen only where jobs may be cancelled. Made inside the page."""

    def __init__(self, state: ConsoleState, actions: PageActions) -> None:
        self._state, self._actions = state, actions
        controls = state.controls.enabled
        with card("jobs", "Jobs", "Long commands: those that run, and the last that ended.", wide=True):
            with ui.element("div") as buttons:
                if controls:
                    self._button = ui.button("Cancel selected", on_click=self._cancel)
            self._table: Any = table(
                _COLUMNS, "job", pagination=5, selection="multiple" if controls else "none", empty="none"
            )
            self.detail = Detail("jobs", [buttons, self._table])

    async def _cancel(self) -> None:
        names = [row["job"] for row in self._table.selected]
        if not names:
            ui.notify("choose jobs first")
            return

        async def cancel() -> str:
            return cancel_summary(names, await self._state.call(self._state.controls.cancel, names))

        await self._actions.run(self._button, cancel)
        if not self._actions.is_closed:
            self._table.selected = []

    def show(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Show rows as `Jobs.shown` returns them."""
        fill_table(self._table, map(job_cells, rows))
        if self.detail.name is not None:
            self.detail.show(job_facts(self.detail.name, rows))


def cancel_summary(names: Sequence[str], refused: Mapping[str, str]) -> str:
    """Return which jobs were asked to end, and why the others were not."""
    asked = [name for name in names if name not in refused]
    return "; ".join([f"{', '.join(asked)} asked to end"] * bool(asked) + list(refused.values()))


def job_cells(row: Mapping[str, object]) -> tuple[Cell, ...]:
    """Return the cells of a job's row."""
    name = str(row["id"])
    return (
        (name, name, link_to("jobs", name)),
        str(row["subject"]),
        str(row["state"]),
        _done(row),
        moment(int(str(row["started_ms"]))),
        moment(int(str(row["updated_ms"]))),
        str(row["message"]),
    )


def _done(row: Mapping[str, object]) -> str:
    done, total = int(str(row["done"])), row["total"]
    return f"{done / int(str(total)):.0%}" if total else f"{int(str(row['events'])):,}"


def job_facts(job_id: str, rows: Sequence[Mapping[str, object]]) -> Iterable[tuple[str, Cell]]:
    """Yield what is known of one job; nothing if it is not there."""
    for row in rows:
        if str(row["id"]) == job_id:
            for name in ("kind", "subject", "owner", "state"):
                yield name, str(row[name])
            yield "done", _done(row)
            yield "events", f"{int(str(row['events'])):,}"
            yield "began (UTC)", moment(int(str(row["started_ms"])))
            yield "heard of (UTC)", moment(int(str(row["updated_ms"])))
            yield "message", str(row["message"])
            return
