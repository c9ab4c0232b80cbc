"""Identify events, and find those that were seen before. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, whole
from headwater.codec.rows import unwrapped_flat
from headwater.contract import Contract, InvalidRow
from headwater.contract.rowcolumns import read_column
from headwater.contract.selection import select_row
from headwater.errors import InvalidEvent
from headwater.lineage.origins import OriginSets
from headwater.processors.engine.bounds import MAX_ORIGIN_BYTES
from headwater.processors.operators.decode import Batch, Part
from headwater.stream.record import StreamRecord

__all__ = ["Identities", "first_copies", "identify", "invalid_identities"]


@dataclass(frozen=True)
class Identities:
    """Hold for each event origin and seq; `codes` are the origins in the set of seen ones, -1 for foreign events.

    A foreign event (written by others, without an identity of its own) is named by where it lies in the stream and
    needs no look-up: the ledger's position says whether it was read.
    """

    origin: pa.DictionaryArray
    seq: Ints
    codes: Ints


def identify(batch: Batch, records: list[StreamRecord], contract: Contract, seen: OriginSets) -> Identities:
    """Return the identity of each event of the batch."""
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
    code_of = np.array([code.get(name, -1) for name in distinct], np.int64)
    first = np.repeat(np.array([part.decoded.first_seq for part in parts], np.int64), lengths)
    origin = pa.DictionaryArray.from_arrays(pa.array(local), pa.array(distinct, pa.string()))
    return Identities(origin, first + batch.row, code_of[local])


def first_copies(
    identities: Identities, arrived_ms: Ints, seen: OriginSets
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return True for each event that was not seen before, and add them all to `seen`."""
    codes, seq = identities.codes, identities.seq
    named = codes >= 0
    if named.all():
        return seen.add(codes, seq, arrived_ms)
    new = np.ones(len(codes), np.bool_)
    new[named] = seen.add(codes[named], seq[named], arrived_ms[named])
    return new


def invalid_identities(part: Part, contract: Contract) -> list[tuple[str, int] | None]:
    """Return the identity of each event that breaks its contract; None for one that has none that can be kept.

    An own id counts when its own fields are as the contract says, whatever is wrong with the others.
    """
    found, rows = part.decoded, part.decoded.invalid
    if contract.id is None:
        return [(found.origin, found.first_seq + row.index) if found.origin else None for row in rows]
    events = [_event(row, contract) for row in rows]
    origins = read_column(contract, contract.id.origin, events)
    numbers = read_column(contract, contract.id.seq, events) if contract.id.seq else [0] * len(events)
    return [_kept(origin, number) for origin, number in zip(origins, numbers, strict=True)]


def _event(row: InvalidRow, contract: Contract) -> Mapping[str, object]:
    """Return the values by the contract's names; none where the event is no object."""
    try:
        event, flat = unwrapped_flat(row.event)
        if not isinstance(event, dict):
            return {}
        # a flat row has the contract's names already: what was refused after it was decoded
        return event if flat else select_row(contract, event)
    except (InvalidEvent, ValueError, KeyError, TypeError, RecursionError):  # of whatever the JSON holds
        return {}


def _kept(origin: object, number: object) -> tuple[str, int] | None:
    if not isinstance(origin, str | int) or not isinstance(number, int):
        return None
    text = str(origin)
    return (text, number) if 0 < len(text.encode()) <= MAX_ORIGIN_BYTES else None


def _numbers(table: pa.Table, column: str) -> Ints:
    values: Ints = np.asarray(table.column(column), np.int64)
    return values
