"""Aggregate events into windows of mergeable partials, one per slot.

A slot is (shard, lateness bucket). Bucket 0 takes events that came while their window was open; a late event goes to
the bucket of the hour of the watermark when it came, however late it is. Once the watermark has left a bucket no event
can enter it any more, and after its last write the bucket leaves the state. Everything depends on the events in their
order on the shard alone, not on how they were cut into calls.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.aggregates.columns import Columns
from headwater.arrays import Ints, whole
from headwater.clock import HOUR_MS
from headwater.contract.keyvalues import KeyValue
from headwater.errors import UsageError
from headwater.processors.definition.parts import View
from headwater.processors.operators import windowing
from headwater.processors.operators.groups import GroupIndex, SlotIndex

__all__ = ["ALWAYS", "Partial", "SlotName", "ViewState"]

Versions = np.ndarray[tuple[int], np.dtype[np.bytes_]]
_VIEW = b"headwater.view"
_LEFT = b"headwater.left_ms"
ALWAYS = -(1 << 62)
"""The watermark before any event, and the start of the only window of a view without windows."""


@dataclass(frozen=True)
class SlotName:
    """Name one of this shard's slots of a view."""

    key: tuple[object, ...]
    window_start_ms: int | None
    window_end_ms: int | None
    bucket: int


@dataclass(frozen=True)
class Partial:
    """Hold one slot's share of one window, ready to be written.

    `version` is the padded sequence number of the last record in it.
    """

    key: tuple[object, ...]
    window_start_ms: int | None
    window_end_ms: int | None
    bucket: int
    version: str
    partial: bytes

    @property
    def slot(self) -> SlotName:
        """Return the name of its slot."""
        return SlotName(self.key, self.window_start_ms, self.window_end_ms, self.bucket)


class ViewState:
    """Hold the open slots of one view on one shard."""

    def __init__(self, view: View, lateness_ms: int) -> None:
        self.view = view
        self._lateness_ms = lateness_ms
        self.left_ms = ALWAYS
        """The watermark, epoch ms, up to which slots have left the state. An event never goes into one of those again:
        with a longer lateness than before the watermark would be behind it for a while."""
        self._reset()

    def _reset(self) -> None:
        """Begin with no slots."""
        self.groups = GroupIndex(len(self.view.by))
        self._slots = SlotIndex()
        self._columns = Columns(self.view.aggregates)
        self._room(0)

    def _room(self, slots: int) -> None:
        """Allocate the arrays of versions and marks for so many slots, with all of them empty."""
        self._version = np.zeros(slots, "S56")
        self._dirty = np.zeros(slots, np.bool_)
        self._fresh = np.zeros(slots, np.bool_)

    def __len__(self) -> int:
        return len(self._slots)

    def fold(self, table: pa.Table, ts_ms: Ints, max_ts_before: Ints, versions: Versions, record: Ints) -> int:
        """Take in events; return how many came late for one of their windows.

        `max_ts_before` is for each event the highest event time (epoch ms) in the records before its own; `versions`
        are the padded sequence numbers of the records, and `record` is each event's index in them.
        """
        if not table.num_rows:
            return 0
        group = self.groups.of([whole(table.column(name)) for name in self.view.by], table.num_rows)
        table, ts_ms, max_ts_before, record, group, start = self._windows(table, ts_ms, max_ts_before, record, group)
        bucket, known = self._buckets(start, max_ts_before), len(self._slots)
        slots = self._slots.of(group, start, bucket, len(self.groups))
        self._grow()
        self._fresh[known : len(self._slots)] = True
        self._columns.fold(slots, table, ts_ms)
        at, last = _last_rows(slots, len(self._slots))
        self._dirty[at] = True
        self._version[at] = versions[record[last]]
        return int(np.count_nonzero(bucket))

    def _windows(
        self, table: pa.Table, ts_ms: Ints, before: Ints, record: Ints, group: Ints
    ) -> tuple[pa.Table, Ints, Ints, Ints, Ints, Ints]:
        """Repeat each event for every window it falls in; return the columns and the windows' starts."""
        window = self.view.window
        if window is None:
            return table, ts_ms, before, record, group, np.full(len(ts_ms), ALWAYS, np.int64)
        newest = windowing.newest(window, ts_ms)
        if window.overlap == 1:
            return table, ts_ms, before, record, group, newest
        rows = np.repeat(np.arange(len(ts_ms)), window.overlap)
        start = (newest[:, None] - np.arange(window.overlap) * window.every_ms).ravel()
        table = table.select(sorted({name for one in self.view.aggregates for name in one.reads}))
        return table.take(pa.array(rows)), ts_ms[rows], before[rows], record[rows], group[rows], start

    def _buckets(self, start: Ints, max_ts_before: Ints) -> Ints:
        """Return the lateness bucket of each event: 0 while its window is open."""
        if self.view.window is None:
            return np.zeros(len(start), np.int64)
        watermark = np.maximum(max_ts_before - self._lateness_ms, self.left_ms)
        late = windowing.ends(self.view.window, start) <= watermark
        if not late.any():
            return np.zeros(len(start), np.int64)
        # at least 1, since 0 is the bucket of events in time
        return np.where(late, np.maximum(watermark // HOUR_MS, 1), 0)

    def _grow(self) -> None:
        """Make room for new slots; twice as much as needed, so that it happens seldom."""
        more = len(self._slots) - len(self._dirty)
        if more > 0:
            version, dirty, fresh = self._version, self._dirty, self._fresh
            self._room(2 * len(self._slots))
            self._version[: len(version)], self._dirty[: len(dirty)] = version, dirty
            self._fresh[: len(fresh)] = fresh
        self._columns.grow(len(self._slots))

    @property
    def is_dirty(self) -> bool:
        """Return True when partials have changed since the last `clean`."""
        return bool(self._dirty.any())

    def dirty(self) -> list[Partial]:
        """Return the partials that have changed since the last `clean`."""
        at = np.flatnonzero(self._dirty)
        return self._partials(at)

    def fresh(self) -> list[SlotName]:
        """Return the slots that were made since the last `noted`, and that no commit knows."""
        at = np.flatnonzero(self._fresh)
        group, start, bucket = (column[at] for column in self._slots.columns())
        names = zip(self.groups.keys(group), start.tolist(), bucket.tolist(), strict=True)
        return [SlotName(key, *self._bounds(begin), late) for key, begin, late in names]

    def noted(self) -> None:
        """Take all slots for known."""
        self._fresh[:] = False

    def _bounds(self, start: int) -> tuple[int | None, int | None]:
        """Return the window's start and end."""
        return (None, None) if self.view.window is None else (start, self.view.window.end(start))

    def clean(self) -> None:
        """Mark all partials as written."""
        self._dirty[:] = False

    def mark_all(self) -> None:
        """Mark all partials as unwritten, and known: after a take-over nobody knows what was written of a commit."""
        self._dirty[: len(self)] = True
        self.noted()

    def _partials(self, at: Ints) -> list[Partial]:
        group, start, bucket = self._slots.columns()
        keys = self.groups.keys(group[at])
        partials = self._columns.partials(at)
        return [
            Partial(
                key,
                *self._bounds(begin),
                late,
                version.decode(),
                partial,
            )
            for key, begin, late, version, partial in zip(
                keys, start[at].tolist(), bucket[at].tolist(), self._version[at].tolist(), partials, strict=True
            )
        ]

    def evict(self, max_ts: int) -> int:
        """Drop the written slots that no event can enter any more; return how many there were."""
        if self.view.window is None or not len(self):
            return 0
        _, start, bucket = self._slots.columns()
        watermark = max(max_ts - self._lateness_ms, self.left_ms)
        hour = watermark // HOUR_MS
        left = np.where(bucket == 0, windowing.ends(self.view.window, start) <= watermark, bucket < hour)
        done = left & ~self._dirty[: len(self)]
        if not done.any():
            return 0
        self.left_ms = watermark
        self._keep(np.flatnonzero(~done))
        return int(done.sum())

    def forget(self, key: KeyValue) -> int:
        """Drop the slots of rows whose key column has this value; return how many there were."""
        if key.column not in self.view.by or not len(self):
            return 0
        group, _, _ = self._slots.columns()
        at = self.view.by.index(key.column)
        gone = np.array([key.matches(one[at]) for one in self.groups.keys(group)], np.bool_)
        if gone.any():
            self._keep(np.flatnonzero(~gone))
        return int(gone.sum())

    def _keep(self, at: Ints) -> None:
        """Keep only these slots, and number the groups anew so that keys without slots leave the memory."""
        group, start, bucket = (array[at] for array in self._slots.columns())
        keys = self.groups.keys(group)
        self._columns.keep(at)
        self._version, self._dirty, self._fresh = self._version[at], self._dirty[at], self._fresh[at]
        self.groups = GroupIndex(len(self.view.by))
        self._slots = SlotIndex()
        if len(at):
            renumbered = self.groups.of_keys(keys)
            self._slots.load(renumbered, start, bucket, len(self.groups))

    def to_tables(self) -> tuple[pa.Table, pa.Table]:
        """Return two tables for a snapshot: the slots with their keys, and their aggregates."""
        group, start, bucket = self._slots.columns()
        keys = self.groups.keys(group)
        names = {f"key{i}": _typed([key[i] for key in keys]) for i in range(len(self.view.by))}
        version, dirty = self._version[: len(self)].astype("U56"), self._dirty[: len(self)]
        slots = names | {"start": start, "bucket": bucket, "version": version, "dirty": dirty}
        slots["fresh"] = self._fresh[: len(self)]
        about = {_VIEW: self._definition(), _LEFT: str(self.left_ms).encode()}
        table = pa.table(slots).replace_schema_metadata(about)
        return table, self._columns.to_table()

    def load_tables(self, slots: pa.Table, aggregates: pa.Table) -> None:
        """Load the tables of a snapshot.

        Raises UsageError when they were kept for another definition, since rows of both would then lie in one view.
        """
        self._reset()
        about = slots.schema.metadata or {}
        self.left_ms = int(about.get(_LEFT, ALWAYS))  # snapshots of earlier versions lack it
        was, now = about.get(_VIEW), self._definition()
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
        self._fresh = np.zeros(len(self._dirty), np.bool_)
        if "fresh" in slots.column_names:  # snapshots of earlier versions lack it
            self._fresh = slots["fresh"].to_numpy(zero_copy_only=False).copy()

    def _definition(self) -> bytes:
        """Return the definition of keys and windows, to compare; the aggregates' table carries its own."""
        window = self.view.window
        shape = None if window is None else window.to_json()
        return json.dumps({"by": self.view.by, "window": shape}).encode()

    def _changed(self, how: str) -> UsageError:
        return UsageError(
            f"view {self.view.name} was changed in place: {how}. Give the new definition a higher version beside the "
            "old one, and run headwater view rebuild"
        )


def _typed(values: Sequence[object]) -> pa.Array:
    return pa.array(values) if any(value is not None for value in values) else pa.nulls(len(values), pa.string())


def _last_rows(slots: Ints, total: int) -> tuple[Ints, Ints]:
    """Return the slots that rows go to, of `total`, and the last row of each."""
    if len(slots) * 16 < total:  # few rows of a large state: not one array over all of it
        at, back = np.unique(slots[::-1], return_index=True)
        return at, len(slots) - 1 - back
    last = np.full(total, -1, np.int64)
    last[slots] = np.arange(len(slots))  # of equal slots the last assignment stays
    at = np.flatnonzero(last >= 0)
    return at, last[at]
