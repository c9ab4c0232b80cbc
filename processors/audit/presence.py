"""Say which foreign events were there at a moment, so that an acceptance of missing ones is bound to those. Pure.

A shard counts foreign events and does not name them, so which of them are missing is known to nobody. What is known is
which were there, and up to where each shard was read: of a later moment that tells the events that have come back from
those that have gone missing since.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.lineage.foreign import is_foreign
from headwater.lineage.origins import OriginSets
from headwater.stream import sequence

__all__ = ["ForeignPresence", "Hashes", "foreign_presence", "foreign_rows", "hashed_rows"]

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]
"""64 bits of each identity, sorted: of 10 M of them two are alike by a chance of one in 300,000."""

_POSITIONS, _EXPECTED = b"positions", b"expected"


@dataclass(frozen=True)
class ForeignPresence:
    """Hold the foreign events that were in the lake, or on their way there, at one moment.

    `positions` are those of the shards then, padded, `expected` is how many events up to there were to be in the lake.
    """

    positions: Mapping[str, str]
    rows: Hashes
    expected: int

    @property
    def missing(self) -> int:
        """Return how many were missing."""
        return max(0, self.expected - len(self.rows))

    def returned(self, rows: Hashes) -> Hashes:
        """Return those of later `rows`, up to these positions, that were not there."""
        return np.setdiff1d(rows, self.rows, assume_unique=True)

    def with_returned(self, rows: Hashes) -> "ForeignPresence":
        """Return the same moment with events that have come back since: should they go again, they are missing."""
        return ForeignPresence(self.positions, np.union1d(self.rows, rows), self.expected)

    def dumps(self) -> bytes:
        """Return it as an Arrow stream."""
        positions = ";".join(f"{shard}={at}" for shard, at in self.positions.items())
        about = {_POSITIONS: positions.encode(), _EXPECTED: str(self.expected).encode()}
        table, sink = pa.table({"row": pa.array(self.rows)}).replace_schema_metadata(about), io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    @classmethod
    def loads(cls, body: bytes) -> "ForeignPresence":
        """Return what `dumps` wrote."""
        table = pa.ipc.open_stream(body).read_all()
        about = table.schema.metadata
        pairs = (one.split("=") for one in about[_POSITIONS].decode().split(";") if one)
        return cls(dict(pairs), table["row"].to_numpy(), int(about[_EXPECTED]))


def foreign_presence(sets: Sequence[OriginSets], positions: Mapping[str, str], expected: int) -> ForeignPresence:
    """Return the presence of the foreign events in the sets, with the shards' positions as the ledger has them."""
    # of a shard that the ledger does not have, all that is there counts
    reached = dict(positions)
    for name in _foreign(sets):
        shard, at = _place(name)
        if shard not in positions:
            reached[shard] = max(reached.get(shard, at), at)
    return ForeignPresence(reached, foreign_rows(sets, reached), expected)


def foreign_rows(sets: Sequence[OriginSets], positions: Mapping[str, str]) -> Hashes:
    """Return the hashes of the foreign events in the sets up to these positions."""
    found = [np.zeros(0, np.uint64)]
    for one in sets:
        table = one.to_table()
        names = table["origin"].to_pylist()
        inside = np.array([_is_inside(name, positions) for name in names], np.bool_)
        found.append(_hashed(table.filter(pa.array(inside))))
    return np.unique(np.concatenate(found))


def hashed_rows(sets: OriginSets) -> Hashes:
    """Return the hashes of all events in the sets.

    >>> sets = OriginSets()
    >>> sets.add_intervals("shardId-000000000000:7", [(0, 3)], 0)
    >>> len(hashed_rows(sets))
    3
    """
    return np.unique(_hashed(sets.to_table()))


def _hashed(table: pa.Table) -> Hashes:
    """Return the hash of each number in the intervals."""
    of_origin = np.array([_hash(name) for name in table["origin"].to_pylist()], np.uint64)
    first, stop = table["lo"].to_numpy(), table["hi"].to_numpy()
    sizes = stop - first
    place = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(first, sizes)
    return _mixed(np.repeat(of_origin, sizes), place.astype(np.uint64))


def _foreign(sets: Sequence[OriginSets]) -> Iterable[str]:
    return (name for one in sets for name in one.origins() if is_foreign(name))


def _is_inside(name: str, positions: Mapping[str, str]) -> bool:
    if not is_foreign(name):
        return False
    shard, at = _place(name)
    return at <= positions.get(shard, "")


def _place(name: str) -> tuple[str, str]:
    shard, _, number = name.partition(":")
    return shard, sequence.pad(number)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _mixed(of_origin: Hashes, place: Hashes) -> Hashes:
    """Return a hash of both: the finalizer of splitmix64, whose bits all depend on all of the input's."""
    mixed = of_origin + place * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: Hashes = mixed ^ (mixed >> np.uint64(31))
    return hashed
