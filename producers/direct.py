"""Send batches that come with their identity: one request of a client, sealed by itself.

All records of an origin go to one hash key that follows from its name, so that whoever sends the same events under
the same identity again, from whatever process, lands on the same chain of shards, whose reader drops the copies.
"""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from headwater.codec import encode_batch
from headwater.contract import Contract
from headwater.errors import InvalidEvent, UsageError
from headwater.producers.kinesis import KinesisStream, default_client
from headwater.producers.lanes import origin_hash_key
from headwater.producers.outbox import Outbox
from headwater.producers.processes import ProcessSender, connector
from headwater.producers.sealing import Numbering, SealedBatch
from headwater.producers.sender import Sender
from headwater.producers.settings import ProducerSettings, ProducerStats, Receipt, Runtime

__all__ = ["DirectProducer", "batches_at"]


def batches_at(
    place: int,
    table: pa.Table,
    contract: Contract,
    settings: ProducerSettings,
    first: tuple[str, int] | None,
    traceparent: str | None = None,
) -> Iterator[SealedBatch]:
    """Yield unnumbered batches for the hash key `place`, of at most `max_events`, halved until each fits a record.

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


class DirectProducer:
    """Send tables under identities given with them; thread-safe.

    `put` seals in the caller's thread; a background thread sends and retries. A future is done when Kinesis has all of
    its events. With an outbox they are durable already when `put` returns, and what an earlier process left is sent.
    Of the settings, the limits of records, requests and the buffer count, and those of delivery and receipts; a full
    buffer always raises BufferFull. UsageError for a contract whose events have ids of their own: use Producer.

    >>> from headwater.clock import SystemClock
    >>> from headwater.contract import load_contract
    >>> from headwater.testing.fleet import Fleet
    >>> from headwater.testing.kinesis import MemoryKinesis
    >>> kinesis = MemoryKinesis(SystemClock())
    >>> _ = kinesis.create_stream(StreamName="readings", ShardCount=1)
    >>> producer = DirectProducer("readings", load_contract("telemetry"), client=kinesis)
    >>> future = producer.put(next(Fleet(devices=2).batches(5, 5)), origin="meter-7", first_seq=100)
    >>> producer.close()
    >>> receipt = future.result()
    >>> receipt.origin, receipt.first_seq, receipt.count
    ('meter-7', 100, 5)
    """

    def __init__(
        self,
        stream: str,
        contract: Contract,
        *,
        client: Any = None,
        settings: ProducerSettings | None = None,
        outbox: Path | None = None,
        runtime: Runtime | None = None,
        control_key: bytes | None = None,
    ) -> None:
        if contract.id is not None:
            raise UsageError(f"contract {contract.name}: its events have ids of their own; use Producer")
        self._contract = contract
        self._settings = replace(settings or ProducerSettings(), when_full="raise", format="columnar", ordered=False)
        runtime = runtime or Runtime()
        connect, refusal = connector(client, default_client)
        if outbox is not None:
            refusal = f"the outbox {outbox} is that process's alone; give each process an outbox of its own"

        def begin(random: Random | None) -> Sender:
            survives = self._settings.outbox_survives
            box = Outbox(outbox, stream, contract, "", survives) if outbox is not None else None
            target = KinesisStream(connect, stream, runtime.clock, (random or runtime.random).random, control_key)
            sender = Sender(target, contract, self._settings, box.numbering if box else Numbering(""), box)
            sender.start()
            return sender

        self._process = ProcessSender(begin, f"stream {stream}", refusal)

    @property
    def _sender(self) -> Sender:
        return self._process.current()

    @property
    def stats(self) -> ProducerStats:
        """Return the counts of events as they are now."""
        return self._process.stats

    def put(self, table: pa.Table, origin: str, first_seq: int, traceparent: str | None = None) -> "Future[Receipt]":
        """Accept conformed events: row i is (origin, first_seq + i).

        BufferFull when there is no room, InvalidEvent when an event fits no record: then nothing was accepted.
        """
        return self.put_runs([(table, first_seq)], origin, traceparent)

    def put_runs(
        self, runs: "list[tuple[pa.Table, int]]", origin: str, traceparent: str | None = None
    ) -> "Future[Receipt]":
        """Accept several runs of events of one origin, all or none: (rows, number of the first)."""
        place = origin_hash_key(origin)
        batches = [
            batch
            for table, first in runs
            for batch in batches_at(place, table, self._contract, self._settings, (origin, first), traceparent)
        ]
        return self._sender.put_batches(batches, origin, runs[0][1])

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted before is settled, then put the receipts. Raises the first failure since."""
        self._process.flush(timeout)

    def close(self) -> None:
        """Flush and end. Nothing is accepted afterwards."""
        self._process.close()
