"""Dead letters back onto the stream."""

import hashlib
import json
from typing import Any

from headwater.contract import Contract
from producers.sealing import lane_hash_key, lane_of
from sinks.deadletter import DeadLetter

__all__ = ["Redrive"]


class Redrive:
    """Puts a letter's payload as a record of its own on the shard it came from, or the one that now covers its start.

    A whole record keeps the identities in it, so copies of it on the same chain of shards are dropped as ever. One
    event of a record becomes a record of JSON: with an id of its own it goes where its producer would send it, and is
    taken once although its id was seen; without, it gets its identity from its new place in the stream.
    """

    def __init__(self, kinesis: Any, stream: str, contract: Contract) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._contract = contract
        self._starts: dict[str, str] | None = None

    def put(self, letter: DeadLetter) -> None:
        """Returns once the stream has it."""
        request = {"PartitionKey": hashlib.md5(letter.payload, usedforsecurity=False).hexdigest()}
        start = self._own_place(letter) or self._start_of(letter.shard_id)
        if start is not None:
            request["ExplicitHashKey"] = start
        self._kinesis.put_record(StreamName=self._stream, Data=letter.payload, **request)

    def _own_place(self, letter: DeadLetter) -> str | None:
        own = self._contract.id
        if own is None or letter.index is None:
            return None
        try:
            origin = json.loads(letter.payload)[own.origin]
        except (ValueError, KeyError, TypeError):
            return None  # without an origin it has no id, and any shard will do
        return str(lane_hash_key(lane_of(origin, own.partitions), own.partitions))

    def _start_of(self, shard_id: str) -> str | None:
        """The first hash key of the shard; None once Kinesis has forgotten it, and the content's hash decides."""
        if self._starts is None:
            self._starts = {}
            request: dict[str, Any] = {"StreamName": self._stream}
            while request:
                page = self._kinesis.list_shards(**request)
                self._starts |= {one["ShardId"]: one["HashKeyRange"]["StartingHashKey"] for one in page["Shards"]}
                request = {"NextToken": page["NextToken"]} if page.get("NextToken") else {}
        return self._starts.get(shard_id)
