"""Records to one table: each record decoded, the tables of a run of records laid end to end.

Every string column comes out dictionary-encoded with int32 codes and one dictionary, for the operators behind work
on codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from headwater.codec import Control, Decoded, OtherContract, decode_payloads, decode_record, json_payloads
from headwater.contract import Contract
from headwater.errors import InvalidRecord
from headwater.records import StreamRecord
from processors.operators.arrays import whole

__all__ = ["Batch", "Part", "Poison", "combine", "decode"]

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
_SMALL = 64 << 10
"""Bytes up to which a record is read together with its neighbours; a larger one is worth a pass of its own."""
_AT_ONCE = 10_000
"""Events of one pass, about."""
_DAY_MS = 86_400_000
"""How long apart in arrival records of one pass may be: far less than origins are remembered."""


@dataclass(frozen=True)
class Part:
    """Events of one record, or of several small ones that were read in one pass: those are all valid.

    `at` is the index in the call of the first of the records; per valid event `record` is the index of its own, and
    `row` the event's place in that.
    """

    at: int
    decoded: Decoded
    record: Ints
    row: Ints

    def by_record(self) -> "list[Part]":
        """A part for each record."""
        edges = np.flatnonzero(np.diff(self.record)) + 1
        if not len(edges):
            return [self]
        out = []
        for start, stop in pairwise([0, *edges.tolist(), len(self.record)]):
            table, rows = self.decoded.table.slice(start, stop - start), self.row[start:stop]
            one = replace(self.decoded, table=table, rows=rows, total=stop - start)
            out.append(Part(int(self.record[start]), one, self.record[start:stop], rows))
        return out


@dataclass(frozen=True)
class Poison:
    """A record that cannot be decoded, and why."""

    at: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """The valid events of several records, in stream order. `record` and `row` say where each came from."""

    table: pa.Table
    record: Ints
    row: Ints
    parts: tuple[Part, ...]


Found = Part | Poison | tuple[int, Control] | tuple[int, OtherContract]


def decode(records: Sequence[StreamRecord], contract: Contract) -> list[Found]:
    """Each record's content, in order; neighbours that are JSON objects are read in one pass."""
    out: list[Found] = []
    small: list[list[bytes]] = []
    events = 0
    for at, record in enumerate(records):
        payloads = json_payloads(record.data) if len(record.data) <= _SMALL else None
        first = records[at - len(small)]
        if small and (payloads is None or events >= _AT_ONCE or record.arrived_ms - first.arrived_ms > _DAY_MS):
            out += _small(records, at - len(small), small, contract)
            small, events = [], 0
        if payloads is None:
            out.append(_one(at, record.data, contract))
        else:
            small.append(payloads)
            events += len(payloads)
    return out + _small(records, len(records) - len(small), small, contract)


def _one(at: int, data: bytes, contract: Contract) -> Found:
    try:
        found = decode_record(data, contract)
    except InvalidRecord as error:
        return Poison(at, str(error))
    if isinstance(found, Decoded):
        rows = np.asarray(found.rows, np.int64)
        return Part(at, found, np.full(len(rows), at, np.int64), rows)
    if isinstance(found, Control):
        return at, found
    return at, found


def _small(
    records: Sequence[StreamRecord], at: int, payloads: Sequence[list[bytes]], contract: Contract
) -> list[Found]:
    """Records from `at` on that are these payloads. One with an event that breaks the contract is left alone."""
    if len(payloads) < 2:
        return [_one(at + i, records[at + i].data, contract) for i in range(len(payloads))]
    decoded = decode_payloads([payload for one in payloads for payload in one], contract)
    starts = np.cumsum([0, *map(len, payloads)])
    broken = np.zeros(len(payloads), np.bool_)
    broken[np.searchsorted(starts, [row.index for row in decoded.invalid], side="right") - 1] = True
    edges = np.flatnonzero(np.diff(broken)) + 1
    out: list[Found] = []
    for first, last in pairwise([0, *edges.tolist(), len(payloads)]):
        if broken[first]:
            out += [_one(at + i, records[at + i].data, contract) for i in range(first, last)]
        else:
            out.append(_part(at, first, last, starts, decoded))
    return out


def _part(at: int, first: int, last: int, starts: Ints, decoded: Decoded) -> Part:
    """The records `first` to `last`, all of whose events are valid."""
    begin, stop = np.searchsorted(decoded.rows, starts[[first, last]]).tolist()
    places = decoded.rows[begin:stop]
    record = np.searchsorted(starts, places, side="right") - 1
    whole = replace(decoded, table=decoded.table.slice(begin, stop - begin), rows=places, invalid=())
    return Part(at + first, whole, at + record, places - starts[record])


def combine(parts: Sequence[Part], schema: pa.Schema) -> Batch:
    """Lay the parts end to end; `schema` is the contract's."""
    columns = [_column([part.decoded.table.column(field.name) for part in parts], field.type) for field in schema]
    none = np.zeros(0, np.int64)
    return Batch(
        table=pa.table(columns, names=schema.names),
        record=np.concatenate([none, *(part.record for part in parts)]),
        row=np.concatenate([none, *(part.row for part in parts)]),
        parts=tuple(parts),
    )


def _column(columns: Sequence[pa.ChunkedArray], kind: pa.DataType) -> pa.Array:
    chunks = [chunk for column in columns for chunk in column.chunks if len(chunk)]
    if not pa.types.is_string(kind):
        return whole(pa.chunked_array(chunks, kind))
    if len(chunks) > 1 and all(pa.types.is_dictionary(chunk.type) and not chunk.null_count for chunk in chunks):
        return _united(chunks)
    coded = [_coded(chunk) for chunk in chunks]
    united = pa.chunked_array(coded, pa.dictionary(pa.int32(), pa.string())).unify_dictionaries()
    return whole(united)


def _united(chunks: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """What `unify_dictionaries` gives, with one pass over all dictionaries: for many small chunks."""
    dictionaries = [chunk.dictionary for chunk in chunks]
    every = pa.concat_arrays(dictionaries).dictionary_encode()
    place = every.indices.to_numpy()
    codes = np.empty(sum(map(len, chunks)), np.int32)
    at = first = 0
    for chunk, dictionary in zip(chunks, dictionaries, strict=True):
        stop, last = at + len(chunk), first + len(dictionary)
        np.take(place[first:last], chunk.indices.to_numpy(), out=codes[at:stop], mode="clip")
        at, first = stop, last
    return pa.DictionaryArray.from_arrays(pa.array(codes), every.dictionary)


def _coded(chunk: pa.Array) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_encode()
    if chunk.type.index_type == pa.int32():
        return chunk
    return pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), chunk.dictionary)
