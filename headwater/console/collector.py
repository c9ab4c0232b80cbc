"""Asks the services, once for all who look at the page."""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from threading import Lock
from typing import Any

from headwater.console.overview import Overview, TableState, Totals, hops, shard_rows, totals_of
from headwater.errors import UsageError
from processors.alerts.store import alert_rows
from processors.audit import AuditReport
from processors.auditing import run_audit
from processors.jobs import Jobs
from processors.pipeline import View
from processors.services import Services
from processors.shards.edge import read_samples, read_topology
from processors.shards.heat import heat
from producers.redriving import Redrive
from sinks.catalog import open_table
from sinks.deadletter import DeadLetter
from sinks.viewitems import key_parts

__all__ = ["Collector"]

_KEPT = 450
"""Looks that are remembered: 15 minutes at one in two seconds."""
_SMALL_BYTES = 128 << 20
_TABLE_MS = 10_000
MOST_LETTERS = 200


class Collector:
    """Blocking; the page calls it in threads. `look` is cheap (a few requests), the others are asked for."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.history: deque[Totals] = deque(maxlen=_KEPT)
        self._table, self._table_ms = TableState(), 0
        self._jobs = Jobs(services.ledger, services.clock)
        self._lock = Lock()

    @property
    def pipeline(self) -> Any:
        return self._services.pipeline

    @property
    def stream(self) -> str:
        return self._services.settings.stream

    def look(self) -> Overview:
        """The ledger, the stream's shards and their heat, and every ten seconds the table."""
        services = self._services
        with self._lock:
            now = services.clock.now_ms()
            entries = services.ledger.shards()
            topology = read_topology(services.kinesis, services.settings.stream)
            warm = heat(topology, list(read_samples(services.ledger, topology, now).values()))
            if now - self._table_ms >= _TABLE_MS:
                self._table, self._table_ms = self._look_at_table(), now
            self.history.append(totals_of(entries, self._table, now))
            lease, _ = services.ledger.document("publisher")
            scaling, _ = services.ledger.document(f"autoscaler.{services.settings.stream}")
            return Overview(
                at_ms=now,
                hops=hops(self.history, warm, entries, self._table, now),
                shards=shard_rows(topology, warm, entries),
                table=self._table,
                publisher=str(lease.get("owner", "")),
                counts=_counts([entry.counts for entry in entries]),
                decisions=tuple(
                    (int(one["at_ms"]), str(one["action"]), "; ".join(one["reasons"]))
                    for one in reversed(scaling.get("decisions", []))
                ),
            )

    def _look_at_table(self) -> TableState:
        table = open_table(self._services.settings, self._services.pipeline.lake_to.table)
        snapshot = table.current_snapshot()
        if snapshot is None or snapshot.summary is None:
            return TableState()
        said = snapshot.summary
        sizes = table.inspect.files().column("file_size_in_bytes").to_pylist()
        return TableState(
            rows=int(said["total-records"] or 0),
            files=len(sizes),
            bytes=sum(sizes),
            snapshots=len(table.snapshots()),
            snapshot_ms=snapshot.timestamp_ms,
            small_files=sum(size < _SMALL_BYTES for size in sizes),
        )

    def audit(self) -> AuditReport:
        """The whole audit: reads every identity in the lake."""
        return run_audit(self._services)

    def letters(self) -> list[DeadLetter]:
        """The first of the dead letters that wait."""
        found = []
        for letter in self._services.letters.list(self._services.pipeline.name):
            found.append(letter)
            if len(found) == MOST_LETTERS:
                break
        return found

    @property
    def controls(self) -> bool:
        return self._services.settings.serve.controls

    def jobs(self) -> list[dict[str, Any]]:
        """The latest first."""
        return self._jobs.shown()

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Ask jobs to end."""
        self._check_controls("headwater jobs cancel")
        for job_id in job_ids:
            self._jobs.cancel(job_id, "the console")

    def alerts(self) -> list[dict[str, object]]:
        """Of each alert and key the last episode; those that fire first."""
        pipeline = self._services.pipeline
        return alert_rows(pipeline.name, pipeline.alerts, self._services.alerts)

    def redrive(self, letters: Sequence[DeadLetter]) -> int:
        """Put them on the stream again; UsageError where the settings say that the console only reads."""
        services = self._services
        self._check_controls("headwater dlq redrive")
        again = Redrive(services.kinesis, services.settings.stream, services.pipeline.contract)
        return services.letters.redrive(services.pipeline.name, letters, again.put)

    def _check_controls(self, instead: str) -> None:
        if not self.controls:
            raise UsageError(f"HEADWATER_SERVE_CONTROLS is off here: use {instead}")

    def view(self, name: str) -> View:
        """A view in the version that serves."""
        return self._services.serving.view(name)

    def view_rows(self, name: str, prefix: str, keys: int, windows: int) -> list[dict[str, object]]:
        """The newest windows of the first few keys that begin so, in order."""
        spec, views = self.view(name).spec, self._services.views
        rows: list[dict[str, object]] = []
        for key in islice(views.keys(spec, prefix), keys):
            parts = key_parts(key) if spec.by else []
            rows += reversed(views.windows(spec, parts, limit=windows, newest_first=True))
        return rows


def _counts(all_counts: Sequence[Any]) -> dict[str, int]:
    out: dict[str, int] = {}
    for counts in all_counts:
        for name, number in counts.items():
            out[name] = out.get(name, 0) + number
    return out
