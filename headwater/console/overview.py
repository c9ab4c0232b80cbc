"""What the page shows, out of what the services say. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headwater import sequence
from headwater.ledger import ShardEntry
from processors.shards.heat import ShardHeat
from processors.shards.topology import Topology

__all__ = ["Hop", "Overview", "ShardRow", "TableState", "Totals", "hops", "rates", "shard_rows", "totals_of"]


@dataclass(frozen=True)
class Totals:
    """Counts since the pipeline began, as the shards' last commits have them."""

    at_ms: int
    events: int = 0
    duplicates: int = 0
    filtered: int = 0
    dead: int = 0
    lake: int = 0
    published: int = 0
    """Rows in the table's current snapshot."""


@dataclass(frozen=True)
class TableState:
    """The Iceberg table's current snapshot."""

    rows: int = 0
    files: int = 0
    bytes: int = 0
    snapshots: int = 0
    snapshot_ms: int | None = None
    small_files: int | None = None
    """Below 128 MB."""


@dataclass(frozen=True)
class Hop:
    """A place that events pass: how many a second, and how old what has come so far is."""

    name: str
    total: int
    per_second: float
    lag_ms: int | None
    note: str = ""


@dataclass(frozen=True)
class ShardRow:
    """A shard, its place in the hash space (shares of 1), its heat and its ledger entry."""

    shard_id: str
    start: float
    width: float
    open: bool
    parents: tuple[str, ...]
    hottest: float | None
    """Share of the limit it is nearest to; None where nothing is measured."""
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


@dataclass(frozen=True)
class Overview:
    """One look at everything that changes by the second."""

    at_ms: int
    hops: tuple[Hop, ...]
    shards: tuple[ShardRow, ...]
    table: TableState
    publisher: str
    counts: Mapping[str, int]
    decisions: tuple[tuple[int, str, str], ...] = ()
    """Of the autoscaler, newest first: when, what, why."""


def totals_of(entries: Sequence[ShardEntry], table: TableState, at_ms: int) -> Totals:
    """The shards' counts together."""
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
        table.rows,
    )


def rates(history: Sequence[Totals], seconds: float = 60) -> dict[str, float]:
    """Per second over about the last so many seconds; 0 where there is nothing to compare with."""
    names = ("events", "duplicates", "dead", "lake", "published")
    if not history:
        return dict.fromkeys(names, 0.0)
    last = history[-1]
    first = next((one for one in history if one.at_ms >= last.at_ms - seconds * 1000), last)
    passed = (last.at_ms - first.at_ms) / 1000
    if passed <= 0:
        return dict.fromkeys(names, 0.0)
    return {name: max(0.0, (getattr(last, name) - getattr(first, name)) / passed) for name in names}


def hops(
    history: Sequence[Totals], heat: Sequence[ShardHeat], entries: Sequence[ShardEntry], table: TableState, now_ms: int
) -> tuple[Hop, ...]:
    """Stream, processor, lake files, table, dead letters. Lags are ages of the last step that something took."""
    total, rate = history[-1], rates(history)
    samples = [one.sample for one in heat if one.sample is not None]
    lags = [lag for sample in samples for lag in sample.lag_ms.values()]
    open_entries = [entry for entry in entries if not entry.closed]
    committed = [now_ms - entry.updated_ms for entry in open_entries if entry.updated_ms]
    waiting = sum(len(entry.pending) for entry in entries)
    return (
        Hop("stream", total.events, sum(sample.events_s for sample in samples), None, f"{len(heat)} open shards"),
        Hop("processor", total.events, rate["events"], max(lags, default=None), f"{total.duplicates:,} copies dropped"),
        Hop("lake files", total.lake, rate["lake"], max(committed, default=None), f"{waiting} files wait"),
        Hop(
            "table",
            total.published,
            rate["published"],
            None if table.snapshot_ms is None else now_ms - table.snapshot_ms,
            f"{table.files:,} files",
        ),
        Hop("dead letters", total.dead, rate["dead"], None, f"{total.filtered:,} filtered by the pipeline"),
    )


def shard_rows(topology: Topology, heat: Sequence[ShardHeat], entries: Sequence[ShardEntry]) -> tuple[ShardRow, ...]:
    """Every shard the stream still lists, in the order of the hash space; those of a range oldest first."""
    hot = {one.shard.shard_id: one for one in heat}
    known = {entry.shard_id: entry for entry in entries}
    space = 1 << 128
    rows = []
    for shard in sorted(topology.shards, key=lambda one: (one.start, one.closed, one.shard_id)):
        one, entry = hot.get(shard.shard_id), known.get(shard.shard_id)
        sample = one.sample if one else None
        rows.append(
            ShardRow(
                shard_id=shard.shard_id,
                start=shard.start / space,
                width=shard.width / space,
                open=not shard.closed,
                parents=tuple(name for name in (shard.parent, shard.adjacent_parent) if name),
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
