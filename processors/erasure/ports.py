"""Hold what an erasure changes: the places that keep something of a key."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from headwater.ledger import Commit, ShardEntry
from headwater.processors.alerts.store import AlertStore
from headwater.processors.engine.state import ShardState
from headwater.processors.generations import DOCUMENT, check_known, keeping
from headwater.processors.ports import OpenTable, PipelineStores
from headwater.processors.shard.flushes import flush_document
from headwater.processors.shard.snapshots import StateStore, is_fresh
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.lake.maintenance import Maintenance
from headwater.sinks.views.store import ViewStore

__all__ = ["ErasurePorts", "change_state", "is_origin"]

T = TypeVar("T")


@dataclass(frozen=True)
class ErasurePorts:
    """Hold all the places that keep something of a key."""

    stores: PipelineStores
    open_table: OpenTable
    views: ViewStore
    alerts: AlertStore
    letters: DeadLetters
    maintenance: Callable[[], Maintenance]
    view_tables: Callable[[], list[str]]
    """Returns the names of the tables of all views that the pipeline has or had."""
    drop_table: Callable[[str], None]
    """Drops one of them from the catalog, when it is there."""


def is_origin(stores: PipelineStores) -> bool:
    """Tell whether the key itself is the origin of its events."""
    contract = stores.pipeline.contract
    return contract.id is not None and contract.id.origin == contract.key


def change_state(stores: PipelineStores, shard_id: str, owner: str, change: Callable[[ShardState], T]) -> T:
    """Claim the shard, change its state at the position where it is, and commit that.

    Of a shard that has no state yet nothing is committed: it has to begin with the states of its parents.
    """
    entry: ShardEntry = stores.ledger.claim(shard_id, owner, None, stores.clock.now_ms())
    if is_fresh(entry):
        return change(ShardState(stores.pipeline))
    document, _ = stores.ledger.document(DOCUMENT)
    store = StateStore(keeping(stores.pipeline, document), stores.objects)
    state = store.load(entry)
    check_known(stores.pipeline, document, state, shard_id)
    found = change(state)
    body, where = store.store(entry, entry.position, state.dumps())
    after = stores.ledger.commit(
        entry,
        Commit(
            position=entry.position,
            state=body,
            state_key=where,
            files=[],
            counts=state.counts,
            watermark_ms=entry.watermark_ms,
            closed=entry.closed,
            now_ms=stores.clock.now_ms(),
        ),
    )
    # the state before as well, and what owners that died have left: all of it may hold what was taken out
    journal, _ = stores.ledger.document(flush_document(shard_id))
    store.sweep(after, None, journal.get("key", ""))
    return found
