"""Put control records: the same word to every reader, whatever the shards do meanwhile."""

import random as random_
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from headwater.awsfailures import retried
from headwater.clock import Clock, SystemClock
from headwater.codec import encode_control
from headwater.errors import HeadwaterError
from headwater.stream.shards import open_shards

__all__ = ["put_control"]

_ROUNDS = 10
"""Attempts of listing and putting: more reshards in a row than a stream can have while this runs."""


def put_control(
    client: Any,
    stream: str,
    kind: str,
    body: Mapping[str, object],
    clock: Clock | None = None,
    random: Callable[[], float] = random_.random,
    key: bytes | None = None,
) -> int:
    """Put a control record, signed with the stream's key, on every open shard; return on how many.

    Afterwards the shards are listed again until none is open that has it not, so that a reshard in between misses
    none. A shard may get it twice (a lost answer): what a control record says has to bear that. Throttling and passing
    failures are retried; all else raises HeadwaterError naming the stream.
    """
    data = encode_control(kind, body, key)
    clock = clock or SystemClock()
    reached: set[str] = set()
    for _ in range(_ROUNDS):
        listed = retried(stream, clock, random, partial(open_shards, client, stream))
        missing = [shard for shard in listed if shard.shard_id not in reached]
        if not missing:
            return len(reached)
        for shard in missing:
            # The middle: after a split it is in one half, and the next listing shows the other as missing.
            place = str((shard.start + shard.end) // 2)
            put = partial(client.put_record, StreamName=stream, Data=data, PartitionKey="headwater")
            answer = retried(stream, clock, random, partial(put, ExplicitHashKey=place))
            reached.add(answer["ShardId"])
    names = ", ".join(shard.shard_id for shard in missing)
    raise HeadwaterError(f"stream {stream}: control record {kind} does not reach {names}: shards keep changing")
