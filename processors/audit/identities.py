"""Collect the identities of rows into sets, and count the copies among them. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import Ints, Mask, coded
from headwater.lineage.foreign import is_foreign
from headwater.lineage.intervals import IntervalSet
from headwater.lineage.origins import OriginSets

__all__ = ["RowIdentities", "collect"]

_ARRIVED = "_arrived_at"


@dataclass
class RowIdentities:
    """Hold the identities of rows, and the number of those that are foreign.

    `recent` has the rows that arrived from a cutoff on, `old` those from before it, whose origins the shards may have
    forgotten. Foreign rows are in the same sets: `is_foreign` tells them by their origin.
    """

    recent: OriginSets = field(default_factory=OriginSets)
    old: OriginSets = field(default_factory=OriginSets)
    copies: dict[str, int] = field(default_factory=dict)
    """Number of copies by origin, for the origins of producers alone."""
    foreign: int = 0
    foreign_copies: int = 0
    nameless: int = 0
    """Rows without an identity: none of our processors wrote them."""

    def get(self, origin: str) -> IntervalSet:
        """Return the numbers of one origin, of whatever age."""
        recent, old = self.recent.get(origin), self.old.get(origin)
        return recent.union(old) if len(old) else recent

    def own_origins(self) -> Iterator[str]:
        """Yield the origins of producers, those with old and recent rows twice."""
        return (name for sets in (self.recent, self.old) for name in sets.origins() if not is_foreign(name))

    def twice(self, origin: str) -> int:
        """Return how many rows of an origin are copies of another row.

        One that was taken again after its origin had been forgotten is a copy too: it is old and recent.
        """
        old = self.old.get(origin)
        again = len(old) - len(old.difference(self.recent.get(origin))) if len(old) else 0
        return self.copies.get(origin, 0) + again

    def foreign_beyond(self, other: "RowIdentities") -> int:
        """Return how many foreign rows are here and not in `other`."""
        names = {name for sets in (self.recent, self.old) for name in sets.origins() if is_foreign(name)}
        return sum(len(self.get(name).difference(other.get(name))) for name in names)


class _ForeignOrigins:
    """Know by code which origins of one OriginSets are foreign."""

    def __init__(self, sets: OriginSets) -> None:
        self.sets = sets
        self._foreign = np.zeros(0, np.bool_)

    def foreign(self, codes: Ints) -> Mask:
        if len(self._foreign) < len(self.sets):
            new = [is_foreign(self.sets.name(code)) for code in range(len(self._foreign), len(self.sets))]
            self._foreign = np.concatenate([self._foreign, np.array(new, np.bool_)])
        mask: Mask = self._foreign[codes]
        return mask


def collect(batches: Iterable[pa.RecordBatch], cutoff_ms: int | None = None) -> RowIdentities:
    """Collect the columns `_origin` and `_seq` of batches, and `_arrived_at` where they have it.

    A row without a time of arrival, or without a cutoff to compare it with, counts as recent.
    """
    found = RowIdentities()
    names = (_ForeignOrigins(found.recent), _ForeignOrigins(found.old))
    for batch in batches:
        batch, nameless = _named(batch)
        found.nameless += nameless
        if batch.num_rows:
            old = _is_old(batch, cutoff_ms)
            for one, mask in zip(names, (~old, old), strict=True):
                if mask.any():
                    _take(found, one, batch if mask.all() else batch.filter(pa.array(mask)))
    return found


def _take(found: RowIdentities, names: _ForeignOrigins, batch: pa.RecordBatch) -> None:
    origin = coded(batch.column("_origin"))
    codes = names.sets.codes(origin.dictionary.cast(pa.string()))[origin.indices.to_numpy()]
    new = names.sets.add(codes, batch.column("_seq").to_numpy(), np.zeros(len(codes), np.int64))
    outside = names.foreign(codes)
    found.foreign += int((new & outside).sum())
    found.foreign_copies += int((~new & outside).sum())
    for code, number in zip(*np.unique(codes[~new & ~outside], return_counts=True), strict=True):
        name = names.sets.name(int(code))
        found.copies[name] = found.copies.get(name, 0) + int(number)


def _named(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
    """Return the rows that have an identity, and how many others there are."""
    if not {"_origin", "_seq"} <= set(batch.schema.names):
        return batch.slice(0, 0), batch.num_rows
    if not batch.column("_origin").null_count and not batch.column("_seq").null_count:
        return batch, 0
    whole = pc.and_(pc.is_valid(batch.column("_origin")), pc.is_valid(batch.column("_seq")))
    kept = batch.filter(whole)
    return kept, batch.num_rows - kept.num_rows


def _is_old(batch: pa.RecordBatch, cutoff_ms: int | None) -> Mask:
    if cutoff_ms is None or _ARRIVED not in batch.schema.names:
        return np.zeros(batch.num_rows, np.bool_)
    arrived = batch.column(_ARRIVED).cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
    mask: Mask = pc.fill_null(pc.less(arrived, cutoff_ms), False).to_numpy(zero_copy_only=False)
    return mask
