"""A privacy request: all that is kept of one key, taken out of lake, views, alerts, state and dead letters, and looked
for.

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

from headwater.errors import HeadwaterError, Retryable, UsageError
from headwater.ledger import Commit, ShardEntry
from processors.alerts.lease import known_rules
from processors.alerts.store import Entry
from processors.audit import is_foreign
from processors.generations import DOCUMENT, Generation, building, check_known, generations, keeping
from processors.jobs import Progress, Untold
from processors.rebuildrows import drop
from processors.services import Services
from processors.state import ShardState
from processors.worker import StateStore
from sinks.catalog import open_table
from sinks.compaction import Found, orphans, shard_of
from sinks.deadletter import DeadLetter
from sinks.maintenance import live_objects
from sinks.rewriting import Order, Rewriter, data_files, replace_files

__all__ = ["Forgotten", "forget"]

_ATTEMPTS = 5


@dataclass(frozen=True)
class Forgotten:
    """What was removed, and what a last look found of the key: `left` is empty when nothing is left."""

    key: str
    rows: int
    files: int
    view_rows: int
    slots: int
    letters: int
    left: tuple[str, ...]


def forget(
    services: Services, key: str, owner: str, settle: Callable[[], object], progress: Progress | None = None
) -> Forgotten:
    """Remove the key (as text) everywhere. `settle` makes one publisher's step, or waits for another's."""
    progress = progress or Untold()
    _check_views(services)
    progress.phase("waiting for the publisher")
    _wait_until_published(services, settle)
    progress.phase("finding its events")
    found = _identities(services, key)
    entries, slots = services.ledger.shards(), 0
    progress.phase("state of the shards", len(entries))
    for at, entry in enumerate(entries, 1):
        slots += _scrub(services, entry.shard_id, key, owner)
        progress(0, at)
    if found.num_rows:
        # the identities are counted once, on one shard, whichever it is
        _exclude(services, owner, found)
    rows, files = _rewrite(services, key, progress)
    column, views = services.pipeline.contract.key, services.kept().views
    progress.phase("views", len(views))
    view_rows = 0
    for at, view in enumerate(views, 1):
        view_rows += services.views.remove(view.spec, column, key)
        progress(rows, at)
    _drop_unswept(services)
    progress.phase("alerts and dead letters")
    for alert in _alerts(services, key):  # after the rows that they are judged by
        services.alerts.remove(alert)
    letters = services.letters.remove(services.pipeline.name, _about(column, key))
    progress.phase("looking for what is left")
    return Forgotten(key, rows, files, view_rows, slots, letters, tuple(_look(services, key)))


def _check_views(services: Services) -> None:
    """UsageError while rows are stored that neither serve nor are kept up: the key would stay in them."""
    document, _ = services.ledger.document(DOCUMENT)
    under_way = building(services.pipeline, document)
    if under_way:
        raise UsageError(f"view {', '.join(under_way)} is being built from the lake: wait, or cancel that job")
    found = generations(document, services.pipeline)
    for name in [name for name, one in found.items() if one.retired]:
        raise UsageError(
            f"view {name}: the rows of an ended rebuild are not all dropped: call headwater view rebuild {name}, as "
            "the job that was interrupted was, and let it end"
        )


def _drop_unswept(services: Services) -> None:
    """Rows that a process which hung may have written of a generation after it was dropped: nobody reads them."""
    document, _ = services.ledger.document(DOCUMENT)
    for name, one in generations(document, services.pipeline).items():
        for number in one.unswept:
            drop(services, Generation(number, 0).stored(name), lambda _: None)


def _alerts(services: Services, key: str) -> list[Entry]:
    """What alerts keep of the key, those that the pipeline no longer has too."""
    rules = {*known_rules(services.ledger), *(rule.name for rule in services.pipeline.alerts)}
    return services.alerts.having(sorted(rules), services.pipeline.contract.key, key)


def _wait_until_published(services: Services, settle: Callable[[], object]) -> None:
    for _ in range(100):
        if not any(entry.pending for entry in services.ledger.shards()):
            return
        settle()
    raise Retryable("files wait for the publisher for too long; is one running?")


def _identities(services: Services, key: str) -> pa.Table:
    """Origin and seq of the key's rows in the lake, those aside that the key itself is the origin of."""
    if _is_origin(services):
        return pa.table({"_origin": pa.array([], pa.string()), "_seq": pa.array([], pa.int64())})
    table = open_table(services.settings, services.pipeline.lake_to.table)
    scan = table.scan(_is(services, table, key), selected_fields=("_origin", "_seq"))
    found: pa.Table = scan.to_arrow()
    return found


def _is_origin(services: Services) -> bool:
    contract = services.pipeline.contract
    return contract.id is not None and contract.id.origin == contract.key


def _is(services: Services, table: Table, key: str) -> EqualTo:
    name = services.pipeline.contract.key
    kind = str(table.schema().find_field(name).field_type)
    if kind in ("string", "int", "long"):
        return EqualTo(name, key if kind == "string" else int(key))
    raise HeadwaterError(f"key {name} is a {kind}: only keys of text and whole numbers can be forgotten")


def _scrub(services: Services, shard_id: str, key: str, owner: str) -> int:
    def change(state: ShardState) -> int:
        return state.forget(services.pipeline.contract.key, key, is_origin=_is_origin(services))

    return _change_state(services, shard_id, owner, change)


def _exclude(services: Services, owner: str, found: pa.Table) -> None:
    """Count the rows that go as excluded: by number where they have an identity of their own, else by how many."""

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

    _change_state(services, services.ledger.shards()[0].shard_id, owner, change)


def _change_state(services: Services, shard_id: str, owner: str, change: Callable[[ShardState], int]) -> int:
    """Claim the shard, change its state at the position where it is, and commit that."""
    entry: ShardEntry = services.ledger.claim(shard_id, owner, None, services.clock.now_ms())
    document, _ = services.ledger.document(DOCUMENT)
    store = StateStore(keeping(services.pipeline, document), services.objects)
    state = store.load(entry)
    check_known(services.pipeline, document, state, shard_id)
    gone = change(state)
    body, where = store.store(entry, entry.position, state.dumps())
    services.ledger.commit(
        entry,
        Commit(
            position=entry.position,
            state=body,
            state_key=where,
            files=[],
            counts=state.counts,
            watermark_ms=entry.watermark_ms,
            closed=entry.closed,
            now_ms=services.clock.now_ms(),
        ),
    )
    if entry.state_key and entry.state_key != where:
        services.objects.delete(entry.state_key)
    return gone


def _rewrite(services: Services, key: str, progress: Progress) -> tuple[int, int]:
    """Write the key's files anew without it, expire every older snapshot, and delete the old files."""
    name, contract = services.pipeline.lake_to.table, services.pipeline.contract
    rows, made = 0, set[str]()
    for _ in range(_ATTEMPTS):
        table = open_table(services.settings, name)
        hit = {task.file.file_path for task in table.scan(_is(services, table, key)).plan_files()}
        old = [file for file in data_files(table) if file.file_path in hit]
        rewriter = Rewriter(table, services.objects, Order(contract.key, contract.time))
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
        table = open_table(services.settings, name)
        if not {file.file_path for file in changed} & {file.file_path for file in data_files(table)}:
            _purge(services, made | {file.file_path for file in changed}, key)
            return rows, len(changed)
    raise Retryable(f"table {name}: others keep changing it")


def _purge(services: Services, paths: set[str], key: str) -> None:
    """Only the current snapshot stays; of these paths, and of the orphans, what it does not have is deleted.

    An orphan of a compaction too, when the key is in it: what it was made from is no longer in the table, so its commit
    cannot succeed any more.
    """
    services.maintenance().expire(1, services.clock.now_ms() + 1)
    gone = paths | {one.uri for one in _unneeded(services) if shard_of(one.uri) is not None or _has(services, one, key)}
    live = live_objects(open_table(services.settings, services.pipeline.lake_to.table))
    for path in gone - live:
        services.objects.delete(path.removeprefix(f"s3://{services.objects.bucket}/"))


def _unneeded(services: Services) -> list[Found]:
    """Data files that nothing needs, however young: the ledger says so of a shard's; another may be just on its way."""
    name, objects = services.pipeline.lake_to.table, services.objects
    found = [Found(objects.uri(key), size, at) for key, size, at in objects.dated(f"lake/{name}/data/")]
    entries = services.ledger.shards()  # a table is one pipeline's: the shards of others have no say
    live = live_objects(open_table(services.settings, name))
    return orphans(found, entries, live, services.clock.now_ms() + 3_600_000)


def _has(services: Services, one: Found, key: str) -> bool:
    """Whether the key is in the data file."""
    if not one.uri.endswith(".parquet"):
        return False
    body = services.objects.get(one.uri.removeprefix(f"s3://{services.objects.bucket}/"))
    column = services.pipeline.contract.key
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


def _look(services: Services, key: str) -> list[str]:
    """Where the key still is, by reading everything again."""
    column, left = services.pipeline.contract.key, []
    table = open_table(services.settings, services.pipeline.lake_to.table)
    for snapshot in table.snapshots():
        count = table.scan(_is(services, table, key), snapshot_id=snapshot.snapshot_id).to_arrow().num_rows
        left += [f"{count} rows in snapshot {snapshot.snapshot_id}"] if count else []
    young = sum(_has(services, one, key) for one in _unneeded(services))
    left += [f"{young} data files that no snapshot has"] if young else []
    document, _ = services.ledger.document(DOCUMENT)
    kept = keeping(services.pipeline, document)
    left += [f"view {view.name}" for view in kept.views if services.views.partitions(view.spec, column, key)]
    left += [f"view {name}, whose building has begun since" for name in building(services.pipeline, document)]
    left += [f"alert {entry.rule}" for entry in _alerts(services, key)]
    store = StateStore(kept, services.objects)
    for entry in services.ledger.shards():
        if store.load(entry).forget(column, key, is_origin=_is_origin(services)):
            left.append(f"state of shard {entry.shard_id}")
    if any(_about(column, key)(letter) for letter in services.letters.list(services.pipeline.name)):
        left.append("a dead letter")
    return left
