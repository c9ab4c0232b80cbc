"""Note in the ledger, now and then, that a shard without new records was read to its tip.

A shard's entry changes with its records alone, so of a shard that was quiet for longer than the retention it cannot
tell whether a reader was there all the time. These notes can: without one, what came and went unread counts as lost.
A reader that polls makes them itself. One that runs only while there are records, as a Lambda function does, makes none
while there are none; for it somebody else goes round on a schedule.
"""

import logging

from botocore.exceptions import BotoCoreError, ClientError

from headwater.clock import DAY_MS, HOUR_MS, Clock
from headwater.errors import HeadwaterError
from headwater.ledger import Ledger, ShardEntry
from headwater.processors.ports import StreamClient
from headwater.processors.runners.pages import ReaderSettings, get_page
from headwater.stores import DocumentReader, DocumentStore
from headwater.stream import sequence

__all__ = ["NOTE_MS", "TipNotes", "TipRounds", "noted_ms"]

NOTE_MS = HOUR_MS
"""Time between two notes: a small share of the shortest retention, which is a day."""
_PAGES = 1_000
"""Pages of a shard in one look. An answer may be empty before the tip; each passes over some minutes of the stream."""

log = logging.getLogger("headwater.processor")


class TipNotes:
    """Write the notes of one shard."""

    def __init__(self, ledger: DocumentStore, shard_id: str, clock: Clock) -> None:
        self._ledger, self._name, self._clock = ledger, _document(shard_id), clock
        # the first at once: a process that is started again every half hour would never note anything
        self._next_ms = clock.now_ms()

    def observe(self, position: str, lag_ms: int | None, *, saved: bool) -> None:
        """Note that the shard is read, if it is due, nothing waits in the shard, and everything is committed."""
        now = self._clock.now_ms()
        if lag_ms != 0 or not saved or now < self._next_ms:
            return
        self._next_ms = now + NOTE_MS
        try:
            self._ledger.change(self._name, lambda _: {"position": position, "read_ms": now})
        except (HeadwaterError, ClientError, BotoCoreError) as error:
            log.info("not noted that a shard is read to its tip", extra={"reason": str(error)})


class TipRounds:
    """Write the notes of all shards of a pipeline whose readers run only while there are records: `step` at any time.

    A note says that nothing came unread, so one is made only of what is certain: the record at the committed position
    is still there, or the note before is not older than the shortest retention, and behind it there is nothing.
    """

    def __init__(self, source: StreamClient, ledger: Ledger, clock: Clock) -> None:
        self._source, self._ledger, self._clock = source, ledger, clock
        self._next_ms = 0

    def step(self) -> None:
        """Look at the shards of which nothing was committed for an hour, once an hour. What fails is logged."""
        now = self._clock.now_ms()
        if now < self._next_ms:
            return
        self._next_ms = now + NOTE_MS
        try:
            for entry in self._ledger.shards():
                if not entry.closed and now - entry.updated_ms >= NOTE_MS:
                    self._look(entry)
        except (HeadwaterError, ClientError, BotoCoreError) as error:
            log.warning("not looked whether all shards are read to their tip", extra={"reason": str(error)})

    def _look(self, entry: ShardEntry) -> None:
        asked_ms = self._clock.now_ms()
        unread = self._unread(entry)
        known_ms = noted_ms(self._ledger, entry)
        if entry.position == sequence.NONE:  # whatever came since it was claimed first
            known_ms = max(known_ms, entry.updated_ms)
        if unread == 0 or (unread is None and known_ms > asked_ms - DAY_MS):
            note = {"position": entry.position, "read_ms": asked_ms}
            self._ledger.change(_document(entry.shard_id), lambda _: note)

    def _unread(self, entry: ShardEntry) -> int | None:
        """Return how many records are at least behind the position; None for none, where its own record has expired."""
        number = sequence.unpad(entry.position)
        where = {"StreamName": self._source.stream, "ShardId": entry.shard_id}
        where |= (
            {"ShardIteratorType": "TRIM_HORIZON"}
            if entry.position == sequence.NONE
            else {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number}
        )
        iterator = self._source.kinesis.get_shard_iterator(**where)["ShardIterator"]
        found: list[str] = []
        for _ in range(_PAGES):
            if iterator is None:
                break
            settings = ReaderSettings(max_records=2)
            page = get_page(self._source.kinesis, iterator, entry.shard_id, self._clock, settings)
            if page is None:
                return 1  # nobody knows
            found += [str(record["SequenceNumber"]) for record in page["Records"]]
            if len(found) > 1 or not page.get("MillisBehindLatest"):
                break
            iterator = page.get("NextShardIterator")
        else:
            return 1
        return (0 if found[:1] == [number] else None) if len(found) == (found[:1] == [number]) else 1


def noted_ms(ledger: DocumentReader, entry: ShardEntry) -> int:
    """Return when a reader noted that it was at the tip behind the entry's position, epoch ms; 0 without a note."""
    note, _ = ledger.document(_document(entry.shard_id))
    return int(note["read_ms"]) if note.get("position") == entry.position else 0


def _document(shard_id: str) -> str:
    return f"read.{shard_id}"
