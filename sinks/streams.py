"""Put batches and receipts on other streams: what a pipeline sends on.

Which batches there are, and that each is put whatever dies, is the business of `processors/shard/outgoing.py`. This is
the call, with its partial answers, throttling and passing failures.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from headwater.announcing import put_control
from headwater.awsfailures import ATTEMPTS, AWS_ERRORS, aws_error, named_error, pause_seconds
from headwater.clock import Clock
from headwater.errors import HeadwaterError, Retryable
from headwater.parts import in_parts

__all__ = ["KinesisStreams", "StreamBatch"]

_MOST_RECORDS = 500
"""Most records of a PutRecords request (https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html)."""
_MOST_BYTES = 4_500_000
"""Bytes of data after which a request is full; PutRecords takes 5 MiB with the keys."""


class StreamBatch(NamedTuple):
    """Hold a record to put: its explicit hash key, as a decimal number, and its bytes."""

    place: str
    data: bytes


class KinesisStreams:
    """Put on streams by their names. `control_key` returns the key that signs a stream's control records."""

    def __init__(
        self, client: Any, control_key: Callable[[str], bytes], clock: Clock, random: Callable[[], float]
    ) -> None:
        self._client, self._control_key, self._clock, self._random = client, control_key, clock, random

    def send(self, stream: str, batches: Sequence[StreamBatch]) -> None:
        """Put all of them, in any order; return when Kinesis has confirmed each.

        Raises Retryable when some are not confirmed after eight attempts, and HeadwaterError for what does not pass:
        then some may have been put.
        """
        left = list(batches)
        for attempt in range(ATTEMPTS):
            failure, left = self._attempt(stream, left)
            if failure is None:
                return
            if not isinstance(failure, Retryable) or attempt == ATTEMPTS - 1:
                raise failure
            self._clock.sleep(pause_seconds(attempt, self._random))

    def _attempt(self, stream: str, batches: list[StreamBatch]) -> tuple[HeadwaterError | None, list[StreamBatch]]:
        """Put each once; return the last failure, and what is not confirmed."""
        failure: HeadwaterError | None = None
        left: list[StreamBatch] = []
        for request in in_parts(batches, lambda one: len(one.data), _MOST_RECORDS, _MOST_BYTES):
            records = [{"Data": one.data, "PartitionKey": "headwater", "ExplicitHashKey": one.place} for one in request]
            try:
                entries = self._client.put_records(StreamName=stream, Records=records)["Records"]
            except AWS_ERRORS as error:
                failure, left = aws_error(error, stream), left + request
                continue
            for one, entry in zip(request, entries, strict=True):
                if entry.get("ErrorCode"):
                    left.append(one)
                    failure = named_error(str(entry["ErrorCode"]), str(entry.get("ErrorMessage", "")), stream)
        return failure, left

    def announce(self, stream: str, receipt: Mapping[str, object]) -> None:
        """Put a receipt on every open shard of the stream, signed with its key."""
        put_control(self._client, stream, "receipt", receipt, self._clock, self._random, self._control_key(stream))
