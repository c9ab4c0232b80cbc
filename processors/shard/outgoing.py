"""Carry a shard's events on to other streams, each once, ahead of the commit.

An event that goes on gets an identity of its own there: a session that is new for each owner of the shard, and a
number. Before a batch is put, its bytes and the position up to which they carry the shard's events are written to a
ledger document of the shard. Whoever takes the shard over after a death puts those bytes again, which readers know for
copies, and lets the events up to that position go on no more while it reads them anew. So what is on the other stream
does not depend on which code reads the records the second time, nor on whether functions answer as they did before.

Receipts follow, as a producer's do, so that the next pipeline's audit knows what it must have.
"""

import base64
import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.codec import encode_batch
from headwater.codec.bounds import MAX_BATCH_BYTES, plain_bytes
from headwater.contract import Contract
from headwater.errors import Fenced, UsageError
from headwater.processors.definition.parts import ToStream
from headwater.processors.operators.outputs import Outputs
from headwater.processors.shard.context import WorkerContext
from headwater.processors.shard.snapshots import INLINE_STATE
from headwater.sinks.streams import StreamBatch
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

__all__ = ["Outgoing", "outgoing_document"]

_BATCH_ROWS = 20_000
_BATCH_BYTES = 1_000_000
"""Bytes of a record, below the 1 MiB that Kinesis takes."""
_RECEIPT_MS = 30_000
"""Time between two receipts, as of a producer."""

_Counts = dict[str, dict[str, int]]
"""For each stream and origin a number of events."""


class Outgoing:
    """Keep what goes on of one shard, for its owner. Not thread-safe.

    The document is the fence: another owner's claim changes it. Raises Fenced when a later owner has claimed.
    """

    def __init__(self, context: WorkerContext, shard_id: str, epoch: int) -> None:
        self._context, self._ports, self._clock = context, context.ports, context.clock
        if context.ports.streams is None:
            raise UsageError(f"pipeline {context.pipeline.name} puts events on other streams, and there are none here")
        self._streams = context.ports.streams
        self._steps = {step.stream: step for step in context.pipeline.streams}
        self._shard_id, self._epoch = shard_id, epoch
        self._name = outgoing_document(shard_id)
        self._buffer: list[Outputs] = []
        self._trace: str | None = None
        self._origin = f"{context.pipeline.name}/{shard_id}/{uuid.uuid4().hex[:12]}"
        self._sent: _Counts = defaultdict(dict)
        """Events with a place in the document, and so with a number for good."""
        self._announced: _Counts = defaultdict(dict)
        """Events that a receipt has named."""
        self._waiting: list[tuple[str, StreamBatch]] = []
        """Batches that are in the document and not confirmed."""
        self._stale = False
        """True when the document has batches that are confirmed."""
        self._flushed_ms = self._announced_ms = self._clock.now_ms()
        self._claim()

    def _claim(self) -> None:
        """Take the document over; whoever had it cannot write it any more."""

        def taken(old: dict[str, Any]) -> dict[str, Any]:
            if old and int(old["epoch"]) > self._epoch:
                raise self._fenced()
            return {**old, "epoch": self._epoch}

        before, _ = self._ports.ledger.document(self._name)
        found = self._ports.ledger.change(self._name, taken)
        self._through = str(found.get("through", sequence.NONE))
        # also of streams that the pipeline puts nothing on any more: what was numbered is put and told of all the same
        self._contracts = {
            **found.get("contracts", {}),
            **{name: one.contract.name for name, one in self._steps.items()},
        }
        self._key = str(found.get("key", ""))
        for stream, origins in found.get("unannounced", {}).items():
            self._sent[stream].update({origin: int(count) for origin, count in origins.items()})
            self._announced_ms = 0 if origins else self._announced_ms  # as soon as what it says is confirmed
        # a receipt that names these again has readers look for what they may have forgotten by now
        for stream, origins in found.get("announced", {}).items():
            self._announced[stream].update({origin: int(count) for origin, count in origins.items()})
        body = self._ports.objects.get(self._key) if self._key else base64.b64decode(found.get("batches", ""))
        self._waiting = list(_unpacked(body)) if body else []
        for key in self._keys(int(before["epoch"])) if before else ():
            if key != self._key:  # an owner may have died between the object and the document
                self._ports.objects.delete(key)

    def _keys(self, epoch: int) -> tuple[str, str]:
        """Return the two objects that an owner writes in turn: never the one that the document names."""
        head = f"state/{self._context.pipeline.name}/{self._shard_id}/outgoing-{epoch:08d}"
        return f"{head}-0.arrow", f"{head}-1.arrow"

    def add(self, made: Sequence[Outputs], records: Sequence[StreamRecord], traces: Sequence[str]) -> None:
        """Take in events that go on, with the records of their call; those that went on before are left out."""
        self._trace = traces[-1] if traces else self._trace
        for one in made:
            new = np.array([sequence.pad(record.sequence_number) > self._through for record in records], np.bool_)
            fresh = new[one.record]
            if fresh.any():
                table = one.table if fresh.all() else one.table.filter(pa.array(fresh))
                self._buffer.append(Outputs(one.stream, table, one.record[fresh]))

    def rewound(self) -> None:
        """Drop what is not in the document: its records are read again."""
        self._buffer = []

    def tick(self, position: str) -> None:
        """Put what is due. `position` is that of the last record taken in."""
        now = self._clock.now_ms()
        if (self._buffer or self._waiting) and (
            now - self._flushed_ms >= self._context.settings.view_flush_seconds * 1000
        ):
            self.flush(position)
        if now - self._announced_ms >= _RECEIPT_MS:
            self._announce()

    def before_commit(self, position: str, *, closed: bool) -> None:
        """Put all events up to the position, before it is committed, and keep nothing that is to be put again.

        Who comes after a stop in order may come when the other stream's readers have forgotten us. With `closed` tell
        of the events, too, since nobody comes. Raises Retryable when that is not possible now: call it again.
        """
        self.flush(position)
        if closed:
            self._announce()
        if self._stale:
            self._write(self._through, self._sent, [])

    def flush(self, position: str) -> None:
        """Put all events up to the position. Raises Retryable when that is not possible now: call it again."""
        self._send()
        if self._buffer:
            self._seal(position)
            self._send()
        self._flushed_ms = self._clock.now_ms()

    def _seal(self, position: str) -> None:
        """Give the buffered events their numbers, and write the batches down."""
        sent = {stream: dict(origins) for stream, origins in self._sent.items()}
        batches: list[tuple[str, StreamBatch]] = []
        for stream, step in self._steps.items():
            tables = [one.table for one in self._buffer if one.stream == stream]
            if tables:
                first = sent.setdefault(stream, {}).get(self._origin, 0)
                table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
                batches += [(stream, one) for one in _batches(step, table, self._origin, first, self._trace)]
                sent[stream][self._origin] = first + table.num_rows
        self._write(max(position, self._through), sent, batches)
        self._sent = defaultdict(dict, sent)
        self._waiting, self._buffer = batches, []

    def _write(
        self, through: str, sent: Mapping[str, Mapping[str, int]], batches: list[tuple[str, StreamBatch]]
    ) -> None:
        unannounced = {stream: self._unannounced(stream, origins) for stream, origins in sent.items()}
        document: dict[str, Any] = {"epoch": self._epoch, "through": through, "unannounced": unannounced}
        document["contracts"] = self._contracts
        document["announced"] = {
            stream: {origin: done for origin in origins if (done := self._announced[stream].get(origin, 0))}
            for stream, origins in unannounced.items()
        }
        body, key = _packed(batches) if batches else b"", ""
        if len(body) > INLINE_STATE:
            one, other = self._keys(self._epoch)
            key = other if self._key == one else one
            self._ports.objects.put(key, body)
            document["key"] = key
        elif body:
            document["batches"] = base64.b64encode(body).decode()

        def ours(old: dict[str, Any]) -> dict[str, Any]:
            if old.get("epoch") != self._epoch:
                raise self._fenced()
            return document

        self._ports.ledger.change(self._name, ours)
        if self._key:
            self._ports.objects.delete(self._key)
        self._through, self._key, self._stale = through, key, False

    def _send(self) -> None:
        """Put what is written down and not confirmed."""
        if not self._waiting:
            return
        by_stream: dict[str, list[StreamBatch]] = defaultdict(list)
        for stream, batch in self._waiting:
            by_stream[stream].append(batch)
        for stream, batches in by_stream.items():
            self._streams.send(stream, batches)
            self._waiting = [one for one in self._waiting if one[0] != stream]
        self._stale = True

    def _announce(self) -> None:
        """Put receipts of all that is confirmed, and take out of the document what nobody needs any more."""
        if self._waiting:
            return
        self._announced_ms = self._clock.now_ms()
        unannounced = {stream: self._unannounced(stream, origins) for stream, origins in self._sent.items()}
        if not (self._stale or any(unannounced.values())):
            return
        for stream, origins in unannounced.items():
            if origins:
                intervals = {name: [[self._announced[stream].get(name, 0), count]] for name, count in origins.items()}
                self._streams.announce(stream, {"contract": self._contracts[stream], "intervals": intervals})
            self._announced[stream].update(origins)
        self._write(self._through, self._sent, [])

    def _unannounced(self, stream: str, sent: Mapping[str, int]) -> dict[str, int]:
        return {origin: count for origin, count in sent.items() if count > self._announced[stream].get(origin, 0)}

    def _fenced(self) -> Fenced:
        return Fenced(f"shard {self._shard_id} of pipeline {self._context.pipeline.name}: another owner has taken it")


def outgoing_document(shard_id: str) -> str:
    """Return the name of the ledger document that has what goes on of a shard."""
    return f"outgoing.{shard_id}"


def _batches(step: ToStream, table: pa.Table, origin: str, first: int, trace: str | None) -> Iterator[StreamBatch]:
    """Yield the events in batches that records hold; each row is small enough for one."""
    for start in range(0, table.num_rows, _BATCH_ROWS):
        part = table.slice(start, _BATCH_ROWS)
        yield from _fitting(step.contract, part, origin, first + start, trace)


def _fitting(contract: Contract, table: pa.Table, origin: str, first: int, trace: str | None) -> Iterator[StreamBatch]:
    fits = table.num_rows == 1 or plain_bytes(table) <= MAX_BATCH_BYTES
    data = encode_batch(table, contract, origin=origin, first_seq=first, traceparent=trace) if fits else b""
    if table.num_rows > 1 and (not fits or len(data) > _BATCH_BYTES):
        half = table.num_rows // 2
        yield from _fitting(contract, table.slice(0, half), origin, first, trace)
        yield from _fitting(contract, table.slice(half), origin, first + half, trace)
        return
    place = int.from_bytes(hashlib.md5(f"{origin} {first}".encode(), usedforsecurity=False).digest())
    yield StreamBatch(str(place), data)


def _packed(batches: Sequence[tuple[str, StreamBatch]]) -> bytes:
    columns = {
        "stream": pa.array([stream for stream, _ in batches], pa.string()),
        "place": pa.array([one.place for _, one in batches], pa.string()),
        "data": pa.array([one.data for _, one in batches], pa.large_binary()),
    }
    sink = pa.BufferOutputStream()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _unpacked(body: bytes) -> Iterator[tuple[str, StreamBatch]]:
    for row in pa.ipc.open_stream(body).read_all().to_pylist():
        yield row["stream"], StreamBatch(row["place"], row["data"])
