"""Choose the shard of each new batch by what the shards did with earlier batches.

A sealed batch never moves: its bytes and its hash key stay through every retry. So the choice is made once, when a
batch is sealed. A throttled shard's share is cut at once and grows back slowly (additive increase, multiplicative
decrease). Of a few shards drawn by share, the one with the least unconfirmed bytes for its share is taken. Aggregates
commute, so readers do not mind; a producer that needs a key's order uses `ordered=True` instead.

Pure but for the random source passed in. Not thread-safe: the producer calls it under its own lock.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable

from headwater.errors import HeadwaterError
from headwater.stream.hashkeys import HASH_SPACE
from headwater.stream.shards import Shard

__all__ = ["Placement"]

_DECREASE = 0.7
"""Part that is left of a shard's share after a refusal; 1.0 is a whole share."""
_INCREASE = 0.02
"""Added to the share per confirmed batch."""
_LEAST = 0.02
"""The smallest share: a throttled shard is still tried now and then, else it would never be seen to recover."""
_CHOICES = 2
"""Shards that are drawn, of which the best is taken. Two already avoid most imbalance."""


class Placement:
    """Choose the explicit hash key of each new batch.

    `random` gives floats in [0, 1). The shards must cover the hash space, else HeadwaterError is raised.
    """

    def __init__(self, shards: Iterable[Shard], random: Callable[[], float]) -> None:
        self._random = random
        self._outstanding: dict[int, int] = {}
        self.stale = False
        """True when a record went to another shard than expected: there was a reshard, so call refresh."""
        self._take(shards)
        self._weights = [1.0] * len(self._shards)
        self._bytes = [0] * len(self._shards)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """Return the shards, in the order of their hash keys."""
        return tuple(self._shards)

    def weight(self, shard_id: str) -> float:
        """Return the shard's present share: 1.0 when it takes everything."""
        return self._weights[self._ids.index(shard_id)]

    def choose(self, size: int) -> int:
        """Return the hash key for a new batch of so many bytes: unique among the unconfirmed ones."""
        drawn = [self._draw() for _ in range(_CHOICES)]
        at = min(drawn, key=lambda i: (self._bytes[i] + size) / self._weights[i])
        shard = self._shards[at]
        width = shard.end - shard.start + 1
        key = shard.start + min(width - 1, int(self._random() * width))
        # a key names its batch until it is confirmed, so step past keys in use; the bound keeps this from looping on
        for _ in range(min(width, 1 << 16)):
            if key not in self._outstanding:
                break
            key = key + 1 if key < shard.end else shard.start
        self._outstanding[key] = self._outstanding.get(key, 0) + size
        self._bytes[at] += size
        return key

    def shard_of(self, hash_key: int) -> str:
        """Return the id of the shard that the key lies in, by the shard map known here."""
        return self._ids[self._at(hash_key)]

    def throttled(self, hash_key: int) -> None:
        """Note that the batch was refused: it is retried where it is, and fewer new ones go there."""
        at = self._at(hash_key)
        self._weights[at] = max(_LEAST, self._weights[at] * _DECREASE)

    def delivered(self, hash_key: int, shard_id: str) -> None:
        """Note that this shard has taken the batch."""
        at = self._at(hash_key)
        self._bytes[at] -= self._outstanding.pop(hash_key, 0)
        self._weights[at] = min(1.0, self._weights[at] + _INCREASE)
        if shard_id != self._ids[at]:
            self.stale = True

    def given_up(self, hash_key: int) -> None:
        """Note that the batch failed for good, or waits in the outbox for a later run."""
        self._bytes[self._at(hash_key)] -= self._outstanding.pop(hash_key, 0)

    def refresh(self, shards: Iterable[Shard]) -> None:
        """Take over a new shard map. Sealed batches keep their keys; a child begins with its parents' share."""
        starts, weights = self._starts, self._weights
        self._take(shards)
        inherited = []
        for shard in self._shards:
            first, last = bisect_right(starts, shard.start) - 1, bisect_right(starts, shard.end) - 1
            inherited.append(sum(weights[first : last + 1]) / (last + 1 - first))
        self._weights = inherited
        self._bytes = [0] * len(self._shards)
        for key, size in self._outstanding.items():
            self._bytes[self._at(key)] += size
        self.stale = False

    def _take(self, shards: Iterable[Shard]) -> None:
        """Store the shard map; raise HeadwaterError when it has a gap or an overlap."""
        found = sorted(shards, key=lambda shard: shard.start)
        expected = 0
        for shard in found:
            if shard.start != expected:
                raise HeadwaterError(f"the shard map has a gap or overlap at {expected}; list the open shards again")
            expected = shard.end + 1
        if expected != HASH_SPACE:
            raise HeadwaterError(f"the shard map ends at {expected}; list the open shards again")
        self._shards = found
        self._starts = [shard.start for shard in found]
        self._ids = [shard.shard_id for shard in found]

    def _at(self, hash_key: int) -> int:
        return bisect_right(self._starts, hash_key) - 1

    def _draw(self) -> int:
        """Draw a shard by its weight: one drawn evenly is kept with that chance."""
        # the bound ends the draw when all weights are tiny
        for _ in range(64):
            at = int(self._random() * len(self._shards))
            if self._random() < self._weights[at]:
                return at
        return max(range(len(self._shards)), key=lambda i: self._weights[i])
