"""Hold what a replay moves: events of a span of arrival times, in chunks, each with the place to go on from.

Pure table work belongs here: naming columns by a contract, cutting rows into what one record can carry, saying where
each event goes. Nothing here reads a stream, a lake or a clock.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import Ints, Mask, coded
from headwater.contract import Contract
from headwater.lineage.foreign import is_foreign
from headwater.stream.record import StreamRecord

__all__ = [
    "CHUNK_EVENTS",
    "HASH_KEY",
    "RECORD_ROWS",
    "ArrivalSpan",
    "HashKeys",
    "Position",
    "ReplayChunk",
    "as_contract",
    "identified",
    "placed",
    "record_runs",
    "slices",
]

HASH_KEY = "_hash_key"
CHUNK_EVENTS = 20_000
RECORD_ROWS = 5_000
"""Rows of one record at most, and so rows put between two reports of progress."""
_SLICE_ROWS = 20_000
"""Rows that are processed between two reports of progress."""
_IDENTITY = ("_origin", "_seq")

Position = Mapping[str, Any]
HashKeys = Callable[[pa.Table], pa.Array]
"""Gives rows, sorted by identity, a hash key each, as text; null for a row that has no place."""


@dataclass(frozen=True)
class ArrivalSpan:
    """Hold a span of arrival times in the stream, epoch ms: `[start_ms, stop_ms)`."""

    start_ms: int
    stop_ms: int


@dataclass(frozen=True)
class ReplayChunk:
    """Hold events in the order of their hash keys and identities.

    `rows` has the contract's columns, `_origin`, `_seq`, and in `_hash_key` the hash key to put the event at, as text;
    empty where the event's identity decides. `left_out` counts by reason what is not replayed.
    """

    rows: pa.Table
    position: Position
    left_out: Mapping[str, int]


def placed(
    rows: pa.Table, contract: Contract, stream: str, hash_keys: HashKeys | None
) -> tuple[pa.Table, dict[str, int]]:
    """Return the rows with the column of hash keys, in their order, and the number left out by reason.

    `hash_keys` is None where the rows go into another stream than `stream`, which they were read from. A foreign event
    is known by its place in the stream alone. In that stream a copy of it would be another event, so it is left out; in
    any other it is named after the stream and the place.
    """
    foreign = _foreign(rows, contract)
    left_out = {}
    if hash_keys is not None:
        left_out["foreign"] = int(foreign.sum())
        rows = rows.filter(pa.array(~foreign))
    elif foreign.any():
        named = pc.binary_join_element_wise(stream, rows["_origin"], ":")
        named = pc.if_else(pa.array(foreign), named, rows["_origin"])
        rows = rows.set_column(rows.column_names.index("_origin"), "_origin", named)
    keys = pa.array([""] * rows.num_rows, pa.string()) if hash_keys is None else hash_keys(rows)
    left_out["unknown"] = keys.null_count
    rows = rows.append_column(HASH_KEY, keys).filter(keys.is_valid())
    order = [(name, "ascending") for name in (HASH_KEY, *_IDENTITY)]
    return rows.sort_by(order), {name: count for name, count in left_out.items() if count}


def _foreign(rows: pa.Table, contract: Contract) -> Mask:
    if contract.id is not None:
        return np.zeros(rows.num_rows, np.bool_)
    origins = coded(rows["_origin"])
    outside = np.array([is_foreign(name) for name in origins.dictionary.to_pylist()] or [False], np.bool_)
    mask: Mask = outside[origins.indices.to_numpy()]
    return mask


def identified(rows: pa.Table, contract: Contract) -> pa.Table:
    """Return the contract's columns and the identity of each row, sorted by identity."""
    named = as_contract(rows, contract, contract)
    for name, kind in zip(_IDENTITY, (pa.string(), pa.int64()), strict=True):
        named = named.append_column(name, rows[name].cast(kind))
    return named.sort_by([(name, "ascending") for name in _IDENTITY])


def as_contract(rows: pa.Table, old: Contract, new: Contract) -> pa.Table:
    """Return the columns of the contract `old` under the names of `new`."""
    there = set(old.arrow_schema.names)
    columns = {}
    for field in new.fields:
        found = next((name for name in (field.name, *field.was) if name in there), None)
        if found is not None:
            columns[field.name] = rows[found]
    return pa.table(columns)


def record_runs(rows: pa.Table, *, same: str, by_origin: bool, most: int = RECORD_ROWS) -> Iterator[tuple[int, int]]:
    """Yield the `[start, stop)` of rows that one record can carry.

    Its rows are alike in the column `same` and, where the record numbers its events (`by_origin`), they follow each
    other in one origin without a gap.
    """
    if not rows.num_rows:
        return
    cut = np.diff(_codes(rows[same])) != 0
    if by_origin:
        cut |= (np.diff(_codes(rows["_origin"])) != 0) | (np.diff(rows["_seq"].to_numpy()) != 1)
    bounds = [0, *(np.flatnonzero(cut) + 1).tolist(), rows.num_rows]
    for start, stop in itertools.pairwise(bounds):
        for at in range(start, stop, most):
            yield at, min(at + most, stop)


def _codes(column: pa.ChunkedArray) -> Ints:
    codes: Ints = coded(column).indices.to_numpy()
    return codes


def slices(
    records: Iterable[tuple[StreamRecord, int]], rate: float | None = None
) -> Iterator[tuple[list[StreamRecord], int]]:
    """Yield records, with the number of their rows, to process between two reports of progress.

    A slice has about as many rows as may go in a second at `rate`, and some 20,000 at most.
    """
    some, rows = list[StreamRecord](), 0
    for record, count in records:
        some.append(record)
        rows += count
        if rows >= min(_SLICE_ROWS, rate or _SLICE_ROWS):
            yield some, rows
            some, rows = [], 0
    if some:
        yield some, rows
