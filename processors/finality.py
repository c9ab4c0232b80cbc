"""Up to where windows are final: no event that is not late can come for them. Alerts judge by it, the API says it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from headwater.config import Settings
from headwater.ledger import ShardEntry, watermark_of
from processors.pipeline import Pipeline

__all__ = ["final_until"]

_STEP_MS = 10_000


def final_until(
    pipeline: Pipeline,
    settings: Settings,
    entries: Sequence[ShardEntry],
    listed: Mapping[str, Sequence[str]],
    now_ms: int,
) -> int | None:
    """In event time, epoch ms; None while some shard has nothing yet. `listed` are the stream's shards and their
    parents, asked for after the entries.

    Events that are ahead of their time, as a device's clock may be, bring it no further than the time of the commit,
    less the lateness. With `idle_seconds` a shard that has committed nothing for so long counts as read up to so long
    ago, in steps of ten seconds.
    """
    idle_ms = round(settings.idle_seconds * 1000)
    capped = [_capped(entry, pipeline.lateness_ms) for entry in entries]
    return watermark_of(capped, (now_ms - idle_ms) // _STEP_MS * _STEP_MS if idle_ms else None, listed)


def _capped(entry: ShardEntry, lateness_ms: int) -> ShardEntry:
    mark = entry.watermark_ms
    return entry if mark is None else replace(entry, watermark_ms=min(mark, entry.updated_ms - lateness_ms))
