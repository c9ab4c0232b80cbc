"""Erase all that is kept of one key: from lake, views, alerts, state and dead letters, then look for what is left.

The order makes a crash harmless: run it again. What the lake lacks afterwards counts as excluded, so the audit stays
exact. Each shard is claimed for a moment, which fences its processor; that takes the shard up again from the same
position. Events of the key that are still in the stream behind that position are new events: run it again once they
have been read, or stop producing them first.
"""

from collections.abc import Callable
from dataclasses import dataclass

from headwater.contract.keyvalues import KeyValue
from headwater.errors import UsageError
from headwater.processors.alerts.progress import known_rules
from headwater.processors.alerts.store import Entry
from headwater.processors.engine.state import ShardState
from headwater.processors.erasure.excluded import ExcludedRows
from headwater.processors.erasure.lake import STEP_BYTES, LakeErasure
from headwater.processors.erasure.letters import KeyLetters
from headwater.processors.erasure.ports import ErasurePorts, change_state, is_origin
from headwater.processors.erasure.tables import drop_view_tables, left_in_view_tables
from headwater.processors.generations import DOCUMENT, Generation, building, generations, keeping
from headwater.processors.jobs import NoProgress, Progress
from headwater.processors.published import pending_files, wait_until_published
from headwater.processors.rebuild.generation_rows import drop
from headwater.processors.shard.flushes import forget_flushed
from headwater.processors.shard.snapshots import StateStore

__all__ = ["Forgotten", "forget"]

_NAMED = 100
"""Dead letters that are named, at most."""


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
    tables: tuple[str, ...] = ()
    """Tables of views that were dropped, to be written anew."""


def forget(
    ports: ErasurePorts,
    given: str,
    owner: str,
    publish: Callable[[], object],
    progress: Progress | None = None,
    step_bytes: int = STEP_BYTES,
) -> Forgotten:
    """Remove the key, given as text, everywhere. `publish` makes one publisher's step, or waits for another's.

    The lake's files are replaced about `step_bytes` a commit. Killed, the same call goes on from there.

    Raises UsageError while a view is being built or dropped, HeadwaterError for a text that no key of the contract can
    have, and Retryable while a committed file is in no table, a quarantined one too: it may have rows of the key.
    """
    contract, ledger = ports.stores.pipeline.contract, ports.stores.ledger
    key, progress = KeyValue(contract.field(contract.key), given), progress or NoProgress()
    _check_views(ports)
    progress.phase("waiting for the publisher")
    wait_until_published(ledger, pending_files(ledger), publish)
    entries, slots = ledger.shards(), 0
    progress.phase("state of the shards", len(entries))
    for at, entry in enumerate(entries, 1):
        slots += _scrub(ports, entry.shard_id, key, owner)
        progress(0, at)
    wait_until_published(ledger, pending_files(ledger), publish)  # what they had committed until then
    excluded = ExcludedRows(ports.stores, key.text, owner)
    lake = LakeErasure(ports, key, excluded, progress, step_bytes)
    lake.run()
    rows, tables = lake.rows, drop_view_tables(ports)
    views = ports.stores.kept_pipeline().views
    progress.phase("views", len(views))
    view_rows = 0
    for at, view in enumerate(views, 1):
        view_rows += ports.views.remove(view.spec, key)
        progress(rows, at)
    _drop_unswept(ports)
    progress.phase("alerts and dead letters")
    for alert in _alerts(ports, key):  # after the rows that they are judged by
        ports.alerts.remove(alert)
    about = KeyLetters(ports.stores.pipeline, key)
    letters = ports.letters.remove(ports.stores.pipeline.name, about.has)
    progress.phase("looking for what is left")
    left = (*lake.left(), *left_in_view_tables(ports, key), *_look(ports, key, about))
    if not left:
        excluded.finish()
    return Forgotten(key.text, rows, lake.files, view_rows, slots, letters, left, tuple(tables))


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


def _alerts(ports: ErasurePorts, key: KeyValue) -> list[Entry]:
    """Return what alerts keep of the key, also those that the pipeline no longer has."""
    rules = {*known_rules(ports.stores.ledger), *(rule.name for rule in ports.stores.pipeline.alerts)}
    return ports.alerts.having(sorted(rules), key)


def _scrub(ports: ErasurePorts, shard_id: str, key: KeyValue, owner: str) -> int:
    def change(state: ShardState) -> int:
        return state.forget(key, is_origin=is_origin(ports.stores))

    gone = change_state(ports.stores, shard_id, owner, change)
    stores = ports.stores
    by = {view.name: view.by for view in stores.kept_pipeline().views}
    forget_flushed(stores.ledger, stores.objects, shard_id, by, key)
    return gone


def _look(ports: ErasurePorts, key: KeyValue, about: KeyLetters) -> list[str]:
    """Return where the key still is outside the lake, by reading everything again."""
    stores, left = ports.stores, list[str]()
    document, _ = stores.ledger.document(DOCUMENT)
    kept = keeping(stores.pipeline, document)
    left += [f"view {view.name}" for view in kept.views if ports.views.partitions(view.spec, key)]
    left += [f"view {name}, whose building has begun since" for name in building(stores.pipeline, document)]
    left += [f"alert {entry.rule}" for entry in _alerts(ports, key)]
    store = StateStore(kept, stores.objects)
    for entry in stores.ledger.shards():
        if store.load(entry).forget(key, is_origin=is_origin(ports.stores)):
            left.append(f"state of shard {entry.shard_id}")
    left += [f"dead letter {one.name}" for one in ports.letters.list(stores.pipeline.name) if about.has(one)][:_NAMED]
    doubtful = sorted(about.doubtful)
    left += [f"dead letter {name}, whose key cannot be read: it may be of this one" for name in doubtful[:_NAMED]]
    return left + ([f"{len(doubtful) - _NAMED:,} more such dead letters"] if len(doubtful) > _NAMED else [])
