"""Batches that come with their identity: one request of a client, sealed by itself.

All records of an origin go to one hash key that follows from its name, so that whoever sends the same events under
the same identity again, from whatever process, lands on the same chain of shards, whose reader drops the copies.
"""

import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random, SystemRandom
from threading import Condition, Thread
from typing import Any

import pyarrow as pa

from headwater.clock import Clock, SystemClock
from headwater.codec import encode_batch
from headwater.contract import Contract
from headwater.errors import BufferFull, HeadwaterError, InvalidEvent, UsageError
from producers.controls import put_control
from producers.outbox import Outbox
from producers.receipts import Accepted
from producers.sealing import Numbers, SealedBatch
from producers.settings import ProducerSettings, ProducerStats, Receipt
from producers.writer import Outcome, Writer, WriterSettings, put_records

__all__ = ["DirectProducer", "batches_at", "origin_hash_key"]

log = logging.getLogger("headwater.producer")

_PAGE = 8 << 20


def origin_hash_key(origin: str) -> int:
    """Where all records of the origin go, in every process and release."""
    return int.from_bytes(hashlib.md5(origin.encode(), usedforsecurity=False).digest(), "big")


def batches_at(
    place: int,
    table: pa.Table,
    contract: Contract,
    settings: ProducerSettings,
    first: tuple[str, int] | None,
    traceparent: str | None = None,
) -> Iterator[SealedBatch]:
    """Unnumbered batches for the hash key `place`, of at most `max_events`, halved until each fits a record.

    `first` is the identity of the first row; None where events have ids of their own. InvalidEvent when one fits none.
    """
    most = settings.max_events
    if table.num_rows > most:
        for at in range(0, table.num_rows, most):
            yield from batches_at(place, table.slice(at, most), contract, settings, _after(first, at), traceparent)
        return
    origin, seq = first or (None, None)
    payload = encode_batch(table, contract, origin=origin, first_seq=seq, traceparent=traceparent)
    batch = SealedBatch(0, payload, "direct", str(place), origin, seq or 0, table.num_rows)
    if batch.size <= settings.max_record_bytes:
        yield batch
        return
    if table.num_rows == 1:
        limit = settings.max_record_bytes
        raise InvalidEvent(f"row {seq or 0}: the event takes {batch.size} bytes in a record, which holds {limit}")
    half = table.num_rows // 2
    yield from batches_at(place, table.slice(0, half), contract, settings, first, traceparent)
    yield from batches_at(place, table.slice(half), contract, settings, _after(first, half), traceparent)


def _after(first: tuple[str, int] | None, rows: int) -> tuple[str, int] | None:
    return None if first is None else (first[0], first[1] + rows)


@dataclass(eq=False)
class _Put:
    """A call of `put` that is not settled yet."""

    future: "Future[Receipt]"
    origin: str
    first_seq: int
    left: set[int] = field(default_factory=set)
    count: int = 0
    error: HeadwaterError | None = None


class DirectProducer:
    """Sends tables under identities given with them; thread-safe.

    `put` seals in the caller's thread; a background thread sends and retries. A future is done when Kinesis has all of
    its events. With an outbox they are durable already when `put` returns, and what an earlier process left is sent.
    Of the settings, the limits of records, requests and the buffer count, and those of delivery and receipts.
    """

    def __init__(
        self,
        stream: str,
        contract: Contract,
        *,
        client: Any,
        settings: ProducerSettings | None = None,
        outbox: Path | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        if contract.id is not None:
            raise UsageError(f"contract {contract.name}: its events have ids of their own; use Producer")
        self._stream, self._contract, self._client = stream, contract, client
        self._settings = settings or ProducerSettings()
        self._clock = clock or SystemClock()
        limits = WriterSettings(
            max_request_bytes=self._settings.max_request_bytes,
            give_up_ms=round(self._settings.delivery_seconds * 1000),
        )
        self._writer = Writer(limits, (random or SystemRandom()).random, stream)
        self._outbox = Outbox(outbox, stream, contract, "direct") if outbox is not None else None
        self._numbers = self._outbox.numbers if self._outbox else Numbers("direct")
        self._changed = Condition()
        self._waiting: dict[int, _Put] = {}
        self._accepted = Accepted(contract)
        self._told_ms = self._clock.now_ms()
        self._tell = self._stop = False
        self._counts = {"accepted": 0, "delivered": 0, "retried": 0, "failed": 0}
        self._bytes = 0
        self._cursor = -1
        self._last_old = self._outbox.last_batch() if self._outbox else -1
        self._recovering = self._last_old >= 0
        self._old = set[int]()
        self._error: HeadwaterError | None = None
        self._broken: HeadwaterError | None = None
        self._thread = Thread(target=self._run, name=f"direct producer {stream}", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> ProducerStats:
        with self._changed:
            return ProducerStats(**self._counts, buffered_bytes=self._bytes)

    def put(self, table: pa.Table, origin: str, first_seq: int, traceparent: str | None = None) -> "Future[Receipt]":
        """Accept conformed events: row i is (origin, first_seq + i).

        BufferFull when there is no room, InvalidEvent when an event fits no record: then nothing was accepted.
        """
        batches = list(self._seal(table, origin, first_seq, traceparent))
        return self.put_sealed(batches, origin, first_seq)

    def put_runs(
        self, runs: "list[tuple[pa.Table, int]]", origin: str, traceparent: str | None = None
    ) -> "Future[Receipt]":
        """Accept several runs of events of one origin, all or none: (rows, number of the first)."""
        batches = [one for table, first in runs for one in self._seal(table, origin, first, traceparent)]
        return self.put_sealed(batches, origin, runs[0][1])

    def put_sealed(self, batches: list[SealedBatch], origin: str, first_seq: int) -> "Future[Receipt]":
        """Into the outbox, then to the writer."""
        future: Future[Receipt] = Future()
        future.set_running_or_notify_cancel()
        put = _Put(future, origin, first_seq)
        size = sum(batch.size for batch in batches)
        with self._changed:
            self._check_room(size)
            sealed = []
            for batch in batches:
                sealed.append(replace(batch, batch_id=self._numbers.next_batch))
                self._numbers.next_batch += 1
            if self._outbox is not None:
                self._outbox.seal(sealed, (), self._numbers)
            for batch in sealed:
                put.left.add(batch.batch_id)
                self._waiting[batch.batch_id] = put
                self._writer.add(batch)
                self._counts["accepted"] += batch.count
            self._bytes += size
            self._changed.notify_all()
        return future

    def _check_room(self, size: int) -> None:
        if self._stop:
            raise UsageError(f"stream {self._stream}: the producer is closed")
        if self._broken:
            raise self._broken
        if self._bytes and self._bytes + size > self._settings.max_buffer_bytes:
            limit = self._settings.max_buffer_bytes
            raise BufferFull(f"stream {self._stream}: the producer's buffer of {limit} bytes is full")

    def _seal(self, table: pa.Table, origin: str, first: int, traceparent: str | None) -> Iterator[SealedBatch]:
        place = origin_hash_key(origin)
        return batches_at(place, table, self._contract, self._settings, (origin, first), traceparent)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before is settled, then tell the receipts. Raises the first failure since."""
        with self._changed:
            mine = set(self._waiting)
            done = self._changed.wait_for(
                lambda: self._broken or not (mine & self._waiting.keys() or self._recovering or self._old), timeout
            )
            if done and not self._broken:
                self._tell = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._tell or self._broken, timeout)
            error, self._error = self._broken or self._error, None
        if not done:
            raise HeadwaterError(f"stream {self._stream}: not everything was delivered within {timeout:g} s")
        if error:
            raise error

    def close(self, timeout: float | None = None) -> None:
        """Flush and end. Nothing is accepted afterwards."""
        try:
            self.flush(timeout)
        finally:
            with self._changed:
                self._stop = True
                self._changed.notify_all()
            self._thread.join()
            if self._outbox is not None:
                self._outbox.close()

    def _run(self) -> None:
        try:
            while self._wait():
                self._turn()
        except Exception as error:
            log.exception("the direct producer's sender failed")
            self._break(error)

    def _wait(self) -> bool:
        with self._changed:
            while not self._stop:
                pause = self._pause()
                if pause == 0:
                    return True
                self._changed.wait(pause)
        return False

    def _pause(self) -> float | None:
        now = self._clock.now_ms()
        if self._tell or (self._recovering and self._bytes < self._settings.max_buffer_bytes):
            return 0
        due = [] if self._writer.due_ms() is None else [self._writer.due_ms() or 0]
        if self._settings.receipts and not self._accepted.empty:
            due.append(self._told_ms + round(self._settings.receipt_seconds * 1000))
        return max(0, min(due) - now) / 1000 if due else None

    def _turn(self) -> None:
        if self._recovering and self._outbox is not None:
            self._refill(self._outbox)
        with self._changed:
            request = self._writer.request(self._clock.now_ms())
        if request:
            self._send(request)
        late = self._clock.now_ms() - self._told_ms >= self._settings.receipt_seconds * 1000
        if self._tell or (late and self._settings.receipts and not self._accepted.empty):
            self._tell_receipts()
        with self._changed:
            self._changed.notify_all()

    def _refill(self, outbox: Outbox) -> None:
        """What an earlier process left, a page at a time."""
        found = [one for one in outbox.batches(self._cursor, _PAGE) if one.batch_id <= self._last_old]
        with self._changed:
            for batch in found:
                self._cursor = batch.batch_id
                self._bytes += batch.size
                self._old.add(batch.batch_id)
                self._writer.add(batch)
            self._recovering = bool(found)

    def _send(self, request: list[SealedBatch]) -> None:
        try:
            entries = put_records(self._client, self._stream, request)
        except HeadwaterError as error:
            with self._changed:
                outcome = self._writer.failed(error, self._clock.now_ms())
        else:
            with self._changed:
                outcome = self._writer.answered(entries, self._clock.now_ms())
        if self._outbox is not None and outcome.delivered:
            self._outbox.delivered(one.batch.batch_id for one in outcome.delivered)
        self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        done: list[tuple[_Put, str, str]] = []
        with self._changed:
            self._counts["retried"] += outcome.retried
            for one in outcome.delivered:
                self._counts["delivered"] += one.batch.count
                if one.batch.origin is not None:
                    self._accepted.add_session(one.batch.origin, one.batch.first_seq, one.batch.count)
                done += self._take(one.batch, None, one.shard_id, one.sequence_number)
            for failure in outcome.failed:
                self._counts["failed"] += failure.batch.count
                self._error = self._error or failure.error
                done += self._take(failure.batch, failure.error, "", "")
        for put, shard_id, number in done:
            if put.error is not None:
                put.future.set_exception(put.error)
            else:
                put.future.set_result(Receipt(put.origin, put.first_seq, put.count, shard_id, number))

    def _take(
        self, batch: SealedBatch, error: HeadwaterError | None, shard_id: str, number: str
    ) -> list[tuple[_Put, str, str]]:
        self._bytes -= batch.size
        self._old.discard(batch.batch_id)
        put = self._waiting.pop(batch.batch_id, None)
        if put is None:
            return []
        put.left.discard(batch.batch_id)
        put.count += batch.count
        put.error = put.error or error
        return [] if put.left else [(put, shard_id, number)]

    def _tell_receipts(self) -> None:
        with self._changed:
            taken = self._accepted.take()
        try:
            for body in taken.bodies() if self._settings.receipts else ():
                put_control(self._client, self._stream, "receipt", body, self._clock)
        except HeadwaterError as error:
            log.warning("receipts are told later: %s", error)
            with self._changed:
                self._accepted.put_back(taken)
        with self._changed:
            self._tell = False
            self._told_ms = self._clock.now_ms()

    def _break(self, cause: Exception) -> None:
        error = HeadwaterError(f"stream {self._stream}: the producer stopped: {type(cause).__name__}: {cause}")
        with self._changed:
            self._broken = error
            puts = {id(put): put for put in self._waiting.values()}
            self._waiting.clear()
            self._changed.notify_all()
        for put in puts.values():
            put.future.set_exception(error)
