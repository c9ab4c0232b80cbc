"""List the shards of a stream.

The only place that knows the shape of a ListShards answer. It takes any client with boto3's `list_shards` and raises
that client's errors: retries and the wording of failures are the caller's.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Shard", "list_shards", "open_shards", "shards_at_trim_horizon", "shards_of"]

_PARENTS = ("ParentShardId", "AdjacentParentShardId")


@dataclass(frozen=True, slots=True)
class Shard:
    """Hold one shard as the service lists it; `start` and `end` are its first and last hash key, both inclusive."""

    shard_id: str
    start: int
    end: int
    parents: tuple[str, ...] = ()
    """Its parents that the stream still lists: one after a split, two after a merge."""
    expired_parents: tuple[str, ...] = ()
    """Its parents that are past the retention period, so the stream lists them no longer."""
    closed: bool = False
    """A reshard has closed it: it takes no more records, but can be read until its records expire."""

    @property
    def all_parents(self) -> tuple[str, ...]:
        """Return the ids of all its parents, listed or expired."""
        return self.parents + self.expired_parents

    @property
    def width(self) -> int:
        """Return the number of hash keys it owns."""
        return self.end - self.start + 1


def list_shards(kinesis: Any, stream: str) -> list[Shard]:
    """Return all shards within the retention period, open and closed, in the service's order.

    >>> from headwater.clock import ManualClock
    >>> from headwater.testing.kinesis import MemoryKinesis
    >>> kinesis = MemoryKinesis(ManualClock())
    >>> _ = kinesis.create_stream(StreamName="clicks", ShardCount=2)
    >>> [shard.shard_id for shard in list_shards(kinesis, "clicks")]
    ['shardId-000000000000', 'shardId-000000000001']
    """
    return shards_of(_pages(kinesis, StreamName=stream))


def open_shards(kinesis: Any, stream: str) -> list[Shard]:
    """Return the shards that take records now, ordered by hash key. Their parents all count as expired."""
    found = shards_of(_pages(kinesis, StreamName=stream, ShardFilter={"Type": "AT_LATEST"}))
    return sorted((shard for shard in found if not shard.closed), key=lambda shard: shard.start)


def shards_at_trim_horizon(kinesis: Any, stream: str) -> set[str]:
    """Return the ids of the shards that were open when the oldest record that is still kept arrived.

    A shard that is not among them was opened since, so none of its records has expired.
    """
    found = shards_of(_pages(kinesis, StreamName=stream, ShardFilter={"Type": "AT_TRIM_HORIZON"}))
    return {shard.shard_id for shard in found}


def shards_of(answers: Iterable[Mapping[str, Any]]) -> list[Shard]:
    """Return the shards in the answers of ListShards, one answer a page."""
    listed = [item for answer in answers for item in answer["Shards"]]
    known = {item["ShardId"] for item in listed}
    return [_shard(item, known) for item in listed]


def _shard(item: Mapping[str, Any], known: set[str]) -> Shard:
    parents = [item[name] for name in _PARENTS if item.get(name)]
    return Shard(
        shard_id=item["ShardId"],
        start=int(item["HashKeyRange"]["StartingHashKey"]),
        end=int(item["HashKeyRange"]["EndingHashKey"]),
        parents=tuple(parent for parent in parents if parent in known),
        expired_parents=tuple(parent for parent in parents if parent not in known),
        # an open shard has no ending number; an emulator may answer null
        closed=item.get("SequenceNumberRange", {}).get("EndingSequenceNumber") is not None,
    )


def _pages(kinesis: Any, **request: Any) -> Iterator[dict[str, Any]]:
    while True:
        answer: dict[str, Any] = kinesis.list_shards(**request)
        yield answer
        if not answer.get("NextToken"):
            return
        # the service refuses a request that has both the token and the stream's name
        request = {"NextToken": answer["NextToken"]}
