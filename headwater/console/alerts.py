"""The section of the page that has the alerts: what fires, what is about to, what has been cleared."""

from collections.abc import Mapping, Sequence

from nicegui import ui

from headwater.console.elements import card, fill, table

__all__ = ["MOST_ALERTS", "AlertsPanel"]

MOST_ALERTS = 200
_COLUMNS = ["alert", "state", "since", "cleared", "value>", "condition", "summary"]


class AlertsPanel:
    """Made inside the page. Of each alert and key the last episode; those that fire first."""

    def __init__(self) -> None:
        with card("Alerts", "Of each alert and key: what fires, what is about to, what has been cleared.", wide=True):
            self._said = ui.label("nothing has fired").props('role="status" aria-live="polite"')
            self._table = table(_COLUMNS, "alert", pagination=10)

    def show(self, rows: Sequence[Mapping[str, object]]) -> None:
        """As `alert_rows` gives them."""
        firing = sum(row["state"] == "firing" for row in rows)
        waiting = sum(int(str(row["unpublished"])) for row in rows)
        self._said.set_text(
            (f"{firing:,} firing" if rows else "nothing has fired")
            + (f", {waiting:,} events wait to be published: does `headwater alerts` run?" if waiting else "")
        )
        fill(self._table, (alert_cells(row) for row in rows[:MOST_ALERTS]))


def alert_cells(row: Mapping[str, object]) -> tuple[str, ...]:
    """An alert's line in the table."""
    value = row["value"]
    return (
        f"{row['alert']}: {row['key']}",
        str(row["state"]),
        str(row["since"]),
        str(row["cleared"] or ""),
        f"{value:g}" if isinstance(value, int | float) else "",
        str(row["condition"]),
        str(row["summary"]),
    )
