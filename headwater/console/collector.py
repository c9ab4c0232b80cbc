"""Asks the services, once for all who look at the page."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.aws import client
from headwater.console.lettersread import MOST_COUNTED, LetterBox, Letters
from headwater.console.overview import (
    Findings,
    Overview,
    TableState,
    Totals,
    hops,
    rates,
    shard_rows,
    totals_of,
    waiting,
)
from headwater.console.words import letter_name
from headwater.errors import HeadwaterError, UsageError
from processors.alerts.store import alert_rows
from processors.audit import AuditReport
from processors.auditing import run_audit
from processors.finality import final_until
from processors.jobs import Jobs
from processors.pipeline import View
from processors.services import Services
from processors.shards.edge import read_samples, read_topology
from producers.redriving import Redrive
from sinks.catalog import open_catalog, open_table
from sinks.deadletter import DeadLetter, DeadLetters
from sinks.viewitems import key_parts

__all__ = ["MOST_LETTERS", "Collector", "Looking"]

_KEPT = 60
"""Looks that rates are reckoned from: two minutes at one in two seconds."""
_POINT_MS, _POINTS = 10_000, 90
"""Between two points of the chart of rates, and how many it has: 15 minutes."""
_GAP_MS = 60_000
_SMALL_BYTES = 128 << 20
MOST_LETTERS = 200


@dataclass(frozen=True)
class Looking(Services):
    """Services whose clients give up after seconds: the page asks again anyway, and says how old its answers are."""

    def client(self, service: str) -> Any:
        once_more = {"mode": "standard", "total_max_attempts": 2}
        return client(service, self.settings, connect_timeout=2, read_timeout=8, retries=once_more)


class _Documents:
    """The ledger's documents as they were read at once."""

    def __init__(self, found: Mapping[str, tuple[dict[str, Any], int]]) -> None:
        self._found = found

    def document(self, name: str) -> tuple[dict[str, Any], int]:
        return self._found.get(name, ({}, 0))

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int:
        raise NotImplementedError  # they are only looked at


class Collector:
    """Blocking; the page calls it in threads, each method once at a time. `look` is cheap: three requests.

    `acting` is what acts go through, where that is not what is looked with.
    """

    def __init__(self, services: Services, acting: Services | None = None) -> None:
        self._services, self._acting = services, acting or services
        self.history: deque[Totals] = deque(maxlen=_KEPT)
        self.points: deque[tuple[int, dict[str, float]]] = deque(maxlen=_POINTS)
        self._table, self._table_ms = TableState(), 0
        self._catalog: Any = None
        self._box: LetterBox | None = None
        self._waiting_letters: int | None = None
        self._since: dict[str, int] = {}

    @property
    def pipeline(self) -> Any:
        return self._services.pipeline

    @property
    def stream(self) -> str:
        return self._services.settings.stream

    def look(self) -> Overview:
        """The ledger, the stream's shards and their heat."""
        services = self._services
        now = services.clock.now_ms()
        entries, documents = services.ledger.shards(), _Documents(services.ledger.documents())
        topology = read_topology(services.kinesis, services.settings.stream)
        being_read = {entry.shard_id for entry in entries if not entry.closed}
        published = self._table.rows if now - self._table_ms < _GAP_MS else None
        self.history.append(totals_of(entries, published, now))
        self._since = waiting(self._since, entries, now)
        found = Findings(
            at_ms=now,
            entries=entries,
            topology=topology,
            samples=read_samples(documents, topology, now, being_read),
            table=self._table,
            since=self._since,
            letters=self._waiting_letters,
            views=len(services.pipeline.views),
            watermark_ms=final_until(services.pipeline, services.settings, entries, topology.parents, now),
        )
        self._add_point(now)
        lease, _ = documents.document("publisher")
        scaling, _ = documents.document(f"autoscaler.{services.settings.stream}")
        return Overview(
            at_ms=now,
            hops=hops(found, self.history),
            shards=shard_rows(found),
            publisher=str(lease.get("owner", "")),
            counts=_counts([entry.counts for entry in entries]),
            jobs=tuple(Jobs(documents, services.clock).shown()),
            points=tuple(self.points),
            decisions=tuple(
                (int(one["at_ms"]), str(one["action"]), "; ".join(one["reasons"]))
                for one in reversed(scaling.get("decisions", []))
            ),
        )

    def _add_point(self, now: int) -> None:
        last = self.points[-1][0] if self.points else 0
        if now - last < _POINT_MS:
            return
        if self.points and now - last > _GAP_MS:  # nobody looked meanwhile: no line over it
            self.points.append((now - 1, {}))
        self.points.append((now, rates(self.history)))

    def look_at_table(self) -> TableState:
        """The table's current snapshot; of its files what their manifests say."""
        if self._catalog is None:
            self._catalog = open_catalog(self._services.settings)
        table = open_table(self._services.settings, self._services.pipeline.lake_to.table, self._catalog)
        snapshot = table.current_snapshot()
        if snapshot is None or snapshot.summary is None:
            self._table_ms = self._services.clock.now_ms()
            return self._table
        said = snapshot.summary
        sizes = table.inspect.files().column("file_size_in_bytes").to_pylist()
        self._table = TableState(
            rows=int(said["total-records"] or 0),
            files=len(sizes),
            bytes=sum(sizes),
            snapshots=len(table.snapshots()),
            snapshot_ms=snapshot.timestamp_ms,
            small_files=sum(size < _SMALL_BYTES for size in sizes),
        )
        self._table_ms = self._services.clock.now_ms()
        return self._table

    def audit(self) -> AuditReport:
        """The whole audit: reads every identity in the lake."""
        return run_audit(self._services)

    def letters(self) -> Letters:
        """The first of the dead letters that wait, and how many do."""
        if self._box is None:
            self._box = LetterBox(self._services.objects, MOST_COUNTED)
        shown = tuple(islice(DeadLetters(self._box).list(self.pipeline.name), MOST_LETTERS))
        self._waiting_letters = len(self._box.keys)
        return Letters(shown, self._waiting_letters, more=self._waiting_letters == MOST_COUNTED)

    @property
    def controls(self) -> bool:
        return self._services.settings.serve.controls

    def cancel(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Ask jobs to end, each by itself; why not, of those that do not."""
        self._check_controls("headwater jobs cancel")
        jobs = Jobs(self._acting.ledger, self._acting.clock)
        refused = {}
        for job_id in job_ids:
            try:
                jobs.cancel(job_id, "the console")
            except (HeadwaterError, ClientError, BotoCoreError) as error:
                refused[job_id] = str(error)
        return refused

    def alerts(self) -> list[dict[str, object]]:
        """Of each alert and key the last episode; those that fire first."""
        return alert_rows(self.pipeline.name, self.pipeline.alerts, self._services.alerts)

    def redrive(self, wanted: Collection[str] | None, told: Callable[[int, int], None]) -> int:
        """Put letters on the stream again, those of these names or all that wait as of now; how many. `told` hears how
        many were sent, of how many. UsageError where the settings say that the console only reads.

        Letters that come back meanwhile are not sent a second time.
        """
        self._check_controls("headwater dlq redrive")
        services, name = self._acting, self.pipeline.name
        box = LetterBox(services.objects, None if wanted is None else MOST_COUNTED)
        found = DeadLetters(box).list(name)
        again = Redrive(services.kinesis, services.settings.stream, services.pipeline.contract)
        sent = 0
        for letter in found if wanted is None else _chosen(found, set(wanted)):
            sent += services.letters.redrive(name, [letter], again.put)
            told(sent, len(box.keys) if wanted is None else len(wanted))
        return sent

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


def _chosen(letters: Iterable[DeadLetter], wanted: set[str]) -> Iterator[DeadLetter]:
    """Those of these names; the letters behind the last of them are not read."""
    for letter in letters:
        if letter_name(letter) in wanted:
            wanted.discard(letter_name(letter))
            yield letter
        if not wanted:
            return


def _counts(all_counts: Sequence[Any]) -> dict[str, int]:
    out: dict[str, int] = {}
    for counts in all_counts:
        for name, number in counts.items():
            out[name] = out.get(name, 0) + number
    return out
