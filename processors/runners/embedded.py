"""Every shard of a stream in one process: a thread a shard, parents before children."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock
from headwater.config import Settings
from headwater.errors import Fenced, Retryable
from headwater.ledger import ShardEntry
from processors.pipeline import Pipeline
from processors.runners.shardreader import ReaderSettings, ReaderStatus, ShardReader
from processors.worker import Ports, ShardWorker

__all__ = ["EmbeddedRunner", "ShardInfo", "is_held", "list_shards"]

LEASE_COMMITS = 3
"""An owner that has not committed for so many commit intervals is taken for gone."""

log = logging.getLogger("headwater.processor")


@dataclass(frozen=True)
class ShardInfo:
    """A shard as listed; parents that the stream no longer holds are left out."""

    shard_id: str
    parents: tuple[str, ...]
    start: int
    end: int


def list_shards(kinesis: Any, stream: str) -> list[ShardInfo]:
    """Open and closed shards still within the retention, in the service's order."""
    found: list[dict[str, Any]] = []
    request: dict[str, Any] = {"StreamName": stream}
    while True:
        answer = kinesis.list_shards(**request)
        found += answer["Shards"]
        if not answer.get("NextToken"):
            break
        request = {"NextToken": answer["NextToken"]}
    known = {shard["ShardId"] for shard in found}
    return [
        ShardInfo(
            shard["ShardId"],
            tuple(shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if shard.get(name) in known),
            int(shard["HashKeyRange"]["StartingHashKey"]),
            int(shard["HashKeyRange"]["EndingHashKey"]),
        )
        for shard in found
    ]


def is_held(entry: ShardEntry | None, owner: str, now_ms: int, lease_ms: int) -> bool:
    """Whether another owner has committed within the lease. It says who works, never what is right: that is the
    fence's business."""
    return entry is not None and entry.owner != owner and now_ms - entry.updated_ms < lease_ms


class EmbeddedRunner:
    """`run` until `stop` is set. Errors of one shard restart that shard from the ledger and no other.

    A second process is a stand-by: it claims what it finds, and who is fenced leaves the shard alone for as long as the
    other goes on committing.
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
        self._kinesis = kinesis
        self._ports = ports
        self._settings = settings
        self._clock = clock
        self._owner = owner
        self._reader = reader or ReaderSettings()
        self._threads: dict[str, Thread] = {}
        self._status: dict[str, ReaderStatus] = {}
        self._ended: set[str] = set()
        self._wait_until: dict[str, int] = {}
        self._lock = Lock()

    def status(self) -> list[ReaderStatus]:
        """One a shard met so far, by id."""
        with self._lock:
            return [self._status[shard_id] for shard_id in sorted(self._status)]

    def run(self, stop: Event, discover_seconds: float = 2.0) -> None:
        """Read every shard, old ones first, until stopped; then every shard is committed.

        Raises the error of the first listing (no such stream, no access); later ones are tried again.
        """
        self._start_ready(list_shards(self._kinesis, self._settings.stream), stop)
        while not stop.wait(discover_seconds):
            try:
                self._start_ready(list_shards(self._kinesis, self._settings.stream), stop)
            except (ClientError, BotoCoreError, Retryable) as error:
                log.warning("shards could not be listed", extra={"reason": str(error)})
        for thread in list(self._threads.values()):
            thread.join()

    def _start_ready(self, shards: Sequence[ShardInfo], stop: Event) -> None:
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
            thread = Thread(target=self._guard, args=(shard, status, stop), name=shard.shard_id, daemon=True)
            self._threads[shard.shard_id] = thread
            thread.start()

    def _is_held(self, shard_id: str) -> bool:
        lease_ms = round(1000 * LEASE_COMMITS * self._settings.commit_seconds)
        return is_held(self._ports.ledger.shard(shard_id), self._owner, self._clock.now_ms(), lease_ms)

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

    def _guard(self, shard: ShardInfo, status: ReaderStatus, stop: Event) -> None:
        """A reader from claim to end; afterwards the main loop decides whether to start another."""
        worker = ShardWorker(self.pipeline, shard.shard_id, self._ports, self._settings, self._clock, self._owner)
        worker.covers(shard.start, shard.end)
        reader = ShardReader(self._kinesis, self._settings.stream, worker, self._clock, self._reader, status)
        try:
            reader.run(list(shard.parents), stop)
            status.error = None
        except Fenced as error:
            status.state, status.error = "fenced", str(error)
            # The other owner is alive: leave it the shard for as long as it may take to commit a few times.
            lease_ms = round(1000 * LEASE_COMMITS * self._settings.commit_seconds)
            self._wait_until[shard.shard_id] = self._clock.now_ms() + lease_ms
            log.warning("fenced", extra={"shard": shard.shard_id, "reason": str(error)})
        except Exception as error:  # anything else: the shard starts again from its last commit
            status.state, status.error = "restarting", f"{type(error).__name__}: {error}"
            status.restarts += 1
            pause = min(60.0, self._reader.backoff_seconds * 2 ** min(status.restarts, 6))
            self._wait_until[shard.shard_id] = self._clock.now_ms() + round(1000 * pause)
            log.exception("shard restarts from its last commit", extra={"shard": shard.shard_id, "pause_s": pause})
