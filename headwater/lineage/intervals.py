"""One set of integers as an object: sorted half-open intervals `[start, stop)` of Python integers of any size.

For many sets at once there is `lowintervals`, in arrays.
"""

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

__all__ = ["Interval", "IntervalSet"]

Interval = tuple[int, int]


class IntervalSet:
    """Hold a set of integers as sorted, disjoint intervals that do not touch.

    >>> seen = IntervalSet([(0, 5), (5, 9), (20, 21)])
    >>> seen
    IntervalSet([(0, 9), (20, 21)])
    >>> len(seen), 8 in seen, seen.gaps(0, 30)
    (10, True, [(9, 20), (21, 30)])
    """

    __slots__ = ("_starts", "_stops")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in intervals:
            self.add(start, stop)

    @property
    def intervals(self) -> list[Interval]:
        """Return the intervals in order."""
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
        """Return the parts of `[start, stop)` that are not in the set."""
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

    def union(self, other: "IntervalSet") -> "IntervalSet":
        """Return the set of the numbers that are in one or both."""
        return IntervalSet([*self.intervals, *other.intervals])

    def difference(self, other: "IntervalSet") -> "IntervalSet":
        """Return the set of the numbers that are here and not in the other."""
        return IntervalSet(gap for start, stop in self.intervals for gap in other.gaps(start, stop))

    def __contains__(self, number: int) -> bool:
        """Tell whether the number is in the set."""
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._stops[at]

    def __len__(self) -> int:
        """Return how many numbers are in the set; `sys.maxsize` where there are more, as Python takes no higher one."""
        return min(sum(self._stops) - sum(self._starts), sys.maxsize)

    def __iter__(self) -> Iterator[Interval]:
        """Iterate over the intervals in order."""
        return iter(self.intervals)

    def __eq__(self, other: object) -> bool:
        """Tell whether both hold the same numbers."""
        return isinstance(other, IntervalSet) and self.intervals == other.intervals

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        """Show the intervals."""
        return f"IntervalSet({self.intervals})"
