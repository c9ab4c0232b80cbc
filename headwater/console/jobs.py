"""The section of the page that has the jobs, and ends them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nicegui import ui

from headwater.console.charts import moment
from headwater.console.elements import card, fill, table

__all__ = ["JobsPanel", "job_cells"]

_COLUMNS = ["job", "of", "state", "done>", "began", "heard of", "message"]


class JobsPanel:
    """Made inside the page. `cancel` is told the ids of the chosen jobs; without it there is nothing to choose."""

    def __init__(self, cancel: Callable[[Sequence[str]], Awaitable[None]] | None) -> None:
        with card("Jobs", "Long commands: those that run, and the last that ended.", wide=True):
            if cancel is not None:
                ui.button("Cancel selected", on_click=lambda: cancel([row["job"] for row in self._table.selected]))
            self._table: Any = table(_COLUMNS, "job", pagination=5, selection="none" if cancel is None else "multiple")

    def show(self, rows: Sequence[Mapping[str, object]]) -> None:
        """As `Jobs.shown` gives them."""
        fill(self._table, map(job_cells, rows))


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
