"""Read what the console shows, once for all open pages. Reads only: what changes something is in `controls`."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from headwater.processors.alerts.store import AlertStore, alert_rows
from headwater.processors.audit.report import AuditReport
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.generations import Serving
from headwater.processors.jobs import Jobs
from headwater.processors.ports import OpenTable, PipelineStores, StreamClient
from headwater.processors.scaling.readings import read_samples, read_topology
from headwater.processors.watermark import final_until
from headwater.serving.console.letter_reader import MOST_COUNTED, CachedLetterStore, Letters
from headwater.serving.console.overview import (
    HeatPoint,
    Observations,
    Overview,
    ShardRow,
    TableFigures,
    Totals,
    heat_point,
    hops,
    rates,
    shard_rows,
    sum_totals,
    waiting_since,
)
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.items import key_parts
from headwater.sinks.views.store import ViewStore

__all__ = ["MOST_LETTERS", "Collector", "ConsoleSources"]

_KEPT = 60
"""Readings that rates are computed from: two minutes of them, one every two seconds."""
_POINT_MS, _POINTS = 10_000, 90
"""Time between two points of the chart of rates, and the number of its points: 15 minutes."""
_GAP_MS = 60_000
_SMALL_BYTES = 128 << 20
MOST_LETTERS = 200


class _ReadDocuments:
    """Hold the ledger's documents as one request read them."""

    def __init__(self, found: Mapping[str, tuple[dict[str, Any], int]]) -> None:
        self._found = found

    def document(self, name: str) -> tuple[dict[str, Any], int]:
        return self._found.get(name, ({}, 0))

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int:
        raise NotImplementedError  # the console only reads them

    def change(self, name: str, make: Callable[[dict[str, Any]], Mapping[str, Any] | None]) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class ConsoleSources:
    """Hold what the console reads, through clients that give up within seconds: the page asks again anyway."""

    stores: PipelineStores
    stream: StreamClient
    views: ViewStore
    alerts: AlertStore
    open_table: OpenTable
    audit: Callable[[], AuditReport]
    idle_seconds: float = 0.0
    """A shard without commits for so long counts as read up to so long ago; 0 for never."""


class Collector:
    """Read what the page shows, and remember the last readings. Blocking; each method is called once at a time.

    `overview` is cheap: three requests however many shards there are.
    """

    def __init__(self, sources: ConsoleSources) -> None:
        self._sources = sources
        self._ledger, self._clock = sources.stores.ledger, sources.stores.clock
        self._serving = Serving(self._ledger, self.pipeline, self._clock)
        self.history: deque[Totals] = deque(maxlen=_KEPT)
        self.points: deque[tuple[int, dict[str, float]]] = deque(maxlen=_POINTS)
        self.heat: deque[HeatPoint] = deque(maxlen=_POINTS)
        self._table, self._table_ms = TableFigures(), 0
        self._letter_store: CachedLetterStore | None = None
        self._waiting_letters: int | None = None
        self._since: dict[str, int] = {}

    @property
    def pipeline(self) -> Pipeline:
        """Return the pipeline that the console is about."""
        return self._sources.stores.pipeline

    @property
    def stream(self) -> str:
        """Return the name of the stream that the pipeline reads."""
        return self._sources.stream.stream

    def overview(self) -> Overview:
        """Read the ledger, the stream's shards and their heat."""
        now = self._clock.now_ms()
        # the shards before the documents: heat that is a little newer than the positions does no harm
        entries, documents = self._ledger.shards(), _ReadDocuments(self._ledger.documents())
        topology = read_topology(self._sources.stream.kinesis, self.stream)
        being_read = {entry.shard_id for entry in entries if not entry.closed}
        published = self._table.rows if now - self._table_ms < _GAP_MS else None
        self.history.append(sum_totals(entries, published, now))
        self._since = waiting_since(self._since, entries, now)
        found = Observations(
            at_ms=now,
            entries=entries,
            topology=topology,
            samples=read_samples(documents, topology, now, being_read),
            table=self._table,
            since=self._since,
            letters=self._waiting_letters,
            views=len(self.pipeline.views),
            watermark_ms=final_until(self.pipeline, self._sources.idle_seconds, entries, topology.parents, now),
        )
        rows, places = shard_rows(found), hops(found, self.history)
        self._add_point(now, rows, places[0].per_second or 0.0)
        lease, _ = documents.document("publisher")
        scaling, _ = documents.document(f"autoscaler.{self.stream}")
        return Overview(
            at_ms=now,
            hops=places,
            shards=rows,
            publisher=str(lease.get("owner", "")),
            counts=_sum_counts([entry.counts for entry in entries]),
            jobs=tuple(Jobs(documents, self._clock).shown()),
            points=tuple(self.points),
            heat=tuple(self.heat),
            decisions=tuple(
                (int(one["at_ms"]), str(one["action"]), "; ".join(one["reasons"]))
                for one in reversed(scaling.get("decisions", []))
            ),
        )

    def _add_point(self, now: int, rows: Sequence[ShardRow], arriving: float) -> None:
        last = self.points[-1][0] if self.points else 0
        if now - last < _POINT_MS:
            return
        if self.points and now - last > _GAP_MS:  # no page was open meanwhile: a point without values breaks the line
            self.points.append((now - 1, {}))
            self.heat.append((now - 1, {}))
        self.points.append((now, rates(self.history) | {"arriving": arriving}))
        self.heat.append(heat_point(now, rows))

    def table_state(self) -> TableFigures:
        """Read the table's current snapshot, and from its manifests the sizes of its files."""
        table = self._sources.open_table()
        snapshot = table.current_snapshot()
        if snapshot is None or snapshot.summary is None:
            self._table_ms = self._clock.now_ms()
            return self._table
        summary = snapshot.summary
        sizes = table.inspect.files().column("file_size_in_bytes").to_pylist()
        self._table = TableFigures(
            rows=int(summary["total-records"] or 0),
            files=len(sizes),
            bytes=sum(sizes),
            snapshots=len(table.snapshots()),
            snapshot_ms=snapshot.timestamp_ms,
            small_files=sum(size < _SMALL_BYTES for size in sizes),
        )
        self._table_ms = self._clock.now_ms()
        return self._table

    def audit(self) -> AuditReport:
        """Run the whole audit, which reads every identity in the lake."""
        return self._sources.audit()

    def letters(self) -> Letters:
        """Read the first of the dead letters that wait, and count them all."""
        if self._letter_store is None:
            self._letter_store = CachedLetterStore(self._sources.stores.objects, MOST_COUNTED)
        shown = tuple(islice(DeadLetters(self._letter_store).list(self.pipeline.name), MOST_LETTERS))
        self._waiting_letters = self._letter_store.waiting
        return Letters(shown, self._waiting_letters, more=len(self._letter_store.keys) == MOST_COUNTED)

    def alerts(self) -> list[dict[str, object]]:
        """Read the last episode of each alert and key; those that fire come first."""
        return alert_rows(self.pipeline.name, self.pipeline.alerts, self._sources.alerts)

    def view(self, name: str) -> View:
        """Return a view in the version that serves."""
        return self._serving.view(name)

    def view_rows(self, name: str, prefix: str, keys: int, windows: int) -> list[dict[str, object]]:
        """Read the newest windows of the first `keys` keys that begin with `prefix`, oldest window first."""
        spec, views = self.view(name).spec, self._sources.views
        rows: list[dict[str, object]] = []
        for key in islice(views.keys(spec, prefix), keys):
            parts = key_parts(key) if spec.by else []
            rows += reversed(views.windows(spec, parts, limit=windows, newest_first=True))
        return rows


def _sum_counts(all_counts: Sequence[Any]) -> dict[str, int]:
    out: dict[str, int] = {}
    for counts in all_counts:
        for name, number in counts.items():
            out[name] = out.get(name, 0) + number
    return out
