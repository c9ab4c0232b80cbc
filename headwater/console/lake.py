"""The section of the page that has the publisher and the table."""

from headwater.console.elements import card, fill, table
from headwater.console.overview import Overview, TableState
from headwater.console.words import moment, size

__all__ = ["LakePanel"]


class LakePanel:
    """Made inside the page."""

    def __init__(self) -> None:
        with card("Publisher and table"):
            self._table = table(["what", "value"], "what", cards=False)

    def show(self, found: Overview, state: TableState, at_ms: int) -> None:
        """The table as of `at_ms`."""
        small = "–" if state.small_files is None else f"{state.small_files:,}"
        fill(
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
