"""Up to where windows are final, as alerts judge by it and the API says it."""

from headwater.config import Settings
from headwater.ledger import ShardEntry
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.watermark import final_until

PIPELINE = Pipeline("p", contract="telemetry", allowed_lateness="1m").lake("p")
NOW_MS = 1_790_000_004_321
LISTED = {"a": (), "b": ()}


def entry(shard_id: str, watermark_ms: int | None, updated_ms: int = NOW_MS) -> ShardEntry:
    return ShardEntry("p", shard_id, 1, "o", watermark_ms=watermark_ms, updated_ms=updated_ms)


def final(*entries: ShardEntry, idle: float = 0.0) -> int | None:
    settings = Settings(commit_seconds=1, idle_seconds=idle)
    return final_until(PIPELINE, settings.idle_seconds, entries, LISTED, NOW_MS)


def test_a_clock_that_is_ahead_brings_it_no_further_than_the_commit() -> None:
    ahead, right = entry("a", NOW_MS + 3_000_000, NOW_MS - 5_000), entry("b", NOW_MS - 61_000)
    assert final(ahead, right) == NOW_MS - 65_000
    assert final(right, entry("a", NOW_MS - 90_000)) == NOW_MS - 90_000


def test_a_shard_without_events_holds_it_unless_idle_ones_count_as_read() -> None:
    """In steps, so that answers stay the same for a while; one that commits is not idle."""
    busy, empty = entry("a", NOW_MS - 61_000), entry("b", None, NOW_MS - 900_000)
    assert final(busy, empty) is None
    assert final(busy, empty, idle=30) == NOW_MS - 61_000
    assert final(busy, empty, idle=100) == 1_789_999_900_000
    assert final(busy, entry("b", None, NOW_MS - 20_000), idle=30) is None
    assert final(busy, idle=30) is None  # a shard that nobody has claimed is not idle
