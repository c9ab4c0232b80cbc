"""Turn events into sealed batches: records that never change again, neither their bytes nor their hash key.

Here belong buffering, numbering, encoding and the cut into records. Time, randomness and the place of a batch come in
as arguments; no thread, no socket and no file may enter. Not thread-safe by itself: the sender guards the buffers
(`cut_row`, `cut_table`, `append`, `take`) with its lock and calls `seal` on one thread only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.codec import encode_batch, encode_kpl, event_json
from headwater.codec.bounds import MAX_BATCH_BYTES, plain_bytes
from headwater.contract import Contract
from headwater.contract.nestedcolumns import nested_sizes
from headwater.errors import UsageError
from headwater.producers.lanes import by_lane, lane_hash_key, lane_of
from headwater.producers.settings import ProducerSettings
from headwater.stream.hashkeys import HASH_SPACE

__all__ = ["SURE_PART", "BatchSlice", "EventGroup", "LaneBuffer", "Numbering", "SealedBatch", "Sealer"]

_RAW_PER_RECORD = 4
"""A buffer is sealed at so many times a record's size uncompressed: more would be encoded only to be halved."""

SURE_PART = 8
"""Texts of up to this part of a record's size fit one in every format: JSON has six bytes for some of one."""
_LONGEST_HASH_KEY = str(HASH_SPACE - 1)
_LARGEST_SEQ = 1 << 60

Row = dict[str, object]


@dataclass(frozen=True)
class SealedBatch:
    """Hold one Kinesis record. Retries send exactly this, so all copies lie on one chain of shards."""

    batch_id: int
    payload: bytes
    partition_key: str
    explicit_hash_key: str
    origin: str | None
    first_seq: int
    count: int
    lane: int | None = None
    """Batches of one lane are delivered in order; None is free."""
    ids: pa.Table | None = field(default=None, compare=False, repr=False)
    """The events' own ids, for the receipt; None where the payload has to be read for them."""

    @property
    def size(self) -> int:
        """Return the bytes that the service counts against its limits: data and partition key."""
        return len(self.payload) + len(self.partition_key.encode())


@dataclass(eq=False)
class EventGroup:
    """Hold events that came in with one call and are confirmed together."""

    lane: int | None
    rows: pa.Table | Row | None
    """None once they are sealed: the bytes of the batch are what counts against the buffer from then on."""
    count: int
    raw_bytes: int
    put: Any = None
    """The caller's handle of the call; never looked at here."""
    event_id: int | None = None
    """Their key in the outbox."""


@dataclass(frozen=True)
class BatchSlice:
    """Name `count` events of a group that lie in one sealed batch, the first of them at `offset` in the batch."""

    group: EventGroup
    offset: int
    count: int


@dataclass
class LaneBuffer:
    """Hold the events of one lane that will become one batch, or several where they do not fit one."""

    lane: int | None
    since_ms: int
    groups: list[EventGroup] = field(default_factory=list)
    count: int = 0
    raw_bytes: int = 0


@dataclass
class Numbering:
    """Count a session's events and an outbox's batches.

    `origin` and `next_seq` belong to one session and begin anew with the next; `next_batch` goes on for as long as the
    outbox exists.
    """

    origin: str
    next_seq: int = 0
    next_batch: int = 0


class Sealer:
    """Buffer events by lane and seal the buffers.

    `ordered` producers and contracts with their own id have a lane for each virtual partition; all others have the one
    lane None, whose batches go to hash keys that `place` chooses for a size in bytes.
    """

    def __init__(
        self, contract: Contract, settings: ProducerSettings, numbering: Numbering, place: Callable[[int], int]
    ) -> None:
        if settings.ordered and contract.id is not None and contract.id.origin != contract.key:
            raise UsageError(
                f"contract {contract.name}: ordered needs the events' own id to be by the key {contract.key}, "
                f"not by {contract.id.origin}: copies of an event have to land on one chain"
            )
        self._contract = contract
        self._settings = settings
        self.numbering = numbering
        self._place = place
        self._open: dict[int | None, LaneBuffer] = {}
        self._full: list[LaneBuffer] = []
        self.lane_field = contract.id.origin if contract.id else contract.key if settings.ordered else None
        self.lanes = contract.id.partitions if contract.id else settings.partitions
        own = contract.id
        keeps_ids = own is not None and own.seq is not None and settings.receipts and settings.format == "columnar"
        self._id_fields = [own.origin, own.seq] if own is not None and keeps_ids else []

    @property
    def has_identity(self) -> bool:
        """Tell whether batches carry the session's identity."""
        return self._contract.id is None and self._settings.format == "columnar"

    def begin_session(self, origin: str) -> None:
        """Number from 0 under a new origin from the next batch on; batches sealed before keep theirs."""
        self.numbering.origin, self.numbering.next_seq = origin, 0

    def number(self, batches: Sequence[SealedBatch], group: EventGroup) -> list[tuple[SealedBatch, list[BatchSlice]]]:
        """Return batches that the caller sealed under the next numbers of batches; their events are the group's."""
        first = self.numbering.next_batch
        self.numbering.next_batch += len(batches)
        return [
            (replace(batch, batch_id=first + at), [BatchSlice(group, 0, batch.count)])
            for at, batch in enumerate(batches)
        ]

    def cut_row(self, row: Row, raw_bytes: int, put: Any) -> EventGroup:
        """Return the group of one validated event, for `append`."""
        lane = None if self.lane_field is None else lane_of(row[self.lane_field], self.lanes)
        return EventGroup(lane, row, 1, raw_bytes, put)

    def cut_table(self, table: pa.Table, raw_bytes: int, puts: Callable[[int], Any]) -> list[EventGroup]:
        """Return conformed events in order within each lane, as one group for each buffer that they will fill.

        `append` them before anything else is cut. `puts` makes the handle for a number of events.
        """
        groups = []
        table, field = _widened(table), self.lane_field
        for lane, events in [(None, table)] if field is None else by_lane(table, field, self.lanes):
            open_ = self._open.get(lane)
            filled, at = open_.count if open_ else 0, 0
            while at < events.num_rows:
                piece = events.slice(at, self._settings.max_events - filled)
                count = piece.num_rows
                groups.append(EventGroup(lane, piece, count, raw_bytes * count // table.num_rows, puts(count)))
                at, filled = at + count, 0
        return groups

    def append(self, group: EventGroup, now_ms: int) -> None:
        """Buffer a group."""
        lane = group.lane
        buffer = self._open.get(lane)
        if buffer is None:
            buffer = self._open[lane] = LaneBuffer(lane, now_ms)
        buffer.groups.append(group)
        buffer.count += group.count
        buffer.raw_bytes += group.raw_bytes
        limit = _RAW_PER_RECORD * self._settings.max_record_bytes
        if buffer.count >= self._settings.max_events or buffer.raw_bytes >= limit:
            self._full.append(self._open.pop(lane))

    @property
    def waiting(self) -> bool:
        """Tell whether anything is buffered."""
        return bool(self._full or self._open)

    def due_ms(self) -> int | None:
        """Return when a buffer is to be sealed next: 0 for at once, None when there is none."""
        if self._full:
            return 0
        oldest = min((buffer.since_ms for buffer in self._open.values()), default=None)
        return None if oldest is None else oldest + self._settings.linger_ms

    def take(self, now_ms: int, everything: bool = False) -> list[LaneBuffer]:
        """Return the buffers that are to be sealed now: full ones, those that lingered, or all."""
        taken, self._full = self._full, []
        for lane, buffer in list(self._open.items()):
            if everything or now_ms - buffer.since_ms >= self._settings.linger_ms:
                taken.append(self._open.pop(lane))
        return taken

    def seal(self, buffer: LaneBuffer) -> list[tuple[SealedBatch, list[BatchSlice]]]:
        """Number and encode a buffer's events; what does not fit one record is halved until it does."""
        table = _joined([group.rows for group in buffer.groups if group.rows is not None], self._contract)
        spans, at = [], 0
        for group in buffer.groups:
            spans.append((at, group))
            at += group.count
        sealed = []
        for start, batch in self._encode(table, buffer.lane, 0):
            slices = []
            for first, group in spans:
                low, high = max(first, start), min(first + group.count, start + batch.count)
                if low < high:
                    slices.append(BatchSlice(group, low - start, high - low))
            sealed.append((batch, slices))
        return sealed

    def _encode(
        self, table: pa.Table, lane: int | None, start: int, hash_key: str = ""
    ) -> Iterator[tuple[int, SealedBatch]]:
        numbering, rows = self.numbering, table.num_rows
        size = plain_bytes(table)
        if lane is not None:
            hash_key = str(lane_hash_key(lane, self.lanes))
        elif self._settings.format == "kpl" and not hash_key:  # in the payload, so known before its size is
            hash_key = str(self._place(size))
        fits = rows == 1 or size <= MAX_BATCH_BYTES
        batch = self._encoded(table, lane, hash_key, numbering.next_seq) if fits else None
        if batch is None or (rows > 1 and batch.size > self._settings.max_record_bytes):
            half = rows // 2
            yield from self._encode(table.slice(0, half), lane, start, hash_key)
            yield from self._encode(table.slice(half), lane, start + half)
            return
        if not hash_key:
            batch = replace(batch, explicit_hash_key=str(self._place(batch.size)))
        numbering.next_batch += 1
        numbering.next_seq += rows
        yield start, batch

    def _encoded(self, table: pa.Table, lane: int | None, hash_key: str, first_seq: int) -> SealedBatch:
        key = self.numbering.origin[:8] if lane is None else str(lane)
        origin = self.numbering.origin if self.has_identity else None
        if self._settings.format == "columnar":
            payload = encode_batch(
                table, self._contract, origin=origin, first_seq=None if origin is None else first_seq
            )
        elif self._settings.format == "json":
            payload = b"\n".join(event_json(table))
        else:
            payload = encode_kpl(event_json(table), key, hash_key)
        seq = first_seq if origin is not None else 0
        ids = table.select(self._id_fields) if self._id_fields else None
        return SealedBatch(self.numbering.next_batch, payload, key, hash_key, origin, seq, table.num_rows, lane, ids)

    def too_large(self, table: pa.Table) -> tuple[int, str] | None:
        """Return the first event that no record can hold, and why. Cheap unless there are strings of such length."""
        limit = self._settings.max_record_bytes
        lane = None if self.lane_field is None else self.lanes - 1
        for row in _large_rows(_widened(table), limit // SURE_PART):
            size = self._encoded(table.slice(row, 1), lane, _LONGEST_HASH_KEY, _LARGEST_SEQ).size
            if size > limit:
                return row, f"the event takes {size} bytes in a record, which holds {limit}"
        return None


def _joined(pieces: Sequence[pa.Table | Row], contract: Contract) -> pa.Table:
    """Return all events in one table, in order."""
    tables: list[pa.Table] = []
    rows: list[Row] = []
    for piece in [*pieces, None]:
        if isinstance(piece, dict):
            rows.append(piece)
            continue
        if rows:
            tables.append(pa.Table.from_pylist(rows, schema=contract.arrow_schema))
            rows = []
        if piece is not None:
            tables.append(piece)
    if len(tables) == 1:
        return tables[0]
    if any(table.schema != tables[0].schema for table in tables):
        tables = [_coded(table) for table in tables]
    return pa.concat_tables(tables)


_CODED = pa.dictionary(pa.int32(), pa.string())


def _coded(table: pa.Table) -> pa.Table:
    """Return the table with string columns in one encoding, so that tables from anywhere can be joined."""
    columns = [
        column.dictionary_encode() if pa.types.is_string(column.type) else column for column in _widened(table).columns
    ]
    return pa.table(columns, names=table.column_names)


def _widened(table: pa.Table) -> pa.Table:
    """Return the table with codes of 32 bits: pandas and our own batches have narrower ones, too few for two tables."""
    columns = [column.cast(_CODED) if pa.types.is_dictionary(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _large_rows(table: pa.Table, limit: int) -> list[int]:
    """Return the rows whose strings and bytes have more than `limit` bytes together."""
    found = [one for column in table.columns if (one := _lengths(column))]
    if sum(pc.max(length).as_py() or 0 for _, length in found) <= limit:
        return []  # as of most tables: no row is looked at
    total = np.zeros(table.num_rows, np.int64)
    for codes, length in found:
        total += pc.fill_null(length if codes is None else pc.take(length, codes), 0).to_numpy()
    rows: list[int] = np.flatnonzero(total > limit).tolist()
    return rows


def _lengths(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, Any] | None:
    """Return the bytes of each value, or rows' codes and the bytes of each code's; None for numbers and the like."""
    if pa.types.is_nested(column.type):
        return None, pa.chunked_array([nested_sizes(chunk) for chunk in column.chunks], pa.int64())
    column = column.unify_dictionaries()
    texts, codes = column, None
    if pa.types.is_dictionary(column.type) and column.num_chunks:
        texts, codes = column.chunk(0).dictionary, pa.chunked_array([chunk.indices for chunk in column.chunks])
    kind = texts.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        return codes, pc.binary_length(texts)
    return None
