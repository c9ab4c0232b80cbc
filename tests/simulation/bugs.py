"""Bugs to plant, by name: mistakes that somebody could make in the code. The simulation has to find every one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from headwater import sequence
from headwater.codec import decode_record, encode_batch
from headwater.errors import Retryable
from headwater.ledger import Ledger, PendingFile
from headwater.lineage import OriginSets
from processors.operators.aggregate import ViewState
from processors.runners.embedded import EmbeddedRunner
from processors.runners.shardreader import ShardReader
from processors.state import ShardState
from processors.told import Told
from processors.worker import ShardWorker
from producers import controls
from producers.writer import Writer
from sinks import publisher
from sinks.deadletter import DeadLetters
from sinks.viewitems import Item
from sinks.viewkeys import ViewKeys
from tests.simulation.system import System
from tests.simulation.workload import V1, V2

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
_plan = publisher.plan
_shards = controls.open_shards


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
        bodies: dict[str, bytes] = {}  # noqa: RUF012

        def put(self, key: str, body: bytes) -> str:
            self.bodies[key] = body
            return f"s3://memory/{key}"

    later = Later()
    later.bodies = {}
    self._ports = replace(self._ports, objects=later)  # type: ignore[arg-type]
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
    found: Any = decode_record(one.batch.payload, V2)
    table = found.table.select(V1.arrow_schema.names)
    payload = encode_batch(table, V1, origin=found.origin + "-again", first_seq=found.first_seq)
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


def _trusting(entry: Any, since: Any, read_ms: int) -> int:
    return len(entry.pending)


def _once_seen(entry: Any, since: Any, read_ms: int) -> int:
    return next((at for at, file in enumerate(entry.pending) if file.uri not in since), len(entry.pending))


def _blind(pending: Any, present: Any) -> Any:
    return _plan(pending, frozenset())


def _early_child(self: ShardWorker, parents: Any) -> ShardState:
    entries = [entry for entry in map(self._ports.ledger.shard, parents) if entry is not None]
    states = [self._states.load(entry) for entry in entries]
    return (
        states[0].child(self.pipeline, states[1] if len(states) > 1 else None) if states else ShardState(self.pipeline)
    )


def _first_version(self: ShardState, *args: Any) -> ShardState:
    heir = _child(self, *args)
    heir.references = {}
    return heir


def _one_look(client: Any, stream: str, *args: Any, **options: Any) -> Any:
    return _shards(client, stream, *args, **options)[:1]


def _at_once(self: System) -> None:
    for session in self.sessions:
        session.upgraded = True


def _hopeful(self: ViewKeys, *args: Any) -> int:
    try:
        return _add(self, *args)
    except Retryable:
        return 0


def _no_version(*_: Any) -> str:
    return ""


def _nothing(*_: Any, **__: Any) -> None:
    return None


BUGS: dict[str, list[Patch]] = {
    "the fence is skipped": [_without("epoch = :e AND #p = :op", "attribute_exists(pipeline)")],
    "a child forgets the identities": [(ShardState, "child", _childless)],
    "a merge takes one parent only": [(ShardState, "child", _one_parent)],
    "a child begins before its parents end": [
        (EmbeddedRunner, "_has_ended", lambda self, shard_id: self._running(shard_id)),
        (ShardWorker, "_inherited", _early_child),
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
    "files are added without looking": [(publisher, "plan", _blind)],
    "versions are compared as unpadded text": [(sequence, "pad", lambda number: number)],
    "a child joins with the first reference version": [(ShardState, "child", _first_version)],
    "a reference version is announced on one shard": [(controls, "open_shards", _one_look)],
    "producers take a contract before readers": [(System, "_upgrade", _at_once)],
    "a view's row takes older slots": [(Item, "version", _no_version)],
    "a key that could not be listed counts as listed": [(ViewKeys, "add", _hopeful)],
    "a receipt on one shard counts for all": [(Told, "everywhere", lambda _self, _origin, accepted, _at: accepted)],
    "dead letters are dropped": [(DeadLetters, "write", _nothing)],
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
