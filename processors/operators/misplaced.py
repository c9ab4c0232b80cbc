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

The KCL drops such an aggregate as a whole before a processor sees it, so under the KCL nothing of it is left to decide.

An aggregate for a parent may also lie in its child as a whole: on a merge each does. A KPL that does not know the child
sends all of it again, and nothing in it shows that. So on a child of shards that had aggregates, what comes within
RENEWED_MS of its first record, in an aggregate or as a record of its own, counts once for the same partition key and
the same bytes. The KCL counts both.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints
from headwater.codec import encode_kpl, is_kpl, user_records
from headwater.codec.columnar import is_arrow
from headwater.codec.control import is_control
from headwater.codec.inflate import is_compressed
from headwater.codec.jsonrows import is_one_object
from headwater.errors import InvalidRecord
from headwater.processors.operators.decode import Part
from headwater.sinks.deadletter import DeadLetter
from headwater.stream.record import StreamRecord

__all__ = [
    "AWAIT_MS",
    "MOST_AWAITED",
    "REASON",
    "RENEWED_MS",
    "Awaited",
    "Misplaced",
    "Renewed",
    "find_misplaced",
    "united_awaited",
    "united_renewed",
]

AWAIT_MS = 15 * 60_000
"""Time for which a copy is awaited, by arrival: the KPL gives a record up after its RecordTtl, 30 s by default."""
MOST_AWAITED = 10_000
"""The number of copies awaited at a time; the oldest are no longer awaited beyond it. Each takes 50 bytes of state."""
RENEWED_MS = 5 * 60_000
"""Time after the first record of a child in which a KPL may not know it: it asks for the shards at its first surprise,
and again each 30 s at the latest until it is told of the child."""
REASON = (
    "user records of an aggregate whose hash keys are outside the shard: the KPL sends them again to their own shard; "
    "redrive them only if another aggregator wrote them"
)

Awaited = dict[str, list[int]]
"""The user records that may come again, oldest first: by digest, when the last arrived (epoch ms), and how many."""


Renewed = dict[str, int]
"""User records that came at the beginning of a child, the last seen last: by digest, when (epoch ms)."""


class _CopyState(Protocol):
    has_kpl: bool
    """True once an aggregate was read."""
    awaited: Awaited
    renewed: Renewed
    renewed_ms: int | None
    """When the first record arrived (epoch ms) of a child whose parents had aggregates; 0 before it, None on others."""

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

    What the state awaits is brought up to date, and its counts `misplaced` (user records from outside) and `resent`
    (copies). Without a range nothing is misplaced: the KCL has decided.
    """
    found = Misplaced()
    if hash_range is None:
        return found
    for at, record in enumerate(records):
        _expire(state, record.arrived_ms)
        if is_kpl(record.data):
            state.has_kpl = True
            _aggregate(at, record, hash_range, state, found, contract)
        elif state.awaited or state.renewed_ms is not None:
            _alone(at, record, state, found)
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


def united_renewed(parents: Sequence[Renewed]) -> Renewed:
    """Return what the child of these shards knows of their aggregates, oldest first.

    >>> united_renewed([{"a": 5, "b": 9}, {"b": 7}])
    {'a': 5, 'b': 9}
    """
    found: Renewed = {}
    for parent in parents:
        found |= {digest: max(ms, found.get(digest, 0)) for digest, ms in parent.items()}
    return dict(sorted(found.items(), key=lambda one: one[1])[-MOST_AWAITED:])


def _alone(at: int, record: StreamRecord, state: _CopyState, found: Misplaced) -> None:
    unknown = _is_renewed(state, record.arrived_ms)
    if is_control(record.data) or is_arrow(record.data) or is_compressed(record.data):
        return  # ours, or nothing that a KPL puts
    if not (state.awaited or state.renewed or unknown):
        return
    digest = _digest(record.partition_key, record.data)
    if _take(state, digest):
        found.dropped[at] = None
        state.count("resent")
    if unknown:
        _renew(state.renewed, digest, record.arrived_ms)


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
    # to a KPL that does not know this shard an aggregate without any from outside may be misplaced as well
    unknown = _is_renewed(state, record.arrived_ms)
    if not (state.awaited or state.renewed or outside or unknown):
        return
    inside = [place for place in range(len(users)) if place not in outside]
    digests = [_digest(users[place].partition_key, users[place].payload) for place in inside]
    # equal user records of one aggregate are no copies of each other: all are looked up before any is noted
    copies = {place for place, digest in zip(inside, digests, strict=True) if _take(state, digest)}
    if outside:
        found.letters.append(_letter(record, [users[place].payload for place in sorted(outside)], contract))
    for digest in digests:
        if outside:
            _await(state.awaited, digest, record.arrived_ms)
        if unknown or digest in state.renewed:
            _renew(state.renewed, digest, record.arrived_ms)
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


def _renew(renewed: Renewed, digest: str, arrived_ms: int) -> None:
    renewed.pop(digest, None)
    renewed[digest] = arrived_ms  # at the end: the order is that of arrival
    if len(renewed) > MOST_AWAITED:
        del renewed[next(iter(renewed))]


def _is_renewed(state: _CopyState, now_ms: int) -> bool:
    return state.renewed_ms is not None and now_ms < state.renewed_ms + RENEWED_MS


def _take(state: _CopyState, digest: str) -> bool:
    """Return True when this is a copy, and await one copy less."""
    found = state.awaited.get(digest)
    if found is not None:
        found[1] -= 1
        if not found[1]:
            del state.awaited[digest]
    # of those of a child more than one may come: a KPL goes on until it knows the shard
    return found is not None or digest in state.renewed


def _expire(state: _CopyState, now_ms: int) -> None:
    if state.renewed_ms == 0:
        state.renewed_ms = now_ms
    while state.awaited:
        oldest = next(iter(state.awaited))
        if state.awaited[oldest][0] > now_ms - AWAIT_MS:
            break
        del state.awaited[oldest]
    while state.renewed:
        oldest = next(iter(state.renewed))
        if state.renewed[oldest] > now_ms - AWAIT_MS:
            break
        del state.renewed[oldest]


def _digest(partition_key: str, payload: bytes) -> str:
    return hashlib.blake2b(partition_key.encode() + b"\0" + payload, digest_size=16).hexdigest()
