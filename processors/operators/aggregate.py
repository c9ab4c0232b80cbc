"""Windows of mergeable partials, one per slot.

A slot is (shard, lateness bucket). Bucket 0 takes what came while its window was open; a late event goes to the
bucket of the watermark's hour when it came, however late. Once the watermark has left a bucket nothing can enter it
any more, and after its last write it leaves the state. Everything here depends on the events in their order on the
shard and on nothing else, not even on how they were cut into calls.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.aggregates import Columns
from headwater.errors import UsageError
from processors.operators.arrays import whole
from processors.operators.decode import Ints
from processors.operators.groups import GroupIndex, SlotIndex
from processors.pipeline import View

__all__ = ["ALWAYS", "HOUR_MS", "Partial", "ViewState"]

Versions = np.ndarray[tuple[int], np.dtype[np.bytes_]]
HOUR_MS = 3_600_000
_VIEW = b"headwater.view"
ALWAYS = -(1 << 62)
"""The watermark before any event, and the start of the only window of a view without windows."""


@dataclass(frozen=True)
class Partial:
    """One slot's share of one window, ready to be written. `version` is the last record in it."""

    key: tuple[object, ...]
    window_start_ms: int | None
    window_end_ms: int | None
    bucket: int
    version: str
    partial: bytes


class ViewState:
    """The open slots of one view on one shard."""

    def __init__(self, view: View, lateness_ms: int) -> None:
        self.view = view
        self._lateness_ms = lateness_ms
        self._reset()

    def _reset(self) -> None:
        self.groups = GroupIndex(len(self.view.by))
        self._slots = SlotIndex()
        self._columns = Columns(self.view.aggregates)
        self._room(0)

    def _room(self, slots: int) -> None:
        """Arrays with room for more than these slots; the surplus is empty."""
        self._version = np.zeros(slots, "S56")
        self._dirty = np.zeros(slots, np.bool_)

    def __len__(self) -> int:
        return len(self._slots)

    def fold(self, table: pa.Table, ts_ms: Ints, max_ts_before: Ints, versions: Versions, record: Ints) -> int:
        """Take in events; returns how many came late for a window of theirs.

        `max_ts_before` is per event the highest event time in the records before its own; `versions` are the
        padded sequence numbers of the records, `record` indexes them.
        """
        if not table.num_rows:
            return 0
        group = self.groups.of([whole(table.column(name)) for name in self.view.by], table.num_rows)
        table, ts_ms, max_ts_before, record, group, start = self._windows(table, ts_ms, max_ts_before, record, group)
        bucket = self._buckets(start, max_ts_before)
        slots = self._slots.of(group, start, bucket, len(self.groups))
        self._grow()
        self._columns.fold(slots, table, ts_ms)
        last = np.zeros(len(self._slots), np.int64)
        last[slots] = np.arange(len(slots))
        touched = np.zeros(len(self._slots), np.bool_)
        touched[slots] = True
        self._dirty[: len(touched)] |= touched
        at = np.flatnonzero(touched)
        self._version[at] = versions[record[last[at]]]
        return int(np.count_nonzero(bucket))

    def _windows(
        self, table: pa.Table, ts_ms: Ints, before: Ints, record: Ints, group: Ints
    ) -> tuple[pa.Table, Ints, Ints, Ints, Ints, Ints]:
        window = self.view.window
        if window is None:
            return table, ts_ms, before, record, group, np.full(len(ts_ms), ALWAYS, np.int64)
        newest = ts_ms // window.every_ms * window.every_ms
        if window.overlap == 1:
            return table, ts_ms, before, record, group, newest
        rows = np.repeat(np.arange(len(ts_ms)), window.overlap)
        start = (newest[:, None] - np.arange(window.overlap) * window.every_ms).ravel()
        return table.take(pa.array(rows)), ts_ms[rows], before[rows], record[rows], group[rows], start

    def _buckets(self, start: Ints, max_ts_before: Ints) -> Ints:
        if self.view.window is None:
            return np.zeros(len(start), np.int64)
        watermark = max_ts_before - self._lateness_ms
        late = start + self.view.window.size_ms <= watermark
        if not late.any():
            return np.zeros(len(start), np.int64)
        return np.where(late, np.maximum(watermark // HOUR_MS, 1), 0)

    def _grow(self) -> None:
        more = len(self._slots) - len(self._dirty)
        if more > 0:
            version, dirty = self._version, self._dirty
            self._room(2 * len(self._slots))
            self._version[: len(version)], self._dirty[: len(dirty)] = version, dirty
        self._columns.grow(len(self._slots))

    def dirty(self) -> list[Partial]:
        """What has changed since the last `clean`."""
        at = np.flatnonzero(self._dirty)
        return self._partials(at)

    def clean(self) -> None:
        """The dirty partials have been written."""
        self._dirty[:] = False

    def mark_all(self) -> None:
        """Write everything once more: after a take-over, when it is not known what was written."""
        self._dirty[: len(self)] = True

    def _partials(self, at: Ints) -> list[Partial]:
        group, start, bucket = self._slots.columns()
        size = self.view.window.size_ms if self.view.window else 0
        keys = self.groups.keys(group[at])
        partials = self._columns.partials(at)
        return [
            Partial(
                key,
                None if self.view.window is None else begin,
                None if self.view.window is None else begin + size,
                late,
                version.decode(),
                partial,
            )
            for key, begin, late, version, partial in zip(
                keys, start[at].tolist(), bucket[at].tolist(), self._version[at].tolist(), partials, strict=True
            )
        ]

    def evict(self, max_ts: int) -> int:
        """Drop the slots that nothing can enter any more and that have been written; how many they were."""
        if self.view.window is None or not len(self):
            return 0
        _, start, bucket = self._slots.columns()
        watermark = max_ts - self._lateness_ms
        hour = watermark // HOUR_MS
        left = np.where(bucket == 0, start + self.view.window.size_ms <= watermark, bucket < hour)
        done = left & ~self._dirty[: len(self)]
        if not done.any():
            return 0
        self._keep(np.flatnonzero(~done))
        return int(done.sum())

    def forget(self, column: str, value: str) -> int:
        """Drop the slots of rows whose key column has this value, as text; how many they were."""
        if column not in self.view.by or not len(self):
            return 0
        group, _, _ = self._slots.columns()
        at = self.view.by.index(column)
        gone = np.array([key[at] is not None and str(key[at]) == value for key in self.groups.keys(group)], np.bool_)
        if gone.any():
            self._keep(np.flatnonzero(~gone))
        return int(gone.sum())

    def _keep(self, at: Ints) -> None:
        group, start, bucket = (array[at] for array in self._slots.columns())
        keys = self.groups.keys(group)
        self._columns.keep(at)
        self._version, self._dirty = self._version[at], self._dirty[at]
        self.groups = GroupIndex(len(self.view.by))
        self._slots = SlotIndex()
        if len(at):
            renumbered = self.groups.of_keys(keys)
            self._slots.load(renumbered, start, bucket, len(self.groups))

    def to_tables(self) -> tuple[pa.Table, pa.Table]:
        """For a snapshot: the slots with their keys, and their aggregates."""
        group, start, bucket = self._slots.columns()
        keys = self.groups.keys(group)
        names = {f"key{i}": _typed([key[i] for key in keys]) for i in range(len(self.view.by))}
        version, dirty = self._version[: len(self)].astype("U56"), self._dirty[: len(self)]
        slots = names | {"start": start, "bucket": bucket, "version": version, "dirty": dirty}
        table = pa.table(slots).replace_schema_metadata({_VIEW: self._definition()})
        return table, self._columns.to_table()

    def load_tables(self, slots: pa.Table, aggregates: pa.Table) -> None:
        """UsageError when they were kept for another definition: rows of both would lie in one view."""
        self._reset()
        was, now = (slots.schema.metadata or {}).get(_VIEW), self._definition()
        if was not in (None, now):
            raise self._changed(f"it was kept as {was.decode()}, and the pipeline has {now.decode()}")
        if not slots.num_rows:
            return
        values = [slots.column(f"key{i}").to_pylist() for i in range(len(self.view.by))]
        keys = list(zip(*values, strict=True)) if values else [()] * slots.num_rows
        group = self.groups.of_keys(keys)
        self._slots.load(group, slots["start"].to_numpy(), slots["bucket"].to_numpy(), len(self.groups))
        try:
            self._columns = Columns.from_table(self.view.aggregates, aggregates)
        except UsageError as error:
            raise self._changed(str(error)) from None
        self._version = np.array(slots["version"].to_pylist(), "S56")
        self._dirty = slots["dirty"].to_numpy(zero_copy_only=False).copy()

    def _definition(self) -> bytes:
        """What keys and windows are; aggregates are in a table of their own."""
        window = self.view.window
        size = None if window is None else {"size_ms": window.size_ms, "every_ms": window.every_ms}
        return json.dumps({"by": self.view.by, "window": size}).encode()

    def _changed(self, how: str) -> UsageError:
        return UsageError(
            f"view {self.view.name} was changed in place: {how}. Give the new definition a higher version beside the "
            "old one, and run headwater view rebuild"
        )


def _typed(values: Sequence[object]) -> pa.Array:
    return pa.array(values) if any(value is not None for value in values) else pa.nulls(len(values), pa.string())
