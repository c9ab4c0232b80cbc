"""A record as a shard delivers it."""

from dataclasses import dataclass

__all__ = ["StreamRecord"]


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """Hold one Kinesis record as read. `arrived_ms` is ApproximateArrivalTimestamp in epoch milliseconds."""

    shard_id: str
    sequence_number: str
    arrived_ms: int
    partition_key: str
    data: bytes
