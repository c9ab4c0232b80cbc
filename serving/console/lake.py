"""Show the publisher and the table."""

from nicegui import ui

from headwater.serving.console.elements import card, fill_table, table
from headwater.serving.console.formatting import legible, moment, size
from headwater.serving.console.overview import Overview, TableFigures
from headwater.serving.console.polling import Poll

__all__ = ["LakePanel"]


class LakePanel:
    """Show who publishes, and what the table's current snapshot holds. Made inside the page."""

    def __init__(self) -> None:
        with card("table", "Publisher and table"):
            self._status = ui.label("").classes("text-sm failed").props('role="alert"')
            self._table = table(["what", "value"], "what", cards=False)

    def show(self, found: Overview, poll: Poll[TableFigures]) -> None:
        """Show who publishes and the table as it was read last, and why it cannot be read now."""
        self._status.set_text(f"cannot be read now: {legible(poll.error)}" if poll.error else "")
        state = poll.value or TableFigures()
        small = "–" if state.small_files is None else f"{state.small_files:,}"
        fill_table(
            self._table,
            [
                ("publisher", found.publisher or "none leads"),
                ("rows in the table", f"{state.rows:,}"),
                ("files", f"{state.files:,}, of them {small} below 128 MB"),
                ("bytes", size(state.bytes)),
                ("snapshots", f"{state.snapshots:,}"),
                ("last commit (UTC)", moment(state.snapshot_ms)),
                ("as of (UTC)", moment(poll.at_ms)),
            ][: None if poll.value else 1],
        )
