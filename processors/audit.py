"""The audit: accepted, processed, in the lake, per origin, and each missing interval by number. Pure.

Every hop keeps the set of identities that it has; what is missing between two hops is a difference of sets.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.ledger import ShardEntry
from headwater.lineage import IntervalSet, OriginSets
from processors.state import ShardState

__all__ = ["AuditReport", "ForeignAudit", "OriginAudit", "audit", "is_foreign"]

Interval = tuple[int, int]
_FOREIGN = re.compile(r"shardId-\d+:\d+")


def is_foreign(origin: str) -> bool:
    """Whether the name is a place in the stream: an event that others wrote without an identity."""
    return _FOREIGN.fullmatch(origin) is not None


@dataclass(frozen=True)
class OriginAudit:
    """One origin, hop by hop. Intervals are half-open `[start, stop)`."""

    origin: str
    accepted: int | None
    """What its producer said in receipts; None when it said nothing."""
    processed: int
    excluded: int
    """Of the processed ones: filtered by the pipeline, or in the dead letters."""
    in_lake: int
    not_processed: tuple[Interval, ...]
    not_in_lake: tuple[Interval, ...]
    unexpected: tuple[Interval, ...]
    """In the lake, yet by no shard's ledger processed."""
    duplicates: int

    @property
    def missing(self) -> int:
        return sum(stop - start for start, stop in (*self.not_processed, *self.not_in_lake))

    @property
    def exact(self) -> bool:
        return not self.missing and not self.unexpected and not self.duplicates


@dataclass(frozen=True)
class ForeignAudit:
    """Events that others wrote without an identity: named by their place in the stream, compared by number."""

    processed: int
    excluded: int
    in_lake: int
    duplicates: int

    @property
    def missing(self) -> int:
        return max(0, self.processed - self.excluded - self.in_lake)

    @property
    def exact(self) -> bool:
        return self.processed - self.excluded == self.in_lake and not self.duplicates


@dataclass(frozen=True)
class AuditReport:
    """The whole pipeline. `pending` files are committed and not yet in the table: run the publisher and look again."""

    pipeline: str
    origins: tuple[OriginAudit, ...]
    foreign: ForeignAudit
    counts: Mapping[str, int]
    pending_files: int
    pending_rows: int

    @property
    def exact(self) -> bool:
        return self.foreign.exact and all(origin.exact for origin in self.origins)

    @property
    def in_lake(self) -> int:
        return self.foreign.in_lake + sum(origin.in_lake for origin in self.origins)

    @property
    def processed(self) -> int:
        return self.foreign.processed + sum(origin.processed for origin in self.origins)

    @property
    def excluded(self) -> int:
        return self.foreign.excluded + sum(origin.excluded for origin in self.origins)

    @property
    def missing(self) -> int:
        return self.foreign.missing + sum(origin.missing for origin in self.origins)

    @property
    def duplicates(self) -> int:
        return self.foreign.duplicates + sum(origin.duplicates for origin in self.origins)


def audit(
    pipeline: str, entries: Sequence[ShardEntry], states: Sequence[ShardState], lake: Iterable[pa.RecordBatch]
) -> AuditReport:
    """Compare the hops. `states` are the committed ones of `entries`, closed shards included; `lake` yields columns
    `_origin` and `_seq` of every row of the table."""
    accepted, processed, excluded, revived = OriginSets(), OriginSets(), OriginSets(), OriginSets()
    counts: dict[str, int] = {}
    for state in states:
        accepted.update(state.accepted)
        processed.update(state.seen)
        excluded.update(state.excluded)
        revived.update(state.revived)
        for name, number in state.counts.items():
            counts[name] = counts.get(name, 0) + number
    own, own_copies, foreign_rows, foreign_copies = _lake(lake)
    names = sorted({*accepted.origins(), *processed.origins(), *own.origins()})
    origins = tuple(
        _origin(
            name,
            accepted.get(name),
            processed.get(name),
            excluded.get(name).difference(revived.get(name)),
            own.get(name),
            own_copies.get(name, 0),
        )
        for name in names
    )
    pending = [file for entry in entries for file in entry.pending]
    return AuditReport(
        pipeline,
        origins,
        ForeignAudit(counts.get("foreign", 0), counts.get("foreign_excluded", 0), foreign_rows, foreign_copies),
        counts,
        len(pending),
        sum(file.rows for file in pending),
    )


def _origin(
    name: str, accepted: IntervalSet, processed: IntervalSet, excluded: IntervalSet, lake: IntervalSet, copies: int
) -> OriginAudit:
    expected = processed.difference(excluded)
    return OriginAudit(
        origin=name,
        accepted=len(accepted) if len(accepted) else None,
        processed=len(processed),
        excluded=len(excluded),
        in_lake=len(lake),
        not_processed=tuple(accepted.difference(processed)),
        not_in_lake=tuple(expected.difference(lake)),
        unexpected=tuple(lake.difference(expected)),
        duplicates=copies,
    )


def _lake(batches: Iterable[pa.RecordBatch]) -> tuple[OriginSets, dict[str, int], int, int]:
    """The identities in the lake; per origin how many rows are copies; foreign rows that are there once, and copies."""
    found, copies, foreign, foreign_copies = OriginSets(), dict[str, int](), 0, 0
    is_foreign: list[bool] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        origin = batch.column("_origin")
        if not pa.types.is_dictionary(origin.type):
            origin = origin.dictionary_encode()
        codes = found.codes(origin.dictionary)[origin.indices.to_numpy()]
        is_foreign.extend(
            _FOREIGN.fullmatch(found.name(code)) is not None for code in range(len(is_foreign), len(found))
        )
        seqs = batch.column("_seq").to_numpy()
        new = found.add(codes, seqs, np.zeros(len(codes), np.int64))
        outside = np.array(is_foreign)[codes]
        foreign += int((new & outside).sum())
        foreign_copies += int((~new & outside).sum())
        for code, number in zip(*np.unique(codes[~new & ~outside], return_counts=True), strict=True):
            name = found.name(int(code))
            copies[name] = copies.get(name, 0) + int(number)
    return _named(found, is_foreign), copies, foreign, foreign_copies


def _named(found: OriginSets, is_foreign: Sequence[bool]) -> OriginSets:
    own = OriginSets()
    for code, outside in enumerate(is_foreign):
        if not outside:
            own.add_intervals(found.name(code), found.get(found.name(code)), 0)
    return own
