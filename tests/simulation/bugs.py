"""Bugs to plant, by name: mistakes that somebody could make in the code. The simulation has to find every one.

What it does not model has a test that always goes the same way:

- a fork: the child's session, thread and client (tests/unit/test_producer_processes.py)
- own ids of many callers behind one gateway (tests/unit/test_gateway_tenants.py)
- thousands of days in one record, items of DynamoDB and what else a record may hold (tests/unit/test_totality.py,
  tests/unit/test_commit_bounds.py)
- a dead event that comes back after a month (tests/unit/test_horizon.py), a shard that was quiet for as long
  (tests/unit/test_retention.py, tests/unit/test_tip_rounds.py), a parent that nobody read (tests/unit/test_upstream.py)
- reference tables of one name of two pipelines (tests/unit/test_reference_versions.py)
- the pause before a shard starts again (tests/unit/test_embedded.py)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.compute as pc

from headwater import announcing, awsfailures, ledger
from headwater.codec import decode_record, encode_batch
from headwater.errors import Retryable
from headwater.ledger import Ledger, PendingFile
from headwater.lineage.origins import HORIZON_MS, OriginSets
from headwater.processors.audit.committed import Committed
from headwater.processors.audit.receipts import ReceiptCoverage
from headwater.processors.definition import claims
from headwater.processors.engine import engine
from headwater.processors.engine.controls import read_receipt
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.erasure import excluded
from headwater.processors.erasure.excluded import ExcludedRows
from headwater.processors.operators.aggregate import ViewState
from headwater.processors.operators.misplaced import Misplaced
from headwater.processors.rebuild import from_stream as past
from headwater.processors.rebuild.beginnings import Beginnings
from headwater.processors.rebuild.from_stream import StreamPast
from headwater.processors.rebuild.generation_rows import write as write_rows
from headwater.processors.replay import replay
from headwater.processors.replay.stream import from_stream
from headwater.processors.runners import upstream
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.runners.shardreader import ShardReader
from headwater.processors.shard import claiming, slots, worker
from headwater.processors.shard.context import WorkerContext
from headwater.processors.shard.snapshots import StateStore
from headwater.processors.shard.worker import ShardWorker
from headwater.producers.outbox import Outbox
from headwater.producers.restores import RestoreWatch
from headwater.producers.sealing import Numbering
from headwater.producers.sender import Sender
from headwater.producers.writer import Writer
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.lake import ancestry, maintenance, publisher, standing
from headwater.sinks.lake.catalog import _CatalogState
from headwater.sinks.lake.rewrite import replace_files
from headwater.sinks.lake.standing import TableState
from headwater.sinks.views.items import Item
from headwater.sinks.views.keys import ViewKeys
from headwater.stream import sequence, shards
from tests.simulation.alertbugs import ALERT_BUGS
from tests.simulation.operator import Operator
from tests.simulation.streambugs import STREAM_BUGS
from tests.simulation.workload import SESSIONS

__all__ = ["BUGS", "planted"]

Patch = tuple[Any, str, Any]

_update = Ledger._update
_child = ShardState.child
_dumps = ShardState.dumps
_write_files = ShardWorker._write_files
_commit = ShardWorker._commit
_again = Writer._again_or_not
_answered = Writer.answered
_add = ViewKeys.add
_iterator = ShardReader._iterator
_plan = standing.plan_files
_shards = shards.open_shards
_begin = Outbox._begin
_settle = Sender._settle
_from_table = OriginSets.from_table
_inherited = StreamPast._inherited


def _without(condition: str, instead: str) -> Patch:
    def update(self: Ledger, item: str, text: str, given: str, values: Any, names: Any) -> None:
        _update(self, item, text, instead if given == condition else given, values, names)

    return Ledger, "_update", update


def _childless(self: ShardState, *args: Any) -> ShardState:
    heir = _child(self, *args)
    heir.seen = OriginSets()
    return heir


def _one_parent(self: ShardState, pipeline: Any, other: ShardState | None = None) -> ShardState:
    return _child(self, pipeline)


def _unseen(self: ShardState) -> bytes:
    kept, self.seen = self.seen, OriginSets()
    try:
        return _dumps(self)
    finally:
        self.seen = kept


def _named_first(self: ShardWorker) -> list[PendingFile]:
    real = self._ports.objects

    class Later:
        bodies: dict[str, bytes] = {}  # noqa: RUF012 (a class of one object)

        def put(self, key: str, body: bytes) -> str:
            self.bodies[key] = body
            return f"s3://memory/{key}"

    later = Later()
    later.bodies = {}
    self._ports = replace(self._ports, objects=later)  # type: ignore[arg-type]  # it has what the bug needs
    try:
        files = _write_files(self)
    finally:
        self._ports = replace(self._ports, objects=real)
    self.__dict__.setdefault("_later", {}).update(later.bodies)
    return files


def _committed_first(self: ShardWorker, change: Any) -> None:
    _commit(self, change)
    for key, body in self.__dict__.pop("_later", {}).items():
        self._ports.objects.put(key, body)


def _forgets_files(self: ShardWorker) -> list[PendingFile]:
    self._written = []
    return _write_files(self)


def _elsewhere(self: Writer, one: Any, *args: Any) -> int:
    key = (int(one.batch.explicit_hash_key) + (1 << 127)) % (1 << 128)
    one.batch = replace(one.batch, explicit_hash_key=str(key))
    return _again(self, one, *args)


def _renamed(self: Writer, one: Any, *args: Any) -> int:
    contract = SESSIONS.sloppy[0]
    found: Any = decode_record(one.batch.payload, contract)
    if found.origin is not None:
        payload = encode_batch(found.table, contract, origin=found.origin + "-again", first_seq=found.first_seq)
        one.batch = replace(one.batch, payload=payload)
    return _again(self, one, *args)


def _all_taken(self: Writer, entries: Any, now_ms: int) -> Any:
    return _answered(self, [{"ShardId": "", "SequenceNumber": "0"} for _ in entries], now_ms)


def _gives_up(self: Writer, error: Any, now_ms: int) -> Any:
    return self.answered([{"ShardId": "", "SequenceNumber": "0"} for _ in self._out], now_ms)


def _latest(self: ShardReader) -> str | None:
    if self._next is None:
        return _iterator(self)
    shard = self.status.shard_id
    answer = self._kinesis.get_shard_iterator(StreamName=self._stream, ShardId=shard, ShardIteratorType="LATEST")
    found: str = answer["ShardIterator"]
    return found


def _trusting(entry: Any, since: Any, read_ms: int) -> list[int]:
    return list(range(len(entry.pending)))


def _once_seen(entry: Any, since: Any, read_ms: int) -> list[int]:
    return [at for at, file in enumerate(entry.pending) if file.uri in since]


def _blind(pending: Any, state: Any, attempts: Any) -> Any:
    return _plan(pending, TableState(frozenset()), attempts)


def _early_child(context: WorkerContext, _shard_id: str, parents: Any) -> ShardState:
    pipeline, store = context.pipeline, StateStore(context.pipeline, context.ports.objects)
    entries = [entry for entry in map(context.ports.ledger.shard, parents) if entry is not None]
    states = [store.load(entry) for entry in entries]
    return states[0].child(pipeline, states[1] if len(states) > 1 else None) if states else ShardState(pipeline)


def _first_version(self: ShardState, *args: Any) -> ShardState:
    heir = _child(self, *args)
    heir.references = {}
    return heir


def _one_look(client: Any, stream: str, *args: Any, **options: Any) -> Any:
    return _shards(client, stream, *args, **options)[:1]


def _at_once(self: Operator) -> None:
    for application in self.system.applications:
        application.upgraded = True


def _hopeful(self: ViewKeys, *args: Any) -> int:
    try:
        return _add(self, *args)
    except Retryable:
        return 0


def _numbers_again(self: Outbox, stream: str, new_origin: str) -> Numbering:
    begun = _begin(self, stream, new_origin)
    self._db.execute("insert or ignore into state values ('planted', ?)", (new_origin,))
    (origin,) = self._db.execute("select value from state where name = 'planted'").fetchone()
    found = self._db.execute("select next_seq from sessions where origin = ?", (origin,)).fetchone()
    return Numbering(origin, int(found[0]) if found else 0, begun.next_batch)


def _as_it_was(self: Ledger, item: str) -> Any:
    answer = self._client.get_item(TableName=self._table, Key=self._key(item))
    return ledger._plain(answer["Item"]) if "Item" in answer else None


def _no_version(*_: Any) -> str:
    return ""


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _elsewhere_again(*args: Any, own: bool, **options: Any) -> Any:
    return from_stream(*args, own=not own, **options)


def _at_once_begun(self: Beginnings) -> dict[str, dict[str, Any]]:
    self._left()
    return self._begun


def _orphan(self: StreamPast, build: Any, shard: Any, pipeline: Any) -> ShardState:
    return _inherited(self, build, replace(shard, parents=()), pipeline)


def _one_slot(views: Any, spec: Any, partials: Any, _slot: Any, report: Any) -> None:
    write_rows(views, spec, partials, lambda one: f"stream/{one.bucket}", report)


def _told_all_the_same(self: Sender, outcome: Any) -> Any:
    for one in outcome.failed:
        self._receipts.add(one.batch)
    return _settle(self, outcome)


def _half_open(table: Any, horizon_ms: int = HORIZON_MS) -> OriginSets:
    return _from_table(table.filter(pc.less(table["lo"], table["hi"])), horizon_ms)


def _all_snapshots(_current: Any, metadata: Any) -> Any:
    return list(reversed(metadata.snapshots))


def _none_counted(_body: bytes) -> Any:
    return np.zeros(0, np.uint64)


def _one_less(table: Any, old: Any, new: Any, why: Any) -> None:
    replace_files(table, old, new[:-1], why)


def _unguarded(self: Engine, control: Any, record: Any, effects: Any) -> None:
    if control.kind == "reference":
        self._new_reference(control.body)
    elif control.kind == "receipt":
        read_receipt(control.body).add_to(self.state.accepted, record.arrived_ms)


def _not_looked_for(one: Engine, records: Any, _outside: Any) -> Any:
    return [one.process(records)]


BUGS: dict[str, list[Patch]] = {
    "the fence is skipped": [_without("epoch = :e AND #p = :op", "attribute_exists(pipeline)")],
    "a child forgets the identities": [(ShardState, "child", _childless)],
    "a merge takes one parent only": [(ShardState, "child", _one_parent)],
    "a child begins before its parents end": [
        (EmbeddedRunner, "_has_ended", lambda self, shard_id: self._running(shard_id)),
        (claiming, "_inherited", _early_child),
    ],
    "identities are not in the snapshot": [(ShardState, "dumps", _unseen)],
    "open windows are not in the snapshot": [(ViewState, "load_tables", _nothing)],
    "the ledger is written before the files": [
        (ShardWorker, "_write_files", _named_first),
        (ShardWorker, "_commit", _committed_first),
    ],
    "a commit tried again forgets its files": [(ShardWorker, "_write_files", _forgets_files)],
    "a retry goes to another shard": [(Writer, "_again_or_not", _elsewhere)],
    "a retry has a new identity": [(Writer, "_again_or_not", _renamed)],
    "refused entries count as delivered": [(Writer, "answered", _all_taken)],
    "a lost request counts as delivered": [(Writer, "failed", _gives_up)],
    "an expired iterator goes on at the tip": [(ShardReader, "_iterator", _latest)],
    "published without reading back": [(publisher, "confirmed", _trusting)],
    "published after one sighting": [(publisher, "confirmed", _once_seen)],
    "files are added without looking": [(publisher, "plan_files", _blind)],
    "versions are compared as unpadded text": [(sequence, "pad", lambda number: number)],
    "a child joins with the first reference version": [(ShardState, "child", _first_version)],
    "a reference version is announced on one shard": [(announcing, "open_shards", _one_look)],
    "producers take a contract before readers": [(Operator, "_upgrade", _at_once)],
    "a view's row takes older slots": [(Item, "version", _no_version)],
    "a key that could not be listed counts as listed": [(ViewKeys, "add", _hopeful)],
    "a receipt on one shard counts for all": [
        (ReceiptCoverage, "passed_everywhere", lambda _self, _origin, accepted, _at: accepted)
    ],
    "an outbox takes up its numbers again": [(Outbox, "_begin", _numbers_again)],
    "an outbox forgets what it has told nobody": [(Outbox, "unannounced", lambda _self: [])],
    "what another engine rewrote is added again": [(_CatalogState, "history", lambda _self, _before: (frozenset(), 0))],
    "the same version by newer code is skipped": [(slots, "slot_version", lambda version, _epoch: version)],
    "a publisher takes files whatever another took": [_without("taken = :t", "attribute_exists(pipeline)")],
    "the ledger is read as it may have been": [(Ledger, "_get", _as_it_was)],
    "a process that was restored goes on with its numbers": [(RestoreWatch, "seen", lambda _self: False)],
    "other content under one identity is dropped as a copy": [(engine, "find_conflicts", _nothing)],
    "sets of half-open intervals lose the highest number": [(OriginSets, "from_table", _half_open)],
    "a record that the engine fails on stops its shard": [
        (Engine, "_control", _unguarded),
        (worker, "take_in_isolated", _not_looked_for),
    ],
    "a stream made again is read on": [(upstream, "_mismatch", lambda *_: "")],
    "user records of another shard count": [(engine, "find_misplaced", lambda *_: Misplaced())],
    "of two pipelines that start at once both have the table": [
        (claims, "_claimed", lambda claim, _known: {"pipeline": claim.pipeline})
    ],
    "a batch given up is told as accepted": [(Sender, "_settle", _told_all_the_same)],
    "a replay puts events where their identity says": [(replay, "from_stream", _elsewhere_again)],
    "an expired token ends a batch for good": [
        (awsfailures, "_PERMANENT", awsfailures._PERMANENT | {"ExpiredTokenException"})
    ],
    "rows of a session that all shards have forgotten are unexpected": [(Committed, "cutoff_ms", None)],
    "a rebuild does not wait until every shard has begun": [(Beginnings, "wait", _at_once_begun)],
    "a rebuild forgets what a shard's parents have seen": [(StreamPast, "_inherited", _orphan)],
    "a rebuild has one slot for all shards": [(past, "write", _one_slot)],
    "what was rolled back counts as published": [(ancestry, "ancestors_of", _all_snapshots)],
    "a forgetting that goes on counts the rows of others again": [(excluded, "_loads", _none_counted)],
    "a compaction leaves out one of its files": [(maintenance, "replace_files", _one_less)],
    "a forgetting counts nothing as excluded": [(ExcludedRows, "add", _nothing)],
    "dead letters are dropped": [(DeadLetters, "write", _nothing)],
    **ALERT_BUGS,
    **STREAM_BUGS,
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The code with this bug in it."""
    patches: list[Any] = [mock.patch.object(*patch) for patch in BUGS[name]]
    try:
        for patch in patches:
            patch.start()
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()
