"""Drive one shard under the Kinesis Client Library: translate the KCL's calls into those of a ShardWorker.

No KCL in here: the adapter to `amazon_kclpy` is `processor.py`. The order is always ledger first, checkpoint second;
the checkpoint never runs ahead of a commit, so a crash anywhere is a replay that the ledger cuts short.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from headwater.errors import Fenced, Retryable
from headwater.processors.ports import StreamClient
from headwater.processors.runners.kcl.gap import Gap, GapReader, plan_resume
from headwater.processors.runners.passing import pauses, repeat
from headwater.processors.runners.retention import RetentionWatch
from headwater.processors.runners.tipnotes import TipNotes
from headwater.processors.runners.upstream import check_stream, claim_worker
from headwater.processors.shard.context import WorkerContext
from headwater.processors.shard.worker import Rewound, ShardWorker
from headwater.stream import sequence
from headwater.stream.record import StreamRecord
from headwater.stream.shards import list_shards

__all__ = ["Checkpoint", "KclShard"]

log = logging.getLogger("headwater.kcl")
status_log = logging.getLogger("headwater.kcl.status")

Checkpoint = Callable[[str | None], bool]
"""Writes a checkpoint at a sequence number, or at a shard's end for None; returns False when the KCL refuses it."""

_ATTEMPTS = 10
_STATUS_MS = 2000


class KclShard:
    """Process one shard, from its claim to `ended`, `requested` or `lost`.

    Call `resume` before the first records. Not thread-safe: the KCL makes one call at a time. Errors that leave a
    method mean that the process must end: the KCL then gives the shard to a new one, which starts from the ledger.
    """

    def __init__(
        self,
        source: StreamClient,
        worker: ShardWorker,
        first_hash_key: int | None = None,
        retention_ms: int | None = None,
    ) -> None:
        context = worker.context
        self.worker, self.shard_id = worker, worker.shard_id
        self.first_hash_key = first_hash_key
        """The shard's own, where the stream lists it."""
        self._source, self._settings, self._clock = source, context.settings, context.clock
        self._gaps = GapReader(source.kinesis, source.stream, worker.shard_id, context.clock)
        self._watch = RetentionWatch(worker, source, lambda: retention_ms)
        self._notes = TipNotes(context.ports.ledger, worker.shard_id, context.clock)
        self._state = "starting"
        self._fenced_ms: int | None = None
        self._delivered = self._checkpointed = sequence.NONE
        self._lag_ms: int | None = None
        self._reported_ms = 0
        self._open_gap = self._pin = False

    @classmethod
    def claim(cls, context: WorkerContext, source: StreamClient, shard_id: str) -> "KclShard":
        """Take the shard once its parents are closed; the wait is bounded, so that the KCL can try elsewhere.

        Raises Retryable when the parents are not closed by then, and UsageError when the ledger is of another stream.
        """
        facts = check_stream(source, context.ports.ledger, context.clock)
        shards = list_shards(source.kinesis, source.stream)
        mine = next((shard for shard in shards if shard.shard_id == shard_id), None)
        deadline = context.clock.now_ms() + round(context.settings.kcl.parents_seconds * 1000)
        while True:
            try:
                worker = claim_worker(ShardWorker, context, shard_id, shards)
            except Retryable as error:
                if context.clock.now_ms() >= deadline:
                    raise
                log.info("waiting", extra={"reason": str(error)})
                context.clock.sleep(1.0)
            else:
                return cls(source, worker, mine.start if mine else None, facts.retention_ms)

    @property
    def epoch(self) -> int:
        """Return the epoch under which this process owns the shard, for logs."""
        return self.worker.entry.epoch

    def resume(self, checkpoint: str | None) -> None:
        """Read what lies between the ledger's position and the KCL's checkpoint, a sequence number or a name."""
        plan = plan_resume(self.worker.position, checkpoint, adopt=self._settings.kcl.adopt_checkpoints)
        self._open_gap, self._pin = plan.open_gap, plan.pin
        if plan.adopt:
            log.warning("position adopted from the lease table", extra={"position": plan.adopt})
            self.worker.position = plan.adopt
            self._do_or_fence(self.worker.commit)
        elif plan.until:
            log.warning(
                "the checkpoint is ahead of the ledger: reading the gap from the stream",
                extra={"after": self.worker.position, "until": plan.until},
            )
            self._fill(Gap(self.worker.position, plan.until))
        elif plan.open_gap:
            self._fill(Gap(self.worker.position))
        self._state = "reading" if self._fenced_ms is None else "fenced"
        self._report_status(force=True)

    def process(self, records: Sequence[StreamRecord], lag_ms: int | None, checkpoint: Checkpoint) -> None:
        """Process records, if there are any, flush and commit what is due, then checkpoint what is committed."""
        self._lag_ms = self.worker.lag_ms = lag_ms
        if self._fenced_ms is not None:
            self._await_loss()
            return
        asked_ms = self._clock.now_ms()
        if records:
            if self._open_gap:
                self._open_gap = False
                self._fill(Gap(self.worker.position, sequence.pad(records[0].sequence_number), before=True))
            self._watch.observe(records, lag_ms, asked_ms)
            self._take_in(records)
            self._delivered = sequence.pad(records[-1].sequence_number)
        else:
            self._watch.observe((), lag_ms, asked_ms)
        pin, self._pin = self._pin and bool(records), self._pin and not records
        self._do_or_fence(self.worker.commit if pin else self.worker.tick)
        self._notes.observe(self.worker.position, lag_ms, saved=self.worker.is_saved)
        self._checkpoint(checkpoint)
        self._report_status()

    def ended(self, checkpoint: Checkpoint) -> None:
        """Commit the final state of an ended shard, then checkpoint its end, upon which the KCL starts the children."""
        if self._fenced_ms is None and self._open_gap:
            self._fill(Gap(self.worker.position))
        if self._fenced_ms is None and not (self.worker.entry.closed and self._idle()):
            self._do_or_fence(lambda: self.worker.commit(closed=True))
        if self._fenced_ms is not None:
            raise Fenced(f"{self._where()}: its end was not committed, another owner has it")
        self._state = "ended"
        self._report_status(force=True)
        checkpoint(None)

    def requested(self, checkpoint: Checkpoint) -> None:
        """Stop gracefully: commit, then checkpoint."""
        if self._fenced_ms is None:
            self._do_or_fence(self.worker.commit)
        if self._fenced_ms is None:
            self._checkpoint(checkpoint)
            self._state = "stopped"
        self._report_status(force=True)

    def lost(self) -> None:
        """Drop what is in memory and write nothing: the lease is another worker's."""
        self._state = "lost"
        log.info("lease lost; what was not committed is left to the new owner")
        self._report_status(force=True)

    def _idle(self) -> bool:
        return self.worker.position == self.worker.entry.position

    def _take_in(self, records: Sequence[StreamRecord]) -> None:
        """Give records to the worker; where it has gone back to its last commit, read again what lies between."""
        try:
            self._do_or_fence(lambda: self.worker.process(records))
        except Rewound:
            self._watch.rewind()
            self._fill(Gap(self.worker.position, sequence.pad(records[-1].sequence_number)))

    def _fill(self, gap: Gap) -> None:
        asked_ms = self._clock.now_ms()

        def take(records: Sequence[StreamRecord]) -> None:
            if self._fenced_ms is None:
                self._watch.observe(records, None, asked_ms)
                self._do_or_fence(lambda: self.worker.process(records))
                self._do_or_fence(self.worker.tick)

        try:
            count = self._gaps.read(gap, take)
        except Rewound:
            # the worker went back to its last commit: what lies between is read again
            self._watch.rewind()
            self._fill(replace(gap, position=self.worker.position))
            return
        if self._fenced_ms is None and count:
            self._do_or_fence(self.worker.commit)
        log.warning("gap read", extra={"records": count, "until": gap.until})

    def _do_or_fence(self, action: Callable[[], object]) -> None:
        """Do it, again while it fails in passing. Once fenced, this process is silent from then on."""
        try:
            where = f"{self._where()}, not committed after {self.worker.entry.position}"
            repeat(action, pauses(1.0, _ATTEMPTS - 1), self._clock, where)
        except Fenced as error:
            self._fenced_ms, self._state = self._clock.now_ms(), "fenced"
            log.warning("fenced: another owner has the shard", extra={"reason": str(error)})
            self._report_status(force=True)

    def _await_loss(self) -> None:
        """Wait for the KCL to take the lease away, which it does a moment after rebalancing has fenced the old owner.

        Ending at once would take the daemon and all its other shards along (MultiLangShardRecordProcessor.exit).
        """
        assert self._fenced_ms is not None
        waited = self._clock.now_ms() - self._fenced_ms
        if waited > 3000 * self._settings.kcl.failover_seconds:
            raise Fenced(
                f"{self._where()}: fenced for {waited / 1000:.0f} s and the lease is still ours; who else reads it?"
            )
        self._report_status()

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        """Checkpoint the committed position, though never beyond what the KCL has delivered: it refuses that."""
        if self._fenced_ms is not None:
            return
        at = min(self.worker.entry.position, self._delivered)
        if at > self._checkpointed and checkpoint(sequence.unpad(at)):
            self._checkpointed = at

    def _report_status(self, *, force: bool = False) -> None:
        """Log the status line that the supervisor's metrics are made of."""
        now = self._clock.now_ms()
        if not force and now - self._reported_ms < _STATUS_MS:
            return
        self._reported_ms = now
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
