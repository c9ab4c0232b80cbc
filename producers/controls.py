"""Control records: the same word to every reader, whatever the shards do meanwhile."""

import random as random_
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import Clock, SystemClock
from headwater.codec import encode_control
from headwater.errors import HeadwaterError, Retryable
from producers.writer import classify

__all__ = ["open_shards", "put_control"]

_ROUNDS = 10
_ATTEMPTS = 8
_BASE_SECONDS, _CAP_SECONDS = 0.1, 5.0


def put_control(
    client: Any,
    stream: str,
    kind: str,
    body: Mapping[str, object],
    clock: Clock | None = None,
    random: Callable[[], float] = random_.random,
) -> int:
    """Put a control record on every open shard; returns on how many.

    Afterwards the shards are listed again until none is open that has it not, so that a reshard in between misses
    none. A shard may get it twice (a lost answer): what a control record says has to bear that. Throttling and passing
    failures are retried; all else raises HeadwaterError naming the stream.
    """
    data = encode_control(kind, body)
    clock = clock or SystemClock()
    reached: set[str] = set()
    for _ in range(_ROUNDS):
        missing = [shard for shard in open_shards(client, stream, clock, random) if shard[0] not in reached]
        if not missing:
            return len(reached)
        for _shard_id, start, end in missing:
            key = str((start + end) // 2)
            put = partial(client.put_record, StreamName=stream, Data=data, PartitionKey="headwater")
            answer = _patiently(stream, clock, random, partial(put, ExplicitHashKey=key))
            reached.add(answer["ShardId"])
    names = ", ".join(shard[0] for shard in missing)
    raise HeadwaterError(f"stream {stream}: control record {kind} does not reach {names}: shards keep changing")


def open_shards(
    client: Any,
    stream: str,
    clock: Clock | None = None,
    random: Callable[[], float] = random_.random,
    attempts: int = _ATTEMPTS,
) -> list[tuple[str, int, int]]:
    """The shards that take records now: id, first and last hash key, in the order of their hash keys."""
    clock = clock or SystemClock()
    found: list[tuple[str, int, int]] = []
    wanted: dict[str, Any] = {"StreamName": stream, "ShardFilter": {"Type": "AT_LATEST"}}
    while True:
        page = _patiently(stream, clock, random, partial(client.list_shards, **wanted), attempts)
        for shard in page["Shards"]:
            if shard["SequenceNumberRange"].get("EndingSequenceNumber") is None:
                keys = shard["HashKeyRange"]
                found.append((shard["ShardId"], int(keys["StartingHashKey"]), int(keys["EndingHashKey"])))
        if not page.get("NextToken"):
            return sorted(found, key=lambda shard: shard[1])
        wanted = {"NextToken": page["NextToken"]}


def _patiently(
    stream: str, clock: Clock, random: Callable[[], float], call: Callable[[], Any], attempts: int = _ATTEMPTS
) -> Any:
    """The call's answer, after as many tries as it takes within reason."""
    for attempt in range(attempts):
        try:
            return call()
        except (ClientError, BotoCoreError, OSError) as error:
            failure = classify(error, stream)
            if not isinstance(failure, Retryable) or attempt == attempts - 1:
                raise failure from error
            clock.sleep(random() * min(_CAP_SECONDS, _BASE_SECONDS * 2**attempt))
    raise AssertionError("the last attempt answers or raises")
