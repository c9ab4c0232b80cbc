"""One shard under the Kinesis Client Library: what the KCL says, turned into what a ShardWorker does.

No KCL in here: the adapter to `amazon_kclpy` is `processors.runners.kcl`. The order is always ledger first, checkpoint
second; the checkpoint never runs ahead of a commit, so a crash anywhere is a replay that the ledger cuts short.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater import sequence
from headwater.clock import Clock
from headwater.config import Settings
from headwater.errors import Fenced, HeadwaterError, Retryable
from headwater.records import StreamRecord
from processors.pipeline import Pipeline
from processors.runners.embedded import list_shards
from processors.runners.kclgap import Gap, GapReader, resume
from processors.runners.shardreader import PASSING
from processors.worker import Ports, ShardWorker

__all__ = ["Checkpoint", "KclShard", "Source"]

log = logging.getLogger("headwater.kcl")
status_log = logging.getLogger("headwater.kcl.status")

Checkpoint = Callable[[str | None], bool]
"""Checkpoint at a sequence number, or at the end of an ended shard for None; False when the KCL did not take it."""

_ATTEMPTS = 10
_STATUS_MS = 2000


@dataclass(frozen=True)
class Source:
    """The stream as the worker itself reaches it: for parents and for gaps."""

    kinesis: Any
    stream: str


class KclShard:
    """From `initialize` to `ended`, `requested` or `lost`. Not thread-safe: the KCL calls one thing at a time.

    Errors that leave a method mean that the process must end: the KCL then gives the shard to a new one, which starts
    from the ledger.
    """

    def __init__(
        self, pipeline: Pipeline, source: Source, ports: Ports, settings: Settings, clock: Clock, owner: str
    ) -> None:
        self._pipeline = pipeline
        self._source = source
        self._ports = ports
        self._settings = settings
        self._clock = clock
        self._owner = owner
        self._state = "starting"
        self._fenced_ms: int | None = None
        self._delivered = self._checkpointed = sequence.NONE
        self._lag_ms: int | None = None
        self._said_ms = 0
        self._open_gap = self._pin = False

    @property
    def epoch(self) -> int:
        """The fence this process holds, for logs."""
        return self.worker.entry.epoch if hasattr(self, "worker") and hasattr(self.worker, "entry") else 0

    def initialize(self, shard_id: str, checkpoint: str | None) -> None:
        """Claim the shard and settle where the ledger and the KCL differ."""
        self.shard_id = shard_id
        self.worker = ShardWorker(self._pipeline, shard_id, self._ports, self._settings, self._clock, self._owner)
        self._gaps = GapReader(self._source.kinesis, self._source.stream, shard_id, self._clock)
        self._claim()
        plan = resume(self.worker.position, checkpoint, adopt=self._settings.kcl.adopt_checkpoints)
        self._open_gap, self._pin = plan.open_gap, plan.pin
        if plan.adopt:
            log.warning("position adopted from the lease table", extra={"position": plan.adopt})
            self.worker.position = plan.adopt
            self._guarded(self.worker.commit)
        elif plan.until:
            log.warning(
                "the checkpoint is ahead of the ledger: reading the gap from the stream",
                extra={"after": self.worker.position, "until": plan.until},
            )
            self._fill(Gap(self.worker.position, plan.until))
        elif plan.open_gap:
            self._fill(Gap(self.worker.position))
        self._state = "reading" if self._fenced_ms is None else "fenced"
        self._say(force=True)

    def process(self, records: Sequence[StreamRecord], lag_ms: int | None, checkpoint: Checkpoint) -> None:
        """Take records in, flush and commit what is due, then checkpoint what is committed. May be empty."""
        self._lag_ms = self.worker.lag_ms = lag_ms
        if self._fenced_ms is not None:
            self._await_loss()
            return
        if records:
            if self._open_gap:
                self._open_gap = False
                self._fill(Gap(self.worker.position, sequence.pad(records[0].sequence_number), before=True))
            self.worker.process(records)
            self._delivered = sequence.pad(records[-1].sequence_number)
        pin, self._pin = self._pin and bool(records), self._pin and not records
        self._guarded(self.worker.commit if pin else self.worker.tick)
        self._checkpoint(checkpoint)
        self._say()

    def ended(self, checkpoint: Checkpoint) -> None:
        """The shard's end was delivered: commit the final state, then tell the KCL, which starts the children."""
        if self._fenced_ms is None and self._open_gap:
            self._fill(Gap(self.worker.position))
        if self._fenced_ms is None and not (self.worker.entry.closed and self._idle()):
            self._guarded(lambda: self.worker.commit(closed=True))
        if self._fenced_ms is not None:
            raise Fenced(f"{self._where()}: its end was not committed, another owner has it")
        self._state = "ended"
        self._say(force=True)
        checkpoint(None)

    def requested(self, checkpoint: Checkpoint) -> None:
        """A graceful stop: commit, then checkpoint."""
        if self._fenced_ms is None:
            self._guarded(self.worker.commit)
        if self._fenced_ms is None:
            self._checkpoint(checkpoint)
            self._state = "stopped"
        self._say(force=True)

    def lost(self) -> None:
        """The lease is another worker's: nothing is written, what is in memory is dropped."""
        self._state = "lost"
        log.info("lease lost; what was not committed is left to the new owner")
        self._say(force=True)

    def _idle(self) -> bool:
        return self.worker.position == self.worker.entry.position

    def _claim(self) -> None:
        """Take the shard once its parents are closed; waiting is bounded, so that the KCL can try elsewhere."""
        shards = list_shards(self._source.kinesis, self._source.stream)
        mine = next((shard for shard in shards if shard.shard_id == self.shard_id), None)
        parents = mine.parents if mine else ()
        if mine:
            self.worker.covers(mine.start, mine.end)
        deadline = self._clock.now_ms() + round(self._settings.kcl.parents_seconds * 1000)
        while True:
            try:
                self.worker.claim(parents)
                return
            except Retryable as error:
                if self._clock.now_ms() >= deadline:
                    raise
                log.info("waiting", extra={"reason": str(error)})
                self._clock.sleep(1.0)

    def _fill(self, gap: Gap) -> None:
        def take(records: Sequence[StreamRecord]) -> None:
            if self._fenced_ms is None:
                self.worker.process(records)
                self._guarded(self.worker.tick)

        count = self._gaps.read(gap, take)
        if self._fenced_ms is None and count:
            self._guarded(self.worker.commit)
        log.warning("gap read", extra={"records": count, "until": gap.until})

    def _guarded(self, action: Callable[[], object]) -> None:
        """Do it; again when it fails in passing. Fenced: from now on this process is silent."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                action()
                return
            except Fenced as error:
                self._fenced_ms, self._state = self._clock.now_ms(), "fenced"
                log.warning("fenced: another owner has the shard", extra={"reason": str(error)})
                self._say(force=True)
                return
            except (Retryable, ClientError, BotoCoreError) as error:
                if isinstance(error, ClientError) and error.response["Error"]["Code"] not in PASSING:
                    raise
                log.warning("will try again", extra={"reason": f"{type(error).__name__}: {error}", "attempt": attempt})
                self._clock.sleep(min(10.0, 1.0 * attempt))
        raise HeadwaterError(f"{self._where()}: not committed after {self.worker.entry.position}, attempts used up")

    def _await_loss(self) -> None:
        """Rebalancing fences the old owner a moment before the KCL tells it so: be silent that long, then end.

        Ending at once would take the daemon and all its other shards along (MultiLangShardRecordProcessor.exit).
        """
        assert self._fenced_ms is not None
        waited = self._clock.now_ms() - self._fenced_ms
        if waited > 3000 * self._settings.kcl.failover_seconds:
            raise Fenced(
                f"{self._where()}: fenced for {waited / 1000:.0f} s and the lease is still ours; who else reads it?"
            )
        self._say()

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        """At the committed position, though never beyond what the KCL has delivered: it refuses that."""
        if self._fenced_ms is not None:
            return
        at = min(self.worker.entry.position, self._delivered)
        if at > self._checkpointed and checkpoint(sequence.unpad(at)):
            self._checkpointed = at

    def _say(self, *, force: bool = False) -> None:
        """The status line that the supervisor's metrics live on."""
        now = self._clock.now_ms()
        if not force and now - self._said_ms < _STATUS_MS:
            return
        self._said_ms = now
        worker = self.worker
        status_log.info(
            "status",
            extra={
                "state": self._state,
                "lag_ms": self._lag_ms,
                "position": worker.position,
                "committed": worker.entry.position,
                "checkpointed": self._checkpointed,
                "counts": dict(worker.engine.state.counts),
            },
        )

    def _where(self) -> str:
        return f"stream {self._source.stream}, shard {self.shard_id}"
