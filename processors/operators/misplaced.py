"""Decide which user records of a misplaced KPL aggregate count: one rule for every runner. Pure.

The KPL puts user records of one shard, as far as it knows the shards, into one aggregate, and the first of them says
where it goes. After a reshard an aggregate therefore lands on a shard that owns only some of its user records. The KPL
sees that in the answer, and sends again those that the shard does not own (Retrier::succeed_if_correct_shard of
awslabs/amazon-kinesis-producer), or all of them while it does not know that shard yet, as every version before 0.15.11.

So of an aggregate with user records from outside the shard
- those outside do not count: each comes again, to its own shard. They are kept in a dead letter, because an aggregator
  other than the KPL, which puts any keys into one aggregate, sends nothing again;
- those inside count, because a KPL that knew the shard has told its caller that they are delivered. When one comes
  again soon, with the same partition key and the same bytes, that copy does not count.

The KCL drops such an aggregate as a whole before a processor sees it, so under the KCL nothing is left to decide here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints
from headwater.codec import encode_kpl, is_kpl, user_records
from headwater.codec.jsonrows import is_one_object
from headwater.errors import InvalidRecord
from headwater.processors.operators.decode import Part
from headwater.sinks.deadletter import DeadLetter
from headwater.stream.record import StreamRecord

__all__ = ["AWAIT_MS", "MOST_AWAITED", "REASON", "Awaited", "Misplaced", "find_misplaced", "united_awaited"]

AWAIT_MS = 15 * 60_000
"""Time for which a copy is awaited, by arrival: the KPL gives a record up after its RecordTtl, 30 s by default."""
MOST_AWAITED = 10_000
"""The number of copies awaited at a time; the oldest are no longer awaited beyond it. Each takes 50 bytes of state."""
REASON = (
    "user records of an aggregate whose hash keys are outside the shard: the KPL sends them again to their own shard; "
    "redrive them only if another aggregator wrote them"
)


Awaited = dict[str, list[int]]
"""The user records that may come again, oldest first: by digest, when the last arrived (epoch ms), and how many."""


class _CopyState(Protocol):
    awaited: Awaited

    def count(self, name: str, by: int = 1) -> None: ...


@dataclass
class Misplaced:
    """Hold what does not count of some records."""

    dropped: dict[int, frozenset[int] | None] = field(default_factory=dict)
    """Map from the index of a record to the places of the user records in it that do not count, None for all of it."""
    letters: list[DeadLetter] = field(default_factory=list)
    """For each aggregate with user records from outside, those: one a line, or as an aggregate of their own."""

    def without(self, part: Part) -> Part:
        """Return the part without the events that do not count; their neighbours keep their places."""
        if not self.dropped:
            return part
        touched = {at: self.dropped[at] for at in {part.at, *np.unique(part.record).tolist()} if at in self.dropped}
        return _without(part, touched) if touched else part


def find_misplaced(
    records: Sequence[StreamRecord], hash_range: tuple[int, int] | None, state: _CopyState, contract: str
) -> Misplaced:
    """Return what of the records does not count on a shard with this first and last hash key.

    The state's `awaited` is brought up to date, and its counts `misplaced` (user records from outside) and `resent`
    (copies). Without a range nothing is misplaced: the KCL has decided.
    """
    found = Misplaced()
    if hash_range is None:
        return found
    for at, record in enumerate(records):
        _expire(state.awaited, record.arrived_ms)
        if is_kpl(record.data):
            _aggregate(at, record, hash_range, state, found, contract)
        elif state.awaited and _take(state.awaited, _digest(record.partition_key, record.data)):
            found.dropped[at] = None
            state.count("resent")
    return found


def united_awaited(parents: Sequence[Awaited]) -> Awaited:
    """Return what the child of these shards awaits: every copy that either of them did, oldest first.

    >>> united_awaited([{"a": [5, 1], "b": [9, 1]}, {"b": [7, 2]}])
    {'a': [5, 1], 'b': [9, 3]}
    """
    found: Awaited = {}
    for parent in parents:
        for digest, (arrived_ms, count) in parent.items():
            # the same bytes on both parents: as many copies come to the one child
            known = found.get(digest, [0, 0])
            found[digest] = [max(known[0], arrived_ms), known[1] + count]
    ordered = sorted(found.items(), key=lambda one: one[1][0])
    return dict(ordered[-MOST_AWAITED:])


def _aggregate(
    at: int, record: StreamRecord, hash_range: tuple[int, int], state: _CopyState, found: Misplaced, contract: str
) -> None:
    try:
        users = user_records(record.data)
    except InvalidRecord:
        return  # the decoder names the fault
    # a user record whose key is unknown cannot be told from one that is in its place
    keys = [hash_range[0] if one.hash_key is None else one.hash_key for one in users]
    outside = {place for place, key in enumerate(keys) if not hash_range[0] <= key <= hash_range[1]}
    awaited = state.awaited
    if not awaited and not outside:
        return
    inside = [place for place in range(len(users)) if place not in outside]
    digests = [_digest(users[place].partition_key, users[place].payload) for place in inside]
    # equal user records of one aggregate are no copies of each other: all are looked up before any is noted
    copies = {place for place, digest in zip(inside, digests, strict=True) if _take(awaited, digest)}
    if outside:
        found.letters.append(_letter(record, [users[place].payload for place in sorted(outside)], contract))
        for digest in digests:
            _await(awaited, digest, record.arrived_ms)
    if outside or copies:
        found.dropped[at] = frozenset(outside | copies)
        state.count("misplaced", len(outside))
        state.count("resent", len(copies))


def _letter(record: StreamRecord, payloads: Sequence[bytes], contract: str) -> DeadLetter:
    lines = [payload.strip() for payload in payloads]
    if all(is_one_object(line) for line in lines):
        body = b"\n".join(lines)
    else:  # bytes of any other kind cannot be put end to end
        body = encode_kpl(payloads, record.partition_key, None)
    where = (record.shard_id, record.sequence_number, None, REASON, None, None)
    return DeadLetter(*where, body, contract, record.arrived_ms)


def _without(part: Part, dropped: Mapping[int, frozenset[int] | None]) -> Part:
    keep = np.ones(len(part.record), np.bool_)
    for at, places in dropped.items():
        mine = part.record == at
        keep &= ~mine if places is None else ~(mine & np.isin(_users(part, part.row), sorted(places)))
    # only a record that is alone in its part has invalid events
    gone = dropped.get(part.at, frozenset())
    theirs = _users(part, np.array([row.index for row in part.decoded.invalid], np.int64)).tolist()
    invalid = tuple(
        row for row, user in zip(part.decoded.invalid, theirs, strict=True) if gone is not None and user not in gone
    )
    rows = np.asarray(part.decoded.rows)[keep]
    decoded = replace(part.decoded, table=part.decoded.table.filter(pa.array(keep)), rows=rows, invalid=invalid)
    return replace(part, decoded=decoded, record=part.record[keep], row=part.row[keep])


def _users(part: Part, places: Ints) -> Ints:
    """Return the user record of each event, given its place in the record."""
    if part.users is None:
        return places
    # of several that begin at one place only the last has events
    found: Ints = np.searchsorted(part.users, places, side="right") - 1
    return found


def _await(awaited: Awaited, digest: str, arrived_ms: int) -> None:
    _, count = awaited.pop(digest, (0, 0))
    awaited[digest] = [arrived_ms, count + 1]  # at the end: the order is that of arrival
    if len(awaited) > MOST_AWAITED:
        del awaited[next(iter(awaited))]


def _take(awaited: Awaited, digest: str) -> bool:
    """Return True when this copy is awaited, and await one copy less."""
    found = awaited.get(digest)
    if found is None:
        return False
    found[1] -= 1
    if not found[1]:
        del awaited[digest]
    return True


def _expire(awaited: Awaited, now_ms: int) -> None:
    while awaited:
        oldest = next(iter(awaited))
        if awaited[oldest][0] > now_ms - AWAIT_MS:
            return
        del awaited[oldest]


def _digest(partition_key: str, payload: bytes) -> str:
    return hashlib.blake2b(partition_key.encode() + b"\0" + payload, digest_size=16).hexdigest()
