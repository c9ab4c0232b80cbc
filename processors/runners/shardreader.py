"""Poll one shard of Kinesis through one worker, as the embedded runner and the Lambda function do."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from headwater.clock import Clock
from headwater.processors.ports import StreamClient
from headwater.processors.runners.pages import ReaderSettings, get_page, records_of, shard_iterator
from headwater.processors.runners.passing import is_passing, pauses, repeat
from headwater.processors.runners.retention import RetentionWatch
from headwater.processors.runners.tipnotes import TipNotes
from headwater.processors.shard.worker import Rewound, ShardWorker
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

__all__ = ["ReaderStatus", "ShardReader"]

log = logging.getLogger("headwater.processor")

_COMMITS = 10
"""Attempts at the commit that ends a reader."""


@dataclass
class ReaderStatus:
    """Hold what people and metrics see of a reader; read from other threads."""

    shard_id: str
    state: str = "starting"
    lag_ms: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    position: str = sequence.NONE
    committed: str = sequence.NONE
    error: str | None = None
    restarts: int = 0


class ShardReader:
    """Read a shard from the worker's position on, until stopped or until the shard ends.

    `retention` returns the stream's retention in ms as it was last described, None where it is not known.
    """

    def __init__(
        self,
        kinesis: Any,
        stream: str,
        worker: ShardWorker,
        clock: Clock,
        settings: ReaderSettings,
        status: ReaderStatus,
        retention: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._worker = worker
        self._clock = clock
        self._settings = settings
        self.status = status
        self._next: str | None = None
        self._watch = RetentionWatch(worker, StreamClient(kinesis, stream), retention)
        self._notes = TipNotes(worker.context.ports.ledger, worker.shard_id, clock)
        self._left: list[StreamRecord] = []
        """Read, and not taken in yet: the worker had to commit in between, and could not."""

    def run(self, stop: Event) -> bool:
        """Read until stopped. Return True when the shard has ended and everything in it is committed, else False.

        Raises Fenced when another owner has the shard. After any other error the worker must be dropped: a new one
        starts from the ledger.
        """
        self.start()
        while not stop.is_set():
            found = self.step()
            if found is None:
                return True
            if not found:
                stop.wait(self._settings.idle_seconds)
        self._commit(closed=False)
        self.status.state = "stopped"
        return False

    def start(self) -> None:
        """Begin after the worker's position."""
        self.status.state = "reading"
        self._next = self._iterator()

    def step(self) -> int | None:
        """Call GetRecords once and do what is due; return the number of records, or None once the end is committed."""
        if self._left:
            return self._take_in(self._left)
        if self._next is None:
            self._commit(closed=True)
            self.status.state = "ended"
            return None
        shard, asked_ms = self.status.shard_id, self._clock.now_ms()
        answer = get_page(self._kinesis, self._next, shard, self._clock, self._settings)
        if answer is None:
            self._next = self._iterator()
            return 0
        self._next = answer.get("NextShardIterator")
        records = records_of(answer, shard)
        self._worker.lag_ms = answer.get("MillisBehindLatest")
        self.status.lag_ms = answer.get("MillisBehindLatest")
        self._watch.observe(records, self.status.lag_ms, asked_ms)
        return self._take_in(records) or (1 if self._next is None else 0)

    def _take_in(self, records: list[StreamRecord]) -> int:
        """Give records to the worker and do what is due; return how many there were: with some left, go on at once."""
        self._left = records
        try:
            if records:
                self._worker.process(records)
            self._left = []
        except Rewound as error:
            self._watch.rewind()
            self._left, self._next = [], self._iterator()
            log.warning("read again", extra={"shard": self.status.shard_id, "reason": str(error.__cause__)})
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("will try again", extra={"shard": self.status.shard_id, "reason": str(error)})
            self._clock.sleep(self._settings.backoff_seconds)
        self._observe()
        self._tick()
        return len(records)

    def _iterator(self) -> str | None:
        return shard_iterator(self._kinesis, self._stream, self.status.shard_id, self._worker.position)

    def _observe(self) -> None:
        self.status.counts = dict(self._worker.engine.state.counts)
        self.status.position = self._worker.position
        self.status.committed = self._worker.entry.position
        lag_ms = None if self._left else self.status.lag_ms  # with some left, the tip is not reached
        self._notes.observe(self.status.position, lag_ms, saved=self._worker.is_saved)

    def _tick(self) -> None:
        """Flush and commit when due; what fails in passing is tried again at the next tick, nothing is dropped."""
        try:
            self._worker.tick()
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("will try again", extra={"shard": self.status.shard_id, "reason": str(error)})
            self._clock.sleep(self._settings.backoff_seconds)
        self.status.committed = self._worker.entry.position  # at once: the next call may fail

    def _commit(self, *, closed: bool) -> None:
        where = f"stream {self._stream}, shard {self.status.shard_id}, not committed after {self.status.committed}"
        waits = pauses(self._settings.backoff_seconds, _COMMITS - 1)
        repeat(lambda: self._worker.commit(closed=closed), waits, self._clock, where)
        self.status.committed = self._worker.entry.position
