"""Carry out the engine's effects for one shard, in the order that makes a crash harmless.

A commit, step by step: data files and dead letters to S3, views to DynamoDB, a large state to S3; then the one
conditional write to the ledger. A crash before that write leaves files that nothing names and views that a replay
writes again; a crash after it loses nothing.

The order of these steps belongs here. What a record means is the engine's business; reading records is a runner's.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import Self

from botocore.exceptions import BotoCoreError, ClientError

from headwater.errors import CommitUnknown, Fenced, HeadwaterError, Retryable
from headwater.ledger import Commit, PendingFile
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.bounds import MAX_PENDING_BYTES, pending_bytes
from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.engine.isolation import take_in_isolated
from headwater.processors.generations import DOCUMENT, keeping
from headwater.processors.operators.aggregate import ALWAYS, Partial
from headwater.processors.scaling.heat import sample_of
from headwater.processors.scaling.readings import heat_document
from headwater.processors.scaling.tracker import HeatTracker
from headwater.processors.shard.claiming import ClaimedShard, begin_views, claim_shard, reload_shard, views_to_begin
from headwater.processors.shard.context import WorkerContext
from headwater.processors.shard.flushes import FlushJournal
from headwater.processors.shard.letters import GatheredLetters
from headwater.processors.shard.outgoing import Outgoing
from headwater.processors.shard.slots import emptied, upsert
from headwater.processors.shard.snapshots import StateStore, entry_bytes
from headwater.processors.shard.traces import Traces
from headwater.sinks.lake.buffer import LakeBuffer, LakeFile
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

__all__ = ["Rewound", "ShardWorker"]

log = logging.getLogger("headwater.processor")

_NOT_OF_THE_RECORD = (HeadwaterError, ClientError, BotoCoreError, OSError)
"""Errors that come from outside, such as those of a reference table's store: they say nothing about the record."""


class Rewound(HeadwaterError):
    """Say that the worker is back at its last commit: read again after its position."""


class ShardWorker:
    """Own one shard from its claim on. Not thread-safe: one runner thread drives it.

    `position` is the sequence number, padded, of the last record taken in; `entry` is the ledger's entry after the
    last commit. After an error other than Retryable drop the worker: a new claim starts from the ledger.
    """

    def __init__(self, context: WorkerContext, shard: ClaimedShard) -> None:
        self.context = context
        self.pipeline = context.pipeline
        self.shard_id = shard.shard_id
        self.heat = HeatTracker(*shard.hash_range) if shard.hash_range else HeatTracker()
        self.lag_ms: int | None = None
        """Lag of the last records behind the tip of the shard; the runner sets it."""
        self._ports, self._settings, self._clock = context.ports, context.settings, context.clock
        self._has_range = shard.hash_range is not None
        self._heat_rev: int | None = None
        self._states = StateStore(context.pipeline, context.ports.objects)
        self._stale_key: str | None = None
        self._swept = False  # of what earlier owners have left on S3
        self._traces = Traces(shard.shard_id, context.clock)
        place, ports = (context.pipeline.name, shard.shard_id), context.ports
        self._journal: FlushJournal | None = None
        if context.pipeline.pure and context.pipeline.views:  # else no slot is flushed ahead of its commit
            self._journal = FlushJournal(ports.ledger, ports.objects, place, shard.entry.epoch, shard.entry.position)
        self._pause_ms = 0  # between flushes records are read for as long as the last one took
        self._carried = True
        """True while slots that wait for a flush may hold what is committed: nobody reads that again."""
        self._outgoing = Outgoing(context, shard.shard_id, shard.entry.epoch) if context.pipeline.streams else None
        self._suspects: tuple[str, str] | None = None
        """The first and last record of a call that the engine failed on."""
        self._start_from(shard)
        log.info("shard claimed", extra={"shard": self.shard_id, "epoch": self.entry.epoch, "after": self.position})

    def _start_from(self, shard: ClaimedShard) -> None:
        """Begin at a commit, with nothing taken in since."""
        self._shard, self.entry, self.position = shard, shard.entry, shard.entry.position
        ports = self.context.ports
        self.engine = Engine(
            self.pipeline, shard.shard_id, shard.state, ports.references, shard.hash_range, ports.check_control
        )
        self._unsaved = shard.changed
        self._buffer = LakeBuffer(self.pipeline.lake_schema, self.pipeline.lake_partitioning)
        self._buffer.number_columns(ports.lake_columns())
        self._sealed: deque[LakeFile] = deque()
        self._written: list[PendingFile] = []
        self._letters = GatheredLetters(shard.shard_id, self._clock)
        self._committed_ms = self._flushed_ms = self._looked_ms = self._clock.now_ms()
        self._commit_failed = False

    @classmethod
    def claim(
        cls,
        context: WorkerContext,
        shard_id: str,
        parents: Sequence[str] = (),
        hash_range: tuple[int, int] | None = None,
    ) -> Self:
        """Take the shard over and return its worker, which resumes after `position`.

        A shard met for the first time starts from the final states of its parents. Raises Retryable while these are
        not closed in the ledger. `hash_range` is the shard's first and last hash key, for the measurement of its heat.
        """
        return cls(context, claim_shard(context, shard_id, parents, hash_range))

    @property
    def is_saved(self) -> bool:
        """Return True when everything that was taken in or counted is committed."""
        return self.position == self.entry.position and not self._unsaved

    def count(self, name: str) -> None:
        """Count what happened to the shard beside its records; the next commit saves it even if nothing was read."""
        self.engine.state.count(name)
        self._unsaved = True

    def process(self, records: Sequence[StreamRecord]) -> None:
        """Take in the next records. Those at or below the position (a replay) are skipped.

        Commits in between when the records make more dead letters than one commit may have, and first of all when the
        last commit failed: else each attempt would name more files. Raises Retryable when that is not possible now:
        give the same records again. Raises Rewound when the engine failed on one of them: read again from the position.
        """
        if self._commit_failed:
            self.commit()
        fresh = [record for record in records if sequence.pad(record.sequence_number) > self.position]
        while fresh:
            for effects in self._take_in(fresh):
                self._collect(effects, fresh[: effects.taken])
                fresh = fresh[effects.taken :]
            if fresh or self._letters.are_enough:
                self.commit()

    def _take_in(self, records: list[StreamRecord]) -> list[Effects]:
        """Run the engine over the records, or over the first of them where they need more care."""
        try:
            if self._suspects is None:
                return [self.engine.process(records)]
            first, last = self._suspects
            before = [record for record in records if sequence.pad(record.sequence_number) < first]
            if before:
                return [self.engine.process(before)]
            suspects = [record for record in records if sequence.pad(record.sequence_number) <= last]
            if suspects:
                return take_in_isolated(self.engine, suspects, _NOT_OF_THE_RECORD)
            self._suspects = None
            return [self.engine.process(records)]
        # what the state has of these records by now is unknown: they are never given to it again
        except _NOT_OF_THE_RECORD as error:
            raise self._unusable(error) from error
        except Exception as error:
            self._suspects = sequence.pad(records[0].sequence_number), sequence.pad(records[-1].sequence_number)
            log.exception("the engine failed; the shard goes back to its last commit", extra={"shard": self.shard_id})
            try:
                self._start_from(reload_shard(self.context, self._shard))
                if self._outgoing is not None:
                    self._outgoing.rewound()
            except Exception as failed:
                raise self._unusable(failed) from failed
            raise Rewound(f"shard {self.shard_id}: read again after {self.position}") from error

    def _unusable(self, error: Exception) -> HeadwaterError:
        """Return an error that no caller takes for a passing one: the worker has to be dropped."""
        return HeadwaterError(f"shard {self.shard_id}, after {self.position}: {type(error).__name__}: {error}")

    def _collect(self, effects: Effects, records: list[StreamRecord]) -> None:
        for table in effects.lake:
            if table.num_rows:
                self._buffer.append(table)
        self._letters.add(effects.letters)
        self._traces.add(effects.traces)
        if self._outgoing is not None:
            self._outgoing.add(effects.streams, records, effects.traces)
        self.heat.observe(records, effects.keys, self._has_range)
        self.heat.refused(effects.refused)
        if effects.forged:
            log.warning("control records are forged", extra={"shard": self.shard_id, "records": effects.forged})
        if records:
            self.position = sequence.pad(records[-1].sequence_number)

    def tick(self) -> None:
        """Flush views and commit when they are due. Call it often.

        What is new is due as soon as the last flush or commit that had something to write is old enough: an event that
        comes after a pause waits for nothing. Where nothing is new, it is seen at intervals whether a view is to begin.
        """
        now, settings = self._clock.now_ms(), self._settings
        if self._outgoing is not None:
            self._outgoing.tick(self.position)
        before = self._looked_ms if self.is_saved else self._committed_ms
        due = now - before >= max(settings.commit_seconds * 1000, self._pause_ms)
        if due or self._buffer.approx_bytes >= settings.commit_mb * 1_000_000:
            self.commit()
        elif (
            self.pipeline.pure
            and now - self._flushed_ms >= max(settings.view_flush_seconds * 1000, self._pause_ms)
            and any(view.is_dirty for view in self.engine.state.views.values())
        ):
            self._flush_views()

    def commit(self, *, closed: bool = False) -> bool:
        """Make everything up to the position final; return False when there was nothing to do.

        Raises Fenced when another owner has the shard: drop this worker. Raises Retryable when it could not be
        decided now; nothing in memory has changed, call again.
        """
        if closed and not self.pipeline.pure:
            self.commit()  # with the views, which come after it: nobody claims a closed shard to write them
        now = self._clock.now_ms()
        state = self.engine.state
        document, _ = self._ports.ledger.document(DOCUMENT)
        kept = keeping(self.pipeline, document)
        changed = self._let_views_go(kept) | self._unsaved | bool(views_to_begin(self.pipeline, state, kept, document))
        if self.position == self.entry.position and not closed and not changed:
            if not self.pipeline.pure:
                self._flush_views()  # left over when the views failed after a commit
            self._looked_ms = now
            return False
        self._commit_failed = True
        self._check_room()
        files = self._write_files()
        self._letters.write(self._ports.letters, self.pipeline.name)
        if self.pipeline.pure:
            self._flush_and_evict()
        if self._outgoing is not None:
            self._outgoing.before_commit(self.position, closed=closed)
        begun = begin_views(self.pipeline, self.position, state, kept, document)
        try:
            self._write_commit(files, now, closed=closed)
        except Exception:
            # begun by no commit: the rows up to here may yet go into a file that is named after a later position
            for name in begun:
                del state.views[name], state.begun[name]
            raise
        self._unsaved = False
        self._commit_failed = False
        if self._journal is not None:
            self._journal.committed(self.position)
        self._traces.committed(self.position, [file.uri for file in files])
        self._written = []
        self._letters.committed()
        self._committed_ms = self._looked_ms = self._clock.now_ms()
        if not self.pipeline.pure:
            self._flush_and_evict()
        self._record_heat()
        return True

    def _let_views_go(self, kept: Pipeline) -> bool:
        """Forget the views that no longer serve, or were given up; return True when there are some."""
        state = self.engine.state
        gone = set(state.views) - {view.name for view in kept.views}
        for name in gone:
            del state.views[name]
            state.begun.pop(name, None)
        return bool(gone)

    def _write_commit(self, files: list[PendingFile], now: int, *, closed: bool) -> None:
        state = self.engine.state
        pending = entry_bytes([*self.entry.pending, *files])
        body, key = self._states.store(self.entry, self.position, state.dumps(), inline=pending <= MAX_PENDING_BYTES)
        change = Commit(
            position=self.position,
            state=body,
            state_key=key,
            files=files,
            counts=state.counts,
            watermark_ms=None if state.max_ts == ALWAYS else state.max_ts - self.pipeline.lateness_ms,
            closed=closed,
            now_ms=now,
        )
        self._commit(change)
        done = {"shard": self.shard_id, "position": self.position, "events": state.counts.get("events", 0)}
        log.info("committed", extra=done | {"files": len(files), "lag_ms": self.lag_ms, "closed": closed})

    def _record_heat(self) -> None:
        """Write the measured heat to the ledger, for the autoscaler. Nothing depends on it, so failures pass."""
        name = heat_document(self.shard_id)
        try:
            if self._heat_rev is None:
                self._heat_rev = self._ports.ledger.document(name)[1]
            lag = {} if self.lag_ms is None else {self.pipeline.name: self.lag_ms}
            sample = sample_of(self.shard_id, self.heat, lag)
            self._heat_rev = self._ports.ledger.put_document(name, {"sample": sample.to_json()}, self._heat_rev)
        except (HeadwaterError, BotoCoreError, ClientError) as error:
            self._heat_rev = None
            log.info("the shard's heat was not recorded", extra={"shard": self.shard_id, "reason": str(error)})

    def _check_room(self) -> None:
        """Raise Retryable while the ledger item has no room for more pending files: the publisher takes them out."""
        files = len(self._written) + len(self._sealed) + (self._buffer.most_files if self._buffer.rows else 0)
        more = files * max((pending_bytes(one.table, one.uri) for one in self.entry.pending), default=0)
        if not self._has_room(more):
            fresh = self._ports.ledger.shard(self.shard_id)
            if fresh is not None and fresh.epoch == self.entry.epoch:
                self.entry = fresh
        if not self._has_room(more):
            raise Retryable(
                f"shard {self.shard_id}: {len(self.entry.pending)} files wait for the publisher; is one running?"
            )

    def _has_room(self, more: int) -> bool:
        waiting = entry_bytes(self.entry.pending)
        return not waiting or waiting + more <= MAX_PENDING_BYTES

    def _write_files(self) -> list[PendingFile]:
        """Write the buffer's files to S3. Whatever fails, sealed files stay here until the commit names them."""
        table = self.pipeline.lake_to.table
        base = f"lake/{table}/data/{self.shard_id}/{self.entry.epoch:08d}-{self.entry.position}-{self.position}"
        self._sealed.extend(self._buffer.seal())
        self._buffer.number_columns(self._ports.lake_columns())
        while self._sealed:
            file = self._sealed[0]
            uri = self._ports.objects.put(f"{base}-{len(self._written):04d}.parquet", file.body)
            self._written.append(PendingFile(table, uri, file.rows, len(file.body)))
            self._sealed.popleft()
        return self._written

    def _commit(self, change: Commit) -> None:
        old = self.entry.state_key
        for _ in range(5):
            try:
                self.entry = self._ports.ledger.commit(self.entry, change)
                break
            except CommitUnknown:
                self._clock.sleep(0.5)
        else:
            raise CommitUnknown(f"shard {self.shard_id}: the ledger does not answer")
        # the snapshot before the last one is deleted, not the last: an audit may have read the entry that names it
        if self._stale_key and self._stale_key != old:
            self._ports.objects.delete(self._stale_key)
        self._stale_key = old
        if not self._swept and (old or self.entry.state_key):
            self._sweep(old)

    def _sweep(self, stale: str | None) -> None:
        """Delete what earlier owners have left on S3. Nothing depends on it, so failures pass until the next owner."""
        self._swept = True
        try:
            self._states.sweep(self.entry, stale, self._journal.key if self._journal else None)
        except _NOT_OF_THE_RECORD as error:
            log.info("old states were not deleted", extra={"shard": self.shard_id, "reason": str(error)})

    def _flush_and_evict(self) -> None:
        self._flush_views()
        for view in self.engine.state.views.values():
            view.evict(self.engine.state.max_ts)

    def _flush_views(self) -> None:
        views, began_ms = self.engine.state.views, self._clock.now_ms()
        if self._carried and any(view.is_dirty for view in views.values()):
            self._check_owner()
        self._write_views({name: view.dirty() for name, view in views.items()})
        self._carried = not self.pipeline.pure or any(view.is_dirty for view in views.values())
        self._flushed_ms = self._clock.now_ms()
        # an owner that does not commit for three intervals is taken for gone
        self._pause_ms = min(self._flushed_ms - began_ms, round(2000 * self.context.settings.commit_seconds))

    def _check_owner(self) -> None:
        """Raise Fenced when another has claimed the shard: what it has forgotten must not come back."""
        found = self._ports.ledger.shard(self.shard_id)
        if found is None or found.epoch != self.entry.epoch:
            raise Fenced(f"shard {self.shard_id} of pipeline {self.pipeline.name}: another owner has taken it")

    def _write_views(self, dirty: dict[str, list[Partial]]) -> None:
        epoch, views = self.entry.epoch, self.engine.state.views
        if self._journal is not None:
            self._journal.note({name: views[name].fresh() for name in dirty}, self.position)
        for name, partials in dirty.items():
            view = views[name]
            view.noted()
            slots = [upsert(one, f"{self.shard_id}/{one.bucket}", epoch, self.position) for one in partials]
            report = self._ports.views.write(view.view.spec, slots) if slots else None
            if report is None or not report.behind:
                view.clean()
            # else the last owner had flushed records that we have yet to take in: what it wrote may come of other
            # functions than ours, so all slots stay dirty until ours are in
            if self._journal is not None:
                self._journal.wrote(name, (one.slot for one in partials))
                self._empty_orphans(self._journal, name)

    def _empty_orphans(self, journal: FlushJournal, name: str) -> None:
        """Empty the slots that an earlier owner flushed of records which we have taken in by now, and did not make."""
        spec = self.engine.state.views[name].view.spec
        found = journal.orphans(name, self.position)
        if found:
            slots = [emptied(one, spec.aggregates, self.shard_id, self.entry.epoch, self.position) for one in found]
            if not self._ports.views.write(spec, slots).behind:
                journal.wrote(name, found)
