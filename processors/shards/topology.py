"""Shards and hash ranges as values: what ListShards answers, checked.

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
from processors.shards.limits import HASH_SPACE

__all__ = ["Layout", "Shard", "Topology", "even_layout", "fingerprint", "hash_key", "parse", "same_layout", "widths"]

Layout = tuple[int, ...]


@dataclass(frozen=True)
class Shard:
    """One shard; `start` and `end` are its first and last hash key."""

    shard_id: str
    start: int
    end: int
    parent: str | None = None
    adjacent_parent: str | None = None
    closed: bool = False

    @property
    def width(self) -> int:
        return self.end - self.start + 1


@dataclass(frozen=True)
class Topology:
    """All shards the service still lists. The open ones cover the hash space without gap or overlap."""

    stream: str
    shards: tuple[Shard, ...]

    @cached_property
    def open(self) -> tuple[Shard, ...]:
        return tuple(sorted((shard for shard in self.shards if not shard.closed), key=lambda shard: shard.start))

    @cached_property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """What each shard was made of, also where that is no longer listed."""
        return {
            shard.shard_id: tuple(one for one in (shard.parent, shard.adjacent_parent) if one) for shard in self.shards
        }

    @cached_property
    def layout(self) -> Layout:
        return tuple(shard.start for shard in self.open)

    def shard(self, shard_id: str) -> Shard | None:
        return next((shard for shard in self.shards if shard.shard_id == shard_id), None)

    def children(self, shard_id: str) -> tuple[Shard, ...]:
        """The shards that a split or merge made of this one."""
        return tuple(shard for shard in self.shards if shard_id in (shard.parent, shard.adjacent_parent))

    def at(self, key: int) -> Shard:
        """The open shard that a hash key falls on."""
        return self.open[bisect_right(self.layout, key) - 1]

    def validate(self) -> "Topology":
        """Itself, or an error that names the first gap or overlap of the open shards."""
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
                    "parents": [name for name in (shard.parent, shard.adjacent_parent) if name],
                    "children": [child.shard_id for child in self.children(shard.shard_id)],
                }
                for shard in self.shards
            ],
        }


def parse(stream: str, answers: Iterable[Mapping[str, Any]]) -> Topology:
    """The topology out of the pages of ListShards."""
    shards = []
    for answer in answers:
        for item in answer["Shards"]:
            span = item["HashKeyRange"]
            shards.append(
                Shard(
                    shard_id=item["ShardId"],
                    start=int(span["StartingHashKey"]),
                    end=int(span["EndingHashKey"]),
                    parent=item.get("ParentShardId"),
                    adjacent_parent=item.get("AdjacentParentShardId"),
                    closed="EndingSequenceNumber" in item["SequenceNumberRange"],
                )
            )
    return Topology(stream, tuple(shards)).validate()


def even_layout(count: int) -> Layout:
    """What CreateStream and UpdateShardCount make."""
    return tuple(at * HASH_SPACE // count for at in range(count))


def widths(layout: Sequence[int]) -> list[int]:
    """How many hash keys each shard of the layout has."""
    ends = [*layout[1:], HASH_SPACE]
    return [end - start for start, end in zip(layout, ends, strict=True)]


def same_layout(one: Layout, other: Layout) -> bool:
    """Equal, but for the service's rounding of even layouts (below 2^32 keys of 2^128)."""
    return len(one) == len(other) and all(abs(a - b) < 1 << 32 for a, b in zip(one, other, strict=True))


def fingerprint(layout: Layout) -> str:
    """A short name of the layout, to tell plans of different layouts apart."""
    return hashlib.sha256(",".join(map(str, layout)).encode()).hexdigest()[:12]


def hash_key(partition_key: str) -> int:
    """Where the service places a record without an explicit hash key."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")
