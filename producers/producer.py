"""Take an application's events, check them, and hand them to the sender.

Here belong the checks at the door: contract, size, kind of table. What happens to an accepted event is the sender's.
"""

import re
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.arguments import check_arguments
from headwater.codec.bounds import MAX_INVALID
from headwater.contract import Contract, conform, load_contract, validate_row
from headwater.errors import BufferFull, HeadwaterError, InvalidEvent, UsageError
from headwater.producers.kinesis import KinesisStream, default_client
from headwater.producers.outbox import Outbox
from headwater.producers.processes import ProcessSender, connector
from headwater.producers.sealing import SURE_PART, Numbering
from headwater.producers.sender import Sender
from headwater.producers.settings import ProducerSettings, ProducerStats, Receipt, Runtime
from headwater.producers.tracking import OnDelivery

if TYPE_CHECKING:
    import asyncio

    import pandas as pd
    import polars as pl

__all__ = ["Producer"]


_STREAM_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
"""From the API reference of Kinesis (CreateStream)."""


class Producer:
    """Put events of one contract on one stream, from any number of threads.

    `put` and `put_batch` check and buffer; a background thread seals batches and sends them. A future is done when
    Kinesis has its events; with an outbox they are durable already when `put` returns. `flush` and `close` raise when
    anything failed since. Use it as a context manager, or call `close`. In asyncio: `aput`, `aflush`, `aclose` and
    `async with`.

    `contract` is a Contract, the name of a shipped one or the path of a file; `client` a boto3 Kinesis client or a
    function that makes one, by default from the environment; `outbox` the path of a file that this producer alone
    uses. `on_delivery` is called once a record, on the background thread. `control_key` signs receipts; by default it
    is read from the ledger's table (`HEADWATER_LEDGER_TABLE`), and there are no receipts before it is there.

    A process that ends without `close` waits up to five seconds for the delivery, and logs how many events are lost;
    `os._exit` and signals that kill leave no time for that. After a fork the child has a session, a thread and a client
    of its own from its first `put` on; with an outbox, or a client that was made before, that `put` raises UsageError.

    UsageError when the contract cannot be used, or the outbox belongs to another process, stream or contract.

    >>> from headwater.clock import SystemClock
    >>> from headwater.testing.kinesis import MemoryKinesis
    >>> kinesis = MemoryKinesis(SystemClock())
    >>> _ = kinesis.create_stream(StreamName="readings", ShardCount=1)
    >>> with Producer("readings", "telemetry", client=kinesis) as producer:
    ...     future = producer.put({"device": "d1", "metric": "volt", "ts": "2026-03-01T00:00:00Z", "value": 3.3})
    >>> future.result().shard_id
    'shardId-000000000000'
    >>> producer.stats.delivered
    1
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
        runtime: Runtime | None = None,
        control_key: bytes | None = None,
    ) -> None:
        check_arguments(Producer.__init__, locals(), contract="a Contract, the name of a shipped one or a path")
        if not _STREAM_NAME.fullmatch(stream):
            raise UsageError(f"a stream cannot be named {stream!r}: 1 to 128 letters, digits and . _ -")
        self.contract = contract if isinstance(contract, Contract) else load_contract(contract)
        self._stream, self._settings = stream, settings or ProducerSettings()
        runtime = runtime or Runtime()
        connect, refusal = connector(client, default_client)
        if outbox is not None:
            refusal = f"the outbox {outbox} is that process's alone; give each process an outbox of its own"

        def begin(random: Random | None) -> Sender:
            random = random or runtime.random
            origin = uuid.UUID(int=random.getrandbits(128), version=4).hex
            survives = self._settings.outbox_survives
            box = Outbox(Path(outbox), stream, self.contract, origin, survives) if outbox is not None else None
            target = KinesisStream(connect, stream, runtime.clock, random.random, control_key)
            numbering = box.numbering if box else Numbering(origin)
            sender = Sender(target, self.contract, self._settings, numbering, box, on_delivery)
            sender.start()
            return sender

        self._process = ProcessSender(begin, f"stream {stream}", refusal)

    @property
    def _sender(self) -> Sender:
        return self._process.current()

    @property
    def origin(self) -> str:
        """Return the present session's name, which is part of the identity of its events."""
        return self._sender.sealer.numbering.origin

    @property
    def stats(self) -> ProducerStats:
        """Return the counts of events as they are now."""
        return self._process.stats

    def put(self, event: Mapping[str, object]) -> "Future[Receipt]":
        """Accept one event; its future is done when Kinesis has it.

        InvalidEvent when it breaks the contract or fits no record; BufferFull as `when_full` says. Under `drop` the
        future of a dropped event fails with BufferFull.
        """
        return self._sender.put_row(*self._checked(event))

    async def aput(self, event: Mapping[str, object]) -> "asyncio.Future[Receipt]":
        """Accept one event as `put` does, and await room where `put` would block; the loop is never kept waiting.

        Returns an asyncio future that is done when Kinesis has the event. With an outbox the event is on disk then,
        written by another thread. Tasks wait in order, for up to `block_seconds`; one whose room another
        put took meanwhile waits on behind the others.

        A task that is cancelled while it waits for room has put nothing. One that is cancelled while the outbox writes
        ends when that is done, and the event is accepted. What is accepted is delivered, whether or not a task awaits
        it: cancelling the future that was returned only ends the waiting.
        """
        from headwater.producers.awaiting import put_row  # asyncio is there where this is awaited, and nowhere else

        row, size = self._checked(event)
        return await put_row(self._sender, row, size, self._settings.block_seconds)

    def _checked(self, event: Mapping[str, object]) -> tuple[dict[str, object], int]:
        row = validate_row(self.contract, event)
        size = _row_bytes(row)
        if size > self._settings.max_record_bytes // SURE_PART:
            fault = self._sender.sealer.too_large(pa.Table.from_pylist([row], schema=self.contract.arrow_schema))
            if fault:
                raise InvalidEvent(fault[1])
        return row, size

    def put_batch(self, events: "pa.Table | pa.RecordBatch | pd.DataFrame | pl.DataFrame") -> "list[Future[Receipt]]":
        """Accept a table of events, or, when one of them is invalid, none: InvalidEvent names the first row and field.

        Returns a future for each piece that goes into one batch, not one per event. A table is taken in pieces when
        it is large beside `max_buffer_bytes`: under `block` it may happen that BufferFull comes after the first rows
        were accepted (it says how many), under `drop` a part may be dropped; `raise` accepts all or nothing.
        """
        table = _conformed(self.contract, _table(events))
        fault = self._sender.sealer.too_large(table)
        if fault:
            raise InvalidEvent(f"row {fault[0]}: {fault[1]}")
        if not table.num_rows:
            return []
        size, limit = table.nbytes, self._settings.max_buffer_bytes
        whole = self._settings.when_full == "raise"
        if whole and size > limit:
            raise BufferFull(f"stream {self._stream}: a table of {size} bytes for a buffer of {limit} bytes; cut it")
        step = table.num_rows if whole else max(1, table.num_rows * limit // (4 * size + 1))
        futures: list[Future[Receipt]] = []
        for at in range(0, table.num_rows, step):
            piece = table.slice(at, step)
            try:
                futures += self._sender.put_table(piece, size * piece.num_rows // table.num_rows)
            except BufferFull as full:
                raise BufferFull(f"{full}; the first {at} rows of the table were accepted") if at else full from full
        return futures

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before is delivered or has failed, then put the receipts.

        Raises HeadwaterError with the first failure since the last flush, or when `timeout` seconds were not enough.
        With an outbox it also raises when the stream takes nothing for `delivery_seconds`: the events stay on disk
        and are tried for as long as the producer runs.
        """
        check_arguments(Producer.flush, locals())
        self._process.flush(timeout)

    def close(self) -> None:
        """Flush, then end the background thread. Nothing is accepted afterwards; closing again does nothing."""
        self._process.close()

    async def aflush(self, timeout: float | None = None) -> None:
        """Await what `flush` waits for. A task that is cancelled ends the waiting alone."""
        from headwater.producers.awaiting import on_thread

        await on_thread(lambda: self.flush(timeout))

    async def aclose(self) -> None:
        """Await what `close` waits for. It goes on on its thread where the task is cancelled."""
        from headwater.producers.awaiting import on_thread

        await on_thread(self.close)

    async def __aenter__(self) -> "Producer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from headwater.producers.awaiting import on_thread

        await on_thread(lambda: self.__exit__(kind, error, trace))

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


def _table(events: Any) -> pa.Table:
    if isinstance(events, pa.Table):
        return events
    if isinstance(events, pa.RecordBatch):
        return pa.Table.from_batches([events])
    try:
        if hasattr(events, "__arrow_c_stream__") and not hasattr(events, "iloc"):  # as Polars and DuckDB have it
            return pa.table(events)
        return pa.Table.from_pandas(events, preserve_index=False)
    except (pa.ArrowException, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidEvent(f"put_batch takes an Arrow table, or a DataFrame of pandas or Polars: {reason}") from error


def _conformed(contract: Contract, table: pa.Table) -> pa.Table:
    found = conform(contract, table, MAX_INVALID)
    if found.invalid:
        first = found.invalid[0]
        more = f" (and {len(found.invalid) - 1} more)" if len(found.invalid) > 1 else ""
        raise InvalidEvent(f"row {first.index}: {first.reason}{more}")
    return found.table


def _row_bytes(row: Mapping[str, object]) -> int:
    """Return about what a buffered event takes in memory."""
    return 128 + sum(map(_value_bytes, row.values()))


def _value_bytes(value: object) -> int:
    if isinstance(value, str | bytes):
        return 64 + len(value)
    if isinstance(value, dict):
        return 64 + sum(_value_bytes(key) + _value_bytes(one) for key, one in value.items())
    return 64 + sum(map(_value_bytes, value)) if isinstance(value, list) else 32
