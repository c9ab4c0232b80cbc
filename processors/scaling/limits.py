"""Name the limits of Kinesis Data Streams, with the source of each number.

Sources: "Quotas and limits" of the Kinesis Data Streams developer guide; the API reference of SplitShard, MergeShards
and UpdateShardCount. The times a reshard takes are no promise of the service and were not measured here: about 30 s is
the usual reckoning for a split or merge, some minutes for UpdateShardCount. Put in here what you measure, and your
account's quotas where it has others.
"""

from dataclasses import dataclass

__all__ = ["LIMITS", "MIN_WIDTH", "KinesisLimits"]

MIN_WIDTH = 2
"""SplitShard takes a key greater than one plus the shard's first and less than its last (as emulators copy the rule),
so a child has two keys at least."""


@dataclass(frozen=True)
class KinesisLimits:
    """Hold the limits per shard, per stream and per account."""

    write_bytes: float = 1_000_000.0
    """Bytes per second into a shard, partition keys included ("1 MB/s", read the careful way)."""
    write_records: float = 1_000.0
    read_bytes: float = 2_000_000.0
    """Bytes per second out of a shard for all its GetRecords readers together."""
    read_calls: float = 5.0
    """GetRecords calls per second on a shard, all readers together."""
    reshard_calls_per_second: float = 5.0
    """SplitShard and MergeShards calls of an account; a stream takes one at a time."""
    reshard_seconds: float = 30.0
    """From the call to ACTIVE: an estimate."""
    update_seconds: float = 300.0
    """An UpdateShardCount: "a few minutes"."""
    updates_per_day: int = 10
    """UpdateShardCount per rolling 24 hours and stream; each at most doubles or halves."""
    stream_shards: int = 10_000
    """UpdateShardCount goes no further; streams beyond it need splits."""
    account_shards: int = 20_000
    """The default quota in us-east-1, us-west-2 and eu-west-1; 1,000 or 6,000 elsewhere."""


LIMITS = KinesisLimits()
