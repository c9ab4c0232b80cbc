"""Decide what the next PutRecords carries, and what becomes of its answer.

`Writer` is a state machine without I/O: `request` hands out the batches of the next call, `answered` or `failed` says
what came of it. Only failed entries are sent again, after a full-jitter pause, always the same bytes to the same hash
key. A call whose answer was lost counts as failed: its records are sent again, and readers drop the copies. No clock
and no client may enter: times come in as arguments, calls are made by `headwater.producers.kinesis`.
"""

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.awsfailures import RequestRefused, named_error
from headwater.errors import HeadwaterError, Retryable, Throttled
from headwater.producers.sealing import SealedBatch
from headwater.producers.settings import ProducerSettings

__all__ = ["MAX_RECORDS", "Delivered", "Failed", "RequestOutcome", "Writer", "WriterSettings"]

MAX_RECORDS = 500
"""Records in one PutRecords (service limit)."""


@dataclass(frozen=True)
class WriterSettings:
    """Limit a request, and set the pauses before a retry. Sizes are in bytes, times in milliseconds."""

    max_records: int = MAX_RECORDS
    max_request_bytes: int = 5 << 20
    base_ms: int = 50
    cap_ms: int = 5_000
    give_up_ms: int = 120_000
    """A batch is tried so long after its first attempt."""
    keeps_trying: bool = False
    """After that time, report the batch as overdue and go on, instead of giving it up."""

    @classmethod
    def of(cls, settings: ProducerSettings, *, keeps_trying: bool) -> "WriterSettings":
        """Return what follows from a producer's settings."""
        give_up_ms = round(settings.delivery_seconds * 1000)
        return cls(max_request_bytes=settings.max_request_bytes, give_up_ms=give_up_ms, keeps_trying=keeps_trying)


@dataclass(frozen=True)
class Delivered:
    """Say that Kinesis has the batch, and where."""

    batch: SealedBatch
    shard_id: str
    sequence_number: str


@dataclass(frozen=True)
class Failed:
    """Say that the batch is given up, and why."""

    batch: SealedBatch
    error: HeadwaterError


@dataclass(frozen=True)
class RequestOutcome:
    """Say what one request has settled; what is in neither tuple is sent again."""

    delivered: tuple[Delivered, ...]
    failed: tuple[Failed, ...]
    retried: int
    refused: tuple[SealedBatch, ...] = ()
    """Those sent again because a shard asked for less."""
    overdue: HeadwaterError | None = None
    """Why a batch is still not delivered after its time, where the writer keeps trying."""


class _Attempt:
    """Hold a batch on its way; ordered by when it is due, then by age."""

    __slots__ = ("alone", "attempts", "batch", "due_ms", "first_ms")

    def __init__(self, batch: SealedBatch) -> None:
        self.batch = batch
        self.attempts = 0
        self.due_ms = 0
        self.first_ms = 0
        self.alone = False
        """In a request of its own: one that it was in has been refused, for its sake or for another's."""

    def __lt__(self, other: "_Attempt") -> bool:
        return (self.due_ms, self.batch.batch_id) < (other.due_ms, other.batch.batch_id)


class Writer:
    """Hold batches until they are delivered or given up.

    At most one request is out at a time. Of a lane only the oldest batch is ever in a request, so that a lane's
    batches arrive in order whatever fails.
    """

    def __init__(self, settings: WriterSettings, random: Callable[[], float], stream: str) -> None:
        self._settings = settings
        self._random = random
        self._stream = stream
        self._fresh: deque[_Attempt] = deque()
        self._again: list[_Attempt] = []
        self._lanes: dict[int, deque[_Attempt]] = {}
        self._out: list[_Attempt] = []
        self._overdue: HeadwaterError | None = None

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again) + len(self._out) + self._queued()

    def _queued(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def add(self, batch: SealedBatch) -> None:
        """Take a batch for delivery, after those of its lane."""
        one = _Attempt(batch)
        if batch.lane is None:
            self._fresh.append(one)
        elif batch.lane in self._lanes:
            self._lanes[batch.lane].append(one)
        else:  # the lane's head is among the others, those behind it wait in the lane
            self._lanes[batch.lane] = deque()
            self._fresh.append(one)

    def request(self, now_ms: int) -> list[SealedBatch]:
        """Return the batches of the next PutRecords, none when nothing is due. Its answer comes before the next."""
        if self._out:
            raise RuntimeError("the last request has not been answered")
        size = 0
        while len(self._out) < self._settings.max_records:
            due = bool(self._again) and self._again[0].due_ms <= now_ms
            one = self._again[0] if due else self._fresh[0] if self._fresh else None
            if one is None or (self._out and size + one.batch.size > self._settings.max_request_bytes):
                break
            if one.alone and self._out:
                break
            if due:
                heapq.heappop(self._again)
            else:
                self._fresh.popleft()
            if not one.attempts:
                one.first_ms = now_ms
            size += one.batch.size
            self._out.append(one)
            if one.alone:
                break
        return [one.batch for one in self._out]

    def due_ms(self) -> int | None:
        """Return when there is something to send: 0 for at once, None when nothing waits."""
        return 0 if self._fresh else self._again[0].due_ms if self._again else None

    def answered(self, entries: Sequence[Mapping[str, Any]], now_ms: int) -> RequestOutcome:
        """Take the answer to the last request: an entry for each of its records, in its order."""
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
            error = named_error(code, str(entry.get("ErrorMessage", "")), self._stream)
            if isinstance(error, Throttled):
                refused.append(one.batch)
            retried += self._again_or_not(one, error, now_ms, failed)
        return RequestOutcome(tuple(delivered), tuple(failed), retried, tuple(refused), self._taken_overdue())

    def failed(self, error: HeadwaterError, now_ms: int) -> RequestOutcome:
        """Note that the last request as a whole came to nothing, or that nobody knows."""
        out, self._out = self._out, []
        if isinstance(error, RequestRefused) and len(out) > 1:
            return self._one_by_one(out, now_ms)
        failed: list[Failed] = []
        retried = sum(self._again_or_not(one, error, now_ms, failed) for one in out)
        refused = tuple(one.batch for one in out) if isinstance(error, Throttled) else ()
        return RequestOutcome((), tuple(failed), retried, refused, self._taken_overdue())

    def _one_by_one(self, out: list[_Attempt], now_ms: int) -> RequestOutcome:
        """Try each record of a refused request alone, to find the one that is to blame."""
        for one in out:
            one.alone, one.due_ms = True, now_ms
            heapq.heappush(self._again, one)
        return RequestOutcome((), (), len(out))

    def clear(self) -> list[SealedBatch]:
        """Empty the writer; return the batches that it still had, oldest first."""
        left = [*self._out, *self._again, *self._fresh, *(one for lane in self._lanes.values() for one in lane)]
        self._out, self._again, self._fresh, self._lanes = [], [], deque(), {}
        return sorted((one.batch for one in left), key=lambda batch: batch.batch_id)

    def _again_or_not(self, one: _Attempt, error: HeadwaterError, now_ms: int, failed: list[Failed]) -> int:
        if not isinstance(error, Retryable):
            failed.append(Failed(one.batch, error))
            self._next_of(one)
            return 0
        overdue = now_ms - one.first_ms >= self._settings.give_up_ms
        if overdue and self._settings.keeps_trying:
            self._overdue = error
        elif overdue:
            seconds = self._settings.give_up_ms / 1000
            failed.append(Failed(one.batch, HeadwaterError(f"{error} (given up after {seconds:g} s)")))
            self._next_of(one)
            return 0
        pause = min(self._settings.cap_ms, self._settings.base_ms << min(one.attempts, 20))
        one.attempts += 1
        one.due_ms = now_ms + int(self._random() * pause)
        heapq.heappush(self._again, one)
        return 1

    def _taken_overdue(self) -> HeadwaterError | None:
        found, self._overdue = self._overdue, None
        return found

    def _next_of(self, one: _Attempt) -> None:
        """Let the lane's next batch go: the one before it is settled."""
        lane = one.batch.lane
        if lane is None:
            return
        behind = self._lanes[lane]
        if behind:
            self._fresh.append(behind.popleft())
        else:
            del self._lanes[lane]
