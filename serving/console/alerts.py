"""Show the alerts: those that fire, those about to, those that have been cleared."""

from collections.abc import Mapping, Sequence

from nicegui import ui

from headwater.serving.console.elements import card, fill_table, table
from headwater.serving.console.formatting import figure

__all__ = ["MOST_ALERTS", "AlertsPanel", "alert_cells", "alerts_summary", "count_firing"]

MOST_ALERTS = 200
_COLUMNS = ["alert", "state", "since", "cleared", "value>", "condition", "summary"]


class AlertsPanel:
    """Show the last episode of each alert and key, those that fire first. Made inside the page."""

    def __init__(self) -> None:
        with card(
            "alerts", "Alerts", "The last episode of each alert and key: firing, about to fire, cleared.", wide=True
        ):
            self._status = ui.label("not read yet").props('role="status" aria-live="polite"')
            self._table = table(_COLUMNS, "alert", pagination=10, empty="none")

    def show(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Show rows as `alert_rows` returns them."""
        self._status.set_text(alerts_summary(rows))
        fill_table(self._table, (alert_cells(row) for row in rows[:MOST_ALERTS]))


def count_firing(rows: Sequence[Mapping[str, object]]) -> int:
    """Return how many alerts fire."""
    return sum(row["state"] == "firing" for row in rows)


def alerts_summary(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the line above the table: how many fire, how many are not shown, how many events wait."""
    if not rows:
        return "nothing has fired"
    waiting = sum(int(str(row["unpublished"])) for row in rows)
    return (
        f"{count_firing(rows):,} firing"
        + (f"; the first {MOST_ALERTS} of {len(rows):,} are shown" if len(rows) > MOST_ALERTS else "")
        + (f"; {waiting:,} events wait to be published: does `headwater alerts` run?" if waiting else "")
    )


def alert_cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """Return the cells of an alert's row."""
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
