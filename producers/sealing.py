"""From events to sealed batches: records that never change again, neither their bytes nor their hash key.

Pure: time, randomness and numbering come in. Not thread-safe by itself: buffers (`add`, `take`) are guarded by the
producer's lock; `seal` is called by one thread only.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.codec import encode_batch, encode_kpl, event_json
from headwater.contract import Contract
from headwater.errors import UsageError
from producers.settings import ProducerSettings

__all__ = [
    "HASH_SPACE",
    "Chunk",
    "Numbers",
    "Part",
    "SealedBatch",
    "Sealer",
    "Unsealed",
    "by_lane",
    "lane_hash_key",
    "lane_of",
]

HASH_SPACE = 1 << 128
_RAW_PER_RECORD = 4
"""A buffer is sealed at so many times a record's size uncompressed: more would be encoded only to be halved."""

Row = dict[str, object]


@dataclass(frozen=True)
class SealedBatch:
    """One Kinesis record. Retries send exactly this, so all copies lie on one chain of shards."""

    batch_id: int
    payload: bytes
    partition_key: str
    explicit_hash_key: str
    origin: str | None
    first_seq: int
    count: int
    lane: int | None = None
    """Batches of one lane are delivered in order; None is free."""

    @property
    def size(self) -> int:
        """What the service counts against its limits."""
        return len(self.payload) + len(self.partition_key.encode())


@dataclass(eq=False)
class Part:
    """Events that came in together and are confirmed together. `token` is the caller's, never looked at here."""

    lane: int | None
    rows: pa.Table | Row
    count: int
    raw_bytes: int
    token: Any = None
    event_id: int | None = None
    """In the outbox."""


@dataclass(frozen=True)
class Chunk:
    """`count` of a part's events in a sealed batch, the first of them at `offset` in the batch."""

    part: Part
    offset: int
    count: int


@dataclass
class Unsealed:
    """A buffer that is to become one batch, or several where it does not fit one."""

    lane: int | None
    since_ms: int
    parts: list[Part] = field(default_factory=list)
    count: int = 0
    raw_bytes: int = 0


@dataclass
class Numbers:
    """What goes on counting, also over restarts when an outbox keeps it."""

    origin: str
    next_seq: int = 0
    next_batch: int = 0


class Sealer:
    """Buffers per lane, and their sealing.

    A lane is a virtual partition of `ordered` producers and of contracts with their own id; others have the one lane
    None, whose batches go to hash keys that `place` chooses for a size in bytes.
    """

    def __init__(
        self, contract: Contract, settings: ProducerSettings, numbers: Numbers, place: Callable[[int], int]
    ) -> None:
        if settings.ordered and contract.id is not None and contract.id.origin != contract.key:
            raise UsageError(
                f"contract {contract.name}: ordered needs the events' own id to be by the key {contract.key}, "
                f"not by {contract.id.origin}: copies of an event have to land on one chain"
            )
        self._contract = contract
        self._settings = settings
        self.numbers = numbers
        self._place = place
        self._open: dict[int | None, Unsealed] = {}
        self._full: list[Unsealed] = []
        self.lane_field = contract.id.origin if contract.id else contract.key if settings.ordered else None
        self.lanes = contract.id.partitions if contract.id else settings.partitions

    @property
    def has_identity(self) -> bool:
        """Whether batches carry the session's identity."""
        return self._contract.id is None and self._settings.format == "columnar"

    def cut_row(self, row: Row, raw_bytes: int, token: Any) -> Part:
        """One validated event, for `append`."""
        lane = None if self.lane_field is None else lane_of(row[self.lane_field], self.lanes)
        return Part(lane, row, 1, raw_bytes, token)

    def cut_table(self, table: pa.Table, raw_bytes: int, tokens: Callable[[int], Any]) -> list[Part]:
        """Conformed events, in order within each lane, a part for each piece of a buffer that they will fill.

        `append` them before anything else is cut. `tokens` makes a token for a number of events.
        """
        parts = []
        table, field = _widened(table), self.lane_field
        for lane, events in [(None, table)] if field is None else by_lane(table, field, self.lanes):
            open_ = self._open.get(lane)
            filled, at = open_.count if open_ else 0, 0
            while at < events.num_rows:
                piece = events.slice(at, self._settings.max_events - filled)
                count = piece.num_rows
                parts.append(Part(lane, piece, count, raw_bytes * count // table.num_rows, tokens(count)))
                at, filled = at + count, 0
        return parts

    def append(self, part: Part, now_ms: int) -> None:
        """Buffer a part."""
        lane = part.lane
        buffer = self._open.get(lane)
        if buffer is None:
            buffer = self._open[lane] = Unsealed(lane, now_ms)
        buffer.parts.append(part)
        buffer.count += part.count
        buffer.raw_bytes += part.raw_bytes
        limit = _RAW_PER_RECORD * self._settings.max_record_bytes
        if buffer.count >= self._settings.max_events or buffer.raw_bytes >= limit:
            self._full.append(self._open.pop(lane))

    @property
    def waiting(self) -> bool:
        """Whether anything is buffered."""
        return bool(self._full or self._open)

    def due_ms(self) -> int | None:
        """When a buffer is to be sealed next: 0 for at once, None when there is none."""
        if self._full:
            return 0
        oldest = min((buffer.since_ms for buffer in self._open.values()), default=None)
        return None if oldest is None else oldest + self._settings.linger_ms

    def take(self, now_ms: int, everything: bool = False) -> list[Unsealed]:
        """The buffers that are to be sealed now: full ones, those that lingered, or all."""
        taken, self._full = self._full, []
        for lane, buffer in list(self._open.items()):
            if everything or now_ms - buffer.since_ms >= self._settings.linger_ms:
                taken.append(self._open.pop(lane))
        return taken

    def seal(self, buffer: Unsealed) -> tuple[pa.Table, list[tuple[SealedBatch, list[Chunk]]]]:
        """Number and encode a buffer's events; what does not fit one record is halved until it does.

        Returns the events in the order of their numbers, too.
        """
        table = _joined([part.rows for part in buffer.parts], self._contract)
        spans = []
        at = 0
        for part in buffer.parts:
            spans.append((at, part))
            at += part.count
        sealed = []
        for start, batch in self._encode(table, buffer.lane, 0):
            chunks = []
            for first, part in spans:
                low, high = max(first, start), min(first + part.count, start + batch.count)
                if low < high:
                    chunks.append(Chunk(part, low - start, high - low))
            sealed.append((batch, chunks))
        return table, sealed

    def _encode(self, table: pa.Table, lane: int | None, start: int) -> Iterator[tuple[int, SealedBatch]]:
        numbers = self.numbers
        batch = self._encoded(table, lane, numbers.next_seq)
        if batch.size > self._settings.max_record_bytes and table.num_rows > 1:
            half = table.num_rows // 2
            yield from self._encode(table.slice(0, half), lane, start)
            yield from self._encode(table.slice(half), lane, start + half)
            return
        if lane is None and self._settings.format != "kpl":
            batch = replace(batch, explicit_hash_key=str(self._place(batch.size)))
        numbers.next_batch += 1
        numbers.next_seq += table.num_rows
        yield start, batch

    def _encoded(self, table: pa.Table, lane: int | None, first_seq: int) -> SealedBatch:
        key = self.numbers.origin[:8] if lane is None else str(lane)
        hash_key = "" if lane is None else str(lane_hash_key(lane, self.lanes))
        origin = self.numbers.origin if self.has_identity else None
        if self._settings.format == "columnar":
            payload = encode_batch(
                table, self._contract, origin=origin, first_seq=None if origin is None else first_seq
            )
        elif self._settings.format == "json":
            payload = b"\n".join(event_json(table))
        else:
            lines = event_json(table)
            if not hash_key:  # it is part of the payload, so it has to be known before the size is
                hash_key = str(self._place(sum(map(len, lines))))
            payload = encode_kpl(lines, key, hash_key)
        seq = first_seq if origin is not None else 0
        return SealedBatch(self.numbers.next_batch, payload, key, hash_key, origin, seq, table.num_rows, lane)

    def too_large(self, table: pa.Table) -> tuple[int, str] | None:
        """The first event that no record can hold, and why. Cheap unless there are strings of such length."""
        limit = self._settings.max_record_bytes
        for row in _large_rows(_widened(table), limit // 4).tolist():
            size = self._encoded(table.slice(row, 1), 0, 1 << 60).size
            if size > limit:
                return row, f"the event takes {size} bytes in a record, which holds {limit}"
        return None


@lru_cache(maxsize=1 << 16)
def lane_of(value: object, lanes: int) -> int:
    """The lane of a key or origin, the same in every process and release."""
    digest = hashlib.md5(str(value).encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest, "big") * lanes // HASH_SPACE


def lane_hash_key(lane: int, lanes: int) -> int:
    """The middle of the lane's share of the hash space, where all its batches go."""
    return (2 * lane + 1) * (HASH_SPACE >> 1) // lanes


def by_lane(table: pa.Table, field: str, lanes: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each lane, in their order; the lane follows from the column `field`."""
    column = table.column(field).unify_dictionaries().combine_chunks()
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    of_value = np.array([lane_of(value, lanes) for value in coded.dictionary.to_pylist()], np.int64)
    of_row = of_value[coded.indices.to_numpy()]
    order = np.argsort(of_row, kind="stable")
    sorted_ = table.take(pa.array(order))
    found, starts = np.unique(of_row[order], return_index=True)
    stops = np.append(starts[1:], len(of_row))
    for lane, start, stop in zip(found.tolist(), starts.tolist(), stops.tolist(), strict=True):
        yield lane, sorted_.slice(start, stop - start)


def _joined(pieces: Sequence[pa.Table | Row], contract: Contract) -> pa.Table:
    """All events in one table, in order."""
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
    """With string columns in one encoding, so that tables from anywhere can be joined."""
    columns = [
        column.dictionary_encode() if pa.types.is_string(column.type) else column for column in _widened(table).columns
    ]
    return pa.table(columns, names=table.column_names)


def _widened(table: pa.Table) -> pa.Table:
    """With codes of 32 bits: pandas and our own batches have narrower ones, and what is in two tables may not fit."""
    columns = [column.cast(_CODED) if pa.types.is_dictionary(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _large_rows(table: pa.Table, limit: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Rows whose strings have more than `limit` bytes together."""
    lengths, most = [], 0
    for column in table.columns:
        column = column.unify_dictionaries()
        texts = column.chunk(0).dictionary if pa.types.is_dictionary(column.type) and column.num_chunks else column
        if not pa.types.is_string(texts.type) and not pa.types.is_large_string(texts.type):
            continue
        length = pc.binary_length(texts)
        most += pc.max(length).as_py() or 0
        lengths.append((column, length))
    if most <= limit or not table.num_rows:
        return np.zeros(0, np.intp)
    total = np.zeros(table.num_rows, np.int64)
    for column, length in lengths:
        if pa.types.is_dictionary(column.type):
            codes = pa.chunked_array([chunk.indices for chunk in column.chunks])
            length = pc.take(length, codes)
        total += pc.fill_null(length, 0).to_numpy()
    return np.flatnonzero(total > limit)
