"""Replay events onto a stream: join what reads them to what puts them, and write down how far it came."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from headwater.clock import DAY_MS
from headwater.errors import UsageError
from headwater.processors.ports import PipelineReader
from headwater.processors.replay.chunk import (
    CHUNK_EVENTS,
    HASH_KEY,
    RECORD_ROWS,
    ArrivalSpan,
    ReplayChunk,
    record_runs,
)
from headwater.processors.replay.lake import from_lake
from headwater.processors.replay.stream import from_stream, retention_ms

__all__ = ["Replay", "Replayed", "Resending"]

_REMEMBERED_MS = 25 * DAY_MS
"""Readers know an identity for 30 days after the last event of its origin; a replay may take five of them."""
_SAVE_SECONDS = 5


@dataclass(frozen=True)
class Replayed:
    """Report the `events` of all calls, those `put` in this one, and by reason how many were `left_out`."""

    id: str
    source: str
    stream: str
    events: int
    put: int
    left_out: dict[str, int] = field(default_factory=dict)


class Resending(Protocol):
    """Put events again: headwater.producers.resending.Resender, as far as a replay needs it."""

    def put(self, rows: pa.Table, first: tuple[str, int] | None, hash_key: int | None) -> None:
        """Put rows as one batch, the first of which has this origin and number, at a hash key."""

    def settle(self) -> None:
        """Return when the stream has all that was put."""


class Replay:
    """Run one replay, named by its arguments: the same call again is the same replay. Once done it does nothing.

    `source` is `lake` or `stream`, `stream` the name of the stream to put the events on.

    Raises UsageError for a span or stream that cannot be, or where readers would no longer know what is a copy.
    """

    def __init__(self, reader: PipelineReader, span: ArrivalSpan, source: str, stream: str) -> None:
        self._reader, self._span, self._source, self._stream = reader, span, source, stream
        self._ledger, self._clock = reader.stores.ledger, reader.stores.clock
        self._own = stream == reader.stream.stream
        named = [reader.stream.stream, source, stream, *asdict(span).values()]
        self.id = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]
        self._check(span, self._clock.now_ms())
        self._found, self._revision = self._ledger.document(f"replay-{self.id}")
        self._found = self._found or {"position": {}, "events": 0, "left_out": {}, "done": False}
        self._found.setdefault("began_ms", self._clock.now_ms())

    def _check(self, span: ArrivalSpan, now_ms: int) -> None:
        if span.start_ms >= span.stop_ms:
            raise UsageError("--from is not before --to")
        if span.stop_ms > now_ms:
            raise UsageError("--to lies in the future")
        retention_ms(self._reader.stream.kinesis, self._stream)
        if self._own and span.start_ms < now_ms - _REMEMBERED_MS:
            raise UsageError(
                f"--from is more than 25 days ago: for the readers of stream {self._stream} these would be new events; "
                "replay into another stream, or fill a new pipeline"
            )

    def run(
        self,
        resender: Resending,
        publish: Callable[[], object],
        rate: float | None = None,
        advance: Callable[[int, int], object] | None = None,
    ) -> Replayed:
        """Put what is left through `resender`, at most `rate` events a second.

        `publish` makes a publisher's step. `advance` is called with the number of events that this call has put, and
        that all calls have.
        """
        found, before = self._found, self._found["events"]
        if self._clock.now_ms() - found["began_ms"] > _REMEMBERED_MS and not found["done"]:
            raise UsageError("this replay began more than 25 days ago; begin another, with other points in time")
        most = min(CHUNK_EVENTS, max(1, round(rate * _SAVE_SECONDS))) if rate else CHUNK_EVENTS
        saved_ms = 0
        for chunk in self._chunks(publish, most):
            for done in self._put(chunk, resender, max(1, round(rate)) if rate else RECORD_ROWS):
                if advance is not None:
                    advance(found["events"] - before + done, found["events"] + done)
            found["position"] = chunk.position
            found["events"] += chunk.rows.num_rows
            for name, count in chunk.left_out.items():
                found["left_out"][name] = found["left_out"].get(name, 0) + count
            if self._clock.now_ms() - saved_ms >= _SAVE_SECONDS * 1000:
                self._save(resender)
                saved_ms = self._clock.now_ms()
        found["done"] = True
        self._save(resender)
        put = found["events"] - before
        return Replayed(self.id, self._source, self._stream, found["events"], put, found["left_out"])

    def _chunks(self, publish: Callable[[], object], most: int) -> Iterator[ReplayChunk]:
        position: dict[str, Any] = self._found["position"]
        if self._found["done"]:
            return iter(())
        if self._source == "stream":
            return from_stream(self._reader, self._span, position, own=self._own, most=most)
        return from_lake(self._reader, self._span, position, publish, own=self._own, most=most)

    def _put(self, chunk: ReplayChunk, resender: Resending, second: int) -> Iterator[int]:
        """Put the chunk batch by batch, none of more than `second` events; yield how many are put so far."""
        rows, numbered = chunk.rows, self._reader.stores.pipeline.contract.id is None
        events = rows.select(self._reader.stores.pipeline.contract.arrow_schema.names)
        for start, stop in record_runs(rows, same=HASH_KEY, by_origin=numbered, most=min(second, RECORD_ROWS)):
            first = (rows["_origin"][start].as_py(), rows["_seq"][start].as_py()) if numbered else None
            key = rows[HASH_KEY][start].as_py()
            resender.put(events.slice(start, stop - start), first, int(key) if key else None)
            yield stop

    def _save(self, resender: Resending) -> None:
        """Wait until all is delivered, then write it down: what is not written down is put again, as a copy."""
        resender.settle()
        name = f"replay-{self.id}"
        self._revision = self._ledger.put_document(name, self._found, self._revision)
