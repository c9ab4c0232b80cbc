"""Choose the hash keys of a producer's batches: at random until the shards are known, then by what each takes."""

import logging
from collections import Counter
from functools import partial

from headwater.awsfailures import retried
from headwater.errors import HeadwaterError
from headwater.producers.kinesis import KinesisStream
from headwater.producers.placement import Placement
from headwater.producers.writer import RequestOutcome
from headwater.stream.hashkeys import HASH_SPACE
from headwater.stream.shards import open_shards

__all__ = ["ShardRouter"]

log = logging.getLogger("headwater.producer")

_PAUSE_MS = 1_000
"""Between two looks at the shard map: ListShards answers 1,000 calls a second for a stream, of all its users."""
_PAUSE_AFTER_FAILURE_MS = 30_000


class ShardRouter:
    """Keep a Placement with the stream's shards. Only the sender thread uses it.

    The shards are asked for only after a request got through, so that a producer without a network never waits here.
    """

    def __init__(self, stream: KinesisStream) -> None:
        self._stream, self._clock = stream, stream.clock
        self._placement: Placement | None = None
        self._next_ms = 0
        self._reached = False
        self.refused = Counter[str]()
        """Records that shards refused by their limits, not in a receipt yet. A record refused twice counts twice."""

    def place(self, size: int) -> int:
        """Return the hash key of a new batch of so many bytes."""
        if self._placement is None:
            return int(self._stream.random() * HASH_SPACE)
        return self._placement.choose(size)

    def learn(self, outcome: RequestOutcome) -> None:
        """Learn from the answer to a request; not from batches that keep an order: they are where they have to be."""
        self._reached = bool(outcome.delivered or outcome.refused)
        if self._placement is None:
            return
        for one in outcome.delivered:
            if one.batch.lane is None:
                self._placement.delivered(int(one.batch.explicit_hash_key), one.shard_id)
        for batch in outcome.refused:
            self.refused[self._placement.shard_of(int(batch.explicit_hash_key))] += 1
            if batch.lane is None:
                self._placement.throttled(int(batch.explicit_hash_key))
        for failure in outcome.failed:
            if failure.batch.lane is None:
                self._placement.given_up(int(failure.batch.explicit_hash_key))

    def refresh(self) -> None:
        """Look at the shards when they are not known, or a record went to one that is not."""
        now = self._clock.now_ms()
        if not self._reached or now < self._next_ms or (self._placement is not None and not self._placement.stale):
            return
        self._next_ms = now + _PAUSE_MS
        listed = partial(open_shards, self._stream.client, self._stream.name)
        try:
            # One attempt: batches wait for this thread, and the old map will do until the next.
            shards = retried(self._stream.name, self._clock, self._stream.random, listed, attempts=1)
            if self._placement is None:
                self._placement = Placement(shards, self._stream.random)
            else:
                self._placement.refresh(shards)
        except HeadwaterError as error:
            self._next_ms = now + _PAUSE_AFTER_FAILURE_MS
            log.warning("the shard map stays as it was: %s", error)
