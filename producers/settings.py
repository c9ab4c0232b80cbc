"""Hold what a producer can be set to, and what it says about a delivery. Values only: no behaviour, no I/O."""

from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import Literal

from headwater.arguments import check_fields
from headwater.clock import Clock, SystemClock
from headwater.errors import UsageError

__all__ = ["ProducerSettings", "ProducerStats", "Receipt", "Runtime"]

_LONGEST = 1_000_000_000
"""Maximum of any time: longer ones overflow a wait of Python's."""


@dataclass(frozen=True)
class ProducerSettings:
    """Set the limits and habits of a producer. Times are in the unit of the name, sizes in bytes.

    The limits are those of Kinesis: a record holds 1 MiB unless the stream's MaxRecordSize was raised, a PutRecords
    5 MiB and 500 records. UsageError names a setting that cannot be.

    >>> ProducerSettings(linger_ms=50, when_full="raise").max_events
    5000
    >>> ProducerSettings(format="xml")
    Traceback (most recent call last):
    headwater.errors.UsageError: ProducerSettings: format must be 'columnar' or 'kpl' or 'json', not the text 'xml'
    """

    max_events: int = 5_000
    """A batch is sealed at so many events."""
    linger_ms: int = 1_000
    """A batch is sealed when its first event has waited so long."""
    max_record_bytes: int = 1 << 20
    """Data and partition key of a record: 1 MiB, unless the stream's MaxRecordSize was raised (to 10 MiB at most)."""
    max_request_bytes: int = 5 << 20
    """Maximum size of one PutRecords, keys included: 5 MiB, 10 MiB where the service takes that."""
    max_buffer_bytes: int = 64 << 20
    """Events not yet sealed and sealed batches in memory, together. An outbox may hold more on disk."""
    when_full: Literal["block", "raise", "drop"] = "block"
    """When the buffer is full: wait for room, raise BufferFull, or drop the event and count it."""
    block_seconds: float = 60.0
    """Longest wait of `block` for room before BufferFull."""
    ordered: bool = False
    """Keep each key on one chain of shards, in order: one unconfirmed batch a partition at a time."""
    partitions: int = 16
    """Into how many chains `ordered` puts the keys; of a contract with its own id, the contract says it."""
    format: Literal["columnar", "kpl", "json"] = "columnar"
    """`kpl` and `json` (lines) are for readers of others: their records carry no identity of ours, so there are no
    receipts, and a record sent twice because its answer was lost counts twice unless the contract has its own id."""
    receipts: bool = True
    """Put on the stream which events it has, for the audit."""
    receipt_seconds: float = 30.0
    """Time between receipts while events flow; `flush` and `close` put them at once."""
    delivery_seconds: float = 120.0
    """Time for which a batch is tried after its first attempt. Then it fails; with an outbox it stays on disk and
    is tried for as long as the producer runs, and this is how long `flush` and `close` wait for it."""

    outbox_survives: Literal["power", "process"] = "power"
    """Failures that an outbox's events survive: loss of power, at the price of one flush of the disk for each `put`
    (some milliseconds; for `put_batch` it makes no difference), or only the death of the process."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("linger_ms", "block_seconds", "receipt_seconds", "delivery_seconds"):
            if not 0 <= getattr(self, name) < _LONGEST:
                raise UsageError(f"{name} {getattr(self, name)} is not a time from 0 to {_LONGEST:,}")
        for name in ("max_events", "partitions", "max_record_bytes", "max_request_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} is not a whole number from 1")
        if self.max_request_bytes < self.max_record_bytes:
            raise UsageError(f"max_request_bytes {self.max_request_bytes} is less than max_record_bytes")
        if self.max_buffer_bytes < 2 * self.max_record_bytes:
            raise UsageError(f"max_buffer_bytes {self.max_buffer_bytes} is less than two of max_record_bytes")


@dataclass(frozen=True)
class Runtime:
    """Give a producer its time and randomness. Tests and simulations bring their own."""

    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=SystemRandom)


@dataclass(frozen=True)
class Receipt:
    """Say that Kinesis has the events `first_seq` to `first_seq + count - 1` of `origin`.

    Without an identity of ours (own ids, other formats) `origin` is empty and `first_seq` 0. Of events that had to be
    cut over several records, shard and sequence number are those of the record confirmed last.

    >>> receipt = Receipt("9f1c", 100, 50, "shardId-000000000000", "49590338271490256608559692538361571095")
    >>> range(receipt.first_seq, receipt.first_seq + receipt.count)
    range(100, 150)
    """

    origin: str
    first_seq: int
    count: int
    shard_id: str
    sequence_number: str


@dataclass(frozen=True)
class ProducerStats:
    """Count a producer's events; `retried` counts records sent again, `buffered_bytes` the memory they take.

    `accepted` = `delivered` + `failed` + those still on their way. An outbox opened again adds the events of earlier
    runs to `delivered`.

    >>> stats = ProducerStats(accepted=10, delivered=7, failed=1)
    >>> stats.accepted - stats.delivered - stats.failed
    2
    """

    accepted: int = 0
    delivered: int = 0
    retried: int = 0
    dropped: int = 0
    failed: int = 0
    buffered_bytes: int = 0
