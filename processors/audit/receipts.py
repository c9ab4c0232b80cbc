"""Find which of the accepted events every reader must have met by now, so that one not processed is missing.

A receipt goes on every open shard once the events that it reports have been accepted. A reader that has met it on a
shard has read that shard's events of it before; another shard, with some of the events, may be behind. So what counts
is what the readers of all shards have met. A producer that died while it put a receipt leaves it on some shards only:
so a reader has also passed all receipts of an origin with what arrived well after the last of them.
"""

from collections.abc import Mapping, Sequence

from headwater.ledger import ShardEntry
from headwater.lineage.intervals import IntervalSet
from headwater.processors.engine.state import ShardState

__all__ = ["ReceiptCoverage"]

_SKEW_MS = 60_000
"""Arrival times of two shards are not of one clock."""


class ReceiptCoverage:
    """Know which receipts the readers of all shards have passed.

    `listed` are the stream's shards and their parents, listed after the entries were read; without any, every receipt
    counts. `states` are those of `entries`.

    The parents of a claimed shard have been read to their ends, so it knows what any of them met. Those of an unclaimed
    shard perhaps have not been, each for itself, so it knows what all of them met.
    """

    def __init__(
        self, entries: Sequence[ShardEntry], states: Sequence[ShardState], listed: Mapping[str, Sequence[str]]
    ) -> None:
        states_of = dict(zip((entry.shard_id for entry in entries), states, strict=True)) if listed else {}
        self._states = {shard_id: state for shard_id, state in states_of.items() if shard_id in listed}
        self._expired = [state for shard_id, state in states_of.items() if shard_id not in listed]
        self._parents = listed
        self._read: dict[str, int] = {}
        last = listed.keys() - {parent for each in listed.values() for parent in each}
        self._last = sorted(last, key=lambda shard_id: (self._read_to(shard_id), shard_id))
        """The last of each line of shards, those first that are furthest behind."""

    def passed_everywhere(self, origin: str, accepted: IntervalSet, arrived_ms: int) -> IntervalSet:
        """Return the part of an origin's accepted events that no shard can still have unread.

        `accepted` is what any shard met in receipts, the last of which arrived at `arrived_ms`. A shard that the stream
        no longer lists has no records any more, so what it met counts whole.
        """
        expired = IntervalSet(span for state in self._expired for span in state.accepted.get(origin))
        over, accepted = _both(accepted, expired), accepted.difference(expired)
        known: dict[str, IntervalSet] = {}
        for shard_id in self._last:
            if not len(accepted):
                break
            if self._read_to(shard_id) <= arrived_ms + _SKEW_MS:
                accepted = _both(accepted, self._met(shard_id, origin, known))
        return over.union(accepted)

    def _read_to(self, shard_id: str) -> int:
        """Return the latest arrival that was read of a shard, which takes over that of its parents."""
        if shard_id not in self._read:
            state, before = self._states.get(shard_id), map(self._read_to, self._parents.get(shard_id, ()))
            self._read[shard_id] = min(before, default=0) if state is None else state.max_arrived
        return self._read[shard_id]

    def _met(self, shard_id: str, origin: str, known: dict[str, IntervalSet]) -> IntervalSet:
        """Return what receipts on a shard or its parents reported of an origin."""
        if shard_id not in known:
            state = self._states.get(shard_id)
            before = [self._met(one, origin, known) for one in self._parents.get(shard_id, ())]
            if state is not None:
                met = state.accepted.get(origin)
                for one in before:
                    met = met.union(one)
            else:
                met = before[0] if before else IntervalSet()
                for one in before[1:]:
                    met = _both(met, one)
            known[shard_id] = met
        return known[shard_id]


def _both(one: IntervalSet, other: IntervalSet) -> IntervalSet:
    return one.difference(one.difference(other))
