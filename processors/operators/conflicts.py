"""Set aside events that come under the identity of another event. Pure."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np

from headwater.arrays import Ints, Mask
from headwater.codec import event_json
from headwater.contract import Contract
from headwater.processors.operators.contents import SeenContents, content_marks
from headwater.processors.operators.rows import EventRows
from headwater.sinks.deadletter import DeadLetter
from headwater.stream.record import StreamRecord

__all__ = ["CONFLICTS", "find_conflicts"]

CONFLICTS = "conflicts"
"""A shard's count of events whose identity another event has: they are in the dead letters."""
_MOST_BYTES = 1 << 20
"""Maximum size of the events in a letter: a record, which a redriven letter becomes, holds no more."""


class _Remembering(Protocol):
    contents: SeenContents

    def count(self, name: str, by: int = 1) -> None: ...


def find_conflicts(
    rows: EventRows,
    new: Mask,
    records: Sequence[StreamRecord],
    contract: Contract,
    state: _Remembering,
    letters: list[DeadLetter],
) -> None:
    """Compare copies with what they are copies of, and remember new events; one letter for each record with conflicts.

    `new` is False for the copies. Only sessions are compared: an own id names one event for ever, by the user's word,
    and a foreign event is its place.
    """
    if contract.id is not None or not (rows.identities.codes >= 0).any():
        return
    marks = content_marks([rows.table.column(name) for name in contract.arrow_schema.names])
    starts = [*np.flatnonzero(np.diff(rows.record, prepend=-1)).tolist(), len(rows.record)]
    for start, stop in pairwise(starts):
        if rows.identities.codes[start] < 0:
            continue
        at = np.arange(start, stop)
        record, origin = records[int(rows.record[start])], str(rows.identities.origin[start].as_py())
        copies, fresh = at[~new[at]], at[new[at]]
        if len(copies):
            seqs = rows.identities.seq[copies]
            wrong = copies[state.contents.differing(origin, seqs, marks[copies], record.arrived_ms)]
            if len(wrong):
                state.count(CONFLICTS, len(wrong))
                letters.append(_letter(rows, wrong, record, origin, contract))
        state.contents.remember(origin, rows.identities.seq[fresh], marks[fresh], record.arrived_ms)


def _letter(rows: EventRows, wrong: Ints, record: StreamRecord, origin: str, contract: Contract) -> DeadLetter:
    numbers = rows.identities.seq[wrong]
    reason = (
        f"{len(wrong):,} events under identities that others have: of origin {origin[:200]!r}, numbers "
        f"{int(numbers.min())} to {int(numbers.max())} were read before with other content; two writers number alike"
    )
    lines = b"\n".join(event_json(rows.table.select(contract.arrow_schema.names).take(wrong)))
    body = lines if len(lines) <= _MOST_BYTES else record.data
    where = (record.shard_id, record.sequence_number, None, reason, None, None)
    return DeadLetter(*where, body, contract.name, record.arrived_ms)
