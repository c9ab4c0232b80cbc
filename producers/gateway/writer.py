"""Hand rows to the producers of one contract.

Plain events share records with those of other requests (`Producer`). Events that the client named, or whose trace is
recorded, go in batches of their own (`DirectProducer`), under an origin that a retry of the same request has again.
"""

import uuid
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from headwater.clock import Clock
from headwater.config import GatewaySettings
from headwater.contract import Contract
from headwater.errors import InvalidEvent
from headwater.producers.direct import DirectProducer
from headwater.producers.gateway.bodies import ParsedBody
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings, ProducerStats, Receipt, Runtime
from headwater.web.problems import Problem

__all__ = ["ContractWriter", "valid_intervals"]


class ContractWriter:
    """Write the events of one contract to the stream. Thread-safe; `put` does not wait for Kinesis."""

    def __init__(self, contract: Contract, stream: str, client: Any, settings: GatewaySettings, clock: Clock) -> None:
        self.contract = contract
        wanted = ProducerSettings(
            linger_ms=settings.linger_ms, max_buffer_bytes=settings.max_buffer_bytes, when_full="raise"
        )
        self._max_bytes = settings.max_buffer_bytes
        folder = Path(settings.outbox) if settings.outbox else None
        boxes = [folder / f"{contract.name}{part}.db" if folder else None for part in ("", "-direct")]
        runtime = Runtime(clock)
        self._producer = Producer(stream, contract, client=client, settings=wanted, outbox=boxes[0], runtime=runtime)
        # events with ids of their own need no other identity, so they never need a batch of their own
        self._direct = (
            DirectProducer(stream, contract, client=client, settings=wanted, outbox=boxes[1], runtime=runtime)
            if contract.id is None
            else None
        )
        self._session = uuid.uuid4().hex
        self._next = 0
        self._lock = Lock()

    def put(
        self, parsed: ParsedBody, identity: tuple[str, int] | None, traceparent: str | None
    ) -> "list[Future[Receipt]]":
        """Accept all valid rows or none: BufferFull when the buffer is full now, Problem when they never fit it.

        With an outbox the rows are on disk on return; Kinesis has them when all futures are done.
        """
        if not parsed.table.num_rows:
            return []
        if parsed.table.nbytes > self._max_bytes:
            raise Problem(413, "too-large", "the events take more memory than the buffer has; send them in parts")
        try:
            if self._direct is None or (identity is None and traceparent is None):
                return self._producer.put_batch(parsed.table)
            origin, first = identity or self._next_identity(parsed.total)
            runs = [(parsed.table.slice(at, stop - start), first + start) for at, start, stop in _runs(parsed)]
            return [self._direct.put_runs(runs, origin, traceparent)]
        except InvalidEvent as error:
            raise Problem(422, "invalid-events", f"nothing was accepted: {error}", accepted=0) from None

    def _next_identity(self, events: int) -> tuple[str, int]:
        with self._lock:
            first, self._next = self._next, self._next + events
        return self._session, first

    @property
    def stats(self) -> ProducerStats:
        """Return the sums over both producers."""
        found = [one.stats for one in (self._producer, self._direct) if one is not None]
        names = ("accepted", "delivered", "retried", "dropped", "failed", "buffered_bytes")
        return ProducerStats(**{name: sum(getattr(one, name) for one in found) for name in names})

    @property
    def is_full(self) -> bool:
        """Say whether the buffer takes no more now."""
        return self.stats.buffered_bytes >= self._max_bytes

    def close(self) -> None:
        """Drain: deliver everything accepted; raise the last failure when some of it could not be delivered."""
        try:
            self._producer.close()
        finally:
            if self._direct is not None:
                self._direct.close()


def valid_intervals(parsed: ParsedBody) -> list[list[int]]:
    """Return the valid rows' places in the body as half-open intervals."""
    return [[start, stop] for _, start, stop in _runs(parsed)]


def _runs(parsed: ParsedBody) -> list[tuple[int, int, int]]:
    """Return runs of valid rows: (place in the table, first place in the body, place after the last)."""
    places = np.asarray(parsed.places)
    if not len(places):
        return []
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    starts, stops = [0, *cuts.tolist()], [*cuts.tolist(), len(places)]
    return [(at, int(places[at]), int(places[stop - 1]) + 1) for at, stop in zip(starts, stops, strict=True)]
