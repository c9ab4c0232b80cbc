"""Find the fewest shards that keep each under a cap, with as few boundaries moved as possible. Pure.

Load is monotone in the range, so filling shards from the left as far as each will go gives the fewest. The same from
the right gives for every boundary how far left it may lie. Between the two a boundary may go anywhere: it stays where
one is already, else it goes where the load left to share is shared evenly (for two shards: the median).
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from headwater.processors.scaling.limits import MIN_WIDTH
from headwater.processors.scaling.load import Floats, LoadCurve
from headwater.processors.scaling.topology import Layout, even_layout
from headwater.stream.hashkeys import HASH_SPACE

__all__ = ["Cap", "Cells", "even_count", "fewest_shards", "over", "split_and_merge"]

GRID = 1 << 64
"""New boundaries are multiples of it: 2^64 of them are fine enough, and no two are too near for a shard between."""
_SLACK = 1 + 1e-9
"""A shard may be over the cap by the rounding of floats, so that one exactly at the cap is not over it."""


@dataclass(frozen=True)
class Cap:
    """Hold the most that a shard may carry, in bytes and records per second."""

    bytes_s: float
    records_s: float

    def scaled(self, factor: float) -> "Cap":
        """Return the cap times `factor`.

        >>> Cap(1_000.0, 10.0).scaled(2)
        Cap(bytes_s=2000.0, records_s=20.0)
        """
        return Cap(self.bytes_s * factor, self.records_s * factor)


class Cells:
    """Hold the places where a boundary may lie, ascending from `start` to `stop`, and the load before each."""

    def __init__(
        self, curve: LoadCurve, start: int, stop: int, fixed: Iterable[int], hints: Iterable[int], wished: Iterable[int]
    ) -> None:
        self.fixed = sorted({at for at in fixed if start < at < stop})
        places = _with([start, *self.fixed, stop], hints)
        self.at = _with(places, (at - at % GRID for at in wished))
        self.by, self.records = curve.below(self.at)
        existing = set(self.fixed)
        self.existing = np.array([i for i, at in enumerate(self.at) if at in existing], np.int64)

    def reach(self, i: int, cap: Cap) -> int:
        """Return the last place to which a shard from place `i` may extend.

        It is one place further at least, even where that cell alone is over the cap: no boundary can divide it.
        """
        far = min(
            int(np.searchsorted(self.by, self.by[i] + cap.bytes_s * _SLACK, "right")),
            int(np.searchsorted(self.records, self.records[i] + cap.records_s * _SLACK, "right")),
        )
        return max(far - 1, i + 1)

    def back(self, j: int, cap: Cap) -> int:
        """Return the first place from which a shard that ends at place `j` may extend."""
        near = max(
            int(np.searchsorted(self.by, self.by[j] - cap.bytes_s * _SLACK, "left")),
            int(np.searchsorted(self.records, self.records[j] - cap.records_s * _SLACK, "left")),
        )
        return min(near, j - 1)

    def fewest(self, cap: Cap) -> int:
        """Return the fewest shards that keep each under the cap."""
        at, count, last = 0, 0, len(self.at) - 1
        while at < last:
            at = self.reach(at, cap)
            count += 1
        return count

    def place(self, cap: Cap, count: int) -> list[int]:
        """Return the first hash keys of `count` shards under the cap; `count` is at least `fewest(cap)`."""
        last = len(self.at) - 1
        count = min(count, last)
        leftmost = [last]
        while len(leftmost) < count:
            leftmost.append(self.back(leftmost[-1], cap) if leftmost[-1] > 0 else 0)
        even = self.by / cap.bytes_s + self.records / cap.records_s
        chosen = [0]
        for left in range(count - 1, 0, -1):
            i = chosen[-1]
            # From the right: any further left, and the shards to come could not hold the rest.
            low, high = max(leftmost[left], i + 1), min(self.reach(i, cap), last - left)
            wish = even[i] + (even[last] - even[i]) / (left + 1)
            chosen.append(self._nearest(even, wish, min(low, high), high))
        return [self.at[i] for i in chosen]

    def _nearest(self, even: Floats, wish: float, low: int, high: int) -> int:
        """Return the existing boundary from `low` to `high` nearest to the wish, else the nearest new one."""
        found = self.existing[np.searchsorted(self.existing, low) : np.searchsorted(self.existing, high, "right")]
        if len(found):
            return int(found[np.argmin(np.abs(even[found] - wish))])
        i = int(np.searchsorted(even, wish))
        if 0 < i < len(even) and wish - even[i - 1] < even[i] - wish:
            i -= 1
        return min(max(i, low), high)


def _with(places: list[int], more: Iterable[int]) -> list[int]:
    """Return the places and those of `more` that leave room for a shard on both sides, ascending."""
    free = []
    for at in set(more):
        i = bisect_left(places, at)
        if places[0] < at < places[-1] and at - places[i - 1] >= MIN_WIDTH and places[i] - at >= MIN_WIDTH:
            free.append(at)
    return sorted([*places, *free])


def over(curve: LoadCurve, layout: Layout, cap: Cap) -> list[int]:
    """Return the indexes of the shards of the layout that are over the cap.

    >>> from headwater.processors.scaling.load import even_load
    >>> over(even_load(2_500_000, 100), even_layout(2), Cap(1_000_000, 1_000))
    [0, 1]
    """
    by, records = curve.per_shard(layout)
    hot = (by > cap.bytes_s * _SLACK) | (records > cap.records_s * _SLACK)
    return [int(i) for i in np.flatnonzero(hot)]


def even_count(curve: LoadCurve, cap: Cap, most: int) -> int | None:
    """Return the fewest even shards that are all under the cap; None when not even `most` hold the load.

    More even shards are not always cooler ones (the boundaries move), so each count from the least possible is tried;
    far from it in steps of one part in 64.

    >>> from headwater.processors.scaling.load import even_load
    >>> even_count(even_load(2_500_000, 100), Cap(1_000_000, 1_000), most=100)
    3
    """
    if any(point.bytes_s > cap.bytes_s or point.records_s > cap.records_s for point in curve.points):
        return None
    count = _at_least(curve, cap)
    while count <= most:
        layout = tuple(at * HASH_SPACE // count for at in range(count))
        if not over(curve, layout, cap):
            return count
        count += 1 if count < 256 else count // 64
    return None


def _at_least(curve: LoadCurve, cap: Cap) -> int:
    """Return a lower bound of the number of even shards, by the whole load and by the densest part.

    A part with the load of more than three shards has a shard wholly inside, which is as hot as the part is dense.
    """
    by, records = curve.total
    least = max(1.0, by / cap.bytes_s, records / cap.records_s)
    shares = np.array([(stop - start) / HASH_SPACE for start, stop in pairwise(curve.edges)])
    for loads, most in ((curve.bytes_s, cap.bytes_s), (curve.records_s, cap.records_s)):
        dense = loads > 3 * most
        if dense.any():
            least = max(least, float((loads[dense] / shares[dense]).max()) / most)
    return int(np.ceil(least * (1 - 1e-9)))


def fewest_shards(curve: LoadCurve, current: Layout, cap: Cap, hints: Layout = (), floor: int = 1) -> Layout:
    """Return the layout of the fewest shards under the cap, with as few boundaries moved as possible.

    `hints` are further places a boundary may take. A cell too hot by itself (one key) gets a shard of its own.

    >>> from headwater.processors.scaling.load import even_load
    >>> len(fewest_shards(even_load(2_500_000, 100), even_layout(2), Cap(1_000_000, 1_000)))
    3
    """
    wished = [*even_layout(floor), *_wished(curve, cap, 0, HASH_SPACE)]
    cells = Cells(curve, 0, HASH_SPACE, current, hints, wished)
    count = max(cells.fewest(cap), floor)
    if count == len(current) and not over(curve, current, cap):
        return current
    return tuple(cells.place(cap, count))


def split_and_merge(curve: LoadCurve, current: Layout, cap: Cap, merge_below: float, floor: int = 1) -> Layout:
    """Return the layout in which shards over the cap are split and cold neighbours merged; the rest stays.

    Neighbours are merged while together they stay below the share `merge_below` of the cap, and `floor` shards remain.

    >>> from headwater.processors.scaling.load import even_load
    >>> split_and_merge(even_load(100_000, 100), even_layout(4), Cap(1_000_000, 1_000), merge_below=0.85)
    (0,)
    """
    hot = set(over(curve, current, cap))
    ends = (*current[1:], HASH_SPACE)
    by, records = curve.per_shard(current)
    fill = np.maximum(by / cap.bytes_s, records / cap.records_s)
    spare = len(current) - floor
    out: list[int] = []
    free = 0.0
    for i, (start, end) in enumerate(zip(current, ends, strict=True)):
        if i in hot:
            cells = Cells(curve, start, end, (), (), _wished(curve, cap, start, end))
            out += cells.place(cap, cells.fewest(cap))
            free = 0.0
            continue
        if out and fill[i] <= free and spare > 0:
            free -= float(fill[i])
            spare -= 1
            continue
        out.append(start)
        free = merge_below - float(fill[i])
    return tuple(out)


def _wished(curve: LoadCurve, cap: Cap, start: int, stop: int) -> list[int]:
    """Return where boundaries may be good.

    These are the places around heavy keys, the edges of the curve's parts, and 32 even steps for each shard's worth of
    load.
    """
    wished = [at for at in curve.edges if start < at < stop]
    for point in curve.points:
        wished += [point.position - point.position % GRID, point.position - point.position % GRID + GRID]
    edges = sorted({start, stop, *wished})
    edges = [at for at in edges if start <= at <= stop]
    by, records = curve.below(edges)
    fill = np.maximum(np.diff(by) / cap.bytes_s, np.diff(records) / cap.records_s)
    # Not more than 2^17 steps in a stretch, so that an absurd load cannot exhaust the memory.
    steps = np.clip(np.ceil(fill * 32), 1, 1 << 17).astype(int).tolist()
    for one, other, count in zip(edges, edges[1:], steps, strict=False):
        wished += [one + (other - one) * k // count for k in range(1, count)]
    return wished
