"""Bury the events that break their contract, each identity once. Pure.

All of a record go together: what one costs must not depend on how many there are.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from headwater.contract import Contract
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.decode import Part
from headwater.processors.operators.dedupe import invalid_identities
from headwater.sinks.deadletter import DeadLetter
from headwater.stream.record import StreamRecord

__all__ = ["bury_invalid"]


def bury_invalid(
    parts: Sequence[Part], records: Sequence[StreamRecord], contract: Contract, state: ShardState
) -> Iterator[DeadLetter]:
    """Yield the letters of the parts' invalid events, and take these into the state.

    A dead event that is sent again and still breaks the contract is buried again.
    """
    for part in parts:
        rows, record = part.decoded.invalid, records[part.at]
        ids = invalid_identities(part, contract)
        new = iter(_first_copies([one for one in ids if one is not None], record.arrived_ms, contract, state))
        copies = 0
        for row, who in zip(rows, ids, strict=True):
            if who is not None and not next(new):
                copies += 1
                if contract.id is None or not state.is_dead(*who):
                    continue  # else it was sent again, and is still not right: its letter was moved
            origin, seq = who or (None, None)
            yield DeadLetter(
                record.shard_id,
                record.sequence_number,
                row.index,
                row.reason,
                origin,
                seq,
                row.event,
                contract.name,
                record.arrived_ms,
            )
        foreign = ids.count(None)
        counts = {"events": len(rows), "duplicates": copies, "foreign": foreign, "foreign_excluded": foreign}
        for name, by in (counts | {"dead_events": len(rows) - copies}).items():
            state.count(name, by)


def _first_copies(ids: Sequence[tuple[str, int]], arrived_ms: int, contract: Contract, state: ShardState) -> list[bool]:
    """Return for each of these ids of one record whether it is the first of it, which is seen and left out from now."""
    if not ids:
        return []
    names, seqs = [origin for origin, _ in ids], np.array([seq for _, seq in ids], np.int64)
    arrived = np.full(len(ids), arrived_ms, np.int64)
    codes = state.seen.codes(names)
    state.forget_expired(codes, arrived)
    new = state.seen.add(codes, seqs, arrived)
    first: list[bool] = new.tolist()
    kept = [name for name, one in zip(names, first, strict=True) if one]
    for sets in (state.excluded, state.dead) if contract.id is not None else (state.excluded,):
        sets.add(sets.codes(kept), seqs[new], arrived[new])
    return first
