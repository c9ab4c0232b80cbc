"""What a shard delivers."""

from dataclasses import dataclass

__all__ = ["StreamRecord"]


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One Kinesis record as read. `arrived_ms` is ApproximateArrivalTimestamp in epoch milliseconds."""

    shard_id: str
    sequence_number: str
    arrived_ms: int
    partition_key: str
    data: bytes
