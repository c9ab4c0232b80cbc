"""Put events on a stream again under the identities that they have."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from random import SystemRandom
from typing import Any

import pyarrow as pa

from headwater.clock import Clock
from headwater.contract import Contract
from headwater.producers.direct import batches_at
from headwater.producers.kinesis import KinesisStream
from headwater.producers.lanes import by_lane, lane_hash_key, origin_hash_key
from headwater.producers.receipts import PendingReceipts
from headwater.producers.sealing import SealedBatch
from headwater.producers.settings import ProducerSettings
from headwater.producers.writer import MAX_RECORDS, Writer, WriterSettings
from headwater.rates import Pace

__all__ = ["Resender"]


class Resender:
    """Put rows beside live traffic, at most `rate` events a second. Not thread-safe, no thread of its own.

    Copies of an event go to one hash key, however often it is put: to that of its identity, or the one given. What is
    throttled is sent again after a full-jitter pause; HeadwaterError when the stream does not take it in two minutes.
    """

    def __init__(
        self,
        kinesis: Any,
        stream: str,
        contract: Contract,
        clock: Clock,
        rate: float | None = None,
        random: Callable[[], float] | None = None,
        control_key: bytes | None = None,
    ) -> None:
        self._stream = KinesisStream(lambda: kinesis, stream, clock, random or SystemRandom().random, control_key)
        self._contract, self._clock = contract, clock
        most = ProducerSettings.max_events
        self._settings = ProducerSettings(max_events=max(1, min(most, int(rate))) if rate else most)
        self._pace = Pace(rate, clock)
        self._writer = Writer(WriterSettings(), self._stream.random, stream)
        self._receipts = PendingReceipts(contract)
        self._next = self._bytes = 0

    def put(self, rows: pa.Table, first: tuple[str, int] | None, hash_key: int | None) -> None:
        """Take conformed events: row i is (origin, seq + i) of `first`; None where events have ids of their own.

        Delivered is what was taken before the last `settle`.
        """
        for place, part in self._placed(rows, first, hash_key):
            for batch in batches_at(place, part, self._contract, self._settings, first):
                if not self._pace.is_due or self._full:
                    self._deliver()
                self._pace.take(batch.count)
                self._add(batch)
            self._receipts.add_own_ids(part)

    @property
    def _full(self) -> bool:
        return len(self._writer) >= MAX_RECORDS or self._bytes >= self._settings.max_request_bytes

    def settle(self) -> None:
        """Return once the stream has everything that was put, and a receipt of it."""
        self._deliver()
        for body in self._receipts.take().bodies():
            self._stream.put_control("receipt", body)

    def _placed(
        self, rows: pa.Table, first: tuple[str, int] | None, hash_key: int | None
    ) -> Iterator[tuple[int, pa.Table]]:
        own = self._contract.id
        if hash_key is not None:
            yield hash_key, rows
        elif own is not None:
            for lane, part in by_lane(rows, own.origin, own.partitions):
                yield lane_hash_key(lane, own.partitions), part
        elif first is not None:
            yield origin_hash_key(first[0]), rows

    def _add(self, batch: SealedBatch) -> None:
        self._writer.add(replace(batch, batch_id=self._next))
        self._next += 1
        self._bytes += batch.size
        if batch.origin is not None:
            self._receipts.add_session(batch.origin, batch.first_seq, batch.count)

    def _deliver(self) -> None:
        while len(self._writer):
            now = self._clock.now_ms()
            request = self._writer.request(now)
            if not request:
                self._clock.sleep(max(1, (self._writer.due_ms() or 0) - now) / 1000)
                continue
            outcome = self._stream.send(self._writer, request, nullcontext())  # no other thread: no lock
            if outcome.failed:
                raise outcome.failed[0].error
        self._bytes = 0
