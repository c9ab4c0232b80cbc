"""Where new batches go: to the shards that take them.

A sealed batch never moves: bytes and hash key stay through every retry. So the choice is made once, when a batch is
sealed, and goes by what the shards did with earlier ones: a throttled shard's share is cut at once and grows back
slowly (additive increase, multiplicative decrease), and of a few shards the one with the least unconfirmed bytes for
its share is taken. Aggregates commute, so readers do not mind; who needs a key's order uses `ordered=True` instead.

Pure but for the random source passed in. Not thread-safe: the producer calls it under its own lock.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headwater.errors import HeadwaterError

__all__ = ["Placement", "PlacementSettings", "ShardRange"]

HASH_SPACE = 1 << 128


@dataclass(frozen=True)
class ShardRange:
    """An open shard: first and last hash key."""

    shard_id: str
    start: int
    end: int


@dataclass(frozen=True)
class PlacementSettings:
    """How fast a shard loses and regains its share (1.0 is a whole one)."""

    decrease: float = 0.7
    increase: float = 0.02
    """Per batch confirmed."""
    least: float = 0.02
    """A throttled shard is still tried now and then."""
    choices: int = 2
    """How many shards are drawn to take the better of."""


class Placement:
    """Chooses the explicit hash key of each new batch.

    `random` gives floats in [0, 1). The shards given must cover the hash space.
    """

    def __init__(
        self, shards: Iterable[ShardRange], random: Callable[[], float], settings: PlacementSettings | None = None
    ) -> None:
        self._random = random
        self._settings = settings or PlacementSettings()
        self._outstanding: dict[int, int] = {}
        self.stale = False
        """A record went to a shard that is not known here: there was a reshard; call refresh with the shards of now."""
        self._take(shards)
        self._weights = [1.0] * len(self._shards)
        self._bytes = [0] * len(self._shards)

    @property
    def shards(self) -> tuple[ShardRange, ...]:
        return tuple(self._shards)

    def weight(self, shard_id: str) -> float:
        """The shard's present share: 1.0 when it takes everything."""
        return self._weights[self._ids.index(shard_id)]

    def choose(self, size: int) -> int:
        """The hash key for a new batch of so many bytes: unique among those unconfirmed."""
        drawn = [self._draw() for _ in range(self._settings.choices)]
        at = min(drawn, key=lambda i: (self._bytes[i] + size) / self._weights[i])
        shard = self._shards[at]
        width = shard.end - shard.start + 1
        key = shard.start + min(width - 1, int(self._random() * width))
        for _ in range(min(width, 1 << 16)):
            if key not in self._outstanding:
                break
            key = key + 1 if key < shard.end else shard.start
        self._outstanding[key] = self._outstanding.get(key, 0) + size
        self._bytes[at] += size
        return key

    def shard_of(self, hash_key: int) -> str:
        """The shard that the key lies in, as far as is known."""
        return self._ids[self._at(hash_key)]

    def throttled(self, hash_key: int) -> None:
        """The batch was refused; it will be retried where it is, and fewer new ones go there."""
        at = self._at(hash_key)
        self._weights[at] = max(self._settings.least, self._weights[at] * self._settings.decrease)

    def delivered(self, hash_key: int, shard_id: str) -> None:
        """The batch was taken by that shard."""
        at = self._at(hash_key)
        self._bytes[at] -= self._outstanding.pop(hash_key, 0)
        self._weights[at] = min(1.0, self._weights[at] + self._settings.increase)
        if shard_id != self._ids[at]:
            self.stale = True

    def given_up(self, hash_key: int) -> None:
        """The batch failed for good, or waits in the outbox for a later run."""
        self._bytes[self._at(hash_key)] -= self._outstanding.pop(hash_key, 0)

    def refresh(self, shards: Iterable[ShardRange]) -> None:
        """Go by a new shard map. Batches sealed keep their keys; a child begins with its parents' share."""
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

    def _take(self, shards: Iterable[ShardRange]) -> None:
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
        """A shard by its weight: drawn evenly and kept with that chance."""
        for _ in range(64):
            at = int(self._random() * len(self._shards))
            if self._random() < self._weights[at]:
                return at
        return max(range(len(self._shards)), key=lambda i: self._weights[i])
