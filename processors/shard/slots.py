"""Name the slots of a view's rows and their versions.

A slot belongs to one writer: a shard and a lateness bucket, or a rebuild. Its version orders that writer's values by
input, then by epoch, so that what a later owner of the shard computes, perhaps by other code, replaces the same input.
"""

from collections.abc import Sequence

from headwater.aggregates import Aggregate
from headwater.aggregates.merging import nothing
from headwater.processors.operators.aggregate import Partial, SlotName
from headwater.sinks.views.slots import Upsert, slot_version

__all__ = ["emptied", "upsert"]


def upsert(partial: Partial, slot: str, epoch: int = 0, through: str = "") -> Upsert:
    """Return the write that brings this slot of the partial's row up to the partial.

    `epoch` is the shard owner's and `through` the position it has reached; a rebuild, which no other writer follows in
    its slots, has neither.
    """
    return Upsert(
        key=partial.key,
        window_start_ms=partial.window_start_ms,
        window_end_ms=partial.window_end_ms,
        slot=slot,
        version=slot_version(partial.version, epoch) if epoch else partial.version,
        partial=partial.partial,
        through=through,
    )


def emptied(name: SlotName, aggregates: Sequence[Aggregate], shard_id: str, epoch: int, through: str) -> Upsert:
    """Return the write that empties a slot which an earlier owner flushed, and this one never made.

    The slot stays, in this owner's version: removed, a write of the earlier owner that is still on its way would bring
    it back.
    """
    return Upsert(
        key=name.key,
        window_start_ms=name.window_start_ms,
        window_end_ms=name.window_end_ms,
        slot=f"{shard_id}/{name.bucket}",
        version=slot_version(through, epoch),
        partial=nothing(aggregates),
        through=through,
    )
