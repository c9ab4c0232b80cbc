"""Fill a new pipeline from another's lake, from where it then follows the stream without a seam.

What the source pipeline has committed is pinned: per shard its position and its interval sets, and snapshots of its
table from before and after (sinks/lake/history.py). The rows up to there go through the new pipeline as the shard
"backfill" of its own; its real shards begin at the pinned positions with the pinned sets. So an event is either in the
lake or read by the new pipeline, and the audit of the new pipeline is exact across the seam. Killed, it goes on where
its last commit was.

What the source filtered out or buried is not in its lake: the new pipeline counts it as excluded.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan

from headwater.clock import Clock
from headwater.codec import encode_batch
from headwater.contract.compatibility import check_compatible
from headwater.errors import UsageError
from headwater.ledger import Commit
from headwater.lineage.foreign import is_foreign
from headwater.lineage.origins import OriginSets
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState
from headwater.processors.ports import ClaimShard, OpenTable, PipelineStores
from headwater.processors.replay.chunk import as_contract, record_runs, slices
from headwater.processors.replay.lake import current_snapshot, published_table
from headwater.processors.shard.snapshots import StateStore
from headwater.processors.shard.worker import Rewound, ShardWorker
from headwater.rates import Pace
from headwater.sinks.lake.history import scan_tasks_until
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

__all__ = ["SHARD", "BackfillSource", "BackfillTarget", "Backfilled", "backfill", "fill", "waits"]

log = logging.getLogger("headwater.processor")

SHARD = "backfill"
_STEP_SECONDS = 0.2
_DOCUMENT = "backfill"


@dataclass(frozen=True)
class BackfillSource:
    """Hold the pipeline whose lake is read; `publish` makes a step of its publisher."""

    stores: PipelineStores
    open_table: OpenTable
    publish: Callable[[], object]


@dataclass(frozen=True)
class BackfillTarget:
    """Hold the pipeline that is filled; `prepare` is called before anything is written, `claim` takes a shard of it."""

    stores: PipelineStores
    prepare: Callable[[], object]
    claim: ClaimShard


@dataclass(frozen=True)
class Backfilled:
    """Report how many rows of the source's lake were read, and how many shards go on from pinned positions."""

    source: str
    target: str
    rows: int
    shards: int


@dataclass(frozen=True)
class _Pinned:
    """Hold the lake's snapshots and the shards' positions between which the seam lies."""

    since: int
    through: int
    positions: Mapping[str, str]


def backfill(
    source: BackfillSource,
    target: BackfillTarget,
    owner: str,
    rate: float | None = None,
    advance: Callable[[int, int], object] = lambda _events, _done: None,
) -> Backfilled:
    """Fill the pipeline `target` from the lake of `source`, at most `rate` events a second.

    The target's shards are taken in the name of `owner`. `advance` is called at least once a second with the
    number of rows that are in, and ends the work by raising.

    Raises UsageError when the target has begun to read the stream already, or its contract cannot read the rows.
    """
    stores = target.stores
    _check(source.stores.pipeline, stores.pipeline)
    target.prepare()
    pinned = _pin(source, stores, owner)
    worker = target.claim(SHARD, owner)
    done, pace = 0, Pace(rate, stores.clock)
    if not worker.entry.closed:
        done = fill(worker, lambda: slices(_records(source, stores.pipeline, pinned), rate), pace, advance)
        _by_number(worker.engine.state)
        worker.commit(closed=True)
    return Backfilled(source.stores.pipeline.name, stores.pipeline.name, done, len(pinned.positions))


def fill(
    worker: ShardWorker,
    runs: Callable[[], Iterable[tuple[list[StreamRecord], int]]],
    pace: Pace,
    advance: Callable[[int, int], object],
) -> int:
    """Give the worker the records after its position, each of `runs` with its rows; return how many rows there are.

    `runs` yields the same each time: when the worker has gone back to its last commit, it is asked again.
    """
    while True:
        try:
            return _fill_once(worker, runs(), pace, advance)
        except Rewound as error:
            log.warning("read again", extra={"shard": worker.shard_id, "reason": str(error.__cause__)})


def _fill_once(
    worker: ShardWorker,
    runs: Iterable[tuple[list[StreamRecord], int]],
    pace: Pace,
    advance: Callable[[int, int], object],
) -> int:
    done, clock = 0, worker.context.clock
    for records, rows in runs:
        if sequence.pad(records[-1].sequence_number) > worker.position:  # else an earlier call had it
            for _ in waits(pace, clock):
                advance(done, done)
                worker.tick()
            pace.take(rows)
            worker.process(records)
            worker.tick()
        done += rows
        advance(done, done)
    return done


def waits(pace: Pace, clock: Clock) -> Iterator[None]:
    """Sleep in short steps until the pace lets something go; yield after each, so that the caller can tick or end."""
    while not pace.is_due:
        clock.sleep(_STEP_SECONDS)
        yield


def _check(old: Pipeline, new: Pipeline) -> None:
    if old.name == new.name or old.lake_to.table == new.lake_to.table:
        raise UsageError(f"pipeline {new.name} needs a name and a lake table of its own to be filled from {old.name}")
    views = {view.name for view in old.views} & {view.name for view in new.views}
    if views:
        raise UsageError(f"pipeline {new.name} needs views of its own: {', '.join(sorted(views))} is {old.name}'s")
    faults = check_compatible(old.contract, new.contract)
    if faults:
        raise UsageError(f"pipeline {new.name} cannot be filled from {old.name}: {'; '.join(faults)}")


def _pin(source: BackfillSource, target: PipelineStores, owner: str) -> _Pinned:
    """Write down the source's positions, sets and snapshots; a second call finds those of the first."""
    document, revision = target.ledger.document(_DOCUMENT)
    if not document:
        if target.ledger.shards():
            raise UsageError(f"pipeline {target.pipeline.name} reads the stream already: only a new one can be filled")
        document = _read_source(source, target)
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


def _read_source(source: BackfillSource, target: PipelineStores) -> dict[str, Any]:
    stores = source.stores
    since = current_snapshot(source.open_table())
    entries = [entry for entry in stores.ledger.shards() if entry.position != sequence.NONE]
    store, shards = StateStore(stores.pipeline, stores.objects), dict[str, Any]()
    for entry in entries:
        key = f"state/{target.pipeline.name}/{SHARD}/{entry.shard_id}.bin"
        target.objects.put(key, _taken_over(target.pipeline, store.load(entry)).dumps())
        shards[entry.shard_id] = {"position": entry.position, "closed": entry.closed, "state": key}
    # after the entries: every row that they name is in a snapshot from `since` on, up to this one
    through = current_snapshot(published_table(stores, source.open_table, entries, source.publish))
    return {"source": stores.pipeline.name, "since": since, "through": through, "shards": shards}


def _taken_over(target: Pipeline, old: ShardState) -> ShardState:
    """Return the state that a shard of the new pipeline begins with: identities seen, and not to be in the lake."""
    state = ShardState(target)
    for name in ("seen", "excluded", "dead", "revived", "accepted"):
        setattr(state, name, getattr(old, name))
    state.max_ts, state.max_arrived = old.max_ts, old.max_arrived
    names = {reference.name for reference in target.references}
    state.references = {name: version for name, version in old.references.items() if name in names}
    return state


def _records(source: BackfillSource, target: Pipeline, pinned: _Pinned) -> Iterator[tuple[StreamRecord, int]]:
    """Yield the rows as records, each with the number of its rows.

    The order is that of file, arrival, origin and number, so a second run makes the same records.
    """
    table, old = source.open_table(), source.stores.pipeline.contract
    tasks = scan_tasks_until(table, pinned.since, pinned.through, pinned.positions, old.time)
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    for number, task in enumerate(tasks):
        rows = _ordered(scan.to_table([task]))
        named = as_contract(rows, old, target.contract)
        runs = record_runs(rows, same="_arrived_at", by_origin=target.contract.id is None)
        for run, (start, stop) in enumerate(runs, 1):
            origin, seq = rows["_origin"][start].as_py(), rows["_seq"][start].as_py()
            arrived = rows["_arrived_at"][start].cast(pa.timestamp("ms", "UTC")).value
            data = encode_batch(named.slice(start, stop - start), target.contract, origin=origin, first_seq=seq)
            yield StreamRecord(SHARD, str(number * 10**12 + run), arrived, origin, data), stop - start


def _ordered(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("_arrived_at", "ascending"), ("_origin", "ascending"), ("_seq", "ascending")])


def _by_number(state: ShardState) -> None:
    """Count the foreign events instead of keeping them by name, as a shard of the stream does."""
    for name, count in (("seen", "foreign"), ("excluded", "foreign_excluded")):
        table = getattr(state, name).to_table()
        foreign = pa.array([is_foreign(origin) for origin in table["origin"].to_pylist()], pa.bool_())
        gone = table.filter(foreign)
        state.count(count, sum(gone["hi"].to_pylist()) - sum(gone["lo"].to_pylist()))
        setattr(state, name, OriginSets.from_table(table.filter(pc.invert(foreign)), getattr(state, name).horizon_ms))
