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


class Told:
    """`listed` are the stream's shards and their parents, asked for after the entries; without any, every receipt
    counts. `states` are those of `entries`.

    Of a claimed shard, those that it came from have been read to their ends: what one of them was told, it was told
    before the shard was there. Of another they perhaps have not been, each for itself.
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

    def everywhere(self, origin: str, accepted: IntervalSet, arrived_ms: int) -> IntervalSet:
        """Of what a producer said somewhere that it had accepted, what no shard can still have unread. The last of
        the origin's receipts anywhere arrived then.

        What a shard was told that the stream no longer lists is as old as its records, which have expired.
        """
        expired = IntervalSet(span for state in self._expired for span in state.accepted.get(origin))
        over, accepted = _both(accepted, expired), accepted.difference(expired)
        known: dict[str, IntervalSet] = {}
        for shard_id in self._last:
            if not len(accepted):
                break
            if self._read_to(shard_id) <= arrived_ms + _SKEW_MS:
                accepted = _both(accepted, self._told(shard_id, origin, known))
        return over.union(accepted)

    def _read_to(self, shard_id: str) -> int:
        """The latest arrival that was read of a shard, which takes over that of those it came from."""
        if shard_id not in self._read:
            state, before = self._states.get(shard_id), map(self._read_to, self._parents.get(shard_id, ()))
            self._read[shard_id] = min(before, default=0) if state is None else state.max_arrived
        return self._read[shard_id]

    def _told(self, shard_id: str, origin: str, known: dict[str, IntervalSet]) -> IntervalSet:
        """What of an origin was told on a shard, or on those that it came from."""
        if shard_id not in known:
            state = self._states.get(shard_id)
            before = [self._told(one, origin, known) for one in self._parents.get(shard_id, ())]
            if state is not None:
                told = state.accepted.get(origin)
                for one in before:
                    told = told.union(one)
            else:
                told = before[0] if before else IntervalSet()
                for one in before[1:]:
                    told = _both(told, one)
            known[shard_id] = told
        return known[shard_id]


def _both(one: IntervalSet, other: IntervalSet) -> IntervalSet:
    return one.difference(one.difference(other))
