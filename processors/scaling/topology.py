"""Describe the shards of a stream and their hash ranges as values, checked for gaps and overlaps. Pure.

A **layout** is the tuple of the first hash keys of the open shards, in order; the first is 0. Ranges are inclusive at
both ends, as the service writes them.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headwater.errors import HeadwaterError
from headwater.stream.hashkeys import HASH_SPACE
from headwater.stream.shards import Shard, shards_of

__all__ = ["Layout", "Topology", "even_layout", "fingerprint", "parse", "same_layout", "widths"]

Layout = tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """Hold all shards that the service still lists. The open ones cover the hash space without gap or overlap."""

    stream: str
    shards: tuple[Shard, ...]

    @cached_property
    def open(self) -> tuple[Shard, ...]:
        """Return the open shards in the order of their hash ranges."""
        return tuple(sorted((shard for shard in self.shards if not shard.closed), key=lambda shard: shard.start))

    @cached_property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """Return the parents of each shard by its id, those that are no longer listed included."""
        return {shard.shard_id: shard.all_parents for shard in self.shards}

    @cached_property
    def layout(self) -> Layout:
        """Return the first hash key of each open shard, ascending."""
        return tuple(shard.start for shard in self.open)

    def shard(self, shard_id: str) -> Shard | None:
        """Return the shard with this id; None when it is not listed."""
        return next((shard for shard in self.shards if shard.shard_id == shard_id), None)

    def children(self, shard_id: str) -> tuple[Shard, ...]:
        """Return the shards that a split or merge made of this one."""
        return tuple(shard for shard in self.shards if shard_id in shard.all_parents)

    def at(self, key: int) -> Shard:
        """Return the open shard that a hash key falls on."""
        return self.open[bisect_right(self.layout, key) - 1]

    def validate(self) -> "Topology":
        """Return the topology itself; raise HeadwaterError at the first gap or overlap of the open shards."""
        expected = 0
        for shard in self.open:
            if shard.start != expected or shard.end < shard.start:
                kind = "gap" if shard.start > expected else "overlap"
                raise HeadwaterError(
                    f"stream {self.stream}: {kind} in the hash space at {min(expected, shard.start)} before "
                    f"{shard.shard_id}; list the shards again, a reshard may be under way"
                )
            expected = shard.end + 1
        if expected != HASH_SPACE:
            raise HeadwaterError(f"stream {self.stream}: gap in the hash space from {expected} to its end")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return all shards with their shares, parents and children; hash keys are text."""
        return {
            "stream": self.stream,
            "open": len(self.open),
            "fingerprint": fingerprint(self.layout),
            "shards": [
                {
                    "shard_id": shard.shard_id,
                    "start": str(shard.start),
                    "end": str(shard.end),
                    "share": shard.width / HASH_SPACE,
                    "closed": shard.closed,
                    "parents": list(shard.all_parents),
                    "children": [child.shard_id for child in self.children(shard.shard_id)],
                }
                for shard in self.shards
            ],
        }


def parse(stream: str, answers: Iterable[Mapping[str, Any]]) -> Topology:
    """Return the topology in the answers of ListShards, page by page; raise HeadwaterError for a gap or overlap."""
    return Topology(stream, tuple(shards_of(answers))).validate()


def even_layout(count: int) -> Layout:
    """Return the layout of `count` equal shards, as CreateStream and UpdateShardCount make it.

    >>> even_layout(2) == (0, 2**127)
    True
    """
    return tuple(at * HASH_SPACE // count for at in range(count))


def widths(layout: Sequence[int]) -> list[int]:
    """Return the number of hash keys of each shard of the layout.

    >>> widths(even_layout(2)) == [2**127, 2**127]
    True
    """
    ends = [*layout[1:], HASH_SPACE]
    return [end - start for start, end in zip(layout, ends, strict=True)]


def same_layout(one: Layout, other: Layout) -> bool:
    """Tell whether two layouts are equal but for how the service rounds the boundaries of even shards.

    >>> same_layout((0, 2**127), (0, 2**127 + 1)), same_layout((0, 2**127), (0, 2**126))
    (True, False)
    """
    # 2^32 of 2^128 keys: far above any rounding, far below the width of any shard that carries load.
    return len(one) == len(other) and all(abs(a - b) < 1 << 32 for a, b in zip(one, other, strict=True))


def fingerprint(layout: Layout) -> str:
    """Return 12 hexadecimal digits that name the layout, to tell plans of different layouts apart.

    >>> fingerprint((0,)), fingerprint((0, 2**127))
    ('5feceb66ffc8', '2cd026966801')
    """
    return hashlib.sha256(",".join(map(str, layout)).encode()).hexdigest()[:12]
