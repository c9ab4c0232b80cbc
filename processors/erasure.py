"""Erase all that is kept of one key: from lake, views, alerts, state and dead letters, then look for what is left.

The order makes a crash harmless: run it again. What the lake lacks afterwards counts as excluded, so the audit stays
exact. Each shard is claimed for a moment, which fences its processor; that takes the shard up again from the same
position. Events of the key that are still in the stream behind that position are new events: run it again once they
have been read, or stop producing them first.
"""

import io
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import EqualTo
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from headwater.clock import HOUR_MS
from headwater.errors import HeadwaterError, Retryable, UsageError
from headwater.ledger import Commit, ShardEntry
from headwater.lineage.foreign import is_foreign
from headwater.processors.alerts.progress import known_rules
from headwater.processors.alerts.store import AlertStore, Entry
from headwater.processors.engine.state import ShardState
from headwater.processors.generations import DOCUMENT, Generation, building, check_known, generations, keeping
from headwater.processors.jobs import NoProgress, Progress
from headwater.processors.ports import OpenTable, PipelineStores
from headwater.processors.rebuild.generation_rows import drop
from headwater.processors.shard.flushes import forget_flushed
from headwater.processors.shard.snapshots import StateStore
from headwater.sinks.deadletter import DeadLetter, DeadLetters
from headwater.sinks.lake.compaction import StoredObject, find_orphans, shard_of
from headwater.sinks.lake.maintenance import Maintenance, live_objects
from headwater.sinks.lake.rewrite import Rewriter, SortOrder, data_files, replace_files
from headwater.sinks.views.store import ViewStore

__all__ = ["ErasurePorts", "Forgotten", "forget"]

_ATTEMPTS = 5


@dataclass(frozen=True)
class ErasurePorts:
    """Hold all the places that keep something of a key."""

    stores: PipelineStores
    open_table: OpenTable
    views: ViewStore
    alerts: AlertStore
    letters: DeadLetters
    maintenance: Callable[[], Maintenance]


@dataclass(frozen=True)
class Forgotten:
    """Report what was removed, and what a last look found of the key: `left` is empty when nothing is left."""

    key: str
    rows: int
    files: int
    view_rows: int
    slots: int
    letters: int
    left: tuple[str, ...]


def forget(
    ports: ErasurePorts, key: str, owner: str, publish: Callable[[], object], progress: Progress | None = None
) -> Forgotten:
    """Remove the key (as text) everywhere. `publish` makes one publisher's step, or waits for another's.

    Raises UsageError while a view is being built or dropped, and HeadwaterError for a key that is no text or integer.
    """
    progress = progress or NoProgress()
    _check_views(ports)
    progress.phase("waiting for the publisher")
    _wait_until_published(ports, publish)
    progress.phase("finding its events")
    found = _identities(ports, key)
    entries, slots = ports.stores.ledger.shards(), 0
    progress.phase("state of the shards", len(entries))
    for at, entry in enumerate(entries, 1):
        slots += _scrub(ports, entry.shard_id, key, owner)
        progress(0, at)
    if found.num_rows:
        # the identities are counted once, on one shard, whichever it is
        _exclude(ports, owner, found)
    rows, files = _rewrite(ports, key, progress)
    column, views = ports.stores.pipeline.contract.key, ports.stores.kept_pipeline().views
    progress.phase("views", len(views))
    view_rows = 0
    for at, view in enumerate(views, 1):
        view_rows += ports.views.remove(view.spec, column, key)
        progress(rows, at)
    _drop_unswept(ports)
    progress.phase("alerts and dead letters")
    for alert in _alerts(ports, key):  # after the rows that they are judged by
        ports.alerts.remove(alert)
    letters = ports.letters.remove(ports.stores.pipeline.name, _about(column, key))
    progress.phase("looking for what is left")
    return Forgotten(key, rows, files, view_rows, slots, letters, tuple(_look(ports, key)))


def _check_views(ports: ErasurePorts) -> None:
    """Raise UsageError while rows are stored that neither serve nor are kept up: the key would stay in them."""
    document, _ = ports.stores.ledger.document(DOCUMENT)
    under_way = building(ports.stores.pipeline, document)
    if under_way:
        raise UsageError(f"view {', '.join(under_way)} is being built from the lake: wait, or cancel that job")
    found = generations(document, ports.stores.pipeline)
    for name in [name for name, one in found.items() if one.retired]:
        raise UsageError(
            f"view {name}: the rows of an ended rebuild are not all dropped: call headwater view rebuild {name}, as "
            "the job that was interrupted was, and let it end"
        )


def _drop_unswept(ports: ErasurePorts) -> None:
    """Drop rows that a process which hung may have written of a generation after it was dropped: nobody reads them."""
    document, _ = ports.stores.ledger.document(DOCUMENT)
    for name, one in generations(document, ports.stores.pipeline).items():
        for number in one.unswept:
            drop(ports.views, Generation(number, 0).stored(name), lambda _: None)


def _alerts(ports: ErasurePorts, key: str) -> list[Entry]:
    """Return what alerts keep of the key, also those that the pipeline no longer has."""
    rules = {*known_rules(ports.stores.ledger), *(rule.name for rule in ports.stores.pipeline.alerts)}
    return ports.alerts.having(sorted(rules), ports.stores.pipeline.contract.key, key)


def _wait_until_published(ports: ErasurePorts, publish: Callable[[], object]) -> None:
    for _ in range(100):
        if not any(entry.pending for entry in ports.stores.ledger.shards()):
            return
        publish()
    raise Retryable("files wait for the publisher for too long; is one running?")


def _identities(ports: ErasurePorts, key: str) -> pa.Table:
    """Return origin and seq of the key's rows in the lake; none where the key itself is the origin."""
    if _is_origin(ports):
        return pa.table({"_origin": pa.array([], pa.string()), "_seq": pa.array([], pa.int64())})
    table = ports.open_table()
    scan = table.scan(_is(ports.stores.pipeline.contract.key, table, key), selected_fields=("_origin", "_seq"))
    found: pa.Table = scan.to_arrow()
    return found


def _is_origin(ports: ErasurePorts) -> bool:
    contract = ports.stores.pipeline.contract
    return contract.id is not None and contract.id.origin == contract.key


def _is(name: str, table: Table, key: str) -> EqualTo:
    kind = str(table.schema().find_field(name).field_type)
    if kind in ("string", "int", "long"):
        return EqualTo(name, key if kind == "string" else int(key))
    raise HeadwaterError(f"key {name} is a {kind}: only keys of text and whole numbers can be forgotten")


def _scrub(ports: ErasurePorts, shard_id: str, key: str, owner: str) -> int:
    def change(state: ShardState) -> int:
        return state.forget(ports.stores.pipeline.contract.key, key, is_origin=_is_origin(ports))

    gone = _change_state(ports, shard_id, owner, change)
    stores = ports.stores
    by = {view.name: view.by for view in stores.kept_pipeline().views}
    forget_flushed(stores.ledger, stores.objects, shard_id, by, stores.pipeline.contract.key, key)
    return gone


def _exclude(ports: ErasurePorts, owner: str, found: pa.Table) -> None:
    """Count the rows that go as excluded: by identity where they have one, else by their number."""

    def change(state: ShardState) -> int:
        already = 0
        for origin, seq in zip(found["_origin"].to_pylist(), found["_seq"].to_pylist(), strict=True):
            if is_foreign(origin):
                state.count("foreign_excluded")
            elif seq not in state.excluded.get(origin):
                state.excluded.add_intervals(origin, [(seq, seq + 1)], state.max_arrived)
            else:
                already += 1
        return already

    _change_state(ports, ports.stores.ledger.shards()[0].shard_id, owner, change)


def _change_state(ports: ErasurePorts, shard_id: str, owner: str, change: Callable[[ShardState], int]) -> int:
    """Claim the shard, change its state at the position where it is, and commit that."""
    stores = ports.stores
    entry: ShardEntry = stores.ledger.claim(shard_id, owner, None, stores.clock.now_ms())
    document, _ = stores.ledger.document(DOCUMENT)
    store = StateStore(keeping(stores.pipeline, document), stores.objects)
    state = store.load(entry)
    check_known(stores.pipeline, document, state, shard_id)
    gone = change(state)
    body, where = store.store(entry, entry.position, state.dumps())
    ports.stores.ledger.commit(
        entry,
        Commit(
            position=entry.position,
            state=body,
            state_key=where,
            files=[],
            counts=state.counts,
            watermark_ms=entry.watermark_ms,
            closed=entry.closed,
            now_ms=ports.stores.clock.now_ms(),
        ),
    )
    if entry.state_key and entry.state_key != where:
        ports.stores.objects.delete(entry.state_key)
    return gone


def _rewrite(ports: ErasurePorts, key: str, progress: Progress) -> tuple[int, int]:
    """Write the key's files anew without it, expire every older snapshot, and delete the old files."""
    pipeline = ports.stores.pipeline
    name, contract = pipeline.lake_to.table, pipeline.contract
    rows, made = 0, set[str]()
    for _ in range(_ATTEMPTS):
        table = ports.open_table()
        hit = {task.file.file_path for task in table.scan(_is(contract.key, table, key)).plan_files()}
        old = [file for file in data_files(table) if file.file_path in hit]
        rewriter = Rewriter(table, ports.stores.objects, SortOrder(contract.key, contract.time))
        changed, new, rows = list[DataFile](), list[DataFile](), 0
        progress.phase("files that may have it", len(old))
        for at, file in enumerate(old):
            progress(rows, at)
            written = rewriter.rewrite([file], f"lake/{name}/data/compacted/{uuid.uuid4().hex}", key)
            if written.left_out.num_rows:
                rows += written.left_out.num_rows
                changed.append(file)
                new += written.files
        made |= {file.file_path for file in new}
        try:
            if changed:
                replace_files(table, changed, new, {"headwater.forget": str(rows)})
        except Retryable:
            continue
        table = ports.open_table()
        if not {file.file_path for file in changed} & {file.file_path for file in data_files(table)}:
            _purge(ports, made | {file.file_path for file in changed}, key)
            return rows, len(changed)
    raise Retryable(f"table {name}: others keep changing it")


def _purge(ports: ErasurePorts, paths: set[str], key: str) -> None:
    """Expire all snapshots but the current one; delete what it does not have of these paths and of the orphans.

    An orphan of a compaction too, when the key is in it: what it was made from is no longer in the table, so its commit
    cannot succeed any more.
    """
    ports.maintenance().expire(1, ports.stores.clock.now_ms() + 1)
    gone = paths | {one.uri for one in _unneeded(ports) if shard_of(one.uri) is not None or _has(ports, one, key)}
    objects, live = ports.stores.objects, live_objects(ports.open_table())
    for path in gone - live:
        objects.delete(path.removeprefix(f"s3://{objects.bucket}/"))


def _unneeded(ports: ErasurePorts) -> list[StoredObject]:
    """Return the data files that nothing needs, however young.

    The ledger says so of a shard's files; another may be on its way to the table.
    """
    name, objects = ports.stores.pipeline.lake_to.table, ports.stores.objects
    found = [StoredObject(objects.uri(key), size, at) for key, size, at in objects.dated(f"lake/{name}/data/")]
    entries = ports.stores.ledger.shards()  # a table is one pipeline's: the shards of others have no say
    live = live_objects(ports.open_table())
    return find_orphans(found, entries, live, ports.stores.clock.now_ms() + HOUR_MS)


def _has(ports: ErasurePorts, one: StoredObject, key: str) -> bool:
    """Tell whether the key is in the data file."""
    if not one.uri.endswith(".parquet"):
        return False
    objects, column = ports.stores.objects, ports.stores.pipeline.contract.key
    body = objects.get(one.uri.removeprefix(f"s3://{objects.bucket}/"))
    return key in map(str, pq.read_table(io.BytesIO(body), columns=[column])[column].unique().to_pylist())


def _about(column: str, key: str) -> Callable[[DeadLetter], bool]:
    def about(letter: DeadLetter) -> bool:
        try:
            event = json.loads(letter.payload)
        except ValueError:
            return key.encode() in letter.payload
        if isinstance(event, dict) and column in event:
            return str(event[column]) == key
        return key.encode() in letter.payload

    return about


def _look(ports: ErasurePorts, key: str) -> list[str]:
    """Return where the key still is, by reading everything again."""
    stores, left = ports.stores, []
    column, table = stores.pipeline.contract.key, ports.open_table()
    for snapshot in table.snapshots():
        count = table.scan(_is(column, table, key), snapshot_id=snapshot.snapshot_id).to_arrow().num_rows
        left += [f"{count} rows in snapshot {snapshot.snapshot_id}"] if count else []
    young = sum(_has(ports, one, key) for one in _unneeded(ports))
    left += [f"{young} data files that no snapshot has"] if young else []
    document, _ = stores.ledger.document(DOCUMENT)
    kept = keeping(stores.pipeline, document)
    left += [f"view {view.name}" for view in kept.views if ports.views.partitions(view.spec, column, key)]
    left += [f"view {name}, whose building has begun since" for name in building(stores.pipeline, document)]
    left += [f"alert {entry.rule}" for entry in _alerts(ports, key)]
    store = StateStore(kept, stores.objects)
    for entry in stores.ledger.shards():
        if store.load(entry).forget(column, key, is_origin=_is_origin(ports)):
            left.append(f"state of shard {entry.shard_id}")
    if any(_about(column, key)(letter) for letter in ports.letters.list(stores.pipeline.name)):
        left.append("a dead letter")
    return left
