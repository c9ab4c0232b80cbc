"""One shard from the stream to the sinks: the engine's effects carried out, in the order that makes a crash harmless.

A commit, step by step: data files and dead letters to S3, views to DynamoDB, a large state to S3; then the one
conditional write to the ledger. A crash before it leaves files that nothing names and views that a replay writes again;
a crash after it loses nothing.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from headwater import sequence
from headwater.clock import Clock
from headwater.config import Settings
from headwater.errors import CommitUnknown, HeadwaterError, Retryable
from headwater.ledger import Commit, PendingFile, ShardEntry
from headwater.records import StreamRecord
from processors.engine import Effects, Engine, LoadReference
from processors.generations import DOCUMENT, building, check_known, keeping
from processors.operators.aggregate import ALWAYS, Partial, ViewState
from processors.operators.heat import HeatTracker
from processors.pipeline import Pipeline, View
from processors.shards.edge import heat_document
from processors.shards.heat import sample_of
from processors.state import ShardState
from processors.traces import Traces
from sinks.deadletter import DeadLetter
from sinks.lake import LakeBuffer, LakeFile
from sinks.views import Upsert, ViewSpec

__all__ = ["INLINE_STATE", "Ports", "ShardWorker", "StateStore", "beginning", "unique_events", "upsert"]

INLINE_STATE = 64 * 1024
"""Snapshots up to this size live in the ledger item (a DynamoDB item holds 400 KB, pending files included)."""
MOST_PENDING = 1500
"""With more unpublished files than this (about 150 bytes each) a shard waits for the publisher before it commits."""

log = logging.getLogger("headwater.processor")


class _Ledger(Protocol):
    pipeline: str

    def shard(self, shard_id: str) -> ShardEntry | None: ...

    def claim(self, shard_id: str, owner: str, initial: bytes | None, now_ms: int) -> ShardEntry: ...

    def commit(self, entry: ShardEntry, change: Commit) -> ShardEntry: ...

    def document(self, name: str) -> tuple[dict[str, Any], int]: ...

    def put_document(self, name: str, doc: dict[str, Any], expected_rev: int) -> int: ...


class _Objects(Protocol):
    def put(self, key: str, body: bytes) -> str: ...

    def get(self, key: str) -> bytes: ...

    def delete(self, key: str) -> None: ...


class _Views(Protocol):
    def write(self, view: ViewSpec, upserts: Sequence[Upsert]) -> object: ...


class _Letters(Protocol):
    def write(self, pipeline: str, letters: Sequence[DeadLetter]) -> object: ...


@dataclass(frozen=True)
class Ports:
    """Where a worker's effects go."""

    ledger: _Ledger
    objects: _Objects
    views: _Views
    letters: _Letters
    references: LoadReference


class StateStore:
    """Snapshots: small ones in the ledger item, others in S3."""

    def __init__(self, pipeline: Pipeline, objects: _Objects) -> None:
        self._pipeline = pipeline
        self._objects = objects

    def load(self, entry: ShardEntry) -> ShardState:
        body = entry.state if entry.state is not None else None
        if entry.state_key:
            body = self._objects.get(entry.state_key)
        return ShardState.loads(self._pipeline, body) if body else ShardState(self._pipeline)

    def store(self, entry: ShardEntry, position: str, body: bytes) -> tuple[bytes | None, str | None]:
        if len(body) <= INLINE_STATE:
            return body, None
        key = f"state/{self._pipeline.name}/{entry.shard_id}/{entry.epoch:08d}-{position}.bin"
        self._objects.put(key, body)
        return None, key


class ShardWorker:
    """Owns one shard from `claim` to `close`. Not thread-safe: one runner thread drives it."""

    def __init__(
        self, pipeline: Pipeline, shard_id: str, ports: Ports, settings: Settings, clock: Clock, owner: str
    ) -> None:
        self.pipeline = pipeline
        self.shard_id = shard_id
        self._ports = ports
        self._settings = settings
        self._clock = clock
        self._owner = owner
        self._states = StateStore(pipeline, ports.objects)
        self._stale_key: str | None = None
        self.heat = HeatTracker()
        self._ranged = False
        self.lag_ms: int | None = None
        """How far behind the tip of the shard the last records were; the runner knows."""
        self._heat_rev: int | None = None
        self._traces = Traces(shard_id, clock)

    def covers(self, start: int, end: int) -> None:
        """Tell the shard's first and last hash key, where the runner knows them: for what is measured of its heat."""
        self.heat, self._ranged = HeatTracker(start, end), True

    def claim(self, parents: Sequence[str] = ()) -> str:
        """Take the shard over; returns the sequence number to read after, or `sequence.NONE` for its beginning.

        A shard met for the first time starts from its parents' final states, which must be closed.
        """
        initial = None
        if self._ports.ledger.shard(self.shard_id) is None:
            initial = self._inherited(parents).dumps()
            if len(initial) > INLINE_STATE:
                key = f"state/{self.pipeline.name}/{self.shard_id}/initial.bin"
                self._ports.objects.put(key, initial)
        now = self._clock.now_ms()
        small = initial if initial is None or len(initial) <= INLINE_STATE else None
        self.entry = self._ports.ledger.claim(self.shard_id, self._owner, small, now)
        self.position = self.entry.position
        state = self._taken_up(initial, parents)
        self.engine = Engine(self.pipeline, self.shard_id, state, self._ports.references)
        self._buffer = LakeBuffer(self.pipeline.lake_schema, self.pipeline.lake_partitioning)
        self._sealed: deque[LakeFile] = deque()
        self._written: list[PendingFile] = []
        self._letters: list[DeadLetter] = []
        self._committed_ms = self._flushed_ms = now
        log.info("shard claimed", extra={"shard": self.shard_id, "epoch": self.entry.epoch, "after": self.position})
        return self.position

    def _taken_up(self, initial: bytes | None, parents: Sequence[str]) -> ShardState:
        """The state of the shard that was claimed, every view to be written anew."""
        fresh = self.position == sequence.NONE and not self.entry.state and not self.entry.state_key
        # read after the claim: a generation that is begun later than this finds the shard in the ledger
        document, _ = self._ports.ledger.document(DOCUMENT)
        kept = keeping(self.pipeline, document)
        state = StateStore(kept, self._ports.objects).load(self.entry)
        if fresh:
            state = ShardState.loads(kept, initial or self._inherited(parents).dumps())
        unread = self.position == sequence.NONE
        check_known(self.pipeline, document, state, self.shard_id, unread=unread)
        self._to_save = unread and bool(self._begin(state, kept, document))
        for unbegun in self._to_begin(state, kept, document):
            # by a commit: views flushed ahead of one would have what another owner, by another deployment, may commit
            # without the generation, and what is before its beginning is counted elsewhere
            del state.views[unbegun.name]
        first, _ = self._ports.ledger.document("references")
        state.refer(self.pipeline, first)
        for view in state.views.values():
            view.mark_all()
        return state

    def _inherited(self, parents: Sequence[str]) -> ShardState:
        entries = [entry for entry in map(self._ports.ledger.shard, parents) if entry is not None]
        if not entries:
            return ShardState(self.pipeline)
        if not all(entry.closed for entry in entries):
            raise Retryable(f"shard {self.shard_id}: its parents {list(parents)} are not read to their end yet")
        states = [self._states.load(entry) for entry in entries]
        return states[0].child(self.pipeline, states[1] if len(states) > 1 else None)

    def process(self, records: Sequence[StreamRecord]) -> None:
        """Take in the next records. Those at or below the position (a replay) are skipped."""
        fresh = [record for record in records if sequence.pad(record.sequence_number) > self.position]
        if not fresh:
            return
        effects: Effects = self.engine.process(fresh)
        for table in effects.lake:
            if table.num_rows:
                self._buffer.append(table)
        self._letters.extend(effects.letters)
        self._traces.add(effects.traces)
        self.heat.observe(fresh, effects.keys, self._ranged)
        self.heat.refused(effects.refused)
        self.position = sequence.pad(fresh[-1].sequence_number)

    def tick(self) -> None:
        """Flush views and commit when they are due. Call it often."""
        now = self._clock.now_ms()
        if self._buffer.approx_bytes >= self._settings.commit_mb * 1_000_000 or (
            now - self._committed_ms >= self._settings.commit_seconds * 1000
        ):
            self.commit()
        elif self.pipeline.pure and now - self._flushed_ms >= self._settings.view_flush_seconds * 1000:
            self._flush_views()

    def commit(self, *, closed: bool = False) -> bool:
        """Make everything up to the position final; False when there was nothing to do.

        Raises Fenced when another owner has the shard: drop this worker. Raises Retryable when it could not be
        decided now; nothing in memory has changed, call again.
        """
        now = self._clock.now_ms()
        state = self.engine.state
        document, _ = self._ports.ledger.document(DOCUMENT)
        kept = keeping(self.pipeline, document)
        changed = self._to_save or bool(self._to_begin(state, kept, document))
        for name in set(state.views) - {view.name for view in kept.views}:  # another serves by now, or it was given up
            del state.views[name]
            state.begun.pop(name, None)
            changed = True
        if self.position == self.entry.position and not closed and not changed:
            if not self.pipeline.pure:
                self._flush_views()  # left over when the views failed after a commit
            self._committed_ms = now
            return False
        if len(self.entry.pending) > MOST_PENDING:
            self._wait_for_publisher()
        files = self._write_files()
        if self._letters:
            self._ports.letters.write(self.pipeline.name, self._letters)
        if self.pipeline.pure:
            self._flush_views()
            for view in state.views.values():
                view.evict(state.max_ts)
        begun = self._begin(state, kept, document)
        try:
            self._write_commit(files, now, closed=closed)
        except Exception:
            # begun by no commit: the rows up to here may yet go into a file that is named after a later position
            for name in begun:
                del state.views[name], state.begun[name]
            raise
        self._to_save = False
        self._traces.committed(self.position, [file.uri for file in files])
        self._written = []
        self._letters = []
        self._committed_ms = self._clock.now_ms()
        if not self.pipeline.pure:
            self._flush_views()
            for view in state.views.values():
                view.evict(state.max_ts)
        self._tell_heat()
        return True

    def _begin(self, state: ShardState, kept: Pipeline, document: Mapping[str, Any]) -> list[str]:
        """Begin what is to be built of views and is not yet kept on this shard, at the position; their names."""
        views = self._to_begin(state, kept, document)
        for view in views:
            state.views[view.name] = ViewState(view, self.pipeline.lateness_ms)
            state.begun[view.name] = beginning(self.position, state.counts)
        return [view.name for view in views]

    def _to_begin(self, state: ShardState, kept: Pipeline, document: Mapping[str, Any]) -> list[View]:
        wanted = building(self.pipeline, document)
        return [view for view in kept.views if view.name in wanted and view.name not in state.begun]

    def _write_commit(self, files: list[PendingFile], now: int, *, closed: bool) -> None:
        state = self.engine.state
        body, key = self._states.store(self.entry, self.position, state.dumps())
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

    def _tell_heat(self) -> None:
        """Leave what was measured in the ledger, for who scales shards. Nothing depends on it, so failures pass."""
        name = heat_document(self.shard_id)
        try:
            if self._heat_rev is None:
                self._heat_rev = self._ports.ledger.document(name)[1]
            lag = {} if self.lag_ms is None else {self.pipeline.name: self.lag_ms}
            sample = sample_of(self.shard_id, self.heat, lag)
            self._heat_rev = self._ports.ledger.put_document(name, {"sample": sample.to_json()}, self._heat_rev)
        except (HeadwaterError, BotoCoreError, ClientError) as error:
            self._heat_rev = None
            log.info("the shard's heat was not told", extra={"shard": self.shard_id, "reason": str(error)})

    def _wait_for_publisher(self) -> None:
        fresh = self._ports.ledger.shard(self.shard_id)
        if fresh is not None and fresh.epoch == self.entry.epoch:
            self.entry = fresh
        if len(self.entry.pending) > MOST_PENDING:
            raise Retryable(
                f"shard {self.shard_id}: {len(self.entry.pending)} files wait for the publisher; is one running?"
            )

    def _write_files(self) -> list[PendingFile]:
        """The buffer's files on S3. Whatever fails, sealed files stay here until the commit names them."""
        table = self.pipeline.lake_to.table
        base = f"lake/{table}/data/{self.shard_id}/{self.entry.epoch:08d}-{self.entry.position}-{self.position}"
        self._sealed.extend(self._buffer.seal())
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
        if self._stale_key and self._stale_key != old:
            self._ports.objects.delete(self._stale_key)
        self._stale_key = old

    def _flush_views(self) -> None:
        self._write_views({name: view.dirty() for name, view in self.engine.state.views.items()})
        self._flushed_ms = self._clock.now_ms()

    def _write_views(self, dirty: dict[str, list[Partial]]) -> None:
        for name, partials in dirty.items():
            if partials:
                view = self.engine.state.views[name].view
                slots = [upsert(one, f"{self.shard_id}/{one.bucket}") for one in partials]
                self._ports.views.write(view.spec, slots)
            self.engine.state.views[name].clean()


def unique_events(counts: Mapping[str, int]) -> int:
    """How many events a shard has had by its counts, copies aside."""
    return counts.get("events", 0) - counts.get("duplicates", 0)


def beginning(position: str, counts: Mapping[str, int]) -> dict[str, object]:
    """What is noted of a shard that begins a generation of a view there, with these counts."""
    foreign = counts.get("foreign_excluded", 0)
    return {"position": position, "events": unique_events(counts), "foreign_excluded": foreign}


def upsert(partial: Partial, slot: str) -> Upsert:
    """What is written of a partial, into this slot."""
    return Upsert(
        key=partial.key,
        window_start_ms=partial.window_start_ms,
        window_end_ms=partial.window_end_ms,
        slot=slot,
        version=partial.version,
        partial=partial.partial,
    )
