"""Show the shards."""

from collections.abc import Iterable, Sequence

from nicegui import ui

from headwater.serving.console.charts import heat_text, shard_options
from headwater.serving.console.details import Detail
from headwater.serving.console.elements import Cell, card, fill_table, replace_options, table
from headwater.serving.console.formatting import age, clock_time, moment, short, size
from headwater.serving.console.overview import HeatPoint, Overview, ShardRow
from headwater.serving.console.pictures import heat_changes, heat_picture
from headwater.serving.console.places import link_to

__all__ = ["ShardsPanel", "shard_cells", "shard_facts"]

_COLUMNS = ["shard", "share>", "nearest limit>", "events/s>", "bytes/s>", "behind>", "heaviest keys", "owner", "epoch>"]
_MOST_LETTERS = 30
"""Characters of the heaviest keys: about a line on a phone."""


class ShardsPanel:
    """Show the hash space as a bar, and every shard with its heat and its ledger entry, the hottest first."""

    def __init__(self) -> None:
        note = "The hash space from left to right, with the share of the limit that is nearest: from 50 % amber, "
        with card("shards", "Shards", note + "from 80 % red.", wide=True):
            self._chart = ui.echart(shard_options(()), renderer="svg").classes("w-full h-20")
            self._heat = ui.html("").classes("w-full")
            self._changes = ui.label("").classes("text-sm opacity-80")
            self._table = table([*_COLUMNS, "committed", "position"], "shard", pagination=6)
            with ui.expansion("What the autoscaler decided").classes("w-full") as decided:
                self._decisions = table(["at", "decision", "why"], "at", pagination=5, empty="nothing yet")
            self.detail = Detail("shards", [self._table, decided])

    def show(self, found: Overview) -> None:
        """Show the shards of an overview, and the autoscaler's decisions."""
        replace_options(self._chart, shard_options(found.shards))
        if found.heat:
            self._heat.set_content(heat_picture(found.heat))
            self._changes.set_text(heat_summary(found.heat))
        fill_table(self._table, map(shard_cells, sorted(found.shards, key=_coldness)))
        fill_table(self._decisions, ((moment(at), action, why) for at, action, why in found.decisions))
        if self.detail.name is not None:
            self.detail.show(shard_facts(self.detail.name, found.shards))


def heat_summary(points: Sequence[HeatPoint]) -> str:
    """Return the line below the picture of heat: how long ago its lower end is, and what was split and merged."""
    changes = heat_changes(points)
    since = f"The same from now (top) back to {clock_time(points[0][0])} (bottom)."
    return " ".join([since, *(f"{one}." for one in changes)])


def _coldness(row: ShardRow) -> tuple[bool, bool, float]:
    return row.closed, not row.open, -(row.hottest or 0.0)


def shard_cells(row: ShardRow) -> tuple[Cell, ...]:
    """Return the cells of a shard's row."""
    state = "" if row.open else f" ({_state(row)})"
    heavy = ", ".join(f"{key} {share:.0%}" for key, share in row.heavy)
    first, more = heavy[:_MOST_LETTERS], len(heavy) > _MOST_LETTERS
    return (
        (short(row.shard_id) + state, row.shard_id, link_to("shards", row.shard_id)),
        f"{row.width:.1%}",
        _limit(row),
        f"{row.events_s:,.1f}",
        size(row.bytes_s),
        age(row.lag_ms),
        (first + "…" if more else first, heavy),
        (short(row.owner, 16), row.owner),
        str(row.epoch),
        moment(row.committed_ms),
        (short(row.position), row.position),
    )


def _state(row: ShardRow) -> str:
    return "open" if row.open else "closed, read to its end" if row.closed else "closed"


def _limit(row: ShardRow) -> str:
    return heat_text(row.hottest) if row.hottest is None or row.hottest >= 0.1 else f"{row.hottest:.1%}"


def shard_facts(shard_id: str, rows: Sequence[ShardRow]) -> Iterable[tuple[str, Cell]]:
    """Yield what is known of one shard, with links to those it comes from and those it became; nothing if not there."""
    row = next((one for one in rows if one.shard_id == shard_id), None)
    if row is None:
        return
    yield "state", _state(row)
    yield "share of the hash space", f"{row.width:.1%}, from {row.start:.1%} to {row.start + row.width:.1%}"
    yield "nearest limit", _limit(row)
    yield "events/s", f"{row.events_s:,.1f}"
    yield "bytes/s", size(row.bytes_s)
    yield "behind", age(row.lag_ms)
    for number, (key, share) in enumerate(row.heavy, 1):
        yield f"heaviest key {number}", f"{key} {share:.0%}"
    for number, parent in enumerate(row.parents, 1):
        yield f"parent {number}", (short(parent), parent, link_to("shards", parent))
    for number, child in enumerate((one for one in rows if shard_id in one.parents), 1):
        yield f"child {number}", (short(child.shard_id), child.shard_id, link_to("shards", child.shard_id))
    yield "owner", row.owner or "none"
    yield "epoch", str(row.epoch)
    yield "committed (UTC)", moment(row.committed_ms)
    yield "read up to event time (UTC)", moment(row.watermark_ms)
    yield "position", row.position or "–"
    yield "files that wait for the publisher", f"{row.pending_files:,}"
