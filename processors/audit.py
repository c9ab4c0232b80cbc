"""The audit: accepted, processed, in the lake, per origin, and each missing interval by number. Pure.

Every hop keeps the set of identities that it has; what is missing between two hops is a difference of sets.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from headwater.ledger import ShardEntry
from headwater.lineage import IntervalSet, OriginSets
from processors.state import ShardState
from processors.told import Told

__all__ = ["AuditReport", "ForeignAudit", "OriginAudit", "audit", "is_foreign"]

Interval = tuple[int, int]
_FOREIGN = re.compile(r"shardId-\d+:\d+")


def is_foreign(origin: str) -> bool:
    """Whether the name is a place in the stream: an event that others wrote without an identity."""
    return _FOREIGN.fullmatch(origin) is not None


@dataclass(frozen=True)
class OriginAudit:
    """One origin, hop by hop. Intervals are half-open `[start, stop)`."""

    origin: str
    accepted: int | None
    """What its producer said in receipts; None when it said nothing."""
    processed: int
    excluded: int
    """Of the processed ones: filtered by the pipeline, or in the dead letters."""
    in_lake: int
    waiting: int
    """Not in the lake yet, and in files that are committed: the publisher adds them."""
    not_processed: tuple[Interval, ...]
    """Accepted, and every shard has been read beyond the receipt."""
    unread: tuple[Interval, ...]
    """Accepted, and on a shard that has not been read as far, or lost."""
    not_in_lake: tuple[Interval, ...]
    """Nor in a file that waits for the publisher."""
    unexpected: tuple[Interval, ...]
    """In the lake, yet by no shard's ledger processed."""
    duplicates: int

    @property
    def missing(self) -> int:
        return sum(stop - start for start, stop in (*self.not_processed, *self.not_in_lake))

    @property
    def exact(self) -> bool:
        return not self.missing and not self.unexpected and not self.duplicates


@dataclass(frozen=True)
class ForeignAudit:
    """Events that others wrote without an identity: named by their place in the stream, compared by number."""

    processed: int
    excluded: int
    in_lake: int
    waiting: int
    duplicates: int
    unexpected: int = 0
    """More in the lake than were ever processed."""

    @property
    def missing(self) -> int:
        return max(0, self.processed - self.excluded - self.in_lake - self.waiting)

    @property
    def exact(self) -> bool:
        return not self.missing and not self.unexpected and not self.duplicates


@dataclass(frozen=True)
class AuditReport:
    """The whole pipeline. `pending` files are committed and not yet confirmed in the table, which is the publisher's
    work: their rows are accounted for, `waiting` of them are in no snapshot yet."""

    pipeline: str
    origins: tuple[OriginAudit, ...]
    foreign: ForeignAudit
    counts: Mapping[str, int]
    pending_files: int
    pending_rows: int

    @property
    def exact(self) -> bool:
        return self.foreign.exact and all(origin.exact for origin in self.origins)

    @property
    def in_lake(self) -> int:
        return self.foreign.in_lake + sum(origin.in_lake for origin in self.origins)

    @property
    def processed(self) -> int:
        return self.foreign.processed + sum(origin.processed for origin in self.origins)

    @property
    def excluded(self) -> int:
        return self.foreign.excluded + sum(origin.excluded for origin in self.origins)

    @property
    def missing(self) -> int:
        return self.foreign.missing + sum(origin.missing for origin in self.origins)

    @property
    def waiting(self) -> int:
        return self.foreign.waiting + sum(origin.waiting for origin in self.origins)

    @property
    def unread(self) -> int:
        """Accepted, and not read yet."""
        return sum(stop - start for origin in self.origins for start, stop in origin.unread)

    @property
    def unexpected(self) -> int:
        """In the lake, yet by no ledger processed."""
        return self.foreign.unexpected + sum(
            stop - start for origin in self.origins for start, stop in origin.unexpected
        )

    @property
    def duplicates(self) -> int:
        return self.foreign.duplicates + sum(origin.duplicates for origin in self.origins)


def audit(
    pipeline: str,
    entries: Sequence[ShardEntry],
    states: Sequence[ShardState],
    lake: Iterable[pa.RecordBatch],
    waiting: Iterable[pa.RecordBatch] = (),
    later: Callable[[], Sequence[ShardState]] | None = None,
    listed: Mapping[str, Sequence[str]] | None = None,
) -> AuditReport:
    """Compare the hops. `states` are the committed ones of `entries`, closed shards included; `lake` yields columns
    `_origin` and `_seq` of every row of the table, `waiting` of every row of the entries' pending files.

    All may be read while the pipeline runs, in this order: states, files, lake. What the lake has beyond the states
    may have been committed in between; `later` gives the states as they are by then. `listed` are the stream's shards
    and their parents, asked for after the entries: shards that are read at different speeds are told apart from loss.
    Without, everything accepted has to be processed.
    """
    told = Told(entries, states, listed or {})
    known, found = _Known(states), _rows(lake)
    names = sorted({*known.accepted.origins(), *known.processed.origins(), *found.own.origins()})
    on_its_way = _rows(waiting)
    newest = known
    if later is not None and _beyond(known, found, names):
        newest = _Known(later())
    pending = [file for entry in entries for file in entry.pending]
    return AuditReport(
        pipeline,
        tuple(_origin(name, known, told, newest, found, on_its_way.own.get(name)) for name in names),
        ForeignAudit(
            known.foreign,
            known.foreign_excluded,
            found.foreign,
            on_its_way.others_beyond(found),
            found.foreign_copies,
            max(0, found.foreign - newest.foreign + newest.foreign_excluded),
        ),
        known.counts,
        len(pending),
        sum(file.rows for file in pending),
    )


class _Known:
    """What the shards' states have together."""

    def __init__(self, states: Sequence[ShardState]) -> None:
        self.accepted, self.processed, self.excluded, self._revived = (OriginSets() for _ in range(4))
        self.counts: dict[str, int] = {}
        for state in states:
            self.accepted.update(state.accepted)
            self.processed.update(state.seen)
            self.excluded.update(state.excluded)
            self._revived.update(state.revived)
            for name, number in state.counts.items():
                self.counts[name] = self.counts.get(name, 0) + number
        self.foreign = self.counts.get("foreign", 0)
        self.foreign_excluded = self.counts.get("foreign_excluded", 0)

    def left_out(self, name: str) -> IntervalSet:
        """Of an origin, what is not to be in the lake."""
        return self.excluded.get(name).difference(self._revived.get(name))

    def expected(self, name: str) -> IntervalSet:
        """Of an origin, what is to be in the lake."""
        return self.processed.get(name).difference(self.left_out(name))


@dataclass(frozen=True)
class _Rows:
    """Identities of rows: of producers, with how many are copies by origin; and of others, by number."""

    all: OriginSets
    is_foreign: Sequence[bool]
    """Of each origin."""
    copies: Mapping[str, int]
    foreign: int
    foreign_copies: int

    @cached_property
    def own(self) -> OriginSets:
        own = OriginSets()
        for code, outside in enumerate(self.is_foreign):
            if not outside:
                own.add_intervals(self.all.name(code), self.all.get(self.all.name(code)), 0)
        return own

    def others_beyond(self, other: "_Rows") -> int:
        """How many rows of others are here and not there."""
        names = [self.all.name(code) for code, outside in enumerate(self.is_foreign) if outside]
        return sum(len(self.all.get(name).difference(other.all.get(name))) for name in names)


def _beyond(known: _Known, found: _Rows, names: Sequence[str]) -> bool:
    """Whether the lake has rows that the states do not know of."""
    if found.foreign > known.foreign - known.foreign_excluded:
        return True
    return any(len(found.own.get(name).difference(known.expected(name))) for name in names)


def _origin(name: str, known: _Known, told: Told, newest: _Known, found: _Rows, on_its_way: IntervalSet) -> OriginAudit:
    accepted, processed, lake = known.accepted.get(name), known.processed.get(name), found.own.get(name)
    absent = known.expected(name).difference(lake)
    lost = absent.difference(on_its_way)
    unprocessed = accepted.difference(processed)
    arrived_ms = known.accepted.seen_ms(name)
    not_processed = told.everywhere(name, unprocessed, arrived_ms) if len(unprocessed) else unprocessed
    return OriginAudit(
        origin=name,
        accepted=len(accepted) if len(accepted) else None,
        processed=len(processed),
        excluded=len(known.left_out(name)),
        in_lake=len(lake),
        waiting=len(absent) - len(lost),
        not_processed=tuple(not_processed),
        unread=tuple(unprocessed.difference(not_processed)),
        not_in_lake=tuple(lost),
        unexpected=tuple(lake.difference(newest.expected(name))),
        duplicates=found.copies.get(name, 0),
    )


def _rows(batches: Iterable[pa.RecordBatch]) -> _Rows:
    """Each counted once, and the copies."""
    found, copies, foreign, foreign_copies = OriginSets(), dict[str, int](), 0, 0
    is_foreign: list[bool] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        origin = batch.column("_origin")
        if not pa.types.is_dictionary(origin.type):
            origin = origin.dictionary_encode()
        codes = found.codes(origin.dictionary)[origin.indices.to_numpy()]
        is_foreign.extend(
            _FOREIGN.fullmatch(found.name(code)) is not None for code in range(len(is_foreign), len(found))
        )
        seqs = batch.column("_seq").to_numpy()
        new = found.add(codes, seqs, np.zeros(len(codes), np.int64))
        outside = np.array(is_foreign)[codes]
        foreign += int((new & outside).sum())
        foreign_copies += int((~new & outside).sum())
        for code, number in zip(*np.unique(codes[~new & ~outside], return_counts=True), strict=True):
            name = found.name(int(code))
            copies[name] = copies.get(name, 0) + int(number)
    return _Rows(found, is_foreign, copies, foreign, foreign_copies)
