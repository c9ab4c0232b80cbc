"""Check a delivery against the stream, and get past a record that kills the function.

Out of memory, a crash of native code, a call that never returns: the container dies, no exception is caught, and the
next one would meet the same record. A claim that finds the position where the last claim left it therefore takes
fewer records at a time, down to one, committing each; and a record on which the function has died three times, by
itself, between the two notes around its processing, goes to the dead letters unread.
"""

import logging
from collections.abc import Callable, Sequence

from headwater.errors import HeadwaterError
from headwater.processors.runners.serverless.events import ShardBatch
from headwater.processors.shard.claiming import ClaimedShard
from headwater.processors.shard.context import WorkerContext
from headwater.processors.shard.worker import ShardWorker
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

__all__ = ["CarefulWorker", "Stopped"]

log = logging.getLogger("headwater.lambda")

_WHOLE = 10_000
_DEATHS = 3


class Stopped(Exception):
    """Signal that this invocation has done enough: what was processed is committed, the rest is not."""


def _always() -> bool:
    return True


class CarefulWorker(ShardWorker):
    """Own a shard in a Lambda function: `expect` what an invocation was given before reading for it."""

    @property
    def careful(self) -> bool:
        """Tell whether this claim began with doubts: the last one left no commit."""
        return self._tries > 0

    def __init__(self, context: WorkerContext, shard: ClaimedShard) -> None:
        super().__init__(context, shard)
        self._delivered: dict[str, StreamRecord] = {}
        self._until, self._has_time = sequence.NONE, _always
        self._parts = 0
        self._note_name = f"lambda.{self.shard_id}"
        note, self._note_rev = self._ports.ledger.document(self._note_name)
        same = note.get("position") == self.position
        self._tries = int(note["tries"]) + 1 if same else 0
        self._deaths = int(note["deaths"]) if same else 0
        self._size = _WHOLE
        self._note(self._tries)

    def expect(self, delivery: ShardBatch, has_time: Callable[[], bool]) -> None:
        """Note what this invocation was given, and how to ask for its time."""
        self._delivered = {sequence.pad(record.sequence_number): record for record in delivery.records}
        self._until, self._has_time = delivery.until, has_time
        if self.careful:
            whole = min(_WHOLE, len(delivery.records) or _WHOLE)
            self._size, self._parts = max(1, whole // 10 ** min(self._tries, 9)), 0
            doubts = {"after": self.position, "records": self._size, "tries": self._tries, "deaths": self._deaths}
            log.warning("the last invocation left no commit: in smaller parts", extra={"shard": self.shard_id} | doubts)

    def process(self, records: Sequence[StreamRecord]) -> None:
        """Process what was read, and of the delivery what the stream no longer has in front of it."""
        fresh = {sequence.pad(record.sequence_number): record for record in records}
        fresh = {at: record for at, record in fresh.items() if at > self.position}
        if not fresh:
            return
        self._refuse_holes(fresh)
        end = max(fresh)
        gone = {at: record for at, record in self._delivered.items() if self.position < at < end and at not in fresh}
        if gone:
            log.warning("no longer in the stream: taken from the batch", extra=self._extent(gone))
        self._take([record for _, record in sorted((fresh | gone).items())])

    def commit(self, *, closed: bool = False) -> bool:
        """Commit as every worker does; a shard is closed with what is left of the delivery."""
        if closed:
            self._take_left()
        return super().commit(closed=closed)

    def relax(self) -> None:
        """Note that the invocation ended well: the next claim doubts a step less."""
        if self.careful:
            self._note(max(-1, self._tries - 2))

    def take_delivered(self) -> None:
        """Process what is left of the delivery itself: the stream has nothing more up to its end.

        Raises HeadwaterError when nothing is left of it either.
        """
        if not self._take_left():
            raise HeadwaterError(
                f"shard {self.shard_id}: the stream has nothing after {self.position} any more; "
                "what the mapping gave up there is past its retention"
            )

    def _take_left(self) -> bool:
        left = {at: record for at, record in self._delivered.items() if at > self.position}
        if left:
            log.warning("no longer in the stream: taken from the batch", extra=self._extent(left))
            self._take([record for _, record in sorted(left.items())])
        return bool(left)

    def _refuse_holes(self, fresh: dict[str, StreamRecord]) -> None:
        if not self._delivered:
            return
        first, last = min(self._delivered), max(self._delivered)
        holes = [at for at in fresh if first < at < last and at not in self._delivered]
        if holes:
            raise HeadwaterError(
                f"shard {self.shard_id}: the batch lacks {len(holes)} records in its middle, the first is "
                f"{sequence.unpad(min(holes))}: the event source mapping must have ParallelizationFactor 1 and no "
                "FilterCriteria"
            )

    def _take(self, records: list[StreamRecord]) -> None:
        while records and self._size < _WHOLE:
            part, records = records[: self._size], records[self._size :]
            self._carefully(part)
            self._parts += 1
            if self._parts == 10:  # a part ten times as large has killed: that was it
                self._size = _WHOLE
            if records and (self.position >= self._until or not self._has_time()):
                raise Stopped  # what lies beyond the batch may be what kills: it has a batch of its own
        if records:
            super().process(records)

    def _carefully(self, part: list[StreamRecord]) -> None:
        if self._size > 1:
            super().process(part)
        elif self._deaths >= _DEATHS:
            self._bury(part[0])
        else:
            self._deaths += 1
            self._note(self._tries)
            super().process(part)
            self._deaths = 0
            self._note(self._tries)
        self._deaths = 0
        self.commit()
        self._note(self._tries - 1)

    def _bury(self, record: StreamRecord) -> None:
        reason = f"the function died {self._deaths} times on this record"
        log.error(reason, extra={"shard": self.shard_id, "sequence_number": record.sequence_number})
        self._collect(self.engine.bury(record, reason), [record])

    def _note(self, tries: int) -> None:
        """Note in the ledger how many claims found this position, and how many died on its next record alone."""
        note = {"position": self.entry.position, "tries": tries, "deaths": self._deaths}
        self._note_rev = self._ports.ledger.put_document(self._note_name, note, self._note_rev)

    def _extent(self, records: dict[str, StreamRecord]) -> dict[str, object]:
        return {"shard": self.shard_id, "records": len(records), "from": min(records), "to": max(records)}
