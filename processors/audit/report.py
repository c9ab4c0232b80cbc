"""Hold what an audit found, hop by hop. Values only: nothing here reads or compares."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headwater.lineage.origins import OriginSets
from headwater.processors.audit.presence import ForeignPresence, Hashes
from headwater.sinks.lake.quarantine import QuarantinedFile

__all__ = [
    "Acknowledged",
    "AuditReport",
    "Evidence",
    "ForeignAudit",
    "Interval",
    "MinuteAudit",
    "OriginAudit",
    "SingleEventsAudit",
    "UnreadableFile",
]

Interval = tuple[int, int]
"""Half-open, `[start, stop)`."""


@dataclass(frozen=True)
class OriginAudit:
    """Hold the audit of one origin. Intervals are half-open `[start, stop)`."""

    origin: str
    accepted: int | None
    """The events that its producer reported in receipts; None when it sent none."""
    processed: int
    excluded: int
    """Processed, and filtered by the pipeline or in the dead letters."""
    in_lake: int
    waiting: int
    """Not in the lake yet, and in files that are committed: the publisher adds them."""
    not_processed: tuple[Interval, ...]
    """Accepted, and every shard has been read beyond the receipt."""
    unread: tuple[Interval, ...]
    """Accepted, and on a shard that has not been read as far, or lost."""
    not_in_lake: tuple[Interval, ...]
    """Processed, neither in the lake nor in a file that waits for the publisher."""
    unexpected: tuple[Interval, ...]
    """In the lake, and processed by no shard of the ledger."""
    duplicates: int
    acknowledged: int = 0
    """Missing, and somebody has accepted that."""
    expired: int = 0
    """In the lake, and older than the shards' memory of their origins: not judged."""

    @property
    def missing(self) -> int:
        """Return how many events are missing."""
        return sum(stop - start for start, stop in (*self.not_processed, *self.not_in_lake))

    @property
    def exact(self) -> bool:
        """Tell whether each event is there once."""
        return not self.missing and not self.unexpected and not self.duplicates


@dataclass(frozen=True)
class ForeignAudit:
    """Hold the audit of foreign events: named by their place in the stream, and so compared by number alone."""

    processed: int
    excluded: int
    in_lake: int
    waiting: int
    duplicates: int
    unexpected: int = 0
    """More in the lake than were ever processed, and rows that have no identity at all."""
    acknowledged: int = 0
    """Missing, and somebody has accepted that."""

    @property
    def absent(self) -> int:
        """Return how many are neither in the lake nor on their way, accepted or not."""
        return max(0, self.processed - self.excluded - self.in_lake - self.waiting)

    @property
    def missing(self) -> int:
        """Return how many events are missing."""
        return max(0, self.absent - self.acknowledged)

    @property
    def exact(self) -> bool:
        """Tell whether each event is there once."""
        return not self.missing and not self.unexpected and not self.duplicates


@dataclass(frozen=True)
class MinuteAudit:
    """Hold what is amiss among the events that arrived on a shard in a minute, each of which is an origin of its own.

    `shard_id` is empty where no shard knows the event.
    """

    shard_id: str
    minute_ms: int
    not_processed: int
    not_in_lake: int
    unexpected: int
    duplicates: int
    examples: tuple[str, ...]

    @property
    def missing(self) -> int:
        """Return how many events are missing."""
        return self.not_processed + self.not_in_lake


@dataclass(frozen=True)
class SingleEventsAudit:
    """Hold the audit of a contract whose own id is one field, such as a UUID: every event is an origin of its own.

    `minutes` has those minutes of a shard in which something is amiss, in order.
    """

    accepted: int
    processed: int
    excluded: int
    in_lake: int
    waiting: int
    unread: int
    acknowledged: int
    expired: int
    minutes: tuple[MinuteAudit, ...]
    missing_origins: tuple[str, ...] = ()
    """Events that were processed and are not in the lake."""
    unprocessed_origins: tuple[str, ...] = ()
    """Events that were accepted and not processed."""

    @property
    def missing(self) -> int:
        """Return how many events are missing."""
        return sum(one.missing for one in self.minutes)

    @property
    def unexpected(self) -> int:
        """Return how many events are in the lake and were processed by no shard."""
        return sum(one.unexpected for one in self.minutes)

    @property
    def duplicates(self) -> int:
        """Return how many rows of the lake are copies."""
        return sum(one.duplicates for one in self.minutes)

    @property
    def exact(self) -> bool:
        """Tell whether each event is there once."""
        return not self.minutes


@dataclass(frozen=True)
class UnreadableFile:
    """Name a file that the audit could not read: `live` in the table, or `pending` in the ledger.

    `rows` is what the table or the ledger says it held. The audit counts those rows as not there.
    """

    uri: str
    rows: int
    state: str
    reason: str


@dataclass(frozen=True)
class Acknowledged:
    """Hold one acceptance of missing events: by whom, why, when, and how many."""

    who: str
    why: str
    at_ms: int
    events: int
    """The number that was accepted, at the time of the acceptance; it does not fall when some turn up later."""


@dataclass(frozen=True)
class Evidence:
    """Hold what an acceptance of missing events is bound to, and what ends one."""

    foreign: ForeignPresence | None = None
    """The foreign events that are there; None when none is missing."""
    returned: OriginSets = field(default_factory=OriginSets)
    """The events that were accepted as missing and are in the lake again."""
    foreign_returned: Hashes | None = None
    """The same of foreign ones, by hash; None when there are none."""


@dataclass(frozen=True)
class AuditReport:
    """Hold the audit of the whole pipeline.

    `pending` files are committed and not yet confirmed in the table, which is the publisher's work: their rows are
    accounted for, `waiting` of them are in no snapshot yet.
    """

    pipeline: str
    origins: tuple[OriginAudit, ...]
    foreign: ForeignAudit
    counts: Mapping[str, int]
    pending_files: int
    pending_rows: int
    single: SingleEventsAudit | None = None
    """In place of `origins`, where every event is an origin of its own."""
    unreadable: tuple[UnreadableFile, ...] = ()
    losses: Mapping[str, int] = field(default_factory=dict)
    """Counts of what shards lost or found in conflict, by kind (see `audit.losses`), less what was accepted."""
    accepted_by: tuple[Acknowledged, ...] = ()
    other_stream: str = ""
    """Why the ledger is not of the stream that the settings name, where it is not: nothing of that one is read."""
    evidence: "Evidence" = field(default_factory=lambda: Evidence(), repr=False, compare=False)
    quarantined: tuple[QuarantinedFile, ...] = ()
    """Pending files that the publisher could not add to the table: it tries them again, and goes on with all others."""
    unnamed: int = 0
    """Number of further ones that are quarantined: of very many some are named."""

    @property
    def exact(self) -> bool:
        """Tell whether each event is where it has to be, once, and nothing was counted as lost."""
        single = self.single is None or self.single.exact
        origins = all(one.exact for one in self.origins)
        return single and origins and self.foreign.exact and not self.lost and not self.other_stream

    @property
    def lost(self) -> int:
        """Return how often shards counted something as lost or in conflict that nobody has accepted."""
        return sum(self.losses.values())

    def _sum(self, name: str) -> int:
        single = 0 if self.single is None else int(getattr(self.single, name))
        return single + sum(int(getattr(one, name)) for one in (self.foreign, *self.origins))

    @property
    def in_lake(self) -> int:
        """Return how many events the lake has, copies aside."""
        return self._sum("in_lake")

    @property
    def processed(self) -> int:
        """Return how many events were processed, copies aside."""
        return self._sum("processed")

    @property
    def excluded(self) -> int:
        """Return how many processed events are not to be in the lake."""
        return self._sum("excluded")

    @property
    def missing(self) -> int:
        """Return how many events are missing, less those that somebody has accepted as missing."""
        return self._sum("missing")

    @property
    def waiting(self) -> int:
        """Return how many events are in committed files only."""
        return self._sum("waiting")

    @property
    def acknowledged(self) -> int:
        """Return how many events are missing and accepted as such."""
        return self._sum("acknowledged")

    @property
    def expired(self) -> int:
        """Return how many events of the lake are too old to be judged."""
        return sum(one.expired for one in self.origins) + (0 if self.single is None else self.single.expired)

    @property
    def unread(self) -> int:
        """Return how many accepted events are not read yet."""
        single = 0 if self.single is None else self.single.unread
        return single + sum(stop - start for origin in self.origins for start, stop in origin.unread)

    @property
    def unexpected(self) -> int:
        """Return how many events are in the lake, and processed by no shard of the ledger."""
        single = 0 if self.single is None else self.single.unexpected
        return (
            single
            + self.foreign.unexpected
            + sum(stop - start for origin in self.origins for start, stop in origin.unexpected)
        )

    @property
    def duplicates(self) -> int:
        """Return how many rows of the lake are copies."""
        return self._sum("duplicates")
