"""Who each event is, and whether it was seen before."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.contract import Contract
from headwater.lineage import OriginSets
from headwater.records import StreamRecord
from processors.operators.arrays import whole
from processors.operators.decode import Batch, Ints

__all__ = ["Identities", "first_copies", "identify"]


@dataclass(frozen=True)
class Identities:
    """Per event: origin and seq; `codes` are the origins in the set of seen ones, -1 for foreign events.

    A foreign event (written by others, without an identity of its own) is named by where it lies in the stream and
    needs no look-up: the ledger's position says whether it was read.
    """

    origin: pa.DictionaryArray
    seq: Ints
    codes: Ints


def identify(batch: Batch, records: list[StreamRecord], contract: Contract, seen: OriginSets) -> Identities:
    """The identity of each event of the batch."""
    if contract.id is not None:
        origin = whole(batch.table.column(contract.id.origin))
        if not pa.types.is_dictionary(origin.type):
            origin = origin.cast(pa.string()).dictionary_encode()
        codes = seen.codes(origin.dictionary)[origin.indices.to_numpy()]
        seq = _numbers(batch.table, contract.id.seq) if contract.id.seq else np.zeros(len(codes), np.int64)
        return Identities(origin, seq, codes)
    parts = batch.parts
    lengths = [part.decoded.table.num_rows for part in parts]
    place: dict[str, int] = {}
    locals_ = []
    for part, length in zip(parts, lengths, strict=True):
        if part.decoded.origin:
            locals_.append(np.full(length, place.setdefault(part.decoded.origin, len(place)), np.int32))
            continue
        own, inverse = np.unique(part.record, return_inverse=True)
        names = [f"{records[at].shard_id}:{records[at].sequence_number}" for at in own.tolist()]
        locals_.append(np.array([place.setdefault(name, len(place)) for name in names], np.int32)[inverse])
    distinct = list(place)
    local = np.concatenate([np.zeros(0, np.int32), *locals_])
    known = {part.decoded.origin for part in parts}
    named = [name for name in distinct if name in known]
    code = dict(zip(named, seen.codes(named).tolist(), strict=True))
    code_of = np.array([code.get(name, -1) for name in distinct] or [0], np.int64)
    first = np.repeat(np.array([part.decoded.first_seq for part in parts], np.int64), lengths)
    origin = pa.DictionaryArray.from_arrays(pa.array(local), pa.array(distinct, pa.string()))
    return Identities(origin, first + batch.row, code_of[local] if len(local) else np.zeros(0, np.int64))


def first_copies(
    identities: Identities, arrived_ms: Ints, seen: OriginSets
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """True for each event that was not seen before; takes them all into `seen`."""
    codes, seq = identities.codes, identities.seq
    named = codes >= 0
    if named.all():
        return seen.add(codes, seq, arrived_ms)
    new = np.ones(len(codes), np.bool_)
    new[named] = seen.add(codes[named], seq[named], arrived_ms[named])
    return new


def _numbers(table: pa.Table, column: str) -> Ints:
    values: Ints = table.column(column).to_numpy().astype(np.int64, copy=False)
    return values
