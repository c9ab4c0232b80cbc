"""The background half of a producer: seals what is due, sends it, settles it, tells what was accepted.

One thread runs `run`; it alone seals, sends and talks to the stream. What it shares with callers (buffers, writer,
book, flags) is guarded by `changed`, which is also how either side wakes the other. No lock is held over I/O to the
stream or over encoding.
"""

import logging
from threading import Condition, Thread, current_thread
from typing import Any

from headwater.clock import Clock
from headwater.codec import Decoded, decode_record
from headwater.contract import Contract
from headwater.errors import HeadwaterError, Retryable
from producers.controls import put_control
from producers.delivery import Book, OnDelivery, Settled
from producers.outbox import Outbox
from producers.receipts import Accepted
from producers.sealing import Part, SealedBatch, Sealer, Unsealed
from producers.settings import ProducerSettings
from producers.spread import Spread
from producers.writer import Failed, Outcome, Writer, put_records

__all__ = ["Sender", "Stream"]

log = logging.getLogger("headwater.producer")

Stream = tuple[Any, str]
"""A Kinesis client and the stream's name."""


class Sender:
    """See the module. `broken` is set when the thread ended on its own."""

    def __init__(
        self,
        stream: Stream,
        contract: Contract,
        settings: ProducerSettings,
        work: tuple[Sealer, Writer, Outbox | None, Spread],
        clock: Clock,
        on_delivery: OnDelivery | None,
    ) -> None:
        self._client, self._stream = stream
        self._contract = contract
        self._settings = settings
        self.sealer, self._writer, self._outbox, self._spread = work
        self._clock = clock
        self._on_delivery = on_delivery
        self.changed = Condition()
        self.book = Book()
        self.broken: HeadwaterError | None = None
        self.seal_all = self.tell_receipts = self.stop = False
        self.pressing = 0
        """How many callers wait for room."""
        self.recovering = False
        self._cursor = self._last_old = -1
        self._unreachable = False
        self._sealing: list[Unsealed] = []
        self._accepted = Accepted(contract)
        self._told_ms = clock.now_ms()
        self._thread = Thread(target=self.run, name=f"producer {self._stream}", daemon=True)
        if self._outbox is not None:
            self._recover(self._outbox)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    @property
    def is_current(self) -> bool:
        """Whether the caller is the sender thread: then waiting for it would never end."""
        return current_thread() is self._thread

    def _recover(self, outbox: Outbox) -> None:
        """Take over what an earlier run left: its sealed batches as they are, its events not yet sealed."""
        now, ids, all_parts = self._clock.now_ms(), list[int](), list[Part]()
        for stored in outbox.events():
            ids.append(stored.event_id)
            if isinstance(stored.rows, dict):
                parts = [self.sealer.cut_row(stored.rows, 0, None)]
            else:
                parts = self.sealer.cut_table(stored.rows, stored.rows.nbytes, lambda _: None)
            for part in parts:
                self.sealer.append(part, now)
                self.book.recovered(part.count, part.raw_bytes)
            all_parts += parts
        for part, event_id in zip(all_parts, outbox.add([one.rows for one in all_parts], instead_of=ids), strict=True):
            part.event_id = event_id  # cut anew, for a row of the table belongs to one buffer
        self._last_old = outbox.last_batch()
        self.recovering = self._last_old >= 0
        numbers = self.sealer.numbers
        if self.sealer.has_identity and outbox.announced < numbers.next_seq:
            self._accepted.add_session(numbers.origin, outbox.announced, numbers.next_seq - outbox.announced)

    def run(self) -> None:
        """Until `stop` and nothing is left to do."""
        try:
            while self._wait():
                self.turn()
        except Exception as error:
            log.exception("the producer's sender failed")
            self._break(error)

    def _wait(self) -> bool:
        """Sleep until there is something to do; False when all is done and the producer is closing."""
        with self.changed:
            while True:
                if self._seconds_to_next() == 0:
                    return True
                if self.stop and not (self.sealer.waiting or len(self._writer) or self.recovering):
                    return False
                self.changed.wait(self._seconds_to_next())

    def _seconds_to_next(self) -> float | None:
        if self.tell_receipts or (self.recovering and self._has_room()):
            return 0
        if (self.seal_all or self.pressing or self.stop) and self.sealer.waiting:
            return 0
        due = [one for one in (self.sealer.due_ms(), self._writer.due_ms()) if one is not None]
        if self._settings.receipts and not self._accepted.empty and not self.stop:
            due.append(self._told_ms + round(self._settings.receipt_seconds * 1000))
        if not due:
            return None
        return max(0, min(due) - self._clock.now_ms()) / 1000

    def turn(self) -> None:
        """Seal what is due, refill from the outbox, send one request, tell receipts when it is time."""
        with self.changed:
            everything = self.seal_all or self.pressing > 0 or self.stop
            self.seal_all = False
            self._sealing = self.sealer.take(self._clock.now_ms(), everything)
        if self._sealing:
            self._spread.refresh()
        while self._sealing:
            self._seal(self._sealing[0])
        if self.recovering and self._outbox is not None:
            self._refill(self._outbox)
        with self.changed:
            request = self._writer.request(self._clock.now_ms())
        if request:
            self._send(request)
        if self.tell_receipts or self._receipts_due():
            self._tell_receipts()
        with self.changed:
            self.changed.notify_all()

    def _seal(self, buffer: Unsealed) -> None:
        events, pairs = self.sealer.seal(buffer)
        batches = [batch for batch, _ in pairs]
        if self._outbox is not None:
            ids = [part.event_id for part in buffer.parts if part.event_id is not None]
            self._outbox.seal(batches, ids, self.sealer.numbers)
        with self.changed:
            self.book.sealed(pairs, sum(part.raw_bytes for part in buffer.parts))
            self._sealing.pop(0)
            for batch in batches:
                if not self.recovering:  # else the outbox gives them out in their turn
                    self._writer.add(batch)
        if not self._settings.receipts or self._settings.format != "columnar":
            return
        for batch in batches:
            if batch.origin is not None:
                self._accepted.add_session(batch.origin, batch.first_seq, batch.count)
        self._accepted.add_own(events)

    def _has_room(self) -> bool:
        return not len(self._writer) or self.book.bytes < self._settings.max_buffer_bytes

    def _refill(self, outbox: Outbox) -> None:
        if not self._has_room():
            return
        found = outbox.batches(self._cursor, self._settings.max_request_bytes)
        with self.changed:
            for batch in found:
                self._cursor = batch.batch_id
                if batch.batch_id <= self._last_old:
                    self.book.recovered(batch.count, batch.size)
                self._writer.add(batch)
            self.recovering = bool(found)
        if self._contract.id is not None:
            for batch in found:
                content = decode_record(batch.payload, self._contract) if batch.batch_id <= self._last_old else None
                if isinstance(content, Decoded):
                    self._accepted.add_own(content.table)

    def _send(self, request: list[SealedBatch]) -> None:
        try:
            entries = put_records(self._client, self._stream, request)
            if len(entries) != len(request):
                raise Retryable(f"stream {self._stream}: {len(entries)} answers to {len(request)} records")
        except HeadwaterError as error:
            self._unreachable = True
            with self.changed:
                outcome = self._writer.failed(error, self._clock.now_ms())
        else:
            self._unreachable = False
            with self.changed:
                outcome = self._writer.answered(entries, self._clock.now_ms())
        self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        self._spread.settle(outcome)
        if self._outbox is not None and outcome.delivered:
            self._outbox.delivered(one.batch.batch_id for one in outcome.delivered)
        with self.changed:
            self.book.retried += outcome.retried
            settled = self.book.delivered_all(outcome.delivered), self.book.failed_all(outcome.failed)
        for one in settled:
            one.tell(self._on_delivery)

    def _receipts_due(self) -> bool:
        waited = self._clock.now_ms() - self._told_ms
        return self._settings.receipts and not self._accepted.empty and waited >= self._settings.receipt_seconds * 1000

    def _tell_receipts(self) -> None:
        taken, upto = self._accepted.take(), self.sealer.numbers.next_seq
        error: HeadwaterError | None = None
        try:
            if not self._unreachable:
                for body in taken.bodies():
                    refused = {"refused": dict(self._spread.refused)} if self._spread.refused else {}
                    put_control(self._client, self._stream, "receipt", body | refused, self._clock)
                    self._spread.refused.clear()
                if self._outbox is not None:
                    self._outbox.announce(upto)
            else:
                self._accepted.put_back(taken)
        except HeadwaterError as failure:
            log.warning("receipts are told later: %s", failure)
            self._accepted.put_back(taken)
            error = failure
        with self.changed:
            if self.tell_receipts:
                self.book.error = self.book.error or error
            self.tell_receipts = False
            self._told_ms = self._clock.now_ms()

    def _break(self, cause: Exception) -> None:
        """Nothing goes on: every event still here is given up, with the reason."""
        reason = str(cause) if isinstance(cause, HeadwaterError) else f"{type(cause).__name__}: {cause}"
        error = HeadwaterError(f"stream {self._stream}: the producer stopped: {reason}")
        with self.changed:
            self.broken = error
            self.recovering = self.tell_receipts = False
            settled: list[Settled] = [
                self.book.failed_all([Failed(batch, error) for batch in self._writer.give_up()]),
                self.book.fail_sealed(error),
                self.book.fail_unsealed([*self._sealing, *self.sealer.take(0, everything=True)], error),
            ]
            self.changed.notify_all()
        for one in settled:
            one.tell(self._on_delivery)
