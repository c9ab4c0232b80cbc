"""From rows to confirmed records: the producers of one contract, and the identity that a request gives its events.

Plain events share records with those of other requests (`Producer`). Events whose client names them, or whose trace
is recorded, go in batches of their own (`DirectProducer`), under an origin that a retry of the same request has again.
"""

import hashlib
import json
import re
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from headwater.clock import Clock
from headwater.config import GatewaySettings
from headwater.contract import Contract
from headwater.errors import InvalidEvent
from headwater.web.problems import Problem
from producers.direct import DirectProducer
from producers.gateway.bodies import Rows
from producers.producer import Producer
from producers.settings import ProducerSettings, ProducerStats, Receipt

__all__ = ["Identity", "KeyMemory", "Lane", "intervals"]

_MAX_SEQ = 2**63 - 1
_ORIGIN = re.compile(r"[!-~]{1,128}")
_KEY = re.compile(r"[!-~]{1,255}")
_REMEMBERED = 10_000


@dataclass(frozen=True)
class Identity:
    """What a client says about who its events are: row i of the body is (origin, first_seq + i)."""

    key: str | None = None
    origin: str | None = None
    first_seq: int = 0

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Identity":
        """From `Idempotency-Key`, or `Headwater-Origin` and `Headwater-Seq`; Problem 400 when they cannot be used."""
        key, origin, seq = (headers.get(name) for name in ("idempotency-key", "headwater-origin", "headwater-seq"))
        if key is not None and (origin is not None or seq is not None):
            raise _bad("send either Idempotency-Key or Headwater-Origin and Headwater-Seq")
        if key is not None and not _KEY.fullmatch(key):
            raise _bad("Idempotency-Key is not 1 to 255 ASCII characters without spaces")
        if (origin is None) != (seq is None):
            raise _bad("Headwater-Origin and Headwater-Seq go together")
        if origin is None or seq is None:
            return cls(key)
        if not _ORIGIN.fullmatch(origin):
            raise _bad("Headwater-Origin is not 1 to 128 ASCII characters without spaces")
        if not re.fullmatch(r"[0-9]{1,19}", seq) or int(seq) > _MAX_SEQ:
            raise _bad("Headwater-Seq is not a whole number from 0 to 9223372036854775807")
        return cls(None, origin, int(seq))

    def named(self, who: str, contract: str, body: bytes, rows: Rows) -> tuple[str, int] | None:
        """Origin and number of the body's first row; None when nobody has named them.

        Origins of different callers never meet. The body is part of what an Idempotency-Key names, so that another
        body under a key used before is lost to nobody.
        """
        if self.key is not None:
            text = json.dumps([who, contract, self.key]).encode()
            return f"{who}:key:{hashlib.blake2b(text + hashlib.sha256(body).digest(), digest_size=16).hexdigest()}", 0
        origin, first = (self.origin, self.first_seq) if self.origin is not None else (rows.origin, rows.first_seq)
        if origin is None:
            return None
        if not _ORIGIN.fullmatch(origin) or first > _MAX_SEQ - rows.total:
            raise _bad("origin and seq of the events are out of range")
        return f"{who}:{origin}", first


def _bad(detail: str) -> Problem:
    return Problem(400, "invalid-header", detail)


class KeyMemory:
    """Which body each of the last Idempotency-Keys came with. Thread-safe."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()
        self._lock = Lock()

    def check(self, who: str, contract: str, key: str, body: bytes) -> None:
        """Problem 409 when the key came with another body."""
        digest = hashlib.sha256(body).digest()
        with self._lock:
            known = self._bodies.setdefault((who, contract, key), digest)
            self._bodies.move_to_end((who, contract, key))
            if len(self._bodies) > _REMEMBERED:
                self._bodies.popitem(last=False)
        if known != digest:
            raise Problem(409, "key-reused", "nothing was accepted: a retry sends the same body again", accepted=0)


class Lane:
    """One contract's way to the stream. Thread-safe; `put` does not wait for Kinesis."""

    def __init__(self, contract: Contract, stream: str, client: Any, settings: GatewaySettings, clock: Clock) -> None:
        self.contract = contract
        wanted = ProducerSettings(
            linger_ms=settings.linger_ms, max_buffer_bytes=settings.max_buffer_bytes, when_full="raise"
        )
        self._most = settings.max_buffer_bytes
        folder = Path(settings.outbox) if settings.outbox else None
        boxes = [folder / f"{contract.name}{part}.db" if folder else None for part in ("", "-direct")]
        self._producer = Producer(stream, contract, client=client, settings=wanted, outbox=boxes[0], clock=clock)
        self._direct = (
            DirectProducer(stream, contract, client=client, settings=wanted, outbox=boxes[1], clock=clock)
            if contract.id is None
            else None
        )
        self._session = uuid.uuid4().hex
        self._next = 0
        self._lock = Lock()

    def put(self, rows: Rows, named: tuple[str, int] | None, traceparent: str | None) -> "list[Future[Receipt]]":
        """Accept all valid rows or none: BufferFull when there is no room now, Problem when there never is.

        With an outbox they are on disk on return; Kinesis has them when all futures are done.
        """
        if not rows.table.num_rows:
            return []
        if rows.table.nbytes > self._most:
            raise Problem(413, "too-large", "the events take more memory than the buffer has; send them in parts")
        try:
            if named is None and (traceparent is None or self._direct is None):
                return self._producer.put_batch(rows.table)
            if self._direct is None:  # events with ids of their own need no others
                return self._producer.put_batch(rows.table)
            origin, first = named or self._own(rows.total)
            runs = [(rows.table.slice(at, stop - start), first + start) for at, start, stop in _runs(rows)]
            return [self._direct.put_runs(runs, origin, traceparent)]
        except InvalidEvent as error:
            raise Problem(422, "invalid-events", f"nothing was accepted: {error}", accepted=0) from None

    def _own(self, events: int) -> tuple[str, int]:
        with self._lock:
            first, self._next = self._next, self._next + events
        return self._session, first

    @property
    def stats(self) -> ProducerStats:
        """Of both producers together."""
        found = [one.stats for one in (self._producer, self._direct) if one is not None]
        names = ("accepted", "delivered", "retried", "dropped", "failed", "buffered_bytes")
        return ProducerStats(**{name: sum(getattr(one, name) for one in found) for name in names})

    @property
    def full(self) -> bool:
        return self.stats.buffered_bytes >= self._most

    def close(self) -> None:
        """Drain: everything accepted is delivered, or has failed (then the last failure is raised)."""
        try:
            self._producer.close()
        finally:
            if self._direct is not None:
                self._direct.close()


def intervals(rows: Rows) -> list[list[int]]:
    """The valid rows' places as half-open intervals."""
    return [[start, stop] for _, start, stop in _runs(rows)]


def _runs(rows: Rows) -> list[tuple[int, int, int]]:
    """Runs of valid rows: (place in the table, first place in the body, place after the last)."""
    places = np.asarray(rows.places)
    if not len(places):
        return []
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    starts, stops = [0, *cuts.tolist()], [*cuts.tolist(), len(places)]
    return [(at, int(places[at]), int(places[stop - 1]) + 1) for at, stop in zip(starts, stops, strict=True)]
