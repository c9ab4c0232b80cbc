"""Deliver what a producer accepts: one state machine, one lock, one background thread.

An event is *admitted* (there is room), *buffered*, *sealed* into a batch, *sent* until Kinesis has it, and *settled*:
its future is done. With an outbox it is on disk from the first step on. Callers' threads admit and buffer; the
background thread alone seals, sends, settles and puts receipts. All state is private to the sender and guarded by
`_changed`, which is also how either side wakes the other; no lock is held over a call of Kinesis or over encoding.

Here belong only the order of these steps and the waiting. Each step's own rules are elsewhere: buffers and numbering
in `sealing`, retries in `writer`, futures and counts in `tracking`, the file in `outbox`, places in `routing`.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition
from uuid import uuid4

import pyarrow as pa

from headwater.contract import Contract
from headwater.errors import BufferFull, HeadwaterError, UsageError
from headwater.producers.admission import Admission, Room
from headwater.producers.background import BackgroundLoop
from headwater.producers.kinesis import KinesisStream
from headwater.producers.outbox import Backlog, Outbox
from headwater.producers.receipts import ReceiptWriter
from headwater.producers.restores import RestoreWatch
from headwater.producers.routing import ShardRouter
from headwater.producers.sealing import BatchSlice, EventGroup, LaneBuffer, Numbering, SealedBatch, Sealer
from headwater.producers.settings import ProducerSettings, ProducerStats, Receipt
from headwater.producers.tracking import Completions, DeliveryTracker, OnDelivery
from headwater.producers.writer import RequestOutcome, Writer, WriterSettings

__all__ = ["Sender"]

log = logging.getLogger("headwater.producer")
_PAUSE_MS = 5_000
"""Between giving a stream up for now and reading its batches from the outbox again."""
Futures = list["Future[Receipt]"]


class Sender:
    """Deliver events to one stream. Thread-safe.

    `numbering` is that of the outbox where there is one. Events come through `put_row` and `put_table`, which buffer
    and seal them, or sealed already through `put_batches`.
    """

    def __init__(
        self,
        stream: KinesisStream,
        contract: Contract,
        settings: ProducerSettings,
        numbering: Numbering,
        outbox: Outbox | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> None:
        self._stream, self._settings, self.outbox = stream, settings, outbox
        self._clock, self._on_delivery = stream.clock, on_delivery
        self.name = f"the producer of stream {stream.name}"
        self._router = ShardRouter(stream)
        self.sealer = Sealer(contract, settings, numbering, self._router.place)
        retries = WriterSettings.of(settings, keeps_trying=outbox is not None)
        self._writer = Writer(retries, stream.random, stream.name)
        self._receipts = ReceiptWriter(stream, contract, settings, outbox)
        self._tracker = DeliveryTracker()
        self._restores = RestoreWatch(stream.clock)
        self._backlog = Backlog(outbox) if outbox is not None else None
        self._changed = Condition()
        self.admission = Admission(stream.name, settings, self._tracker, self._changed)
        self._sealing: list[LaneBuffer] = []
        self._flushing = self._receipt_wanted = self._stopping = self._closed = False
        self._unreachable = False
        self._stalled: HeadwaterError | None = None
        """Why the outbox's batches are not delivered, since the last one that was."""
        self._broken: HeadwaterError | None = None
        """Why the thread ended on its own."""
        self.loop = BackgroundLoop(f"producer {stream.name}", self, self._changed, stream.clock)
        if outbox is not None:
            self._inherit(outbox)

    def start(self) -> None:
        """Start the background thread."""
        pa.array([""])  # imports pandas, where it is; seconds in which a fork of the process would have to wait
        self.loop.start()

    @property
    def stats(self) -> ProducerStats:
        """Return the counts of events as they are now."""
        with self._changed:
            return self._tracker.stats()

    def put_row(self, row: dict[str, object], size: int) -> "Future[Receipt]":
        """Take one validated event of about `size` bytes in memory."""
        return self._put(1, size, lambda: [self.sealer.cut_row(row, size, self._tracker.new_put())])[0]

    def offer_row(self, row: dict[str, object], size: int, called: Room | None) -> "Future[Receipt] | Room":
        """Take an event as `put_row` does, or return the room to wait for; `called` is what it has waited for."""
        with self._changed:
            self._check_usable()
            room = self.admission.line_up(size, called) if self._settings.when_full == "block" else None
            if room is not None:
                self._press()
            return room or self.put_row(row, size)

    def put_table(self, table: pa.Table, size: int) -> Futures:
        """Take conformed events, whose size in memory is given; return a future for each piece of a batch."""
        return self._put(table.num_rows, size, lambda: self.sealer.cut_table(table, size, self._tracker.new_put))

    def put_batches(self, batches: list[SealedBatch], origin: str, first_seq: int) -> "Future[Receipt]":
        """Take batches sealed by the caller, all or none; they are numbered here. One future stands for all."""
        count = sum(batch.count for batch in batches)
        with self._changed:
            if not self._admit(count, sum(batch.size for batch in batches)):
                return self._dropped()
            put = self._tracker.new_put(count)
            put.origin, put.first_seq = origin, first_seq
            pairs = self.sealer.number(batches, EventGroup(None, None, count, 0, put))
            if self.outbox is not None:
                self.outbox.seal([batch for batch, _ in pairs], (), self.sealer.numbering)
            self._tracker.accept(count, 0)
            self._hand_over(pairs, 0)
            self._changed.notify_all()
        return put.future

    def _put(self, count: int, size: int, cut: Callable[[], list[EventGroup]]) -> Futures:
        with self._changed:
            if not self._admit(count, size):
                return [self._dropped()]
            groups = cut()  # under the lock: how a table is cut follows from what is buffered
            if self.outbox is not None:  # first: what the disk refuses is not accepted
                for group, event_id in zip(groups, self.outbox.add([one.rows for one in groups]), strict=True):
                    group.event_id = event_id
            now, was_due = self._clock.now_ms(), self.sealer.due_ms()
            for group in groups:
                self._tracker.accept(group.count, group.raw_bytes)
                self.sealer.append(group, now)
            if self.sealer.due_ms() != was_due:
                self._changed.notify_all()
        return [group.put.future for group in groups]

    def _dropped(self) -> "Future[Receipt]":
        future = self._tracker.new_put().future
        future.set_exception(BufferFull("dropped: the producer's buffer was full"))
        return future

    def _admit(self, count: int, size: int) -> bool:
        """Return whether there is room, after what `when_full` says was done about it. The lock is held."""
        self._check_usable()
        if self.admission.has_room(size):
            return True
        self._press()
        if self._settings.when_full == "drop":
            self._tracker.dropped += count
            return False
        if self._settings.when_full == "raise" or self.loop.is_current:
            raise self.admission.full()
        ready = self.admission.wait(size, lambda: self._closed or self._broken)
        self._check_usable()
        if not ready:
            raise self.admission.full(waited=True)
        return True

    def _press(self) -> None:
        self._flushing = self.sealer.waiting
        self._changed.notify_all()

    def _check_usable(self) -> None:
        if self._closed:
            raise UsageError(f"stream {self._stream.name}: the producer is closed")
        if self._broken:
            raise self._broken

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before is settled, then put the receipts. Raises the first failure since."""
        if self.loop.is_current:
            raise UsageError("flush and close would wait for themselves when called from a delivery callback")
        with self._changed:
            epoch = self._tracker.next_epoch()
            self._flushing, self._stalled = self.sealer.waiting, None
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._broken or self._stalled or self._is_settled(epoch), timeout)
            if done and not (self._broken or self._stalled):
                self._receipt_wanted = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._receipt_wanted, timeout)
            if not done:
                raise HeadwaterError(f"stream {self._stream.name}: not everything was delivered within {timeout:g} s")
            self._raise_failure(self._broken or self._stalled)

    def _is_settled(self, epoch: int) -> bool:
        return self._tracker.is_settled(epoch) and not (self._backlog and self._backlog.active)

    def _raise_failure(self, present: HeadwaterError | None) -> None:
        error, self._tracker.error = self._tracker.error or present, None
        if error is None:
            return
        left = self.outbox.left() if self.outbox is not None else 0
        counts = [f"{self._tracker.failed} events failed"] if self._tracker.failed else []
        counts += [f"{left} events stay in the outbox"] if left else []
        raise HeadwaterError(f"{error} ({'; '.join(counts)})" if counts else str(error)) from error

    def close(self) -> None:
        """Flush, then end the thread and close the outbox. Nothing is accepted afterwards; closing twice is no harm."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            self.stop()
            self.loop.join(None)
            try:
                with self._changed:
                    self._raise_failure(None)  # of what other threads put in while this one flushed
            finally:
                self._end()

    @property
    def closed(self) -> bool:
        """Tell whether the sender takes nothing any more."""
        return self._closed

    def stop(self) -> int:
        """Take nothing more, without waiting; return how many events are not delivered."""
        with self._changed:
            self._closed = self._stopping = True
            self.admission.call(everyone=True)
            self._changed.notify_all()
            return self._tracker.unsettled + self._tracker.failed

    def _end(self) -> None:
        """Fail the futures of what only the outbox has, and let it go."""
        name = f" {self.outbox.path}" if self.outbox is not None else ""
        error = HeadwaterError(f"stream {self._stream.name}: the producer was closed; it stays in the outbox{name}")
        with self._changed:
            completions = self._tracker.abandon([], error)
        completions.announce(self._on_delivery)
        if self.outbox is not None:
            self.outbox.close()

    # What follows runs on the background thread.

    def finished(self) -> bool:
        """Tell whether the producer is closing and nothing is left to do: what is stalled is left to the outbox."""
        active = self._backlog is not None and self._backlog.active
        done = self._stalled is not None or not (len(self._writer) or active)
        return self._stopping and not self.sealer.waiting and done

    def due_ms(self) -> int | None:
        """Return when `step` has something to do: 0 for at once, None when nothing is waited for."""
        if self._receipt_wanted or (self._seals_everything and self.sealer.waiting):
            return 0
        due = [self.sealer.due_ms(), self._writer.due_ms()]
        if self._backlog is not None and self._backlog.active and self._can_load():
            due.append(self._backlog.resume_ms)
        if not self._stopping:
            due.append(self._receipts.due_ms())
        return min((one for one in due if one is not None), default=None)

    @property
    def _seals_everything(self) -> bool:
        return self._flushing or self.admission.pressed or self._stopping

    def step(self) -> None:
        """Seal what is due, load from the outbox, send one request, and put receipts when it is time."""
        with self.loop.at_work:
            completions = self._work()
        for one in completions:
            one.announce(self._on_delivery)
        with self._changed:
            self.admission.call()
            self._changed.notify_all()

    def _work(self) -> list[Completions]:
        with self._changed:
            everything, self._flushing = self._seals_everything, False
            self._sealing = self.sealer.take(self._clock.now_ms(), everything)
        if self._sealing:
            self._router.refresh()
        while self._sealing:
            self._seal(self._sealing[0])
        if self._backlog is not None and self._backlog.active:
            self._load(self._backlog)
        with self._changed:
            request = self._writer.request(self._clock.now_ms())
        completions = []
        if request:
            sent = self.loop.outside(lambda: self._stream.send(self._writer, request, self._changed))
            completions = self._settle(sent)
        receipt_ms = self._receipts.due_ms()
        if self._receipt_wanted or (receipt_ms is not None and receipt_ms <= self._clock.now_ms()):
            self._put_receipts()
        return completions

    def _seal(self, buffer: LaneBuffer) -> None:
        if self._restores.seen():
            self.sealer.begin_session(uuid4().hex)  # a copy of this process may go on with the old one's numbers
        pairs = self.sealer.seal(buffer)
        if self.outbox is not None:
            ids = [group.event_id for group in buffer.groups if group.event_id is not None]
            self.outbox.seal([batch for batch, _ in pairs], ids, self.sealer.numbering)
        with self._changed:
            self._hand_over(pairs, sum(group.raw_bytes for group in buffer.groups))
            self._sealing.pop(0)

    def _hand_over(self, pairs: list[tuple[SealedBatch, list[BatchSlice]]], freed: int) -> None:
        """Give sealed batches to the writer, or leave them to the backlog, which is older. The lock is held."""
        queued = self._backlog is not None and self._backlog.active
        self._tracker.sealed(pairs, freed, in_memory=not queued)
        for batch, _ in pairs if not queued else ():
            self._writer.add(batch)

    def _inherit(self, outbox: Outbox) -> None:
        """Take over an earlier run's unsealed events; its sealed batches come through the backlog."""
        now, ids, all_groups = self._clock.now_ms(), list[int](), list[EventGroup]()
        for stored in outbox.events():
            ids.append(stored.event_id)
            if isinstance(stored.rows, dict):
                groups = [self.sealer.cut_row(stored.rows, 0, None)]
            else:
                groups = self.sealer.cut_table(stored.rows, stored.rows.nbytes, lambda _: None)
            for group in groups:
                self.sealer.append(group, now)
                self._tracker.inherit(group.count, group.raw_bytes)
            all_groups += groups
        # Cut anew, for a row of the file belongs to one buffer.
        for group, event_id in zip(all_groups, outbox.add([one.rows for one in all_groups], ids), strict=True):
            group.event_id = event_id

    def _can_load(self) -> bool:
        return not len(self._writer) or self._tracker.bytes < self._settings.max_buffer_bytes

    def _load(self, backlog: Backlog) -> None:
        if not self._can_load() or self._clock.now_ms() < backlog.resume_ms:
            return
        found = backlog.page(self._settings.max_request_bytes)
        with self._changed:
            for batch in found:
                self._tracker.load(batch)
                self._writer.add(batch)
            if not found:
                backlog.end()

    def _settle(self, outcome: RequestOutcome) -> list[Completions]:
        self._unreachable = not (outcome.delivered or outcome.refused or outcome.failed)
        self._router.learn(outcome)
        if self.outbox is not None and outcome.delivered:
            batches = [one.batch for one in outcome.delivered]
            self.outbox.delivered((one.batch_id for one in batches), self._receipts.identities(batches))
        for one in outcome.delivered:
            self._receipts.add(one.batch)
        with self._changed:
            self._tracker.retried += outcome.retried
            settled = [self._tracker.delivered_all(outcome.delivered), self._tracker.failed_all(outcome.failed)]
            if outcome.delivered:
                self._stalled = None
            if self._backlog is not None:
                self._backlog.failed(failure.batch.batch_id for failure in outcome.failed)
                if outcome.overdue is not None:
                    self._set_aside(self._backlog, outcome.overdue)
        return settled

    def _set_aside(self, backlog: Backlog, error: HeadwaterError) -> None:
        """Leave everything to the outbox for a while: the stream has not taken a batch for `delivery_seconds`.

        All of it, so that a lane's later batches do not overtake the earlier. The lock is held.
        """
        batches = self._writer.clear()
        for batch in batches:
            self._tracker.unload(batch)
        backlog.rewind(batches, self._clock.now_ms() + _PAUSE_MS)
        self._stalled = error
        log.warning("%s: the events stay in the outbox and are sent again", error)

    def _put_receipts(self) -> None:
        error = None
        if self._unreachable:  # every attempt would keep the thread for seconds that the batches need
            self._receipts.postpone()
        else:
            error = self.loop.outside(lambda: self._receipts.put(self._router.refused))
        with self._changed:
            if self._receipt_wanted:
                self._tracker.error = self._tracker.error or error
            self._receipt_wanted = False

    def broke(self, cause: Exception) -> None:
        """Fail everything that is still here, with the reason; an outbox keeps what it has."""
        reason = str(cause) if isinstance(cause, HeadwaterError) else f"{type(cause).__name__}: {cause}"
        error = HeadwaterError(f"stream {self._stream.name}: the producer stopped: {reason}")
        with self._changed:
            self._broken = error
            self._receipt_wanted = False
            if self._backlog is not None:
                self._backlog.active = False
            self._writer.clear()
            completions = self._tracker.abandon([*self._sealing, *self.sealer.take(0, everything=True)], error)
            self.admission.call(everyone=True)
            self._changed.notify_all()
        completions.announce(self._on_delivery)
