"""Notice that an identity comes again with other content: two writers number alike, and one's events would be dropped.

The numbers that a shard has seen say nothing of what the events were. So of the events of producers' sessions that were
read last, 16 bits of the content are remembered each. They are over the columns of the contract as this reader has
them, not over bytes: a replay, which puts the same events into other batches, or a client that cuts a run elsewhere,
is no conflict. Pure, and decided by the prefix alone: what is remembered does not depend on calls or commits.
"""

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, Mask, whole
from headwater.contract import Contract

__all__ = ["HORIZON_MS", "MOST_EVENTS", "Marks", "SeenContents", "content_marks"]

MOST_EVENTS = 1 << 16
"""Events remembered: 128 KB of a snapshot."""
HORIZON_MS = 15 * 60_000
"""Time for which one is remembered, by arrival: two processes that number alike run at the same time."""

Marks = np.ndarray[tuple[int], np.dtype[np.uint16]]
_ODD = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0xD1B54A32D192ED03)


@dataclass(frozen=True)
class _Run:
    """Hold the marks of events that follow each other. `end` counts all that were remembered up to its last."""

    origin: str
    first: int
    marks: Marks
    arrived_ms: int
    end: int


class SeenContents:
    """Remember the contents of the last events of one contract."""

    def __init__(self, contract: Contract) -> None:
        self._tag = f"{contract.name} {contract.version} {contract.arrow_schema.names}"
        """The marks of another version, which has other columns, say nothing."""
        self._order: deque[_Run] = deque()
        self._by_origin: dict[str, list[_Run]] = {}
        self._total = self._newest_ms = 0

    def differing(self, origin: str, seqs: Ints, marks: Marks, arrived_ms: int) -> Mask:
        """Return True for each event of a record whose identity is remembered with other content."""
        self._advance(arrived_ms)
        found = np.zeros(len(seqs), np.bool_)
        for run in self._by_origin.get(origin, ()):
            at = seqs - run.first
            inside = np.flatnonzero((at >= 0) & (at < len(run.marks)))
            found[inside] |= run.marks[at[inside]] != marks[inside]
        return found

    def remember(self, origin: str, seqs: Ints, marks: Marks, arrived_ms: int) -> None:
        """Take in events of a record, in the order of their numbers, that were not seen before."""
        seqs, marks = seqs[-MOST_EVENTS:], marks[-MOST_EVENTS:]
        for start, stop in _consecutive(seqs):
            self._append(origin, int(seqs[start]), marks[start:stop].copy(), arrived_ms)
        self._advance(arrived_ms)

    def _append(self, origin: str, first: int, marks: Marks, arrived_ms: int) -> None:
        self._total += len(marks)
        run = _Run(origin, first, marks, arrived_ms, self._total)
        self._order.append(run)
        self._by_origin.setdefault(origin, []).append(run)

    def _advance(self, arrived_ms: int) -> None:
        """Forget what is too old by now; the order is that of the stream, so the first are the oldest."""
        self._newest_ms = max(self._newest_ms, arrived_ms)
        while self._order:
            oldest = self._order[0]
            kept = oldest.end > self._total - MOST_EVENTS and oldest.arrived_ms > self._newest_ms - HORIZON_MS
            if kept:
                return
            self._order.popleft()
            runs = self._by_origin[oldest.origin]
            runs.remove(oldest) if len(runs) > 1 else self._by_origin.pop(oldest.origin)

    def to_table(self) -> pa.Table:
        """Return what is remembered, for a snapshot: a row a run."""
        runs = list(self._order)
        columns = {
            "origin": pa.array([run.origin for run in runs], pa.string()),
            "first": pa.array([run.first for run in runs], pa.int64()),
            "arrived": pa.array([run.arrived_ms for run in runs], pa.int64()),
            "marks": pa.array([run.marks.astype("<u2").tobytes() for run in runs], pa.binary()),
        }
        return pa.table(columns).replace_schema_metadata(
            {b"tag": self._tag.encode(), b"newest": str(self._newest_ms).encode()}
        )

    def load(self, *tables: pa.Table) -> None:
        """Remember what one or several snapshots have, in order of arrival; nothing of another version's."""
        rows = [
            tuple(row.values())
            for table in tables
            if (table.schema.metadata or {}).get(b"tag") == self._tag.encode()
            for row in table.to_pylist()
        ]
        for origin, first, arrived_ms, marks in sorted(rows, key=lambda row: row[2]) if len(tables) > 1 else rows:
            self._append(origin, first, np.frombuffer(marks, "<u2").astype(np.uint16), arrived_ms)
        self._advance(max((int((table.schema.metadata or {}).get(b"newest", 0)) for table in tables), default=0))


def _consecutive(seqs: Ints) -> Iterator[tuple[int, int]]:
    """Yield the `[start, stop)` of numbers that follow each other."""
    cuts = [0, *(np.flatnonzero(np.diff(seqs) != 1) + 1).tolist(), len(seqs)] if len(seqs) else [0]
    return pairwise(cuts)


def content_marks(columns: Sequence[pa.ChunkedArray]) -> Marks:
    """Return 16 bits of each row's content; equal rows have equal ones, in whatever batch or encoding they come."""
    found = np.full(len(columns[0]) if columns else 0, _ODD, np.uint64)
    for column in columns:
        # multiplied between the columns, so that their order counts
        found ^= _numbers(whole(column))
        found *= _ODD
        found ^= found >> np.uint64(29)
    marks: Marks = (found >> np.uint64(48)).astype(np.uint16)
    return marks


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_temporal(kind)
    )


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _numbers(column: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    if pa.types.is_nested(column.type):
        marks = [zlib.crc32(repr(value).encode(errors="replace")) for value in column.to_pylist()]
        return np.array(marks, np.uint64)
    if not _is_number(column.type) and not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        values = column.dictionary.to_pylist()
        hashes = np.array([zlib.crc32(_bytes(value)) for value in values] or [0], np.uint64)
        plain = hashes[column.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    else:
        if pa.types.is_temporal(column.type):
            column = column.view(pa.int32() if column.type.bit_width == 32 else pa.int64())
        filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0).to_numpy(zero_copy_only=False)
        plain = filled.view(np.uint64) if filled.dtype == np.float64 else filled.astype(np.uint64)
    if column.null_count:
        plain = np.where(column.is_null().to_numpy(zero_copy_only=False), _NULL, plain)
    numbers: np.ndarray[tuple[int], np.dtype[np.uint64]] = plain
    return numbers
