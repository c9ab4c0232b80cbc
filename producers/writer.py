"""PutRecords: what is sent next, and what becomes of the answers.

`Writer` is a state machine without I/O: `request` hands out the batches of the next call, `answered` or `failed` says
what came of it. Only failed entries are sent again, after a full-jitter pause, always the same bytes to the same hash
key. A call whose answer was lost counts as failed: its records are sent again, and readers drop the copies.
"""

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from headwater.errors import HeadwaterError, Retryable, Throttled, UsageError
from producers.sealing import SealedBatch

__all__ = ["Delivered", "Failed", "Outcome", "Writer", "WriterSettings", "classify", "put_records"]

MAX_RECORDS = 500
"""Of a PutRecords (service limit)."""
_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestLimitExceeded",
        "KMSThrottlingException",
        "SlowDown",
    }
)
_PASSING = frozenset(
    {"InternalFailure", "InternalFailureException", "InternalServerError", "ServiceUnavailable", "RequestTimeout"}
    | {"ServiceUnavailableException", "ResourceInUseException", "500", "502", "503", "504"}
)


@dataclass(frozen=True)
class WriterSettings:
    """Limits of a request, and the pauses before a retry."""

    max_records: int = MAX_RECORDS
    max_request_bytes: int = 5 << 20
    base_ms: int = 50
    cap_ms: int = 5_000
    give_up_ms: int = 120_000


@dataclass(frozen=True)
class Delivered:
    """Kinesis has the batch."""

    batch: SealedBatch
    shard_id: str
    sequence_number: str


@dataclass(frozen=True)
class Failed:
    """The batch is given up."""

    batch: SealedBatch
    error: HeadwaterError


@dataclass(frozen=True)
class Outcome:
    """What is settled for good; what is not there is sent again. `refused` are those of them that were throttled."""

    delivered: tuple[Delivered, ...] = ()
    failed: tuple[Failed, ...] = ()
    retried: int = 0
    refused: tuple[SealedBatch, ...] = ()


class _Try:
    """A batch on its way; ordered by when it is due, then by age."""

    __slots__ = ("attempts", "batch", "due_ms", "first_ms")

    def __init__(self, batch: SealedBatch) -> None:
        self.batch = batch
        self.attempts = 0
        self.due_ms = 0
        self.first_ms = 0

    def __lt__(self, other: "_Try") -> bool:
        return (self.due_ms, self.batch.batch_id) < (other.due_ms, other.batch.batch_id)


class Writer:
    """Batches wait here until they are delivered or given up.

    At most one request is out at a time. Of a lane only the oldest batch is ever in a request, so that a lane's
    batches arrive in order whatever fails.
    """

    def __init__(self, settings: WriterSettings, random: Callable[[], float], stream: str) -> None:
        self._settings = settings
        self._random = random
        self._stream = stream
        self._fresh: deque[_Try] = deque()
        self._again: list[_Try] = []
        self._lanes: dict[int, deque[_Try]] = {}
        self._out: list[_Try] = []

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again) + len(self._out) + self._queued()

    def _queued(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def add(self, batch: SealedBatch) -> None:
        """Take a batch for delivery, after those of its lane."""
        one = _Try(batch)
        if batch.lane is None:
            self._fresh.append(one)
        elif batch.lane in self._lanes:
            self._lanes[batch.lane].append(one)
        else:  # the lane's head is among the others, those behind it wait in the lane
            self._lanes[batch.lane] = deque()
            self._fresh.append(one)

    def request(self, now_ms: int) -> list[SealedBatch]:
        """The records of the next PutRecords, empty when nothing is due. Its answer comes before the next request."""
        if self._out:
            raise RuntimeError("the last request has not been answered")
        size = 0
        while len(self._out) < self._settings.max_records:
            due = bool(self._again) and self._again[0].due_ms <= now_ms
            one = self._again[0] if due else self._fresh[0] if self._fresh else None
            if one is None or (self._out and size + one.batch.size > self._settings.max_request_bytes):
                break
            if due:
                heapq.heappop(self._again)
            else:
                self._fresh.popleft()
            if not one.attempts:
                one.first_ms = now_ms
            size += one.batch.size
            self._out.append(one)
        return [one.batch for one in self._out]

    def due_ms(self) -> int | None:
        """When there is something to send: 0 for at once, None when nothing waits."""
        return 0 if self._fresh else self._again[0].due_ms if self._again else None

    def answered(self, entries: Sequence[Mapping[str, Any]], now_ms: int) -> Outcome:
        """The answer to the last request: an entry for each of its records, in its order."""
        if len(entries) != len(self._out):
            raise RuntimeError(f"{len(entries)} entries answer {len(self._out)} records")
        out, self._out = self._out, []
        delivered, failed, refused, retried = [], list[Failed](), [], 0
        for one, entry in zip(out, entries, strict=True):
            code = entry.get("ErrorCode")
            if not code:
                delivered.append(Delivered(one.batch, entry["ShardId"], entry["SequenceNumber"]))
                self._next_of(one)
                continue
            error = _named(code, str(entry.get("ErrorMessage", "")), self._stream)
            if isinstance(error, Throttled):
                refused.append(one.batch)
            retried += self._again_or_not(one, error, now_ms, failed)
        return Outcome(tuple(delivered), tuple(failed), retried, tuple(refused))

    def failed(self, error: HeadwaterError, now_ms: int) -> Outcome:
        """The last request as a whole came to nothing, or nobody knows."""
        out, self._out = self._out, []
        failed: list[Failed] = []
        retried = sum(self._again_or_not(one, error, now_ms, failed) for one in out)
        refused = tuple(one.batch for one in out) if isinstance(error, Throttled) else ()
        return Outcome((), tuple(failed), retried, refused)

    def give_up(self) -> list[SealedBatch]:
        """Empty the writer: the batches that it still had, oldest first."""
        left = [*self._out, *self._again, *self._fresh, *(one for lane in self._lanes.values() for one in lane)]
        self._out, self._again, self._fresh, self._lanes = [], [], deque(), {}
        return sorted((one.batch for one in left), key=lambda batch: batch.batch_id)

    def _again_or_not(self, one: _Try, error: HeadwaterError, now_ms: int, failed: list[Failed]) -> int:
        if not isinstance(error, Retryable):
            failed.append(Failed(one.batch, error))
            self._next_of(one)
            return 0
        if now_ms - one.first_ms >= self._settings.give_up_ms:
            seconds = self._settings.give_up_ms / 1000
            failed.append(Failed(one.batch, HeadwaterError(f"{error} (given up after {seconds:g} s)")))
            self._next_of(one)
            return 0
        pause = min(self._settings.cap_ms, self._settings.base_ms << min(one.attempts, 20))
        one.attempts += 1
        one.due_ms = now_ms + int(self._random() * pause)
        heapq.heappush(self._again, one)
        return 1

    def _next_of(self, one: _Try) -> None:
        """The lane's next batch may go."""
        lane = one.batch.lane
        if lane is None:
            return
        behind = self._lanes[lane]
        if behind:
            self._fresh.append(behind.popleft())
        else:
            del self._lanes[lane]


def put_records(client: Any, stream: str, batches: Sequence[SealedBatch]) -> list[dict[str, Any]]:
    """One PutRecords: its answer's entries. Raises what `classify` makes of any failure."""
    records = [
        {"Data": batch.payload, "PartitionKey": batch.partition_key, "ExplicitHashKey": batch.explicit_hash_key}
        for batch in batches
    ]
    try:
        entries: list[dict[str, Any]] = client.put_records(StreamName=stream, Records=records)["Records"]
    except (ClientError, BotoCoreError, OSError) as error:
        raise classify(error, stream) from error
    return entries


def classify(error: Exception, stream: str) -> HeadwaterError:
    """Our error for one of boto3's: Throttled and Retryable are worth another try, all else is for good."""
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        return _named(str(said.get("Code", "")), str(said.get("Message", "")), stream, _status(error))
    if isinstance(error, (NoCredentialsError, CredentialRetrievalError)):
        return UsageError(f"stream {stream}: {_line(error)}")
    if isinstance(error, (HTTPClientError, BotoConnectionError, OSError)):
        return Retryable(f"stream {stream}: {_line(error)}")
    return HeadwaterError(f"stream {stream}: {_line(error)}")


def _named(code: str, message: str, stream: str, status: int = 0) -> HeadwaterError:
    text = f"stream {stream}: {code}: {_line(message)}"
    if code in _THROTTLED:
        return Throttled(text)
    if code in _PASSING or status >= 500:
        return Retryable(text)
    return HeadwaterError(text)


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]
