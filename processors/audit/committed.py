"""Unite what the shards' committed states have. Pure."""

from collections.abc import Sequence

import pyarrow.compute as pc

from headwater.clock import DAY_MS
from headwater.lineage.intervals import IntervalSet
from headwater.lineage.origins import OriginSets
from headwater.processors.engine.state import ShardState

__all__ = ["Committed"]

_SLACK_MS = DAY_MS
"""Longest that a receipt comes after its events."""


class Committed:
    """Hold what the states have together: the sets of origins, the counts, and how far back they remember."""

    def __init__(self, states: Sequence[ShardState]) -> None:
        self.accepted, self.processed, self.excluded, self.revived = (OriginSets() for _ in range(4))
        self.counts: dict[str, int] = {}
        self.newest_ms = max((state.max_arrived for state in states), default=0)
        self.horizon_ms = min((state.seen.horizon_ms for state in states), default=0)
        for state in states:
            self.accepted.update(state.accepted)
            self.processed.update(state.seen)
            self.excluded.update(state.excluded)
            self.revived.update(state.revived)
            for name, number in state.counts.items():
                self.counts[name] = self.counts.get(name, 0) + number
        self._judged = self._recent(states)
        self.foreign = self.counts.get("foreign", 0)
        self.foreign_excluded = self.counts.get("foreign_excluded", 0)

    @property
    def cutoff_ms(self) -> int | None:
        """Return the time of arrival before which a shard may have forgotten an origin; None before the first event.

        A shard forgets an origin of which nothing has arrived for the horizon, so it knows all that arrived since.
        """
        return self.newest_ms - self.horizon_ms if self.newest_ms else None

    def left_out(self, name: str) -> IntervalSet:
        """Return what of an origin is not to be in the lake."""
        return self.excluded.get(name).difference(self.revived.get(name))

    def expected(self, name: str) -> IntervalSet:
        """Return what of an origin is to be in the lake."""
        return self.processed.get(name).difference(self.left_out(name))

    def judged(self, name: str) -> IntervalSet:
        """Return what receipts say of an origin that can still be held against what was processed.

        An idle shard keeps a receipt for as long as nothing arrives there, one that has ended keeps it for good, while
        the shard that had the events has forgotten them; the origin may go on since. So each shard's receipts count by
        when it had the last. They come a while after the events, hence the slack.
        """
        return self._judged.get(name)

    def _recent(self, states: Sequence[ShardState]) -> OriginSets:
        """Return what receipts said that are not too old on their shard."""
        if self.cutoff_ms is None:
            return self.accepted
        since, tables = self.cutoff_ms + _SLACK_MS, [state.accepted.to_table() for state in states]
        kept = [table.filter(pc.greater_equal(table["seen_ms"], since)) for table in tables]
        if [table.num_rows for table in kept] == [table.num_rows for table in tables]:
            return self.accepted
        recent = OriginSets()
        for table in kept:
            recent.update(OriginSets.from_table(table))
        return recent
