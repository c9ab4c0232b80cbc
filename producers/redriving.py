"""Put dead letters back onto the stream."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from random import SystemRandom
from typing import Any

from headwater.clock import Clock
from headwater.codec.rows import unwrapped
from headwater.contract import Contract
from headwater.errors import Throttled
from headwater.parts import in_parts
from headwater.producers.lanes import lane_hash_key, lane_of
from headwater.producers.writer import MAX_RECORDS
from headwater.sinks.deadletter import DeadLetter
from headwater.stream.shards import list_shards

__all__ = ["Redrive"]

_MOST_BYTES = 4 << 20
"""Maximum size of a request, but for one letter that is larger."""
_ATTEMPTS, _LONGEST_SECONDS = 40, 5.0
"""Attempts, and their longest pause: together about as long as a producer tries."""


class Redrive:
    """Put letters' payloads as records of their own on the shards they came from, or those that now cover their starts.

    A whole record keeps the identities in it, so copies of it on the same chain of shards are dropped as ever. One
    event of a record becomes a record of JSON: with an id of its own it goes where its producer would send it, and is
    taken once although its id was seen; without, it gets its identity from its new place in the stream.
    """

    def __init__(
        self,
        kinesis: Any,
        stream: str,
        contract: Contract,
        clock: Clock,
        random: Callable[[], float] | None = None,
    ) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._contract = contract
        self._clock, self._random = clock, random or SystemRandom().random
        self._starts: dict[str, str] | None = None

    def put(self, letters: Sequence[DeadLetter]) -> Iterator[DeadLetter]:
        """Yield each letter once the stream has it. Raise Throttled when it does not take one in two minutes."""
        for some in in_parts(letters, lambda letter: len(letter.payload), MAX_RECORDS, _MOST_BYTES):
            left = some
            for attempt in range(_ATTEMPTS):
                if attempt:
                    self._clock.sleep(self._random() * min(_LONGEST_SECONDS, 0.05 * 2**attempt))
                records = [self._record(letter) for letter in left]
                answers = self._kinesis.put_records(StreamName=self._stream, Records=records)["Records"]
                yield from (letter for letter, answer in zip(left, answers, strict=True) if "ErrorCode" not in answer)
                refused = [answer for answer in answers if "ErrorCode" in answer]
                left = [letter for letter, answer in zip(left, answers, strict=True) if "ErrorCode" in answer]
                if not left:
                    break
            else:
                code, why = refused[0]["ErrorCode"], refused[0].get("ErrorMessage", "")
                raise Throttled(f"stream {self._stream} does not take {left[0].name}: {code}: {why}")

    def _record(self, letter: DeadLetter) -> dict[str, Any]:
        record = {
            "Data": letter.payload,
            "PartitionKey": hashlib.md5(letter.payload, usedforsecurity=False).hexdigest(),
        }
        start = self._own_place(letter) or self._start_of(letter.shard_id)
        return record if start is None else record | {"ExplicitHashKey": start}

    def _own_place(self, letter: DeadLetter) -> str | None:
        own = self._contract.id
        if own is None or letter.index is None:
            return None
        try:
            found = unwrapped(letter.payload)
            origin = found[own.origin] if isinstance(found, dict) else None
        except (ValueError, KeyError, TypeError):
            origin = None
        if not isinstance(origin, str):
            return None  # without an origin it has no id, and any shard will do
        return str(lane_hash_key(lane_of(origin, own.partitions), own.partitions))

    def _start_of(self, shard_id: str) -> str | None:
        """Return the first hash key of the shard; None once Kinesis has forgotten it: the content's hash decides."""
        if self._starts is None:
            self._starts = {one.shard_id: str(one.start) for one in list_shards(self._kinesis, self._stream)}
        return self._starts.get(shard_id)
