"""Which of the accepted events every reader must have met by now, so that one not processed is missing.

A receipt goes on every open shard once the events that it tells of have been taken. Who has read it on a shard has read
that shard's events of it before; another shard, with some of the events, may be behind. So what counts is what the
readers of all shards have been told. A producer that died while it told a receipt leaves it on some shards only: so a
reader has also passed all receipts of an origin with what arrived well after the last of them.
"""

from collections.abc import Mapping, Sequence

from headwater.ledger import ShardEntry
from headwater.lineage import IntervalSet
from processors.state import ShardState

__all__ = ["Told"]

_SKEW_MS = 60_000
"""Arrival times of two shards are not of one clock."""
_Line = tuple[IntervalSet, int]
"""What of an origin was told, and the latest arrival read."""


class Told:
    """`listed` are the stream's shards and their parents, asked for after the entries; without any, every receipt
    counts. `states` are those of `entries`."""

    def __init__(
        self, entries: Sequence[ShardEntry], states: Sequence[ShardState], listed: Mapping[str, Sequence[str]]
    ) -> None:
        states_of = dict(zip((entry.shard_id for entry in entries), states, strict=True)) if listed else {}
        self._states = {shard_id: state for shard_id, state in states_of.items() if shard_id in listed}
        self._expired = [state for shard_id, state in states_of.items() if shard_id not in listed]
        self._parents = listed
        self._last = listed.keys() - {parent for each in listed.values() for parent in each}

    def everywhere(self, origin: str, accepted: IntervalSet) -> IntervalSet:
        """Of what a producer said somewhere that it had accepted, what no shard can still have unread. What a shard was
        told that the stream no longer lists is as old as its records, which have expired."""
        expired = IntervalSet(span for state in self._expired for span in state.accepted.get(origin))
        over, accepted = _both(accepted, expired), accepted.difference(expired)
        arrived = max((state.accepted.seen_ms(origin) for state in self._states.values()), default=0)
        known: dict[str, _Line] = {}
        for shard_id in sorted(self._last):
            told, read = self._line(shard_id, origin, known)
            if read <= arrived + _SKEW_MS:
                accepted = _both(accepted, told)
        return over.union(accepted)

    def _line(self, shard_id: str, origin: str, known: dict[str, _Line]) -> _Line:
        """Of a shard and those that it came from. Those of a claimed shard have been read to their ends: what one of
        them was told, it was told before the shard was there. Those of another are perhaps not, each for itself."""
        if shard_id in known:
            return known[shard_id]
        state = self._states.get(shard_id)
        lines = [self._line(parent, origin, known) for parent in self._parents.get(shard_id, ())]
        if state is not None:
            told, read = state.accepted.get(origin), state.max_arrived
            for parent_told, parent_read in lines:
                told, read = told.union(parent_told), max(read, parent_read)
        elif lines:
            (told, read), *others = lines
            for parent_told, parent_read in others:
                told, read = _both(told, parent_told), min(read, parent_read)
        else:
            told, read = IntervalSet(), 0
        known[shard_id] = told, read
        return known[shard_id]


def _both(one: IntervalSet, other: IntervalSet) -> IntervalSet:
    return one.difference(one.difference(other))
