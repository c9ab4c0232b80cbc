"""Read every shard of a stream in one process: a thread a shard, parents before children."""

import logging
from collections.abc import Sequence
from threading import Event, Lock, Thread
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock
from headwater.config import Settings
from headwater.errors import Fenced, Retryable, UsageError
from headwater.ledger import ShardEntry
from headwater.memory import return_memory
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.ports import StreamClient
from headwater.processors.runners.pages import ReaderSettings
from headwater.processors.runners.shardreader import ReaderStatus, ShardReader
from headwater.processors.runners.upstream import StreamFacts, check_stream, claim_worker
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.worker import ShardWorker
from headwater.stream.shards import Shard, list_shards

__all__ = ["EmbeddedRunner", "is_held"]

LEASE_COMMITS = 3
"""An owner that has not committed for so many commit intervals is taken for gone."""
_LONGEST_LEASE_MS = 120_000
"""Bound what a lease grows to where commits take longer than one."""
_CHECK_MS = 60_000
"""Time between comparisons of the stream with the ledger while it is read."""
_LONGEST_PAUSE = 60.0

log = logging.getLogger("headwater.processor")


def is_held(entry: ShardEntry | None, owner: str, now_ms: int, lease_ms: int) -> bool:
    """Tell whether another owner has committed within the lease.

    It decides who works, never what is right: that is the fence's business.
    """
    return entry is not None and entry.owner != owner and now_ms - entry.updated_ms < lease_ms


class EmbeddedRunner:
    """Read all shards until stopped. An error of one shard restarts that shard from the ledger, and no other.

    A second process is a stand-by: it claims what it finds, and a runner that is fenced leaves the shard alone for as
    long as the other goes on committing. Where no commit of anybody comes in between, as one takes longer than a lease,
    the runner waits for twice as long each time: else two would take a shard from each other for ever.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        kinesis: Any,
        ports: Ports,
        settings: Settings,
        clock: Clock,
        owner: str,
        reader: ReaderSettings | None = None,
    ) -> None:
        self.pipeline = pipeline
        self._source = StreamClient(kinesis, settings.stream)
        self._ports = ports
        self._settings = settings
        self._clock = clock
        self._owner = owner
        self._reader = reader or ReaderSettings()
        self._threads: dict[str, Thread] = {}
        self._status: dict[str, ReaderStatus] = {}
        self._ended: set[str] = set()
        self._wait_until: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        """Failures in a row of each shard's reader, without a commit in between."""
        self._lost: dict[str, int] = {}
        """Count how often in a row each shard was lost to another owner, without a commit of anybody in between."""
        self._facts = StreamFacts()
        self._checked_ms = 0
        self._lock = Lock()

    def status(self) -> list[ReaderStatus]:
        """Return the status of each shard met so far, by id."""
        with self._lock:
            return [self._status[shard_id] for shard_id in sorted(self._status)]

    def run(self, stop: Event, discover_seconds: float = 2.0) -> None:
        """Read every shard, old ones first, until stopped; then every shard is committed.

        Raises the error of the first listing (no such stream, no access); later ones are tried again. Raises UsageError
        when the ledger is of another stream, which may have been made while this ran.
        """
        try:
            self._discover(stop)
            while not stop.wait(discover_seconds):
                try:
                    self._discover(stop)
                except (ClientError, BotoCoreError, Retryable) as error:
                    log.warning("shards could not be listed", extra={"reason": str(error)})
        except UsageError:
            stop.set()
            raise
        finally:
            if stop.is_set():
                for thread in list(self._threads.values()):
                    thread.join()
                told = self.status()
                unfinished = [one.shard_id for one in told if one.state not in ("stopped", "ended")]
                log.info("stopped", extra={"shards": len(told), "unfinished": unfinished})

    def _discover(self, stop: Event) -> None:
        """List the shards and start what is ready, once it is certain that the ledger is of this stream."""
        now = self._clock.now_ms()
        if now - self._checked_ms >= _CHECK_MS or any(self._failures.values()):
            self._facts = check_stream(self._source, self._ports.ledger, self._clock)
            self._checked_ms = now
            return_memory()
        self._start_ready(list_shards(self._source.kinesis, self._source.stream), stop)

    def _start_ready(self, shards: Sequence[Shard], stop: Event) -> None:
        for shard in shards:
            if self._running(shard.shard_id) or self._has_ended(shard.shard_id):
                continue
            if not all(self._has_ended(parent) for parent in shard.parents):
                continue
            if self._wait_until.get(shard.shard_id, 0) > self._clock.now_ms():
                continue
            with self._lock:
                status = self._status.setdefault(shard.shard_id, ReaderStatus(shard.shard_id))
            if status.state == "fenced" and self._is_held(shard.shard_id):
                continue
            thread = Thread(
                target=self._guard, args=(shard.shard_id, shards, status, stop), name=shard.shard_id, daemon=True
            )
            self._threads[shard.shard_id] = thread
            thread.start()

    def _is_held(self, shard_id: str) -> bool:
        entry = self._ports.ledger.shard(shard_id)
        if entry is not None and entry.position > self._status[shard_id].committed:
            self._lost[shard_id] = 0
        return is_held(entry, self._owner, self._clock.now_ms(), self._lease_ms(shard_id))

    def _lease_ms(self, shard_id: str) -> int:
        usual = round(1000 * LEASE_COMMITS * self._settings.commit_seconds)
        return max(usual, min(_LONGEST_LEASE_MS, usual << min(self._lost.get(shard_id, 0), 20)))

    def _running(self, shard_id: str) -> bool:
        thread = self._threads.get(shard_id)
        return thread is not None and thread.is_alive()

    def _has_ended(self, shard_id: str) -> bool:
        if shard_id not in self._ended:
            entry = self._ports.ledger.shard(shard_id)
            if entry is None or not entry.closed:
                return False
            self._ended.add(shard_id)
        return True

    def _guard(self, shard_id: str, shards: Sequence[Shard], status: ReaderStatus, stop: Event) -> None:
        """Run a reader from claim to end; afterwards the main loop decides whether to start another."""
        context = WorkerContext(self.pipeline, self._ports, self._settings, self._clock, self._owner)
        before = status.committed
        try:
            worker = claim_worker(ShardWorker, context, shard_id, shards)
            before = status.committed = worker.entry.position
            reader = ShardReader(
                self._source.kinesis,
                self._source.stream,
                worker,
                self._clock,
                self._reader,
                status,
                retention=lambda: self._facts.retention_ms,
            )
            reader.run(stop)
            status.error = None
            self._failures[shard_id] = 0
        except Fenced as error:
            status.state, status.error = "fenced", str(error)
            self._lost[shard_id] = 0 if status.committed > before else self._lost.get(shard_id, 0) + 1
            # The other owner is alive: leave it the shard for as long as it may take to commit a few times.
            self._wait_until[shard_id] = self._clock.now_ms() + self._lease_ms(shard_id)
            log.warning("fenced", extra={"shard": shard_id, "reason": str(error)})
        except Exception as error:  # anything else: the shard starts again from its last commit
            status.state, status.error = "restarting", f"{type(error).__name__}: {error}"
            status.restarts += 1
            # A reader that has committed has been well: its next failure is the first of a new row.
            failures = 1 if status.committed > before else self._failures.get(shard_id, 0) + 1
            self._failures[shard_id] = failures
            pause = min(_LONGEST_PAUSE, self._reader.backoff_seconds * 2 ** min(failures, 6))
            self._wait_until[shard_id] = self._clock.now_ms() + round(1000 * pause)
            log.exception("shard restarts from its last commit", extra={"shard": shard_id, "pause_s": pause})
