"""A replay onto a stream: what is read joined to what puts it, and a document of how far it came."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from headwater.errors import UsageError
from processors.backfill import runs
from processors.replaying import CHUNK_EVENTS, HASH_KEY, Chunk, Span, from_lake, from_stream, retention_ms
from processors.services import Services
from producers.resending import Resender

__all__ = ["Replay", "Replayed"]

_REMEMBERED_MS = 25 * 86_400_000
"""Readers know an identity for 30 days after the last event of its origin; a replay may take five of them."""
_SAVE_SECONDS = 5
_ROWS = 5_000
"""Put at most before it is told."""


@dataclass(frozen=True)
class Replayed:
    """`events` in all calls, `put` in this one; `left_out` counts by reason what was not put."""

    id: str
    source: str
    stream: str
    events: int
    put: int
    left_out: dict[str, int] = field(default_factory=dict)


class Replay:
    """One replay: named by its arguments, so that the same call again is the same replay. Once done it does nothing.

    UsageError for a span or stream that cannot be, or where readers would no longer know what is a copy.
    """

    def __init__(self, services: Services, span: Span, source: str, stream: str) -> None:
        self._services, self._span, self._source, self._stream = services, span, source, stream
        self._own = stream == services.settings.stream
        named = [services.settings.stream, source, stream, *asdict(span).values()]
        self.id = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]
        self._check(span, services.clock.now_ms())
        self._found, self._revision = services.ledger.document(f"replay-{self.id}")
        self._found = self._found or {"position": {}, "events": 0, "left_out": {}, "done": False}
        self._found.setdefault("began_ms", services.clock.now_ms())

    def _check(self, span: Span, now_ms: int) -> None:
        if span.start_ms >= span.stop_ms:
            raise UsageError("--from is not before --to")
        if span.stop_ms > now_ms:
            raise UsageError("--to lies in the future")
        retention_ms(self._services, self._stream)
        if self._own and span.start_ms < now_ms - _REMEMBERED_MS:
            raise UsageError(
                f"--from is more than 25 days ago: for the readers of stream {self._stream} these would be new events; "
                "replay into another stream, or fill a new pipeline"
            )

    def run(
        self,
        settle: Callable[[], object],
        rate: float | None = None,
        advance: Callable[[int, int], object] | None = None,
    ) -> Replayed:
        """Put what is left, at most `rate` events a second. `settle` makes a publisher's step, `advance` hears how many
        events this call has put."""
        services, found, before = self._services, self._found, self._found["events"]
        if services.clock.now_ms() - found["began_ms"] > _REMEMBERED_MS and not found["done"]:
            raise UsageError("this replay began more than 25 days ago; begin another, with other points in time")
        resender = Resender(services.kinesis, self._stream, services.pipeline.contract, services.clock, rate)
        most = min(CHUNK_EVENTS, max(1, round(rate * _SAVE_SECONDS))) if rate else CHUNK_EVENTS
        saved_ms = 0
        for chunk in self._chunks(settle, most):
            for done in self._put(chunk, resender, max(1, round(rate)) if rate else _ROWS):
                if advance is not None:
                    advance(found["events"] - before + done, found["events"] + done)
            found["position"] = chunk.position
            found["events"] += chunk.rows.num_rows
            for name, count in chunk.left_out.items():
                found["left_out"][name] = found["left_out"].get(name, 0) + count
            if services.clock.now_ms() - saved_ms >= _SAVE_SECONDS * 1000:
                self._save(resender)
                saved_ms = services.clock.now_ms()
        found["done"] = True
        self._save(resender)
        put = found["events"] - before
        return Replayed(self.id, self._source, self._stream, found["events"], put, found["left_out"])

    def _chunks(self, settle: Callable[[], object], most: int) -> Iterator[Chunk]:
        position: dict[str, Any] = self._found["position"]
        if self._found["done"]:
            return iter(())
        if self._source == "stream":
            return from_stream(self._services, self._span, position, own=self._own, most=most)
        return from_lake(self._services, self._span, position, settle, own=self._own, most=most)

    def _put(self, chunk: Chunk, resender: Resender, second: int) -> Iterator[int]:
        """How many of the chunk's events are put, batch after batch, none of more than may go in a second."""
        rows, numbered = chunk.rows, self._services.pipeline.contract.id is None
        events = rows.select(self._services.pipeline.contract.arrow_schema.names)
        for start, stop in runs(rows, same=HASH_KEY, by_origin=numbered, most=min(second, _ROWS)):
            first = (rows["_origin"][start].as_py(), rows["_seq"][start].as_py()) if numbered else None
            key = rows[HASH_KEY][start].as_py()
            resender.put(events.slice(start, stop - start), first, int(key) if key else None)
            yield stop

    def _save(self, resender: Resender) -> None:
        """First delivered, then written down: what is delivered and not written down is put again, as a copy."""
        resender.settle()
        name = f"replay-{self.id}"
        self._revision = self._services.ledger.put_document(name, self._found, self._revision)
