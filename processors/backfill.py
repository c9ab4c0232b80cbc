"""A new pipeline filled from another's lake, from where it then follows the stream without a seam.

What the source pipeline has committed is pinned: per shard its position and its interval sets, and snapshots of its
table from before and after (sinks.history). The rows up to there go through the new pipeline as the shard
"backfill" of its own; its real shards begin at the pinned positions with the pinned sets. So an event is either in the
one or read by the other, and the audit of the new pipeline is exact across the seam. Killed, it goes on where its last
commit was.

What the source filtered out or buried is not in its lake: the new pipeline counts it as excluded.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import Table

from headwater import sequence
from headwater.clock import Clock
from headwater.codec import encode_batch
from headwater.contract import Contract
from headwater.contract.compatibility import check_compatible
from headwater.errors import Retryable, UsageError
from headwater.ledger import Commit, ShardEntry
from headwater.lineage import Ints, OriginSets
from headwater.rates import Pace
from headwater.records import StreamRecord
from processors.audit import is_foreign
from processors.references import ensure_initial
from processors.services import Services
from processors.state import ShardState
from processors.worker import ShardWorker, StateStore
from sinks.catalog import open_table
from sinks.history import tasks_until

__all__ = ["SHARD", "Backfilled", "as_contract", "backfill", "current_snapshot", "runs", "settled", "slices", "waits"]

SHARD = "backfill"
_ROWS = 5_000
_TOGETHER = 20_000
"""Rows that are processed before it is told."""
_STEP_SECONDS = 0.2
_DOCUMENT = "backfill"


@dataclass(frozen=True)
class Backfilled:
    """Rows that were read from the source's lake, and the shards that go on from pinned positions."""

    source: str
    target: str
    rows: int
    shards: int


@dataclass(frozen=True)
class _Pinned:
    since: int
    through: int
    positions: Mapping[str, str]


def backfill(
    source: Services,
    target: Services,
    owner: str,
    settle: Callable[[], object],
    rate: float | None = None,
    advance: Callable[[int, int], object] = lambda _events, _done: None,
) -> Backfilled:
    """Fill `target` from the lake of `source`, at most `rate` events a second. `settle` makes a publisher's step,
    `advance` hears at least once a second how many rows are in, and ends it by what it raises.

    UsageError when the target has begun to read the stream already, or its contract cannot read the source's rows.
    """
    _check(source, target)
    ensure_initial(target.pipeline, target.ledger, target.objects, target.client)
    pinned = _pin(source, target, owner, settle)
    worker = ShardWorker(target.pipeline, SHARD, target.ports, target.settings, target.clock, owner)
    worker.claim()
    done, pace = 0, Pace(rate, target.clock)
    if not worker.entry.closed:
        for records, rows in slices(_records(source, target, pinned), rate):
            if sequence.pad(records[-1].sequence_number) > worker.position:  # else an earlier call had it
                for _ in waits(pace, target.clock):
                    advance(done, done)
                    worker.tick()
                pace.take(rows)
                worker.process(records)
                worker.tick()
            done += rows
            advance(done, done)
        _by_number(worker.engine.state)
        worker.commit(closed=True)
    return Backfilled(source.pipeline.name, target.pipeline.name, done, len(pinned.positions))


def slices(
    records: Iterable[tuple[StreamRecord, int]], rate: float | None = None
) -> Iterator[tuple[list[StreamRecord], int]]:
    """Records together, with their rows, that are told of at once: few, or about what may go in a second."""
    some, rows = list[StreamRecord](), 0
    for record, count in records:
        some.append(record)
        rows += count
        if rows >= min(_TOGETHER, rate or _TOGETHER):
            yield some, rows
            some, rows = [], 0
    if some:
        yield some, rows


def waits(pace: Pace, clock: Clock) -> Iterator[None]:
    """Steps until something may go, so that who waits is heard in between."""
    while not pace.is_due:
        clock.sleep(_STEP_SECONDS)
        yield


def _check(source: Services, target: Services) -> None:
    old, new = source.pipeline, target.pipeline
    if old.name == new.name or old.lake_to.table == new.lake_to.table:
        raise UsageError(f"pipeline {new.name} needs a name and a lake table of its own to be filled from {old.name}")
    views = {view.name for view in old.views} & {view.name for view in new.views}
    if views:
        raise UsageError(f"pipeline {new.name} needs views of its own: {', '.join(sorted(views))} is {old.name}'s")
    faults = check_compatible(old.contract, new.contract)
    if faults:
        raise UsageError(f"pipeline {new.name} cannot be filled from {old.name}: {'; '.join(faults)}")


def _pin(source: Services, target: Services, owner: str, settle: Callable[[], object]) -> _Pinned:
    """The source's positions, sets and snapshot, written down first: a second call finds those of the first."""
    document, revision = target.ledger.document(_DOCUMENT)
    if not document:
        if target.ledger.shards():
            raise UsageError(f"pipeline {target.pipeline.name} reads the stream already: only a new one can be filled")
        document = _read_source(source, target, settle)
        target.ledger.put_document(_DOCUMENT, document, revision)
    if "through" not in document:
        raise UsageError(f"pipeline {target.pipeline.name} was filled by an earlier version: begin with another name")
    store = StateStore(target.pipeline, target.objects)
    for shard_id, one in document["shards"].items():
        state = ShardState.loads(target.pipeline, target.objects.get(one["state"]))
        entry = target.ledger.shard(shard_id)
        if entry is not None and entry.position != sequence.NONE:
            continue
        entry = target.ledger.claim(shard_id, owner, None, target.clock.now_ms())
        body, key = store.store(entry, one["position"], state.dumps())
        change = Commit(one["position"], body, key, [], state.counts, None, one["closed"], target.clock.now_ms())
        target.ledger.commit(entry, change)
    positions = {shard_id: one["position"] for shard_id, one in document["shards"].items()}
    return _Pinned(int(document["since"]), int(document["through"]), positions)


def _read_source(source: Services, target: Services, settle: Callable[[], object]) -> dict[str, Any]:
    since = current_snapshot(source)
    entries = [entry for entry in source.ledger.shards() if entry.position != sequence.NONE]
    store, shards = StateStore(source.pipeline, source.objects), dict[str, Any]()
    for entry in entries:
        key = f"state/{target.pipeline.name}/{SHARD}/{entry.shard_id}.bin"
        target.objects.put(key, _taken_over(target, store.load(entry)).dumps())
        shards[entry.shard_id] = {"position": entry.position, "closed": entry.closed, "state": key}
    settled(source, entries, settle)
    return {
        "source": source.pipeline.name,
        "since": since,
        "through": current_snapshot(source),
        "shards": shards,
    }


def current_snapshot(services: Services) -> int:
    """Of the lake's table; 0 when it has none."""
    snapshot = open_table(services.settings, services.pipeline.lake_to.table).current_snapshot()
    return 0 if snapshot is None else snapshot.snapshot_id


def settled(source: Services, entries: Sequence[ShardEntry], settle: Callable[[], object]) -> Table:
    """The lake's table once it has every file that these entries name; `settle` makes a publisher's step."""
    wanted = {file.uri for entry in entries for file in entry.pending}
    for _ in range(100):
        if not wanted & {file.uri for entry in source.ledger.shards() for file in entry.pending}:
            return open_table(source.settings, source.pipeline.lake_to.table)
        settle()
    raise Retryable("files wait for the publisher for too long; is one running?")


def _taken_over(target: Services, old: ShardState) -> ShardState:
    """What a shard of the new pipeline knows where it begins: who was seen, and what will not be in the lake."""
    state = ShardState(target.pipeline)
    for name in ("seen", "excluded", "dead", "revived", "accepted"):
        setattr(state, name, getattr(old, name))
    state.max_ts, state.max_arrived = old.max_ts, old.max_arrived
    names = {reference.name for reference in target.pipeline.references}
    state.references = {name: version for name, version in old.references.items() if name in names}
    return state


def _records(source: Services, target: Services, pinned: _Pinned) -> Iterator[tuple[StreamRecord, int]]:
    """The rows as records, and how many each has, in an order that a second run has again: by file, arrival, origin and
    number."""
    table = open_table(source.settings, source.pipeline.lake_to.table)
    tasks = tasks_until(table, pinned.since, pinned.through, pinned.positions, source.pipeline.contract.time)
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    for number, task in enumerate(tasks):
        rows = _ordered(scan.to_table([task]))
        named = as_contract(rows, source.pipeline.contract, target.pipeline.contract)
        for run, (start, stop) in enumerate(
            runs(rows, same="_arrived_at", by_origin=target.pipeline.contract.id is None), 1
        ):
            origin, seq = rows["_origin"][start].as_py(), rows["_seq"][start].as_py()
            arrived = rows["_arrived_at"][start].cast(pa.timestamp("ms", "UTC")).value
            data = encode_batch(
                named.slice(start, stop - start), target.pipeline.contract, origin=origin, first_seq=seq
            )
            yield StreamRecord(SHARD, str(number * 10**12 + run), arrived, origin, data), stop - start


def _ordered(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("_arrived_at", "ascending"), ("_origin", "ascending"), ("_seq", "ascending")])


def as_contract(rows: pa.Table, old: Contract, new: Contract) -> pa.Table:
    """The columns of the contract `old` under the names of `new`."""
    there = set(old.arrow_schema.names)
    columns = {}
    for field in new.fields:
        found = next((name for name in (field.name, *field.was) if name in there), None)
        if found is not None:
            columns[field.name] = rows[found]
    return pa.table(columns)


def runs(rows: pa.Table, *, same: str, by_origin: bool, most: int = _ROWS) -> Iterator[tuple[int, int]]:
    """Rows that one record can carry: alike in the column `same` and, where the record numbers its events, one
    origin's next."""
    if not rows.num_rows:
        return
    cut = np.diff(_codes(rows[same])) != 0
    if by_origin:
        cut |= (np.diff(_codes(rows["_origin"])) != 0) | (np.diff(rows["_seq"].to_numpy()) != 1)
    edges = [0, *(np.flatnonzero(cut) + 1).tolist(), rows.num_rows]
    for start, stop in itertools.pairwise(edges):
        for at in range(start, stop, most):
            yield at, min(at + most, stop)


def _codes(column: pa.ChunkedArray) -> Ints:
    codes: Ints = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return codes


def _by_number(state: ShardState) -> None:
    """Events without an identity of their own are counted, not kept by name: as a shard of the stream has them."""
    for name, count in (("seen", "foreign"), ("excluded", "foreign_excluded")):
        table = getattr(state, name).to_table()
        foreign = pa.array([is_foreign(origin) for origin in table["origin"].to_pylist()], pa.bool_())
        gone = table.filter(foreign)
        state.count(count, sum(gone["hi"].to_pylist()) - sum(gone["lo"].to_pylist()))
        setattr(state, name, OriginSets.from_table(table.filter(pc.invert(foreign))))
