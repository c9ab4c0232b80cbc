"""What a producer can be told, and what it tells about a delivery."""

from dataclasses import dataclass
from typing import Literal

from headwater.errors import UsageError

__all__ = ["ProducerSettings", "ProducerStats", "Receipt"]

_FORMATS = ("columnar", "kpl", "json")
_POLICIES = ("block", "raise", "drop")


@dataclass(frozen=True)
class ProducerSettings:
    """Times in the unit of the name; sizes in bytes."""

    max_events: int = 5_000
    """A batch is sealed at so many events."""
    linger_ms: int = 1_000
    """A batch is sealed when its first event has waited so long."""
    max_record_bytes: int = 1 << 20
    """Data and partition key of a record: 1 MiB, unless the stream's MaxRecordSize was raised (to 10 MiB at most)."""
    max_request_bytes: int = 5 << 20
    """Of one PutRecords, keys included: 5 MiB, 10 MiB where the service takes that."""
    max_buffer_bytes: int = 64 << 20
    """Events not yet sealed, sealed batches and batches on their way, together."""
    when_full: Literal["block", "raise", "drop"] = "block"
    block_seconds: float = 60.0
    """How long `block` waits for room before BufferFull."""
    ordered: bool = False
    """Keep each key on one chain of shards, in order: one unconfirmed batch a partition at a time."""
    partitions: int = 16
    """Into how many chains `ordered` puts the keys; of a contract with its own id, the contract says it."""
    format: Literal["columnar", "kpl", "json"] = "columnar"
    """`kpl` and `json` (lines) are for readers of others: their records carry no identity of ours, so there are no
    receipts, and a record sent twice because its answer was lost counts twice unless the contract has its own id."""
    receipts: bool = True
    receipt_seconds: float = 30.0
    delivery_seconds: float = 120.0
    """A batch that the stream has not taken so long after the first attempt fails (with an outbox it stays there)."""

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise UsageError(f"format {self.format!r} is none of {', '.join(_FORMATS)}")
        if self.when_full not in _POLICIES:
            raise UsageError(f"when_full {self.when_full!r} is none of {', '.join(_POLICIES)}")
        for name in ("max_events", "partitions", "max_record_bytes", "max_request_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is not a whole number from 1")
        if self.max_request_bytes < self.max_record_bytes:
            raise UsageError(f"max_request_bytes {self.max_request_bytes} is less than max_record_bytes")
        if self.max_buffer_bytes < 2 * self.max_record_bytes:
            raise UsageError(f"max_buffer_bytes {self.max_buffer_bytes} is less than two of max_record_bytes")


@dataclass(frozen=True)
class Receipt:
    """Kinesis has the events `first_seq` to `first_seq + count - 1` of `origin`.

    Without an identity of ours (own ids, other formats) `origin` is empty and `first_seq` 0. Of events that had to be
    cut over several records, shard and sequence number are those of the record confirmed last.
    """

    origin: str
    first_seq: int
    count: int
    shard_id: str
    sequence_number: str


@dataclass(frozen=True)
class ProducerStats:
    """Counts of events, but `retried`: records sent again.

    `accepted` = `delivered` + `failed` + those still on their way; of an outbox re-opened, `delivered` counts the
    events of earlier runs too.
    """

    accepted: int = 0
    delivered: int = 0
    retried: int = 0
    dropped: int = 0
    failed: int = 0
    buffered_bytes: int = 0
