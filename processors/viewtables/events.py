"""Read the events of a snapshot for some windows of a view, and find the windows that later files have events of.

Files are left out by the bounds of their event times, row groups by their statistics. A snapshot is planned once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from headwater.arrays import Ints, times
from headwater.contract.values import MAX_MS
from headwater.processors.audit.places import Hashes, place_hash, places_of
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.operators.aggregate import ALWAYS, Partial, ViewState
from headwater.processors.rebuild.from_lake import fold
from headwater.sinks.lake.history import least_time
from headwater.sinks.lake.reading import TableReader, plan
from headwater.sinks.views.items import key_text

__all__ = ["EventSource", "LateWindows", "TooMany"]

_NEVER = 1 << 62


class TooMany(Exception):
    """Say that a span has more windows of keys than are to be in memory."""


@dataclass(frozen=True)
class LateWindows:
    """Hold windows of keys that are to be computed again: hashes of their places, and the starts (epoch ms) in order.

    >>> import numpy as np
    >>> len(LateWindows(np.zeros(0, np.uint64), np.zeros(0, np.int64)))
    0
    """

    places: Hashes
    starts: Ints

    def __len__(self) -> int:
        return len(self.places)

    def joined(self, other: "LateWindows") -> "LateWindows":
        """Return the windows of both."""
        places = np.union1d(self.places, other.places)
        return LateWindows(places, np.union1d(self.starts, other.starts))

    def parts(self, most: int) -> "Iterator[LateWindows]":
        """Yield all of them, at most so many at a time."""
        for at in range(0, len(self), most):
            yield LateWindows(self.places[at : at + most], self.starts)


class _TimedFile(NamedTuple):
    """Hold a file with its least and greatest event time, epoch ms; the widest where it does not say."""

    task: FileScanTask
    low: int
    high: int


NONE = LateWindows(np.zeros(0, np.uint64), np.zeros(0, np.int64))


class EventSource:
    """Read the events' table for one view."""

    def __init__(self, table: Table, pipeline: Pipeline, view: View) -> None:
        assert view.window is not None
        self._table, self._pipeline, self._view = table, pipeline, view
        self._size, self._every = view.window.size_ms, view.window.every_ms
        self._reader = TableReader(table)
        self._time = pipeline.contract.time
        self._planned: tuple[int, list[_TimedFile]] = 0, []

    def late(self, files: Sequence[DataFile], through_ms: int) -> LateWindows:
        """Return the windows that end by `through_ms` and have events in these files."""
        found = NONE
        for file in files:
            if least_time(self._table, file, self._time) // 1000 >= through_ms:
                continue
            for rows in self._rows(FileScanTask(file), self._view.by, ALWAYS, through_ms):
                places = places_of(self._view, rows, times(rows, self._time))
                ended = places.start + self._size <= through_ms
                found = found.joined(LateWindows(places.hash[ended], places.start[ended]))
        return found

    def amended(self, snapshot_id: int, windows: LateWindows) -> list[Partial]:
        """Return the partials of these windows, over all events of the snapshot."""
        state = ViewState(self._view, 0)
        first, last = int(windows.starts[0]), int(windows.starts[-1]) + self._size
        for task, low, high in self._files(snapshot_id):
            # windows that begin within `size` before the file's last event, and end after its first
            at = np.searchsorted(windows.starts, low - self._size, "right")
            if at == len(windows.starts) or windows.starts[at] > high:
                continue
            for rows in self._rows(task, self._columns, max(first, low), min(last, high + 1)):
                places = places_of(self._view, rows, times(rows, self._time))
                wanted = np.unique(places.at[np.isin(places.hash, windows.places)])
                fold(state, rows.take(pa.array(wanted)), self._pipeline, 0)
        if self._size == self._every:
            return state.dirty()
        # an event of a wanted window is in others, too, and these are not whole here
        known = set(windows.places.tolist())
        return [one for one in state.dirty() if place_hash((key_text(one.key), one.window_start_ms)) in known]

    def ending_in(self, snapshot_id: int, after_ms: int, until_ms: int, most: int) -> list[Partial]:
        """Return the partials of the windows that end in `(after_ms, until_ms]`; raise TooMany beyond `most` of them.

        Both are multiples of the window's step. The windows of one end are returned however many they are.
        """
        state = ViewState(self._view, 0)
        begin = after_ms - self._size + self._every
        for task, low, high in self._files(snapshot_id):
            if high < begin or low >= until_ms:
                continue
            for rows in self._rows(task, self._columns, begin, until_ms):
                fold(state, rows, self._pipeline, 0)
                if len(state) > most and until_ms - after_ms > self._every:
                    raise TooMany
        ends = ((one, one.window_end_ms or 0) for one in state.dirty())
        return [one for one, end in ends if after_ms < end <= until_ms]

    def next_after(self, snapshot_id: int, after_ms: int) -> int | None:
        """Return the time, a multiple of the window's step from `after_ms` on, up to which no window with events ends;
        None when no window with events ends after `after_ms`.
        """
        begin = after_ms - self._size + self._every
        begins = [max(low, begin) for _, low, high in self._files(snapshot_id) if high >= begin]
        if not begins:
            return None
        return max(after_ms, min(begins) // self._every * self._every)

    @property
    def _columns(self) -> Sequence[str]:
        return (*self._view.by, *(name for one in self._view.aggregates for name in one.reads))

    def _rows(self, task: FileScanTask, columns: Sequence[str], begin_ms: int, stop_ms: int) -> Iterator[pa.Table]:
        """Yield the rows of a file whose time is in `[begin_ms, stop_ms)`, in these columns and the time."""
        names = list(dict.fromkeys([*columns, self._time]))
        where = None
        for edge, compare in ((begin_ms, pc.greater_equal), (stop_ms, pc.less)):
            if abs(edge) <= MAX_MS:  # what lies beyond is no bound of a time in the lake
                one = compare(pc.field(self._time), pa.scalar(edge * 1000, pa.timestamp("us", "UTC")))
                where = one if where is None else where & one
        for batch in self._reader.batches(task, names, where):
            rows = pa.Table.from_batches([batch])
            yield rows.cast(pa.schema([self._pipeline.schema.field(name) for name in names]), safe=False)

    def _files(self, snapshot_id: int) -> list[_TimedFile]:
        """Return the files of a snapshot; those of the last one that was asked for are kept."""
        if self._planned[0] != snapshot_id:
            self._planned = snapshot_id, [self._timed(task) for task in plan(self._table, snapshot_id)]
        return self._planned[1]

    def _timed(self, task: FileScanTask) -> _TimedFile:
        field = self._table.schema().find_field(self._time)
        bound = (task.file.upper_bounds or {}).get(field.field_id)
        high = _NEVER if bound is None else int(from_bytes(field.field_type, bound)) // 1000
        return _TimedFile(task, least_time(self._table, task.file, self._time) // 1000, high)
