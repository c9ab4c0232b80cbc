"""Sets of event identities, `(origin, seq)`, as intervals.

One mechanism answers whether an event was seen, which events are missing, and what may be replayed.
All intervals are half-open: `[start, stop)`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from headwater.names import Names, grown

__all__ = ["IntervalSet", "OriginSets", "sorted_rows"]

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
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


class OriginSets:
    """An IntervalSet per origin, laid out in arrays so that a whole batch is looked up and added at once.

    Each origin keeps its highest interval `[lo, hi)` in arrays, for an origin nearly always counts on where it
    stopped; lower intervals (left by a gap) live beside it in `below`. `horizon_ms` bounds the memory: an origin
    from which nothing arrived for longer is as good as never seen. That is decided from the arrival times of the
    records alone, and only when the origin is met again, so it does not depend on when anything was pruned.
    """

    def __init__(self, horizon_ms: int = 30 * 86_400_000) -> None:
        self.horizon_ms = horizon_ms
        self._names = Names()
        self._lo: Ints = np.zeros(0, np.int64)
        self._hi: Ints = np.zeros(0, np.int64)
        self._seen_ms: Ints = np.zeros(0, np.int64)
        self._below: dict[int, IntervalSet] = {}

    def __len__(self) -> int:
        return len(self._names)

    def codes(self, origins: pa.Array | Sequence[str]) -> Ints:
        """The index of each origin, new ones taken in."""
        codes = self._names.codes(origins if isinstance(origins, pa.Array) else pa.array(origins, pa.string()))
        if len(self._names) > len(self._lo):
            self._lo, self._hi, self._seen_ms = (
                grown(column, len(self._names)) for column in (self._lo, self._hi, self._seen_ms)
            )
        return codes

    def name(self, code: int) -> str:
        """The origin of a code."""
        return self._names[code]

    def add(self, codes: Ints, seqs: Ints, arrived_ms: Ints) -> Mask:
        """Add events in their order on the shard; True where the event was not in the set before.

        All three arrays have one entry an event; `arrived_ms` must not span more than the horizon. Of copies
        within the call the first is the new one.
        """
        new = np.zeros(len(codes), np.bool_)
        if not len(codes):
            return new
        order, code, seq = sorted_rows(codes, seqs)
        changed = np.empty(len(code), np.bool_)
        changed[0] = True
        np.not_equal(code[1:], code[:-1], out=changed[1:])
        step = np.diff(seq, prepend=seq[0])
        unique = changed | (step != 0)
        starts = np.flatnonzero(changed | (step > 1))
        stops = np.append(starts[1:], len(code))
        run_code, run_start, run_stop = code[starts], seq[starts], seq[stops - 1] + 1
        self._forget_expired(order, code, changed, arrived_ms)
        threshold = self._add_runs(run_code, run_start, run_stop)
        rows_run = np.repeat(np.arange(len(starts)), stops - starts)
        keep = unique & (seq >= threshold[rows_run])
        for run, known in self._slow:
            inside = slice(starts[run], stops[run])
            keep[inside] = unique[inside] & np.array([number not in known for number in seq[inside].tolist()])
        new[order[keep]] = True
        np.maximum.at(self._seen_ms, codes, arrived_ms)
        return new

    def _forget_expired(self, order: Ints, code: Ints, changed: Mask, arrived_ms: Ints) -> None:
        firsts = np.flatnonzero(changed)
        met = code[firsts]
        first_arrival = np.minimum.reduceat(arrived_ms[order], firsts)
        gone = met[(self._hi[met] > self._lo[met]) & (self._seen_ms[met] + self.horizon_ms < first_arrival)]
        self._lo[gone] = self._hi[gone] = 0
        for one in gone.tolist():
            self._below.pop(one, None)

    def _add_runs(self, code: Ints, start: Ints, stop: Ints) -> Ints:
        """Unite the runs, sorted by code and start; from which number on the events of each run are new.

        The runs for which no single number says it are left in `_slow` with what was known before them.
        """
        self._slow: list[tuple[int, IntervalSet]] = []
        threshold = np.empty(len(code), np.int64)
        first = np.empty(len(code), np.bool_)
        first[0] = True
        np.not_equal(code[1:], code[:-1], out=first[1:])
        nth = np.arange(len(code)) - np.maximum.accumulate(np.where(first, np.arange(len(code)), 0))
        for turn in range(int(nth.max()) + 1):
            at = np.flatnonzero(nth == turn) if turn else np.flatnonzero(first)
            c, a, b = code[at], start[at], stop[at]
            lo, hi = self._lo[c], self._hi[c]
            fresh = hi == lo
            joins = ~fresh & (a >= lo) & (a <= hi)
            fast = fresh | joins
            threshold[at] = np.where(fresh, a, hi)
            self._lo[c[fresh]] = a[fresh]
            self._hi[c[fast]] = np.maximum(np.where(fresh, b, hi), b)[fast]
            for run in at[~fast].tolist():
                threshold[run] = self._add_slowly(run, int(code[run]), int(start[run]), int(stop[run]))
            if turn >= 8:  # a batch with many gaps in one origin: the rest one by one, not in turns of one run each
                for run in np.flatnonzero(nth > turn).tolist():
                    threshold[run] = self._add_slowly(run, int(code[run]), int(start[run]), int(stop[run]))
                break
        return threshold

    def _add_slowly(self, run: int, code: int, start: int, stop: int) -> int:
        lo, hi = int(self._lo[code]), int(self._hi[code])
        if start > hi:
            self._below.setdefault(code, IntervalSet()).add(lo, hi)
            self._lo[code], self._hi[code] = start, stop
            return start
        known = IntervalSet([*self._below.get(code, ()), (lo, hi)])
        gaps = known.gaps(start, stop)
        self._set(code, IntervalSet([*known, (start, stop)]))
        if gaps == [(start, stop)]:
            return start
        self._slow.append((run, known))
        return start

    def _set(self, code: int, whole: IntervalSet) -> None:
        *below, (self._lo[code], self._hi[code]) = whole.intervals
        if below:
            self._below[code] = IntervalSet(below)
        else:
            self._below.pop(code, None)

    def add_intervals(self, origin: str, intervals: Iterable[Interval], arrived_ms: int) -> None:
        """Unite one origin with whole intervals."""
        code = int(self.codes([origin])[0])
        whole = self.get(origin).union(IntervalSet(intervals))
        if len(whole):
            self._set(code, whole)
        self._seen_ms[code] = max(int(self._seen_ms[code]), arrived_ms)

    def get(self, origin: str) -> IntervalSet:
        """The numbers of one origin; empty for one never met."""
        code = self._names.get(origin)
        if code is None:
            return IntervalSet()
        return self._whole(code)

    def _whole(self, code: int) -> IntervalSet:
        return IntervalSet([*self._below.get(code, ()), (int(self._lo[code]), int(self._hi[code]))])

    def origins(self) -> list[str]:
        names: list[str] = self._names.array().take(pa.array(np.flatnonzero(self._hi > self._lo))).to_pylist()
        return names

    def count(self) -> int:
        """How many events are in all sets together."""
        return int((self._hi - self._lo).sum()) + sum(len(below) for below in self._below.values())

    def update(self, other: "OriginSets") -> None:
        """Unite with another (the other parent of a merged shard)."""
        theirs = np.flatnonzero(other._hi > other._lo)
        codes = self.codes(other._names.array().take(pa.array(theirs)))
        lo, hi = other._lo[theirs], other._hi[theirs]
        mine_lo, mine_hi = self._lo[codes], self._hi[codes]
        fresh, low = mine_lo == mine_hi, _among(theirs, other._below)
        fast = fresh | (~low & ~_among(codes, self._below) & (lo <= mine_hi) & (mine_lo <= hi))
        self._lo[codes[fast]] = np.where(fresh, lo, np.minimum(lo, mine_lo))[fast]
        self._hi[codes[fast]] = np.where(fresh, hi, np.maximum(hi, mine_hi))[fast]
        for code, at in zip(codes[fresh & low].tolist(), theirs[fresh & low].tolist(), strict=True):
            self._below[code] = IntervalSet(other._below[at])
        for code, at in zip(codes[~fast].tolist(), theirs[~fast].tolist(), strict=True):
            self._set(code, self._whole(code).union(other._whole(at)))
        self._seen_ms[codes] = np.maximum(self._seen_ms[codes], other._seen_ms[theirs])

    def seen_ms(self, origin: str) -> int:
        """When something of the origin arrived last; 0 for one never met."""
        code = self._names.get(origin)
        return 0 if code is None else int(self._seen_ms[code])

    def to_table(self, now_ms: int | None = None) -> pa.Table:
        """Columns origin, lo, hi, seen_ms: one row an interval, each origin's highest first of all rows.

        What fell out of the horizon by `now_ms`, the newest arrival time, is left out.
        """
        n = len(self._names)
        keep = self._hi[:n] > self._lo[:n]
        if now_ms is not None:
            keep &= self._seen_ms[:n] + self.horizon_ms >= now_ms
        at = np.flatnonzero(keep)
        low = [(code, below) for code, below in self._below.items() if keep[code]]
        counts = [len(below.intervals) for _, below in low]
        codes = np.concatenate([at, np.repeat(np.array([code for code, _ in low], np.int64), counts)])
        return pa.table(
            {
                "origin": self._names.array().take(pa.array(codes)),
                "lo": np.concatenate([self._lo[at], *(np.array(below._starts, np.int64) for _, below in low)]),
                "hi": np.concatenate([self._hi[at], *(np.array(below._stops, np.int64) for _, below in low)]),
                "seen_ms": self._seen_ms[codes],
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table, horizon_ms: int = 30 * 86_400_000) -> "OriginSets":
        sets = cls(horizon_ms)
        codes = sets.codes(table["origin"].combine_chunks())
        n = len(sets._names)
        lo, hi = table["lo"].to_numpy(), table["hi"].to_numpy()
        sets._lo[:n], sets._hi[:n] = lo[:n], hi[:n]
        sets._seen_ms[:n] = table["seen_ms"].to_numpy()[:n]
        order = n + np.lexsort((lo[n:], codes[n:]))
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        for rows in np.split(order, starts[1:]) if len(order) else ():
            below = IntervalSet()
            below._starts, below._stops = lo[rows].tolist(), hi[rows].tolist()
            sets._below[int(codes[rows[0]])] = below
        return sets


def _among(codes: Ints, below: Mapping[int, IntervalSet]) -> Mask:
    found: Mask = np.isin(codes, np.fromiter(below, np.int64, len(below)))
    return found


def sorted_rows(codes: Ints, seqs: Ints) -> tuple[Ints, Ints, Ints]:
    """Rows ordered by (code, seq, row): their indices, codes and seqs.

    Packed into one integer with the row number in its lowest bits the sort is several times faster than an
    indirect one; numbers too wide for that take the indirect one.
    """
    if len(codes) > 1 and codes[0] == codes[-1] and (codes == codes[0]).all() and (np.diff(seqs) > 0).all():
        return np.arange(len(codes)), codes, seqs
    base = int(seqs.min())
    row_bits = len(codes).bit_length()
    seq_bits = (int(seqs.max()) - base).bit_length()
    if int(codes.max()).bit_length() + seq_bits + row_bits > 62:
        order = np.lexsort((seqs, codes))
        return order, codes[order], seqs[order]
    packed = np.sort((((codes << seq_bits) | (seqs - base)) << row_bits) | np.arange(len(codes)))
    order = packed & ((1 << row_bits) - 1)
    packed >>= row_bits
    return order, packed >> seq_bits, (packed & ((1 << seq_bits) - 1)) + base
