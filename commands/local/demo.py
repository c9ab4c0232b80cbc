"""Run the main job from end to end on an embedded AWS, watched and audited."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import pyarrow as pa
from botocore.exceptions import ReadTimeoutError

from headwater.clock import HOUR_MS, Clock
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.contract import conform
from headwater.errors import HeadwaterError, InvalidEvent, UsageError
from headwater.processors.audit.report import AuditReport
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.rebuild.recompute import batch_view, differences, enriched
from headwater.processors.references import check_sources, read_source
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.services import Services, new_owner
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings
from headwater.testing.fleet import Fleet

__all__ = ["Demo", "DemoProgress", "DemoResult", "DemoSettings"]

log = logging.getLogger("headwater.demo")

_LAST_COMMIT_SECONDS = 900.0


@dataclass(frozen=True)
class DemoSettings:
    """Set how much is produced, and how often an answer is lost on purpose."""

    events: int = 100_000
    devices: int = 100
    shards: int = 4
    events_a_batch: int = 1_000
    lose_every: int = 3
    """The first of so many PutRecords calls loses its answer, so that its records are sent again: real duplicates."""


@dataclass
class DemoProgress:
    """Hold the numbers while it runs; several threads write them, each its own."""

    stage: str = "starting"
    produced: int = 0
    processed: int = 0
    duplicates_dropped: int = 0
    in_lake: int = 0
    lag_ms: int = 0
    producing_done: bool = False
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DemoResult:
    """Hold what the audit found."""

    produced: int
    report: AuditReport
    view_rows: int
    view_differences: tuple[str, ...]
    duplicates_dropped: int
    setup_seconds: float
    seconds: float

    @property
    def ok(self) -> bool:
        """Tell whether every event is in the lake once and every view row is right."""
        return self.report.exact and self.report.in_lake == self.produced and not self.view_differences

    def to_json(self) -> dict[str, object]:
        """Return the result for `--json`."""
        return {
            "produced": self.produced,
            "in_lake": self.report.in_lake,
            "missing": max(self.report.missing, self.produced - self.report.in_lake),
            "duplicates": self.report.duplicates,
            "views_match": not self.view_differences,
            "view_rows": self.view_rows,
            "duplicates_dropped": self.duplicates_dropped,
            "setup_seconds": round(self.setup_seconds, 2),
            "seconds": round(self.seconds, 2),
            "events_per_second": round(self.produced / self.seconds) if self.seconds else 0,
        }


def _check(pipeline: Pipeline) -> None:
    """Refuse a pipeline that the demo cannot run, before anything is built."""
    check_sources(pipeline)
    try:
        found = conform(pipeline.contract, next(Fleet(devices=1).batches(events=8, batch=8))).invalid
        reason = found[0].reason if found else ""
    except InvalidEvent as error:
        reason = str(error)
    if reason:
        raise UsageError(
            f"the demo sends readings of a simulated fleet, which pipeline {pipeline.name} does not take ({reason}): "
            "unset HEADWATER_PIPELINE, or run `headwater up`"
        )


class LosesAnswers:
    """Wrap a Kinesis client: one PutRecords in n, the first, is carried out and its answer lost."""

    def __init__(self, client: Any, every: int) -> None:
        self._client = client
        self._every = every
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_records(self, **request: Any) -> Any:
        """Put records, and lose the answer now and then."""
        answer = self._client.put_records(**request)
        self._calls += 1
        if self._every and self._calls % self._every == 1:
            raise ReadTimeoutError(endpoint_url="demo: an answer lost on purpose")
        return answer


class Demo:
    """Run the demo: within `running()` call `poll()` until `streamed`, then `result()`."""

    def __init__(self, pipeline: Pipeline, settings: Settings, demo: DemoSettings, clock: Clock) -> None:
        _check(pipeline)
        self._pipeline = pipeline
        # views are looked at in the end: flushed with each commit alone, they leave the machine to the events
        self._settings = settings.model_copy(update={"view_flush_seconds": settings.commit_seconds})
        self._demo = demo
        self._clock = clock
        self.progress = DemoProgress()
        self._events: list[pa.Table] = []
        self._stop_processing, self._stop_publishing = Event(), Event()
        self._started_ms = clock.now_ms()

    @contextmanager
    def running(self) -> Iterator["Demo"]:
        """Run the embedded AWS, producer, processor and publisher while the block runs."""
        with ExitStack() as stack:
            aws = stack.enter_context(EmbeddedAws())
            aws.use()
            provision(
                self._settings,
                shards=self._demo.shards,
                others=[step.stream for step in self._pipeline.streams],
            )
            self.services = Services(self._settings, self._pipeline, self._clock)
            self.services.prepare()
            self.publisher = self.services.publisher(new_owner())
            self.runner = EmbeddedRunner(
                self._pipeline, self.services.kinesis, self.services.ports, self._settings, self._clock, new_owner()
            )
            self._setup_ms = self._clock.now_ms()
            threads = [
                Thread(target=self._guarded, args=(job,), daemon=True)
                for job in (self._produce, self._process, self._publish)
            ]
            stack.callback(self._end, threads)
            for thread in threads:
                thread.start()
            self._threads = threads
            self.progress.stage = "streaming"
            yield self

    def _end(self, threads: list[Thread]) -> None:
        self._stop_processing.set()
        self._stop_publishing.set()
        for thread in threads:
            thread.join(timeout=30)

    def _guarded(self, job: Any) -> None:
        try:
            job()
        except Exception as error:
            log.exception("demo failed")
            self.progress.errors.append(f"{type(error).__name__}: {error}")

    def _produce(self) -> None:
        client = LosesAnswers(self.services.kinesis, self._demo.lose_every)
        fleet = Fleet(devices=self._demo.devices, start_ms=self._clock.now_ms() - HOUR_MS)
        options = ProducerSettings(max_events=self._demo.events_a_batch, linger_ms=200)
        with Producer(self._settings.stream, self._pipeline.contract, client=client, settings=options) as producer:
            for table in fleet.batches(self._demo.events, self._demo.events_a_batch * 5):
                self._events.append(table)
                producer.put_batch(table)
                self.progress.produced += table.num_rows
        self.progress.producing_done = True

    def _process(self) -> None:
        self.runner.run(self._stop_processing, discover_seconds=0.5)

    def _publish(self) -> None:
        while not self._stop_publishing.wait(1.0):
            self.publisher.step()

    def poll(self) -> DemoProgress:
        """Bring the numbers up to date."""
        status = self.runner.status()
        now = self.progress
        total = {name: sum(s.counts.get(name, 0) for s in status) for name in ("events", "duplicates")}
        now.processed = total["events"] - total["duplicates"]
        now.duplicates_dropped = total["duplicates"]
        now.lag_ms = max((s.lag_ms or 0 for s in status), default=0)
        now.in_lake = self.publisher.rows_published
        now.errors += [f"shard {s.shard_id}: {s.error}" for s in status if s.error and s.error not in now.errors]
        if now.errors:
            raise HeadwaterError(f"the demo failed: {now.errors[0]}")
        return now

    @property
    def streamed(self) -> bool:
        """Tell whether everything produced has been processed."""
        return self.progress.producing_done and self.progress.processed >= self.progress.produced

    def result(self) -> DemoResult:
        """Stop the services in order, publish the rest, and audit."""
        self.progress.stage = "committing"
        self._stop_processing.set()
        self._finish(self._threads[1])
        self.progress.stage = "publishing"
        self._stop_publishing.set()
        self._finish(self._threads[2])
        self.publisher.drain()
        finished_ms = self._clock.now_ms()
        self.poll()
        self.progress.stage = "auditing"
        report = run_audit(self.services.reader)
        rows, wrong = self._check_views()
        return DemoResult(
            produced=self.progress.produced,
            report=report,
            view_rows=rows,
            view_differences=tuple(wrong),
            duplicates_dropped=self.progress.duplicates_dropped,
            setup_seconds=(self._setup_ms - self._started_ms) / 1000,
            seconds=(finished_ms - self._setup_ms) / 1000,
        )

    def _finish(self, thread: Thread) -> None:
        """Wait for the last commit of a service that was told to stop: a run that has not ended has no verdict."""
        thread.join(_LAST_COMMIT_SECONDS)
        if thread.is_alive():
            raise HeadwaterError(
                f"the demo was still {self.progress.stage} after {_LAST_COMMIT_SECONDS:g} s, so nothing was audited; "
                "ask for fewer events or devices"
            )

    def _check_views(self) -> tuple[int, list[str]]:
        references = {
            reference.name: read_source(reference.source, reference.name, self.services.client)
            for reference in self._pipeline.references
        }
        frame = enriched(self._pipeline, pa.concat_tables(self._events).unify_dictionaries(), references)
        rows, wrong = 0, []
        for view in self._pipeline.views:
            stored = list(self.services.views.every(self.services.view_specs[view.name]))
            rows += len(stored)
            wrong += differences(view, batch_view(self._pipeline, view, frame), stored)
        return rows, wrong
