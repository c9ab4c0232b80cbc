"""Sets of integers as half-open intervals `[start, stop)`: one set as an object, or many in arrays."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

__all__ = ["Interval", "IntervalSet", "Ints", "LowIntervals", "merged"]

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Rows = tuple[Ints, Ints, Ints]
"""Code, start and stop of each interval."""
Interval = tuple[int, int]


class IntervalSet:
    """A set of integers kept as sorted, disjoint, non-adjacent intervals."""

    __slots__ = ("_starts", "_stops")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in intervals:
            self.add(start, stop)

    @property
    def intervals(self) -> list[Interval]:
        return list(zip(self._starts, self._stops, strict=True))

    def add(self, start: int, stop: int) -> None:
        """Unite with `[start, stop)`; an empty interval changes nothing."""
        if stop <= start:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def gaps(self, start: int, stop: int) -> list[Interval]:
        """The parts of `[start, stop)` that are not in the set."""
        out: list[Interval] = []
        at = bisect_right(self._stops, start)
        while start < stop and at < len(self._starts) and self._starts[at] < stop:
            if start < self._starts[at]:
                out.append((start, self._starts[at]))
            start = self._stops[at]
            at += 1
        if start < stop:
            out.append((start, stop))
        return out

    def near(self, start: int, stop: int) -> Iterator[Interval]:
        """The intervals that overlap `[start, stop)` or touch it."""
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        return zip(self._starts[first:last], self._stops[first:last], strict=True)

    def union(self, other: "IntervalSet") -> "IntervalSet":
        return IntervalSet([*self.intervals, *other.intervals])

    def difference(self, other: "IntervalSet") -> "IntervalSet":
        return IntervalSet(gap for start, stop in self.intervals for gap in other.gaps(start, stop))

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._stops[at]

    def __len__(self) -> int:
        return sum(self._stops) - sum(self._starts)

    def __iter__(self) -> Iterator[Interval]:
        return iter(self.intervals)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntervalSet) and self.intervals == other.intervals

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"IntervalSet({self.intervals})"


class LowIntervals:
    """A set of intervals per code, for many codes: in arrays, 24 bytes an interval, and what came since beside them.

    Both together are the set; they may overlap until `settle` unites them.
    """

    def __init__(self) -> None:
        self._rows: Rows = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._new: dict[int, IntervalSet] = {}

    @property
    def crowded(self) -> bool:
        """Whether it is time to settle: what is beside the arrays takes twenty times their room."""
        return len(self._new) > max(1 << 14, len(self._rows[0]) // 16)

    def add(self, code: int, start: int, stop: int) -> None:
        self._new.setdefault(code, IntervalSet()).add(start, stop)

    def near(self, code: int, start: int, stop: int) -> list[Interval]:
        """The code's intervals that overlap `[start, stop)` or touch it."""
        first, last = self._range(code)
        starts, stops = self._rows[1][first:last], self._rows[2][first:last]
        at = slice(int(np.searchsorted(stops, start)), int(np.searchsorted(starts, stop, "right")))
        found = list(zip(starts[at].tolist(), stops[at].tolist(), strict=True))
        return [*found, *self._new[code].near(start, stop)] if code in self._new else found

    def of(self, code: int) -> IntervalSet:
        """All of the code's intervals."""
        first, last = self._range(code)
        found = IntervalSet(self._new.get(code, ()))
        for start, stop in zip(self._rows[1][first:last].tolist(), self._rows[2][first:last].tolist(), strict=True):
            found.add(start, stop)
        return found

    def forget(self, codes: Ints) -> None:
        """As if nothing had been added for these."""
        for code in codes.tolist():
            self._new.pop(code, None)
        if len(codes) and np.isin(self._rows[0], codes).any():
            kept = ~np.isin(self._rows[0], codes)
            self._rows = (self._rows[0][kept], self._rows[1][kept], self._rows[2][kept])

    def settle(self, below: Ints) -> Rows:
        """All there is, united, without what does not lie below its code's entry in `below`."""
        rows = self._rows
        if self._new:
            sizes = [len(one.intervals) for one in self._new.values()]
            came = (
                np.repeat(np.fromiter(self._new, np.int64, len(self._new)), sizes),
                np.array([start for one in self._new.values() for start in one._starts], np.int64),
                np.array([stop for one in self._new.values() for stop in one._stops], np.int64),
            )
            rows, self._new = merged(*(np.concatenate(pair) for pair in zip(rows, came, strict=True))), {}
        kept = rows[1] < below[rows[0]]
        self._rows = rows if kept.all() else (rows[0][kept], rows[1][kept], rows[2][kept])
        return self._rows

    def put(self, rows: Rows) -> None:
        """Have these, which are sorted and disjoint, and no others."""
        self._rows, self._new = rows, {}

    def _range(self, code: int) -> tuple[int, int]:
        codes = self._rows[0]
        return int(np.searchsorted(codes, code)), int(np.searchsorted(codes, code, "right"))


def merged(code: Ints, start: Ints, stop: Ints) -> Rows:
    """The intervals sorted by code and start, with those of a code that overlap or touch made one."""
    if not len(code):
        return code, start, stop
    order = np.lexsort((start, code))
    code, start, stop = code[order], start[order], stop[order]
    first = np.diff(code, prepend=-1) != 0
    # the highest stop so far within the code, by its rank: so that a running maximum begins anew with each code
    ranked, rank = np.unique(stop, return_inverse=True)
    group = (np.cumsum(first) - 1) * len(ranked)
    highest = ranked[np.maximum.accumulate(group + rank) - group]
    first[1:] |= start[1:] > highest[:-1]
    begins = np.flatnonzero(first)
    return code[begins], start[begins], highest[np.append(begins[1:], len(code)) - 1]
