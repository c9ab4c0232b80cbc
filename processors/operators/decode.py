"""Records to one table: each record decoded, the tables of a run of records laid end to end.

Every string column comes out dictionary-encoded with int32 codes and one dictionary, for the operators behind work
on codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.codec import Control, Decoded, OtherContract, decode_record
from headwater.contract import Contract
from headwater.errors import InvalidRecord
from headwater.records import StreamRecord
from processors.operators.arrays import whole

__all__ = ["Batch", "Part", "Poison", "combine", "decode"]

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Part:
    """What one record came to. `at` is the record's index in the call."""

    at: int
    decoded: Decoded


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


def decode(
    records: Sequence[StreamRecord], contract: Contract
) -> list[Part | Poison | tuple[int, Control] | tuple[int, OtherContract]]:
    """Each record's content, in order."""
    out: list[Part | Poison | tuple[int, Control] | tuple[int, OtherContract]] = []
    for at, record in enumerate(records):
        try:
            found = decode_record(record.data, contract)
        except InvalidRecord as error:
            out.append(Poison(at, str(error)))
            continue
        if isinstance(found, Decoded):
            out.append(Part(at, found))
        elif isinstance(found, Control):
            out.append((at, found))
        else:
            out.append((at, found))
    return out


def combine(parts: Sequence[Part], schema: pa.Schema) -> Batch:
    """Lay the parts end to end; `schema` is the contract's."""
    lengths = [part.decoded.table.num_rows for part in parts]
    columns = [_column([part.decoded.table.column(field.name) for part in parts], field.type) for field in schema]
    rows = [np.asarray(part.decoded.rows, np.int64) for part in parts]
    return Batch(
        table=pa.table(columns, names=schema.names),
        record=np.repeat(np.array([part.at for part in parts], np.int64), lengths),
        row=np.concatenate(rows) if rows else np.zeros(0, np.int64),
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
