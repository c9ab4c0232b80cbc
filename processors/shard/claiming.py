"""Claim a shard: raise its epoch in the ledger and load the state that its owner starts from.

What a worker does with the shard afterwards is in `worker`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headwater.errors import Fenced, Retryable
from headwater.ledger import ShardEntry
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState
from headwater.processors.generations import DOCUMENT, beginning, building, check_known, keeping
from headwater.processors.operators.aggregate import ALWAYS, ViewState
from headwater.processors.shard import snapshots
from headwater.processors.shard.context import WorkerContext
from headwater.processors.shard.snapshots import StateStore
from headwater.stream import sequence

__all__ = ["ClaimedShard", "begin_views", "claim_shard", "reload_shard", "views_to_begin"]


@dataclass(frozen=True)
class ClaimedShard:
    """Hold a shard as it was claimed: its ledger entry, under our epoch, and its state at the entry's position."""

    shard_id: str
    entry: ShardEntry
    state: ShardState
    changed: bool = False
    """True when the state differs from the committed one, so that a commit without records is due."""
    hash_range: tuple[int, int] | None = None
    """The shard's first and last hash key, where the runner knows them."""
    parents: tuple[str, ...] = ()


def claim_shard(
    context: WorkerContext, shard_id: str, parents: Sequence[str], hash_range: tuple[int, int] | None
) -> ClaimedShard:
    """Take the shard over. A shard met for the first time starts from its parents' final states.

    Raises Retryable while a parent is not closed in the ledger, and UsageError when the shard is for a newer pipeline.
    """
    ports = context.ports
    initial = None
    if ports.ledger.shard(shard_id) is None:
        initial = _inherited(context, shard_id, parents).dumps()
    small = initial if initial is None or len(initial) <= snapshots.INLINE_STATE else None
    entry = ports.ledger.claim(shard_id, context.owner, small, context.clock.now_ms())
    state, changed = _taken_up(context, entry, initial, parents)
    return ClaimedShard(shard_id, entry, state, changed, hash_range, tuple(parents))


def reload_shard(context: WorkerContext, shard: ClaimedShard) -> ClaimedShard:
    """Return a shard that we own as its last commit left it; raise Fenced when another owner has it."""
    entry = context.ports.ledger.shard(shard.shard_id)
    if entry is None or entry.epoch != shard.entry.epoch:
        raise Fenced(f"shard {shard.shard_id}: another owner has taken it")
    state, changed = _taken_up(context, entry, None, shard.parents)
    return replace(shard, entry=entry, state=state, changed=changed)


def _taken_up(
    context: WorkerContext, entry: ShardEntry, initial: bytes | None, parents: Sequence[str]
) -> tuple[ShardState, bool]:
    """Return the state of the claimed shard, every view to be written anew, and whether it differs from the entry's."""
    pipeline, ledger = context.pipeline, context.ports.ledger
    # read after the claim: a generation that is begun later than this finds the shard in the ledger
    document, _ = ledger.document(DOCUMENT)
    kept = keeping(pipeline, document)
    state = StateStore(kept, context.ports.objects).load(entry)
    if snapshots.is_fresh(entry):
        state = ShardState.loads(kept, initial or _inherited(context, entry.shard_id, parents).dumps())
    unread = entry.position == sequence.NONE
    check_known(pipeline, document, state, entry.shard_id, unread=unread)
    changed = unread and bool(begin_views(pipeline, entry.position, state, kept, document))
    for unbegun in views_to_begin(pipeline, state, kept, document):
        # by a commit: views flushed ahead of one would have what another owner, by another deployment, may commit
        # without the generation, and what is before its beginning is counted elsewhere
        del state.views[unbegun.name]
    first, _ = ledger.document("references")
    state.refer(pipeline, first)
    for view in state.views.values():
        # what the last owner wrote after its last commit is not known
        view.mark_all()
        # of snapshots from before they had it themselves
        view.left_ms = max(view.left_ms, ALWAYS if entry.watermark_ms is None else entry.watermark_ms)
    return state, changed


def _inherited(context: WorkerContext, shard_id: str, parents: Sequence[str]) -> ShardState:
    """Return the state that a shard met for the first time starts from."""
    entries = [entry for entry in map(context.ports.ledger.shard, parents) if entry is not None]
    if not entries:
        return ShardState(context.pipeline)
    if not all(entry.closed for entry in entries):
        raise Retryable(f"shard {shard_id}: its parents {list(parents)} are not read to their end yet")
    store = StateStore(context.pipeline, context.ports.objects)
    first, *others = (store.load(entry) for entry in entries)
    heir = first.child(context.pipeline)
    # two after a merge; more where a shard that nobody read stands between it and the last that the ledger knows
    for other in others:
        heir = heir.child(context.pipeline, other)
    return heir


def views_to_begin(pipeline: Pipeline, state: ShardState, kept: Pipeline, document: Mapping[str, Any]) -> list[View]:
    """Return the views that are being built and that this shard does not maintain yet."""
    wanted = building(pipeline, document)
    return [view for view in kept.views if view.name in wanted and view.name not in state.begun]


def begin_views(
    pipeline: Pipeline, position: str, state: ShardState, kept: Pipeline, document: Mapping[str, Any]
) -> list[str]:
    """Begin the views that are being built at this position; return their stored names."""
    views = views_to_begin(pipeline, state, kept, document)
    for view in views:
        state.views[view.name] = ViewState(view, pipeline.lateness_ms)
        state.begun[view.name] = beginning(position, state.counts)
    return [view.name for view in views]
