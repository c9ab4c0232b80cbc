"""Streams in memory for tests."""

from headwater.clock import Clock
from headwater.testing.kinesis import MemoryKinesis

__all__ = ["memory_stream"]


def memory_stream(shards: int, clock: Clock, *, name: str = "s", reshard_seconds: float = 30.0) -> MemoryKinesis:
    """One stream of even shards."""
    kinesis = MemoryKinesis(clock, reshard_seconds=reshard_seconds)
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    return kinesis
