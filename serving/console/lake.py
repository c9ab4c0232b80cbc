"""Show the publisher and the table."""

from headwater.serving.console.elements import card, fill_table, table
from headwater.serving.console.formatting import moment, size
from headwater.serving.console.overview import Overview, TableFigures

__all__ = ["LakePanel"]


class LakePanel:
    """Show who publishes, and what the table's current snapshot holds. Made inside the page."""

    def __init__(self) -> None:
        with card("Publisher and table"):
            self._table = table(["what", "value"], "what", cards=False)

    def show(self, found: Overview, state: TableFigures, at_ms: int) -> None:
        """Show the table as of `at_ms`, epoch milliseconds; 0 when it has not been read."""
        small = "–" if state.small_files is None else f"{state.small_files:,}"
        fill_table(
            self._table,
            (
                ("publisher", found.publisher or "none leads"),
                ("rows in the table", f"{state.rows:,}"),
                ("files", f"{state.files:,}, of them {small} below 128 MB"),
                ("bytes", size(state.bytes)),
                ("snapshots", f"{state.snapshots:,}"),
                ("last commit (UTC)", moment(state.snapshot_ms)),
                ("as of (UTC)", moment(at_ms or None)),
            ),
        )
