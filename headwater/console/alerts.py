"""The section of the page that has the alerts: what fires, what is about to, what has been cleared."""

from collections.abc import Mapping, Sequence

from nicegui import ui

from headwater.console.elements import card, fill, table
from headwater.console.words import figure

__all__ = ["MOST_ALERTS", "AlertsPanel", "alert_cells", "alerts_said", "firing"]

MOST_ALERTS = 200
_COLUMNS = ["alert", "state", "since", "cleared", "value>", "condition", "summary"]


class AlertsPanel:
    """Made inside the page. Of each alert and key the last episode; those that fire first."""

    def __init__(self) -> None:
        with card("Alerts", "Of each alert and key: what fires, what is about to, what has been cleared.", wide=True):
            self._said = ui.label("not read yet").props('role="status" aria-live="polite"')
            self._table = table(_COLUMNS, "alert", pagination=10, empty="none")

    def show(self, rows: Sequence[Mapping[str, object]]) -> None:
        """As `alert_rows` gives them."""
        self._said.set_text(alerts_said(rows))
        fill(self._table, (alert_cells(row) for row in rows[:MOST_ALERTS]))


def firing(rows: Sequence[Mapping[str, object]]) -> int:
    """How many fire."""
    return sum(row["state"] == "firing" for row in rows)


def alerts_said(rows: Sequence[Mapping[str, object]]) -> str:
    """How many fire, how many there are beyond those shown, and what waits."""
    if not rows:
        return "nothing has fired"
    waiting = sum(int(str(row["unpublished"])) for row in rows)
    return (
        f"{firing(rows):,} firing"
        + (f"; the first {MOST_ALERTS} of {len(rows):,} are shown" if len(rows) > MOST_ALERTS else "")
        + (f"; {waiting:,} events wait to be published: does `headwater alerts` run?" if waiting else "")
    )


def alert_cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """An alert's line in the table."""
    value = row["value"]
    return (
        f"{row['alert']}: {row['key']}",
        str(row["state"]),
        str(row["since"]),
        str(row["cleared"] or ""),
        figure(value) if isinstance(value, int | float) else "",
        str(row["condition"]),
        str(row["summary"]),
    )
