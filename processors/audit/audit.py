"""Compare the hops: accepted, processed, in the lake, per origin, each missing interval by number. Pure.

Every hop keeps the set of identities that it has; what is missing between two hops is a difference of sets. What shards
have forgotten, because nothing of the origin has arrived for 30 days, is counted and not judged.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from headwater.ledger import ShardEntry
from headwater.lineage.intervals import IntervalSet
from headwater.lineage.origins import OriginSets
from headwater.processors.audit.accepted import AcceptedGaps
from headwater.processors.audit.committed import Committed
from headwater.processors.audit.identities import RowIdentities, collect
from headwater.processors.audit.losses import losses_of
from headwater.processors.audit.presence import ForeignPresence, Hashes, foreign_presence, foreign_rows
from headwater.processors.audit.receipts import ReceiptCoverage
from headwater.processors.audit.report import AuditReport, Evidence, ForeignAudit, OriginAudit
from headwater.processors.audit.single import audit_single_events
from headwater.processors.engine.state import ShardState

__all__ = ["AuditOptions", "audit"]


@dataclass(frozen=True)
class AuditOptions:
    """Set what an audit takes into account beside the hops."""

    single_events: bool = False
    """Every event is an origin of its own: report by shard and minute, not by origin."""
    accepted: AcceptedGaps = field(default_factory=AcceptedGaps)


def audit(
    pipeline: str,
    entries: Sequence[ShardEntry],
    states: Sequence[ShardState],
    lake: Iterable[pa.RecordBatch],
    waiting: Iterable[pa.RecordBatch] = (),
    later: Callable[[], Sequence[ShardState]] | None = None,
    listed: Mapping[str, Sequence[str]] | None = None,
    *,
    options: AuditOptions | None = None,
) -> AuditReport:
    """Compare the hops. `states` are the committed ones of `entries`, closed shards included.

    `lake` yields the columns `_origin`, `_seq` and `_arrived_at` of every row of the table, `waiting` the first two of
    every row of the entries' pending files.

    All may be read while the pipeline runs, in this order: states, files, lake. What the lake has beyond the states may
    have been committed in between; `later` gives the states as they are by then. `listed` are the stream's shards and
    their parents, listed after the entries: it tells shards that are read at different speeds from loss. Without it,
    everything accepted has to be processed.
    """
    options = options or AuditOptions()
    coverage, known = ReceiptCoverage(entries, states, listed or {}), Committed(states)
    found, on_its_way = collect(lake, known.cutoff_ms), collect(waiting)
    names, single = list[str](), None
    if options.single_events:
        single = audit_single_events(entries, states, known, coverage, (found, on_its_way), later, options.accepted)
    else:
        names = sorted({*known.accepted.origins(), *known.processed.origins(), *found.own_origins()})
    newest = Committed(later()) if later is not None and _is_beyond(known, found, names) else known
    comparison = _Comparison(known, newest, coverage, found, on_its_way, options.accepted)
    foreign = comparison.foreign()
    pending = [file for entry in entries for file in entry.pending]
    lost = losses_of(known.counts)
    return AuditReport(
        pipeline,
        tuple(map(comparison.origin, names)),
        foreign,
        known.counts,
        len(pending),
        sum(file.rows for file in pending),
        single,
        losses={name: max(0, number - options.accepted.losses.get(name, 0)) for name, number in lost.items()},
        accepted_by=options.accepted.by,
        evidence=comparison.evidence(foreign.absent, {entry.shard_id: entry.position for entry in entries}),
    )


def _is_beyond(known: Committed, found: RowIdentities, names: Sequence[str]) -> bool:
    """Tell whether the lake has rows, foreign or of these origins, that the states do not know."""
    if found.foreign > known.foreign - known.foreign_excluded:
        return True
    return any(len(found.recent.get(name).difference(known.expected(name))) for name in names)


@dataclass(frozen=True)
class _Comparison:
    """Compare the hops of one origin after the other, and those of the foreign events."""

    known: Committed
    newest: Committed
    coverage: ReceiptCoverage
    found: RowIdentities
    on_its_way: RowIdentities
    accepted: AcceptedGaps

    def origin(self, name: str) -> OriginAudit:
        known, pardoned = self.known, self.accepted.missing.get(name)
        said, processed, lake = known.accepted.get(name), known.processed.get(name), self.found.get(name)
        absent = known.expected(name).difference(lake)
        lost = absent.difference(self.on_its_way.get(name))
        unread, not_processed = self._unprocessed(name, known.judged(name).difference(processed))
        strange = lake.difference(self.newest.expected(name))
        unexpected = strange.difference(self.found.old.get(name))
        unpardoned = self.accepted.unprocessed.get(name)
        left = [not_processed.difference(unpardoned), lost.difference(pardoned)]
        return OriginAudit(
            origin=name,
            accepted=len(said) if len(said) else None,
            processed=len(processed),
            excluded=len(known.left_out(name)),
            in_lake=len(lake),
            waiting=len(absent) - len(lost),
            not_processed=tuple(left[0]),
            unread=tuple(unread),
            not_in_lake=tuple(left[1]),
            unexpected=tuple(unexpected),
            duplicates=self.found.twice(name),
            acknowledged=len(not_processed) + len(lost) - len(left[0]) - len(left[1]),
            expired=len(strange) - len(unexpected),
        )

    def foreign(self) -> ForeignAudit:
        known, newest, found = self.known, self.newest, self.found
        one = ForeignAudit(
            processed=known.foreign,
            excluded=known.foreign_excluded,
            in_lake=found.foreign,
            waiting=self.on_its_way.foreign_beyond(found),
            duplicates=found.foreign_copies,
            unexpected=max(0, found.foreign - newest.foreign + newest.foreign_excluded) + found.nameless,
        )
        return replace(one, acknowledged=min(one.absent, self._accepted_foreign()))

    def _accepted_foreign(self) -> int:
        """Return how many foreign events that were accepted as missing have not come back."""
        gap = self.accepted.presence
        return self.accepted.foreign if gap is None else max(0, gap.missing - len(self._returned(gap)))

    def _returned(self, gap: ForeignPresence) -> Hashes:
        return gap.returned(foreign_rows(self._there(), gap.positions))

    def _there(self) -> list[OriginSets]:
        return [sets for rows in (self.found, self.on_its_way) for sets in (rows.recent, rows.old)]

    def evidence(self, absent: int, positions: Mapping[str, str]) -> Evidence:
        """Return what an acceptance of what is missing now would be bound to, and what has come back of earlier ones.

        `absent` foreign events are missing, accepted or not; `positions` are those of the shards.
        """
        expected = self.known.foreign - self.known.foreign_excluded
        gap, back = self.accepted.presence, OriginSets()
        for name in self.accepted.missing.origins():
            accepted = self.accepted.missing.get(name)
            again = accepted.difference(accepted.difference(self.found.get(name)))
            if len(again):
                back.add_intervals(name, again, 0)
        foreign_back = None if gap is None else self._returned(gap)
        return Evidence(
            foreign_presence(self._there(), positions, expected) if absent else None,
            back,
            foreign_back if foreign_back is not None and len(foreign_back) else None,
        )

    def _unprocessed(self, name: str, unprocessed: IntervalSet) -> tuple[IntervalSet, IntervalSet]:
        """Return which accepted events that were not processed may still be read, and which are missing."""
        if not len(unprocessed):
            return IntervalSet(), IntervalSet()
        missing = self.coverage.passed_everywhere(name, unprocessed, self.known.accepted.seen_ms(name))
        return unprocessed.difference(missing), missing
