"""Show the shards."""

from nicegui import ui

from headwater.serving.console.charts import heat_text, shard_options
from headwater.serving.console.elements import card, fill_table, replace_options, table
from headwater.serving.console.formatting import age, moment, short, size
from headwater.serving.console.overview import Overview, ShardRow

__all__ = ["ShardsPanel", "shard_cells"]

_COLUMNS = ["shard", "share>", "nearest limit>", "events/s>", "bytes/s>", "behind>", "heaviest keys", "owner", "epoch>"]
_MOST_LETTERS = 30
"""Characters of the heaviest keys: about a line on a phone."""


class ShardsPanel:
    """Show the hash space as a bar, and every shard with its heat and its ledger entry, the hottest first."""

    def __init__(self) -> None:
        note = "The hash space from left to right, with the share of the limit that is nearest: from 50 % amber, "
        with card("Shards", note + "from 80 % red.", wide=True):
            self._chart = ui.echart(shard_options(()), renderer="svg").classes("w-full h-20")
            self._table = table([*_COLUMNS, "committed", "position"], "shard", pagination=6)
            with ui.expansion("What the autoscaler decided").classes("w-full"):
                self._decisions = table(["at", "decision", "why"], "at", pagination=5)

    def show(self, found: Overview) -> None:
        """Show the shards of an overview, and the autoscaler's decisions."""
        replace_options(self._chart, shard_options(found.shards))
        fill_table(self._table, map(shard_cells, sorted(found.shards, key=_coldness)))
        fill_table(self._decisions, ((moment(at), action, why) for at, action, why in found.decisions))


def _coldness(row: ShardRow) -> tuple[bool, bool, float]:
    return row.closed, not row.open, -(row.hottest or 0.0)


def shard_cells(row: ShardRow) -> tuple[str | tuple[str, str], ...]:
    """Return the cells of a shard's row."""
    state = "" if row.open else " (closed, read to its end)" if row.closed else " (closed)"
    heavy = ", ".join(f"{key} {share:.0%}" for key, share in row.heavy)
    first, more = heavy[:_MOST_LETTERS], len(heavy) > _MOST_LETTERS
    return (
        short(row.shard_id) + state,
        f"{row.width:.1%}",
        heat_text(row.hottest) if row.hottest is None or row.hottest >= 0.1 else f"{row.hottest:.1%}",
        f"{row.events_s:,.1f}",
        size(row.bytes_s),
        age(row.lag_ms),
        (first + "…" if more else first, heavy),
        (short(row.owner, 16), row.owner),
        str(row.epoch),
        moment(row.committed_ms),
        (short(row.position), row.position),
    )
