"""Intervals of many origins in arrays: looked up and added a batch at a time.

An interval here is a code (the number of an origin) with the *first and the last* number, so that every 64-bit integer
has a place: a half-open stop would overflow at the highest. Everything is sorted by code and number.

Pure arithmetic on arrays; what an origin is, and when it is forgotten, is `origins`' business.
"""

import numpy as np

from headwater.arrays import Ints, Mask

__all__ = ["LowIntervals", "Runs", "total", "touching", "united"]

Runs = tuple[Ints, Ints, Ints]
"""Code, first and last number of each interval."""

_GROWTH = 4
"""A level is at least so many times as long as the next newer one: a lookup visits few levels, and a row is moved a
few times for each level. 4 and 8 cost the same within the noise at 10 M rows; 2 looks up in twice the levels."""
_FEW = 64
"""Codes in a lookup up to which each is searched by itself: beyond, all are bisected in step."""


def _no_rows() -> Runs:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)


class LowIntervals:
    """Hold disjoint intervals per code, in levels of rising age and length, 24 bytes an interval.

    New rows make a level of their own. When it is not much shorter than the next it is merged into that, and so on: a
    log-structured merge. So adding costs O(log n) a row however the numbers come, and no lookup waits for a sort of
    everything.
    """

    def __init__(self) -> None:
        self._levels: list[Runs] = []

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(len(level[0]) for level in self._levels)

    def add(self, rows: Runs) -> None:
        """Add rows that are sorted, and disjoint from one another and from all there are."""
        if not len(rows[0]):
            return
        self._levels.append(rows)
        while len(self._levels) > 1 and len(self._levels[-2][0]) < _GROWTH * len(self._levels[-1][0]):
            self._merge_newest()

    def holds(self, code: Ints, number: Ints) -> Mask:
        """Return for each pair, sorted by code and number, whether it is in an interval."""
        found = np.zeros(len(code), np.bool_)
        for level in self._levels:
            found |= _inside(level, code, number)
        return found

    def between(self, code: int, first: int, last: int) -> list[tuple[int, int]]:
        """Return the code's intervals that overlap `first` to `last`, in order."""
        found: list[tuple[int, int]] = []
        for codes, firsts, lasts in self._levels:
            low, high = np.searchsorted(codes, code), np.searchsorted(codes, code, "right")
            start = low + np.searchsorted(lasts[low:high], first)
            stop = low + np.searchsorted(firsts[low:high], last, "right")
            found += zip(firsts[start:stop].tolist(), lasts[start:stop].tolist(), strict=True)
        return sorted(found)

    def forget(self, codes: Ints) -> None:
        """Remove all intervals of these codes."""
        kept = [level[0] for level in self._levels]
        if not len(codes) or not any(np.isin(codes, level).any() for level in kept):
            return
        levels = [tuple(column[~np.isin(level[0], codes)] for column in level) for level in self._levels]
        self._levels = [(level[0], level[1], level[2]) for level in levels if len(level[0])]

    def settle(self) -> Runs:
        """Return all rows sorted by code and number, with those that touch made one."""
        while len(self._levels) > 1:
            self._merge_newest()
        return self._levels[0] if self._levels else _no_rows()

    def put(self, rows: Runs) -> None:
        """Hold these rows, which are sorted, disjoint and do not touch, and no others."""
        self._levels = [rows] if len(rows[0]) else []

    def _merge_newest(self) -> None:
        newer, older = self._levels.pop(), self._levels.pop()
        # np.insert takes the places in the older level, and moves each of its rows once
        places = _rank(older, newer[0], newer[1])
        code, first, last = (np.insert(old, places, new) for old, new in zip(older, newer, strict=True))
        self._levels.append(_joined((code, first, last)))


def _inside(level: Runs, code: Ints, number: Ints) -> Mask:
    at = _rank(level, code, number) - 1
    known = at >= 0
    at[~known] = 0
    known &= level[0][at] == code
    known &= level[2][at] >= number
    return known


def _rank(level: Runs, code: Ints, number: Ints) -> Ints:
    """Return for each pair how many rows of the level begin at or before it. The pairs are sorted."""
    codes, firsts, _ = level
    begins = np.flatnonzero(np.diff(code, prepend=-1)) if len(code) else np.zeros(0, np.int64)
    distinct, sizes = code[begins], np.diff(np.append(begins, len(code)))
    low_of, high_of = np.searchsorted(codes, distinct), np.searchsorted(codes, distinct, "right")
    if len(distinct) <= _FEW:
        parts = [
            low + np.searchsorted(firsts[low:high], number[begin : begin + size], "right")
            for low, high, begin, size in zip(low_of, high_of, begins, sizes, strict=True)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)
    low, high = np.repeat(low_of, sizes), np.repeat(high_of, sizes)
    # one bisection for all pairs, each within its code's rows: as many turns as the longest of them needs
    for _ in range(int((high_of - low_of).max()).bit_length()):
        middle = (low + high) >> 1
        open_ = low < high
        # where nothing is left to halve, middle may lie behind the last row
        after = open_ & (firsts[np.minimum(middle, len(firsts) - 1)] <= number)
        low = np.where(after, middle + 1, low)
        high = np.where(open_ & ~after, middle, high)
    return low


def touching(code: Ints, first: Ints, last: Ints) -> Mask:
    """Tell for each sorted row whether it goes on where the row before it, of the same code, ends or overlaps it."""
    found = np.zeros(len(code), np.bool_)
    # first - 1 cannot wrap where it matters: a row of the lowest number has none before it that it does not overlap
    found[1:] = (code[1:] == code[:-1]) & ((first[1:] <= last[:-1]) | (first[1:] - 1 == last[:-1]))
    return found


def _joined(rows: Runs) -> Runs:
    """Make one of rows that touch; they are sorted and disjoint."""
    code, first, last = rows
    begins = np.flatnonzero(~touching(code, first, last))
    if len(begins) == len(code):
        return rows
    return code[begins], first[begins], last[np.append(begins[1:], len(code)) - 1]


def united(code: Ints, first: Ints, last: Ints) -> Runs:
    """Return the rows sorted by code and number, with those of a code that overlap or touch made one."""
    if not len(code):
        return code, first, last
    order = np.lexsort((first, code))
    code, first, last = code[order], first[order], last[order]
    begins = np.diff(code, prepend=-1) != 0
    # the highest last number so far within the code, by its rank, so that a running maximum begins anew with each code
    ranked, rank = np.unique(last, return_inverse=True)
    group = (np.cumsum(begins) - 1) * len(ranked)
    highest = ranked[np.maximum.accumulate(group + rank) - group]
    begins[1:] |= (first[1:] > highest[:-1]) & (first[1:] - 1 != highest[:-1])
    at = np.flatnonzero(begins)
    return code[at], first[at], highest[np.append(at[1:], len(code)) - 1]


def total(first: Ints, last: Ints) -> int:
    """Return how many numbers are in the intervals, exactly, whatever their sum."""
    # as unsigned the differences do not overflow; halves of 32 bits do not when they are summed
    spans = last.view(np.uint64) - first.view(np.uint64)
    high, low = spans >> np.uint64(32), spans & np.uint64(0xFFFFFFFF)
    return (int(high.sum()) << 32) + int(low.sum()) + len(spans)
