"""Where a shard goes on under the KCL: the ledger decides, the checkpoint is a hint. And how a gap is read.

The KCL delivers from its checkpoint on. A checkpoint below the ledger's position brings records that are skipped; one
above it leaves a gap of records that nobody would deliver, and they are read from the stream itself.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater import sequence
from headwater.clock import Clock
from headwater.records import StreamRecord
from processors.runners.shardreader import PASSING

__all__ = ["Gap", "GapReader", "Resume", "resume"]

log = logging.getLogger("headwater.kcl")

_STARTS = frozenset({"LATEST", "AT_TIMESTAMP"})


@dataclass(frozen=True)
class Resume:
    """What to do before the first delivered record."""

    adopt: str | None = None
    """Take this position as the ledger's: the shard moves here from another consumer."""
    until: str | None = None
    """Read the gap after the ledger's position up to and with this one."""
    open_gap: bool = False
    """Read from the ledger's position up to wherever the delivery begins."""
    pin: bool = False
    """Commit the first records at once: the start is not where the shard begins, and must be found again."""


def resume(position: str, checkpoint: str | None, *, adopt: bool) -> Resume:
    """`position` is the ledger's, `checkpoint` what the KCL starts from: a sequence number or a name such as LATEST."""
    new = position == sequence.NONE
    if checkpoint is None or not checkpoint.isdigit():
        named = checkpoint in _STARTS
        return Resume(open_gap=named and not new, pin=named and new)
    at = sequence.pad(checkpoint)
    if at <= position:
        return Resume()
    if new and adopt:
        return Resume(adopt=at)
    return Resume(until=at)


@dataclass(frozen=True)
class Gap:
    """After `position`, up to and with `until` (before it when `before`); without `until` up to the tip or the end."""

    position: str
    until: str | None = None
    before: bool = False

    def holds(self, sequence_number: str) -> bool:
        at = sequence.pad(sequence_number)
        return self.until is None or at < self.until or (at == self.until and not self.before)


class GapReader:
    """Reads part of a shard with GetRecords, the way that the embedded runner reads all of it."""

    def __init__(self, kinesis: Any, stream: str, shard_id: str, clock: Clock, max_records: int = 10_000) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._shard_id = shard_id
        self._clock = clock
        self._max_records = max_records

    def read(self, gap: Gap, take: Callable[[Sequence[StreamRecord]], None]) -> int:
        """Give the gap's records to `take` in order; returns how many there were."""
        count, position = 0, gap.position
        iterator = self._iterator(position)
        while iterator is not None:
            answer = self._get(iterator)
            if answer is None:
                iterator = self._iterator(position)
                continue
            found = self._records(answer)
            inside = [record for record in found if gap.holds(record.sequence_number)]
            if inside:
                take(inside)
                count += len(inside)
                position = sequence.pad(inside[-1].sequence_number)
            if len(inside) < len(found) or (gap.until is not None and not gap.before and position >= gap.until):
                break
            if not found and not answer.get("MillisBehindLatest"):
                break
            iterator = answer.get("NextShardIterator")
        return count

    def _iterator(self, position: str) -> str | None:
        where = {"ShardIteratorType": "TRIM_HORIZON"}
        if position != sequence.NONE:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": sequence.unpad(position)}
        answer = self._kinesis.get_shard_iterator(StreamName=self._stream, ShardId=self._shard_id, **where)
        iterator: str | None = answer["ShardIterator"]
        return iterator

    def _get(self, iterator: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = self._kinesis.get_records(ShardIterator=iterator, Limit=self._max_records)
        except (ClientError, BotoCoreError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            if isinstance(error, ClientError) and code not in PASSING and code != "ExpiredIteratorException":
                raise
            log.info("read again", extra={"reason": code})
            self._clock.sleep(1.0)
            return None
        return answer

    def _records(self, answer: dict[str, Any]) -> list[StreamRecord]:
        return [
            StreamRecord(
                self._shard_id,
                record["SequenceNumber"],
                round(record["ApproximateArrivalTimestamp"].timestamp() * 1000),
                record["PartitionKey"],
                record["Data"],
            )
            for record in answer["Records"]
        ]
