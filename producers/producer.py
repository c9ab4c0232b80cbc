"""The producer: events in, confirmed records out."""

import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from random import Random, SystemRandom
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.clock import Clock, SystemClock
from headwater.contract import Contract, conform, load_contract, validate_row
from headwater.errors import BufferFull, HeadwaterError, InvalidEvent, UsageError
from producers.delivery import OnDelivery
from producers.outbox import Outbox
from producers.sealing import Numbers, Part, Sealer
from producers.sender import Sender
from producers.settings import ProducerSettings, ProducerStats, Receipt
from producers.spread import Spread
from producers.writer import Writer, WriterSettings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Producer", "ProducerSettings", "ProducerStats", "Receipt"]


class Producer:
    """Puts events of one contract on one stream, from any number of threads.

    `put` and `put_batch` check and buffer; a background thread seals batches and sends them. A future is done when
    Kinesis has its events; with an outbox they are durable already when `put` returns. `flush` and `close` raise when
    anything failed since. Use it as a context manager, or call `close`: what is buffered when the process ends is lost
    (unless there is an outbox).
    """

    def __init__(
        self,
        stream: str,
        contract: Contract | str | Path,
        *,
        client: Any = None,
        settings: ProducerSettings | None = None,
        outbox: str | Path | None = None,
        on_delivery: OnDelivery | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.contract = contract if isinstance(contract, Contract) else load_contract(contract)
        self._settings = settings or ProducerSettings()
        self._stream = stream
        self._clock = clock or SystemClock()
        random = random or SystemRandom()
        origin = uuid.UUID(int=random.getrandbits(128), version=4).hex
        self._outbox = Outbox(Path(outbox), stream, self.contract, origin) if outbox is not None else None
        numbers = self._outbox.numbers if self._outbox else Numbers(origin)
        limits = WriterSettings(
            max_request_bytes=self._settings.max_request_bytes,
            give_up_ms=round(self._settings.delivery_seconds * 1000),
        )
        client = client if client is not None else _client()
        spread = Spread(client, stream, self._clock, random.random)
        self._sealer = Sealer(self.contract, self._settings, numbers, spread.place)
        self._sender = Sender(
            (client, stream),
            self.contract,
            self._settings,
            (self._sealer, Writer(limits, random.random, stream), self._outbox, spread),
            self._clock,
            on_delivery,
        )
        self._changed, self._book = self._sender.changed, self._sender.book
        self._closed = False
        self._sender.start()

    @property
    def origin(self) -> str:
        """The session's name in the identity of its events."""
        return self._sealer.numbers.origin

    @property
    def stats(self) -> ProducerStats:
        with self._changed:
            return self._book.stats()

    def put(self, event: Mapping[str, object]) -> "Future[Receipt]":
        """Accept one event. InvalidEvent when it breaks the contract or fits no record; BufferFull as `when_full` says.

        Under `drop` the future of a dropped event fails with BufferFull.
        """
        row = validate_row(self.contract, event)
        size = _row_bytes(row)
        if size > self._settings.max_record_bytes // 4:
            fault = self._sealer.too_large(pa.Table.from_pylist([row], schema=self.contract.arrow_schema))
            if fault:
                raise InvalidEvent(fault[1])
        with self._changed:
            if not self._admit(1, size):
                return _dropped(self._book.waiting().future)
            waiting = self._book.waiting()
            self._accept([self._sealer.cut_row(row, size, waiting)])
        return waiting.future

    def put_batch(self, events: "pa.Table | pa.RecordBatch | pd.DataFrame") -> "list[Future[Receipt]]":
        """Accept a table of events, or, when one of them is invalid, none: InvalidEvent names the first row and field.

        Returns a future for each piece that goes into one batch, not one per event. A table is taken in pieces when
        it is large beside `max_buffer_bytes`: under `block` it may happen that BufferFull comes after the first rows
        were accepted (it says how many), under `drop` a part may be dropped; `raise` accepts all or nothing.
        """
        table = _conformed(self.contract, _table(events))
        fault = self._sealer.too_large(table)
        if fault:
            raise InvalidEvent(f"row {fault[0]}: {fault[1]}")
        if not table.num_rows:
            return []
        size = table.nbytes
        whole = self._settings.when_full == "raise"
        step = table.num_rows if whole else max(1, table.num_rows * self._settings.max_buffer_bytes // (4 * size + 1))
        if whole and size > self._settings.max_buffer_bytes:
            limit = self._settings.max_buffer_bytes
            raise BufferFull(f"stream {self._stream}: a table of {size} bytes for a buffer of {limit} bytes; cut it")
        futures: list[Future[Receipt]] = []
        for at in range(0, table.num_rows, step):
            piece = table.slice(at, step)
            futures += self._put_piece(piece, size * piece.num_rows // table.num_rows, at)
        return futures

    def _put_piece(self, table: pa.Table, size: int, at: int) -> "list[Future[Receipt]]":
        with self._changed:
            try:
                admitted = self._admit(table.num_rows, size)
            except BufferFull as full:
                raise BufferFull(f"{full}; the first {at} rows of the table were accepted") if at else full from full
            if not admitted:
                return [_dropped(self._book.waiting().future)]
            parts = self._sealer.cut_table(table, size, self._book.waiting)
            self._accept(parts)
        return [part.token.future for part in parts]

    def _accept(self, parts: list[Part]) -> None:
        """Into the outbox first: what that refuses is not accepted. The lock is held."""
        if self._outbox is not None:
            for part, event_id in zip(parts, self._outbox.add([part.rows for part in parts]), strict=True):
                part.event_id = event_id
        now, was_due = self._clock.now_ms(), self._sealer.due_ms()
        for part in parts:
            self._book.accept(part.count, part.raw_bytes)
            self._sealer.append(part, now)
        if self._sealer.due_ms() != was_due:
            self._changed.notify_all()

    def _admit(self, count: int, size: int) -> bool:
        """Whether there is room, after what `when_full` says was done about it. The lock is held."""
        self._check_usable()
        if self._has_room(size):
            return True
        self._sender.seal_all = self._sealer.waiting
        self._changed.notify_all()
        limit = f"the producer's buffer of {self._settings.max_buffer_bytes} bytes is full"
        if self._settings.when_full == "drop":
            self._book.dropped += count
            return False
        if self._settings.when_full == "raise" or self._sender.is_current:
            raise BufferFull(f"stream {self._stream}: {limit}")
        self._sender.pressing += 1
        try:
            ready = self._changed.wait_for(
                lambda: self._has_room(size) or self._closed or self._sender.broken, self._settings.block_seconds
            )
        finally:
            self._sender.pressing -= 1
        self._check_usable()
        if not ready:
            raise BufferFull(f"stream {self._stream}: {limit}, for {self._settings.block_seconds:g} s")
        return True

    def _has_room(self, size: int) -> bool:
        return self._book.bytes + size <= self._settings.max_buffer_bytes or not self._book.bytes

    def _check_usable(self) -> None:
        if self._closed:
            raise UsageError(f"stream {self._stream}: the producer is closed")
        if self._sender.broken:
            raise self._sender.broken

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before is delivered or has failed, then tell the receipts.

        Raises HeadwaterError with the first failure since the last flush, or when `timeout` seconds were not enough.
        """
        if self._sender.is_current:
            raise UsageError("flush and close would wait for themselves when called from a delivery callback")
        sender = self._sender
        with self._changed:
            epoch = self._book.next_epoch()
            sender.seal_all = self._sealer.waiting
            self._changed.notify_all()
            done = self._changed.wait_for(
                lambda: sender.broken or (self._book.is_settled(epoch) and not sender.recovering), timeout
            )
            if done and not sender.broken and self._settings.receipts:
                sender.tell_receipts = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not sender.tell_receipts, timeout)
            if not done:
                raise HeadwaterError(f"stream {self._stream}: not everything was delivered within {timeout:g} s")
            self._raise_failure()

    def _raise_failure(self) -> None:
        error, self._book.error = self._book.error, None
        if error is None:
            return
        left = self._outbox.left() if self._outbox is not None else 0
        kept = f"; {left} events stay in the outbox" if left else ""
        raise HeadwaterError(f"{error} ({self._book.failed} events failed{kept})") from error

    def close(self) -> None:
        """Flush, then end the background thread. Nothing is accepted afterwards; closing again does nothing."""
        if self._closed:
            return
        try:
            self.flush()
        finally:
            with self._changed:
                self._closed = self._sender.stop = True
                self._changed.notify_all()
            self._sender.join()
            try:
                with self._changed:
                    self._raise_failure()  # of what other threads put in while this one flushed
            finally:
                if self._outbox is not None:
                    self._outbox.close()

    def __enter__(self) -> "Producer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except HeadwaterError:
            if kind is None:
                raise


def _client() -> Any:
    from headwater.aws import client
    from headwater.config import Settings

    return client("kinesis", Settings())


def _table(events: Any) -> pa.Table:
    if isinstance(events, pa.Table):
        return events
    if isinstance(events, pa.RecordBatch):
        return pa.Table.from_batches([events])
    try:
        return pa.Table.from_pandas(events, preserve_index=False)
    except (pa.ArrowException, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidEvent(f"put_batch takes an Arrow table or a pandas DataFrame: {reason}") from error


def _conformed(contract: Contract, table: pa.Table) -> pa.Table:
    found = conform(contract, table)
    if found.invalid:
        first = found.invalid[0]
        more = f" (and {len(found.invalid) - 1} more)" if len(found.invalid) > 1 else ""
        raise InvalidEvent(f"row {first.index}: {first.reason}{more}")
    return found.table


def _row_bytes(row: Mapping[str, object]) -> int:
    """About what a buffered event takes in memory."""
    return 128 + sum(64 + len(value) if isinstance(value, str) else 32 for value in row.values())


def _dropped(future: "Future[Receipt]") -> "Future[Receipt]":
    future.set_exception(BufferFull("dropped: the producer's buffer was full"))
    return future
