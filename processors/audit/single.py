"""Compare the hops where every event is an origin of its own, such as a UUID. Pure.

A million such origins are a million names, so they are numbered once and compared as arrays, and what is amiss is told
by the shard and the minute in which it arrived.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, Mask
from headwater.ledger import ShardEntry
from headwater.lineage.foreign import is_foreign
from headwater.lineage.intervals import IntervalSet
from headwater.lineage.origins import OriginSets
from headwater.processors.audit.accepted import AcceptedGaps
from headwater.processors.audit.committed import Committed
from headwater.processors.audit.identities import RowIdentities
from headwater.processors.audit.receipts import ReceiptCoverage
from headwater.processors.audit.report import MinuteAudit, SingleEventsAudit
from headwater.processors.engine.state import ShardState
from headwater.stringcodes import StringCodes

__all__ = ["audit_single_events"]

_EXAMPLES = 5
_MINUTE_MS = 60_000
_ONE = IntervalSet([(0, 1)])


def audit_single_events(
    entries: Sequence[ShardEntry],
    states: Sequence[ShardState],
    known: Committed,
    coverage: ReceiptCoverage,
    rows: tuple[RowIdentities, RowIdentities],
    later: Callable[[], Sequence[ShardState]] | None,
    accepted: AcceptedGaps,
) -> SingleEventsAudit:
    """Compare the hops of a contract whose own id is one field; `rows` are those of the lake and of pending files."""
    found, on_its_way = rows
    events = _NumberedOrigins([known.accepted, known.processed, found.recent, found.old, on_its_way.recent])
    said, processed, expected = events.mask(known.accepted), events.mask(known.processed), events.expected(known)
    recent, waiting = events.mask(found.recent), events.mask(on_its_way.recent)
    pardoned, unpardoned = events.mask(accepted.missing), events.mask(accepted.unprocessed)
    lake = recent | events.mask(found.old)
    newest = expected
    if later is not None and (recent & ~expected).any():
        newest = events.expected(Committed(later()))
    lost = expected & ~lake & ~waiting
    unprocessed = said & ~processed
    judged, missing = _receipts(events, unprocessed, known, coverage)
    places = _ReadPlaces(events, entries, states)
    amiss = {
        "not_processed": missing & ~unpardoned,
        "not_in_lake": lost & ~pardoned,
        "unexpected": recent & ~newest,
    }
    return SingleEventsAudit(
        accepted=int(said.sum()),
        processed=int(processed.sum()),
        excluded=int((processed & ~expected).sum()),
        in_lake=int(lake.sum()),
        waiting=int((expected & ~lake & waiting).sum()),
        unread=int((judged & ~missing).sum()),
        acknowledged=int(((lost & pardoned) | (missing & unpardoned)).sum()),
        expired=int((lake & ~recent & ~newest).sum()),
        minutes=places.minutes(amiss, events.copies(found)),
        unprocessed_origins=events.names(amiss["not_processed"]),
        missing_origins=events.names(amiss["not_in_lake"]),
    )


def _receipts(
    events: "_NumberedOrigins", unprocessed: Mask, known: Committed, coverage: ReceiptCoverage
) -> tuple[Mask, Mask]:
    """Return which accepted and unprocessed events receipts still decide about, and which of them are missing."""
    judged, missing = np.zeros_like(unprocessed), np.zeros_like(unprocessed)
    for code in np.flatnonzero(unprocessed).tolist():
        name = events.name(code)
        if len(known.judged(name)):
            judged[code] = True
            missing[code] = len(coverage.passed_everywhere(name, _ONE, known.accepted.seen_ms(name))) > 0
    return judged, missing


class _NumberedOrigins:
    """Number the origins of several sets, foreign ones aside, so that sets of them are masks of one length."""

    def __init__(self, sets: Sequence[OriginSets]) -> None:
        self._names = StringCodes()
        for one in sets:
            self._names.codes(_origins(one))
        self._own = np.array([not is_foreign(name) for name in self._names.array().to_pylist()], np.bool_)

    def __len__(self) -> int:
        return len(self._own)

    def name(self, code: int) -> str:
        """Return the origin of a code."""
        return self._names[code]

    def names(self, mask: Mask) -> tuple[str, ...]:
        """Return the origins of the events that are true in the mask."""
        return tuple(self._names[code] for code in np.flatnonzero(mask).tolist())

    def codes(self, origins: pa.Array) -> Ints:
        """Return the codes of those origins that are numbered and not foreign, and -1 for others."""
        codes = self._names.codes(origins)
        codes = np.where(codes < len(self), codes, -1)  # numbered by this call: in none of the sets
        own = np.append(self._own, False)  # so that -1 finds a False
        return np.where(own[codes], codes, -1)

    def mask(self, sets: OriginSets) -> Mask:
        """Return which of the events are in the sets."""
        mask = np.zeros(len(self) + 1, np.bool_)
        mask[self.codes(_origins(sets))] = True
        return mask[:-1]

    def expected(self, known: Committed) -> Mask:
        """Return which of the events are to be in the lake."""
        left_out = self.mask(known.excluded) & ~self.mask(known.revived)
        return self.mask(known.processed) & ~left_out

    def copies(self, found: RowIdentities) -> Ints:
        """Return how many rows of each event are copies of another row."""
        copies = np.zeros(len(self) + 1, np.int64)
        names = pa.array(list(found.copies), pa.string())
        np.add.at(copies, self.codes(names), np.array(list(found.copies.values()), np.int64))
        return copies[:-1] + (self.mask(found.recent) & self.mask(found.old))


class _ReadPlaces:
    """Know of each event the shard and the minute in which it was read."""

    def __init__(self, events: _NumberedOrigins, entries: Sequence[ShardEntry], states: Sequence[ShardState]) -> None:
        self._events = events
        self._shards = ["", *(entry.shard_id for entry in entries)]
        self._shard, self._minute = np.zeros(len(events) + 1, np.int64), np.zeros(len(events) + 1, np.int64)
        for number, state in enumerate(states[: len(entries)], 1):
            # what was accepted first: where both are known, the place of the event counts
            for sets in (state.accepted, state.seen):
                table = sets.to_table()
                codes = events.codes(table["origin"].combine_chunks())
                self._shard[codes] = number
                self._minute[codes] = table["seen_ms"].to_numpy() // _MINUTE_MS * _MINUTE_MS

    def minutes(self, amiss: Mapping[str, Mask], copies: Ints) -> tuple[MinuteAudit, ...]:
        """Return what is amiss by shard and minute, in order of time."""
        counts = {name: mask.astype(np.int64) for name, mask in amiss.items()} | {"duplicates": copies}
        at = np.flatnonzero(np.logical_or.reduce([count > 0 for count in counts.values()]))
        groups: dict[tuple[int, int], list[int]] = {}
        for code in at.tolist():
            groups.setdefault((int(self._minute[code]), int(self._shard[code])), []).append(code)
        return tuple(
            MinuteAudit(
                self._shards[shard],
                minute,
                **{name: int(count[codes].sum()) for name, count in counts.items()},
                examples=tuple(self._events.name(code) for code in codes[:_EXAMPLES]),
            )
            for (minute, shard), codes in sorted(groups.items())
        )


def _origins(sets: OriginSets) -> pa.Array:
    return sets.to_table()["origin"].combine_chunks()
