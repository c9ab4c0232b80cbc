"""Compute what the page shows from what the collector read. Pure: no clock, no I/O, no elements of the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.ledger import ShardEntry
from headwater.processors.scaling.heat import Sample, heat
from headwater.processors.scaling.topology import Topology
from headwater.serving.console.formatting import moment
from headwater.stream import sequence
from headwater.stream.hashkeys import HASH_SPACE

__all__ = [
    "HeatPoint",
    "Hop",
    "Observations",
    "Overview",
    "ShardRow",
    "TableFigures",
    "Totals",
    "heat_point",
    "hops",
    "rates",
    "shard_rows",
    "sum_totals",
    "waiting_since",
]


_LATE_MS = 60_000


@dataclass(frozen=True)
class Totals:
    """Hold counts since the pipeline began, as the shards' last commits have them."""

    at_ms: int
    events: int = 0
    duplicates: int = 0
    filtered: int = 0
    dead: int = 0
    lake: int = 0
    published: int | None = None
    """Rows in the table's current snapshot; None while it has not been read."""


@dataclass(frozen=True)
class TableFigures:
    """Hold the state of the Iceberg table's current snapshot."""

    rows: int = 0
    files: int = 0
    bytes: int = 0
    snapshots: int = 0
    snapshot_ms: int | None = None
    small_files: int | None = None
    """Files below 128 MB."""


@dataclass(frozen=True)
class Observations:
    """Hold what was read at one moment."""

    at_ms: int
    entries: Sequence[ShardEntry]
    topology: Topology
    samples: Mapping[str, Sample]
    """Samples by shard, of those still read: a closed shard is read until its end."""
    table: TableFigures
    since: Mapping[str, int] = field(default_factory=dict)
    """Time since when each file waits for the publisher, by URI."""
    letters: int | None = None
    """Dead letters that wait; None while they have not been counted."""
    views: int = 0
    watermark_ms: int | None = None
    """Event time up to which windows are final."""


@dataclass(frozen=True)
class Hop:
    """Hold the figures of one place that events pass."""

    name: str
    total: int | None
    """Events that came this far since the pipeline began; None where they are not counted."""
    per_second: float | None
    lag_ms: int | None
    """Age of the oldest event that waits to go on from here; 0 when none waits, None when it is not known."""
    note: str = ""
    needs_attention: bool = False
    """True when an operator has to do something."""

    @property
    def state(self) -> str:
        """Return `amiss` when an operator has to do something, `late` when what waits is a minute old, else `well`."""
        return "amiss" if self.needs_attention else "late" if (self.lag_ms or 0) >= _LATE_MS else "well"


@dataclass(frozen=True)
class ShardRow:
    """Hold a shard, its place in the hash space (shares of 1), its heat and its ledger entry."""

    shard_id: str
    start: float
    width: float
    open: bool
    parents: tuple[str, ...]
    hottest: float | None
    """Share of the nearest limit; None when nothing is measured."""
    events_s: float
    bytes_s: float
    lag_ms: int | None
    heavy: tuple[tuple[str, float], ...]
    owner: str
    epoch: int
    position: str
    committed_ms: int | None
    watermark_ms: int | None
    pending_files: int
    closed: bool


HeatPoint = tuple[int, Mapping[str, tuple[float, float, float | None]]]
"""A time, and the open shards of then: where each begins, how wide it is, and its share of the nearest limit."""
_MOST_SHARDS = 256


@dataclass(frozen=True)
class Overview:
    """Hold everything that changes by the second, as of one moment."""

    at_ms: int
    hops: tuple[Hop, ...]
    shards: tuple[ShardRow, ...]
    publisher: str
    counts: Mapping[str, int]
    jobs: tuple[Mapping[str, Any], ...] = ()
    """The latest comes first."""
    points: tuple[tuple[int, Mapping[str, float]], ...] = ()
    """Rates over the last minutes; a point without values marks a gap in which no page was open."""
    heat: tuple[HeatPoint, ...] = ()
    """The hash space over the last minutes; a point without shards marks such a gap, or more than 256 shards."""
    decisions: tuple[tuple[int, str, str], ...] = ()
    """Decisions of the autoscaler, newest first: time, action, reasons."""


def heat_point(at_ms: int, rows: Sequence[ShardRow]) -> HeatPoint:
    """Return the open shards and their heat, none of very many."""
    here = {row.shard_id: (row.start, row.width, row.hottest) for row in rows if row.open}
    return at_ms, here if len(here) <= _MOST_SHARDS else {}


def sum_totals(entries: Sequence[ShardEntry], published: int | None, at_ms: int) -> Totals:
    """Add up the shards' counts."""
    count = {
        name: sum(entry.counts.get(name, 0) for entry in entries)
        for name in ("events", "duplicates", "filtered", "dead_events", "poison_records", "lake")
    }
    return Totals(
        at_ms,
        count["events"],
        count["duplicates"],
        count["filtered"],
        count["dead_events"] + count["poison_records"],
        count["lake"],
        published,
    )


def rates(history: Sequence[Totals]) -> dict[str, float]:
    """Return each count's rate a second over about the last minute; 0 when there is nothing to compare with."""
    since = history[-1].at_ms - 60_000 if history else 0
    window = [one for one in history if one.at_ms >= since]
    return {
        name: _rate([(one.at_ms, getattr(one, name)) for one in window if getattr(one, name) is not None])
        for name in ("events", "duplicates", "dead", "lake", "published")
    }


def _rate(known: Sequence[tuple[int, int]]) -> float:
    if len(known) < 2:
        return 0.0
    (began, before), (ended, now) = known[0], known[-1]
    return max(0.0, (now - before) * 1000 / (ended - began)) if ended > began else 0.0


def waiting_since(since: Mapping[str, int], entries: Sequence[ShardEntry], now_ms: int) -> dict[str, int]:
    """Return since when each file waits for the publisher, by URI, given the same of the reading before.

    A file seen for the first time counts from its shard's last commit, although an earlier commit may have brought it.
    """
    return {
        file.uri: since.get(file.uri, min(now_ms, entry.updated_ms or now_ms))
        for entry in entries
        for file in entry.pending
    }


def hops(found: Observations, history: Sequence[Totals]) -> tuple[Hop, ...]:
    """Return the places in the order of the page: stream, processor, lake files, table, views, dead letters."""
    total, rate = history[-1], rates(history)
    here = [found.samples[shard.shard_id] for shard in found.topology.open if shard.shard_id in found.samples]
    lags = [lag for sample in found.samples.values() for lag in sample.lag_ms.values()]
    behind = max(lags, default=0 if found.samples else None)
    still = len(found.samples) - len(here)
    letters = found.letters
    return (
        Hop(
            "stream",
            None,
            sum(sample.events_s for sample in here),
            behind,
            f"{len(found.topology.open)} open shards" + (f", {still} closed and still read" if still else ""),
        ),
        Hop("processor", total.events, rate["events"], None, f"{total.duplicates:,} copies dropped"),
        Hop(
            "lake files",
            total.lake,
            rate["lake"],
            max((found.at_ms - at for at in found.since.values()), default=0),
            f"{len(found.since):,} files wait",
        ),
        Hop("table", total.published, rate["published"], None, f"{found.table.files:,} files"),
        Hop(
            "views",
            None,
            None,
            behind if found.views else None,
            f"{found.views} views" + (f", {_final(found.watermark_ms)}" if found.views else ""),
        ),
        Hop(
            "dead letters",
            total.dead,
            rate["dead"],
            None,
            f"{'–' if letters is None else f'{letters:,}' if letters else 'none'} wait",
            needs_attention=bool(letters),
        ),
    )


def _final(watermark_ms: int | None) -> str:
    return "nothing final: a shard had no events" if watermark_ms is None else f"final up to {moment(watermark_ms)}"


def shard_rows(found: Observations) -> tuple[ShardRow, ...]:
    """Return every shard that the stream lists, in the order of the hash space, the oldest of a range first."""
    hot = {one.shard.shard_id: one for one in heat(found.topology, list(found.samples.values()))}
    known = {entry.shard_id: entry for entry in found.entries}
    rows = []
    for shard in sorted(found.topology.shards, key=lambda one: (one.start, one.closed, one.shard_id)):
        one, entry = hot.get(shard.shard_id), known.get(shard.shard_id)
        sample = found.samples.get(shard.shard_id)
        rows.append(
            ShardRow(
                shard_id=shard.shard_id,
                start=shard.start / HASH_SPACE,
                width=shard.width / HASH_SPACE,
                open=not shard.closed,
                parents=shard.all_parents,
                hottest=one.hottest if one and sample else None,
                events_s=sample.events_s if sample else 0.0,
                bytes_s=sample.bytes_s if sample else 0.0,
                lag_ms=max(sample.lag_ms.values(), default=None) if sample else None,
                heavy=tuple((key.key, key.share) for key in sample.heavy[:3]) if sample else (),
                owner=entry.owner if entry else "",
                epoch=entry.epoch if entry else 0,
                position=sequence.unpad(entry.position) if entry and entry.position != sequence.NONE else "",
                committed_ms=entry.updated_ms if entry else None,
                watermark_ms=entry.watermark_ms if entry else None,
                pending_files=len(entry.pending) if entry else 0,
                closed=entry.closed if entry else False,
            )
        )
    return tuple(rows)
