"""Compute the pipeline's watermark from its shards' ledger entries: which windows are final.

Alerts judge by it, the API and the console show it. Pure: entries, listed shards and the time come in as arguments.
A shard's own watermark, which decides what is late, belongs to the engine and must not be computed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from headwater.ledger import ShardEntry
from headwater.processors.definition.pipeline import Pipeline

__all__ = ["final_until", "watermark_of"]

_IDLE_STEP_MS = 10_000


def watermark_of(
    entries: Sequence[ShardEntry],
    idle_until_ms: int | None = None,
    listed: Mapping[str, Sequence[str]] | None = None,
) -> int | None:
    """Return the event time, epoch ms, up to which the slowest shard that is still read has committed.

    The answer is None while one shard has committed nothing. A shard that has committed nothing since `idle_until_ms`
    counts as read up to there.

    `listed` maps the stream's shards to their parents, and was listed after the entries were read. With it, a shard
    that nobody has claimed yet counts as read up to where its parents were, so it holds the watermark back from the
    reshard until its first commit; one without parents leaves the answer None. Without it, the children of a closed
    shard count from their claim on.
    """
    parents = listed or {}
    last = parents.keys() - {parent for each in parents.values() for parent in each}
    known = {entry.shard_id: entry for entry in entries}

    def mark_of(shard_id: str) -> int | None:
        entry = known.get(shard_id)
        if entry is not None and entry.watermark_ms is not None:
            return entry.watermark_ms
        return _least([mark_of(parent) for parent in parents.get(shard_id, ())])

    def updated_of(shard_id: str) -> int | None:
        entry = known.get(shard_id)
        if entry is not None:
            return entry.updated_ms
        return max((at for at in map(updated_of, parents.get(shard_id, ())) if at is not None), default=None)

    # the ends of all lineages: open shards, and a closed one whose children are not listed yet
    read = {entry.shard_id for entry in entries if not entry.closed} | last
    marks = []
    for shard_id in read or known:
        mark, updated = mark_of(shard_id), updated_of(shard_id)
        if idle_until_ms is not None and updated is not None and updated < idle_until_ms:
            mark = idle_until_ms if mark is None else max(mark, idle_until_ms)
        marks.append(mark)
    return _least(marks)


def _least(marks: Sequence[int | None]) -> int | None:
    """Return the least mark; None when one is missing or there are none."""
    known = [mark for mark in marks if mark is not None]
    return min(known) if known and len(known) == len(marks) else None


def final_until(
    pipeline: Pipeline,
    idle_seconds: float,
    entries: Sequence[ShardEntry],
    listed: Mapping[str, Sequence[str]],
    now_ms: int,
) -> int | None:
    """Return the event time, epoch ms, up to which windows are final: only late events can still come for them.

    The answer is None while a shard has committed nothing. `listed` maps the stream's shards to their parents, and was
    listed after the entries were read.

    An event time ahead of its arrival, as from a device with a wrong clock, moves the answer no further than the time
    of the commit less the allowed lateness. With `idle_seconds` above 0 a shard that has committed nothing for
    so long counts as read up to so long ago, in steps of ten seconds.
    """
    idle_ms = round(idle_seconds * 1000)
    capped = [_capped(entry, pipeline.lateness_ms) for entry in entries]
    # in steps, so that the answer, which readers compare and cache, does not change with every call
    idle_until_ms = (now_ms - idle_ms) // _IDLE_STEP_MS * _IDLE_STEP_MS if idle_ms else None
    return watermark_of(capped, idle_until_ms, listed)


def _capped(entry: ShardEntry, lateness_ms: int) -> ShardEntry:
    mark = entry.watermark_ms
    return entry if mark is None else replace(entry, watermark_ms=min(mark, entry.updated_ms - lateness_ms))
