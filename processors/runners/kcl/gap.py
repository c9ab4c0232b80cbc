"""Decide where a shard resumes under the KCL, where the ledger decides and the checkpoint is a hint; and read gaps.

The KCL delivers from its checkpoint on. A checkpoint below the ledger's position brings records that are skipped; one
above it leaves a gap of records that nobody would deliver, and they are read from the stream itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from headwater.clock import Clock
from headwater.processors.runners.pages import ReaderSettings, get_page, records_of, shard_iterator
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

__all__ = ["Gap", "GapReader", "Resume", "plan_resume"]

_STARTS = frozenset({"LATEST", "AT_TIMESTAMP"})


@dataclass(frozen=True)
class Resume:
    """Say what to do before the first delivered record."""

    adopt: str | None = None
    """Take this position as the ledger's: the shard moves here from another consumer."""
    until: str | None = None
    """Read the gap after the ledger's position up to and with this one."""
    open_gap: bool = False
    """Read from the ledger's position up to wherever the delivery begins."""
    pin: bool = False
    """Commit the first records at once: the start is not where the shard begins, and must be found again."""


def plan_resume(position: str, checkpoint: str | None, *, adopt: bool) -> Resume:
    """Compare the ledger's position with what the KCL starts from: a sequence number or a name such as LATEST."""
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
    """Name the records after `position` to `until`, which is outside when `before`; without `until`, all to the tip."""

    position: str
    until: str | None = None
    before: bool = False

    def holds(self, sequence_number: str) -> bool:
        """Tell whether a record after `position` is in the gap."""
        at = sequence.pad(sequence_number)
        return self.until is None or at < self.until or (at == self.until and not self.before)


class GapReader:
    """Read part of a shard with GetRecords, the way the embedded runner reads all of it."""

    def __init__(self, kinesis: Any, stream: str, shard_id: str, clock: Clock) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._shard_id = shard_id
        self._clock = clock
        self._settings = ReaderSettings(max_records=10_000)

    def read(self, gap: Gap, take: Callable[[Sequence[StreamRecord]], None]) -> int:
        """Give the gap's records to `take` in order; return how many there were."""
        count, position = 0, gap.position
        iterator = self._iterator(position)
        while iterator is not None:
            answer = get_page(self._kinesis, iterator, self._shard_id, self._clock, self._settings)
            if answer is None:
                iterator = self._iterator(position)
                continue
            found = records_of(answer, self._shard_id)
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
        return shard_iterator(self._kinesis, self._stream, self._shard_id, position)
