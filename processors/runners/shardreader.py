"""One shard of Kinesis through one worker: the polling loop of the embedded runner."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater import sequence
from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, Retryable
from headwater.records import StreamRecord
from processors.worker import ShardWorker

__all__ = ["ReaderSettings", "ReaderStatus", "ShardReader", "get_page", "records_of"]

log = logging.getLogger("headwater.processor")

PASSING = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "LimitExceededException",
        "KMSThrottlingException",
        "InternalFailure",
        "InternalServerError",
        "ServiceUnavailable",
        "SlowDown",
        "RequestTimeout",
        "500",
        "503",
    }
)
"""Errors of AWS after which the same request may succeed."""


@dataclass(frozen=True)
class ReaderSettings:
    """How a shard is polled. A shard takes 5 GetRecords a second from all its readers together
    (https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html)."""

    max_records: int = 10_000
    idle_seconds: float = 0.25
    backoff_seconds: float = 1.0


@dataclass
class ReaderStatus:
    """For people and metrics; read from other threads."""

    shard_id: str
    state: str = "starting"
    lag_ms: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    position: str = sequence.NONE
    committed: str = sequence.NONE
    error: str | None = None
    restarts: int = 0


class ShardReader:
    """Reads from the worker's position on until told to stop or until the shard ends."""

    def __init__(
        self,
        kinesis: Any,
        stream: str,
        worker: ShardWorker,
        clock: Clock,
        settings: ReaderSettings,
        status: ReaderStatus,
    ) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._worker = worker
        self._clock = clock
        self._settings = settings
        self.status = status
        self._next: str | None = None

    def run(self, parents: list[str], stop: Event) -> bool:
        """True when the shard has ended and everything in it is committed; False when stopped, after a commit.

        Raises Fenced when another owner has the shard. After any other error the worker must be dropped: a new one
        starts from the ledger.
        """
        self.start(parents)
        while not stop.is_set():
            found = self.step()
            if found is None:
                return True
            if not found:
                stop.wait(self._settings.idle_seconds)
        self._commit(closed=False)
        self.status.state = "stopped"
        return False

    def start(self, parents: list[str]) -> None:
        """Claim the shard and take up where its ledger entry says."""
        self._worker.claim(parents)
        self.status.state = "reading"
        self._next = self._iterator()

    def step(self) -> int | None:
        """One GetRecords and what is due: how many records there were, or None once the ended shard is committed."""
        if self._next is None:
            self._commit(closed=True)
            self.status.state = "ended"
            return None
        shard = self.status.shard_id
        answer = get_page(self._kinesis, self._next, shard, self._clock, self._settings)
        if answer is None:
            self._next = self._iterator()
            return 0
        self._next = answer.get("NextShardIterator")
        records = records_of(answer, shard)
        self._worker.lag_ms = answer.get("MillisBehindLatest")
        if records:
            self._worker.process(records)
        self._observe(answer)
        self._tick()
        return len(records) or (1 if self._next is None else 0)

    def _iterator(self) -> str | None:
        position = self._worker.position
        where = {"ShardIteratorType": "TRIM_HORIZON"}
        if position != sequence.NONE:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence.unpad(position)}
        answer = self._kinesis.get_shard_iterator(StreamName=self._stream, ShardId=self.status.shard_id, **where)
        iterator: str | None = answer["ShardIterator"]
        return iterator

    def _observe(self, answer: dict[str, Any]) -> None:
        self.status.lag_ms = answer.get("MillisBehindLatest")
        self.status.counts = dict(self._worker.engine.state.counts)
        self.status.position = self._worker.position
        self.status.committed = self._worker.entry.position

    def _tick(self) -> None:
        """Flush and commit when due; what passes is tried again at the next tick, with everything still in memory."""
        try:
            self._worker.tick()
        except Fenced:
            raise
        except (Retryable, ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] not in PASSING:
                raise
            log.warning("will try again", extra={"shard": self.status.shard_id, "reason": str(error)})
            self._clock.sleep(self._settings.backoff_seconds)

    def _commit(self, *, closed: bool) -> None:
        for attempt in range(10):
            try:
                self._worker.commit(closed=closed)
                self.status.committed = self._worker.entry.position
                return
            except Fenced:
                raise
            except (Retryable, ClientError, BotoCoreError) as error:
                if isinstance(error, ClientError) and error.response["Error"]["Code"] not in PASSING:
                    raise
                log.warning("commit again", extra={"shard": self.status.shard_id, "reason": str(error)})
                self._clock.sleep(self._settings.backoff_seconds * (attempt + 1))
        raise HeadwaterError(
            f"stream {self._stream}, shard {self.status.shard_id}: not committed after {self.status.committed}; "
            "the next start resumes there"
        )


def get_page(
    kinesis: Any, iterator: str, shard_id: str, clock: Clock, settings: ReaderSettings
) -> dict[str, Any] | None:
    """A GetRecords answer; None when the iterator has expired or the answer was lost, and a new one is needed."""
    try:
        answer: dict[str, Any] = kinesis.get_records(ShardIterator=iterator, Limit=settings.max_records)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code not in PASSING and code != "ExpiredIteratorException":
            raise
        if code in PASSING:
            clock.sleep(settings.backoff_seconds)
        log.info("read again", extra={"shard": shard_id, "reason": code})
        return None
    except BotoCoreError as error:
        clock.sleep(settings.backoff_seconds)
        log.info("read again", extra={"shard": shard_id, "reason": str(error)})
        return None
    return answer


def records_of(answer: Mapping[str, Any], shard_id: str) -> list[StreamRecord]:
    """The records of a GetRecords answer."""
    return [
        StreamRecord(
            shard_id,
            record["SequenceNumber"],
            round(record["ApproximateArrivalTimestamp"].timestamp() * 1000),
            record["PartitionKey"],
            record["Data"],
        )
        for record in answer["Records"]
    ]
