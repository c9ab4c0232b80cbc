"""Notice that a stream's retention has overtaken a reader, so that what it never read counts as lost.

Kinesis does not say so: an iterator after a record that has expired begins with the oldest record that is left, and
the records in between are gone without a word. One watch a shard compares the two sides of each step of a reader. It
is used by every runner; what a loss means for the pipeline is the audit's business.
"""

import logging
from collections.abc import Callable, Sequence

from botocore.exceptions import ClientError

from headwater.clock import Clock
from headwater.processors.ports import StreamClient
from headwater.processors.runners.pages import ReaderSettings, get_page
from headwater.processors.runners.passing import pauses, repeat
from headwater.processors.runners.tipnotes import noted_ms
from headwater.processors.shard.worker import ShardWorker
from headwater.stream import sequence
from headwater.stream.record import StreamRecord
from headwater.stream.shards import shards_at_trim_horizon

__all__ = ["LOST_RANGES", "RetentionWatch"]

LOST_RANGES = "lost_ranges"
"""A shard's count of the times that retention has overtaken its reader: what was between may be lost."""

_SHORTEST_RETENTION_MS = 24 * 3_600_000
"""Shortest retention of a stream (API reference of DecreaseStreamRetentionPeriod)."""
_JUMP_MS = 60_000
"""A step over less than this is the usual distance of two records. Over a longer one the stream is asked, because the
retention may have been lowered since it was described."""

_ATTEMPTS = 8

log = logging.getLogger("headwater.processor")


class RetentionWatch:
    """Watch one shard for records that expired before they were read.

    Call `observe` with the records of each answer before the worker gets them. `retention` returns the stream's
    retention in ms as it was last described, None where that is not known.
    """

    def __init__(
        self, worker: ShardWorker, source: StreamClient, retention: Callable[[], int | None] = lambda: None
    ) -> None:
        self._worker, self._source, self._retention = worker, source, retention
        self._clock: Clock = worker.context.clock
        self._noted_ms = noted_ms(worker.context.ports.ledger, worker.entry)
        self._begun_ms = worker.entry.updated_ms
        """When a shard without parents was claimed for the first time: what expired before is not the pipeline's."""
        self._read_ms = 0
        self.rewind()

    def rewind(self) -> None:
        """Begin again at the worker's position, which may have gone back to its last commit."""
        # A record arrives after those before it, and in a child after all of its parents': what is unread is younger
        # than the youngest that was read. The time of the last commit would say nothing: a reader that lags commits.
        self._read_ms = max(self._noted_ms, self._worker.engine.state.max_arrived)

    def observe(self, records: Sequence[StreamRecord], lag_ms: int | None, asked_ms: int) -> None:
        """Count a loss if records may have expired unread before these; then note how far the shard is read.

        `records` are the answer to a request made at `asked_ms`, `lag_ms` is its MillisBehindLatest. None of them has
        been given to the worker yet.
        """
        fresh = [one for one in records if sequence.pad(one.sequence_number) > self._worker.position]
        # an answer that begins with what was read already leaves nothing out
        if len(fresh) == len(records) and (fresh or lag_ms == 0):
            self._compare(fresh[0].arrived_ms if fresh else None)
        if fresh:
            self._read_ms = max(self._read_ms, fresh[-1].arrived_ms)
        if lag_ms == 0:
            self._read_ms = max(self._read_ms, asked_ms)

    def _compare(self, next_ms: int | None) -> None:
        """Count a loss unless it is certain that nothing lay between the position and the next record."""
        now, read_ms = self._clock.now_ms(), self._read_ms or self._begun_ms
        if read_ms > now - _SHORTEST_RETENTION_MS:
            return
        jumps = next_ms is None or next_ms - read_ms >= _JUMP_MS
        if not jumps and read_ms > now - (self._retention() or _SHORTEST_RETENTION_MS):
            return
        where = f"stream {self._source.stream}, shard {self._worker.shard_id}, after {self._worker.position}"
        if repeat(self._is_trimmed, pauses(1.0, _ATTEMPTS), self._clock, where):
            self._worker.count(LOST_RANGES)
            log.error(
                "retention has overtaken the reader: records after the position may be lost; reading on from the "
                "oldest record",
                extra={
                    "stream": self._source.stream,
                    "shard": self._worker.shard_id,
                    "position": self._worker.position,
                    "read_ms": read_ms,
                    "next_ms": next_ms,
                },
            )

    def _is_trimmed(self) -> bool:
        """Return True when the record at the position has expired, so that some after it may have.

        Before the first record of a shard that is when the shard is older than the oldest record that is kept.
        """
        shard_id, kinesis = self._worker.shard_id, self._source.kinesis
        if self._worker.position == sequence.NONE:
            return shard_id in shards_at_trim_horizon(kinesis, self._source.stream)
        number = sequence.unpad(self._worker.position)
        where = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number}
        while True:
            try:
                answer = kinesis.get_shard_iterator(StreamName=self._source.stream, ShardId=shard_id, **where)
            except ClientError as error:
                if error.response["Error"]["Code"] != "InvalidArgumentException":
                    raise
                return True  # the number is too old for the service
            iterator = answer["ShardIterator"]
            while iterator is not None:
                page = get_page(kinesis, iterator, shard_id, self._clock, ReaderSettings(max_records=1))
                if page is None:
                    break  # the answer was lost: from the beginning
                if page["Records"]:
                    return str(page["Records"][0]["SequenceNumber"]) != number
                if not page.get("MillisBehindLatest"):  # an answer may be empty before the tip
                    return True
                iterator = page.get("NextShardIterator")
            else:
                return True
