"""Sets of event identities, `(origin, seq)`, as intervals.

One mechanism answers whether an event was seen, which events are missing, and what may be replayed.
All intervals are half-open: `[start, stop)`.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from headwater.intervals import Interval, IntervalSet, Ints, LowIntervals, merged
from headwater.names import Names, grown

__all__ = ["IntervalSet", "Ints", "OriginSets", "sorted_rows"]

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


class OriginSets:
    """An IntervalSet per origin, laid out in arrays so that a whole batch is looked up and added at once.

    Each origin keeps its highest interval `[lo, hi)` in arrays, for an origin nearly always counts on where it
    stopped; lower intervals (left by a gap) live beside it in `_low`. `horizon_ms` bounds the memory: an origin
    from which nothing arrived for longer is as good as never seen. That is decided from the arrival times of the
    records alone, and only when the origin is met again, so it does not depend on when anything was pruned.
    """

    def __init__(self, horizon_ms: int = 30 * 86_400_000) -> None:
        self.horizon_ms = horizon_ms
        self._names = Names()
        self._lo: Ints = np.zeros(0, np.int64)
        self._hi: Ints = np.zeros(0, np.int64)
        self._seen_ms: Ints = np.zeros(0, np.int64)
        self._low = LowIntervals()

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
        if self._low.crowded:
            self._low.settle(self._lo)
        return new

    def _forget_expired(self, order: Ints, code: Ints, changed: Mask, arrived_ms: Ints) -> None:
        firsts = np.flatnonzero(changed)
        met = code[firsts]
        first_arrival = np.minimum.reduceat(arrived_ms[order], firsts)
        gone = met[(self._hi[met] > self._lo[met]) & (self._seen_ms[met] + self.horizon_ms < first_arrival)]
        self._lo[gone] = self._hi[gone] = 0
        self._low.forget(gone)

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
        known = self._unite(code, start, stop)
        if known.gaps(start, stop) != [(start, stop)]:
            self._slow.append((run, known))
        return start

    def _unite(self, code: int, start: int, stop: int) -> IntervalSet:
        """Add an interval that is not empty; what overlapped it or touched it before."""
        lo, hi = int(self._lo[code]), int(self._hi[code])
        if lo == hi:
            self._lo[code], self._hi[code] = start, stop
            return IntervalSet()
        if start > hi:
            self._low.add(code, lo, hi)
            self._lo[code], self._hi[code] = start, stop
            return IntervalSet()
        known = IntervalSet(self._low.near(code, start, stop))
        if stop >= lo:
            known.add(lo, hi)
        whole = known.union(IntervalSet([(start, stop)]))
        (start, stop), *_ = whole.near(start, stop)
        if stop >= lo:
            self._lo[code], self._hi[code] = start, stop
        else:
            self._low.add(code, start, stop)
        return known

    def add_intervals(self, origin: str, intervals: Iterable[Interval], arrived_ms: int) -> None:
        """Unite one origin with whole intervals."""
        code = int(self.codes([origin])[0])
        for start, stop in intervals:
            if start < stop:
                self._unite(code, start, stop)
        self._seen_ms[code] = max(int(self._seen_ms[code]), arrived_ms)

    def get(self, origin: str) -> IntervalSet:
        """The numbers of one origin; empty for one never met."""
        code = self._names.get(origin)
        if code is None:
            return IntervalSet()
        return IntervalSet([*self._low.of(code), (int(self._lo[code]), int(self._hi[code]))])

    def origins(self) -> list[str]:
        names: list[str] = self._names.array().take(pa.array(np.flatnonzero(self._hi > self._lo))).to_pylist()
        return names

    def count(self) -> int:
        """How many events are in all sets together."""
        _, start, stop = self._low.settle(self._lo)
        return int((self._hi - self._lo).sum()) + int((stop - start).sum())

    def update(self, other: "OriginSets") -> None:
        """Unite with another (the other parent of a merged shard)."""
        theirs = np.flatnonzero(other._hi > other._lo)
        codes = self.codes(other._names.array().take(pa.array(theirs)))
        place = np.zeros(len(other._lo), np.int64)
        place[theirs] = codes
        low, mine = other._low.settle(other._lo), np.flatnonzero(self._hi > self._lo)
        columns = zip(
            self._low.settle(self._lo),
            (mine, self._lo[mine], self._hi[mine]),
            (place[low[0]], low[1], low[2]),
            (codes, other._lo[theirs], other._hi[theirs]),
            strict=True,
        )
        self._put(*merged(*(np.concatenate(column) for column in columns)))
        self._seen_ms[codes] = np.maximum(self._seen_ms[codes], other._seen_ms[theirs])

    def _put(self, code: Ints, start: Ints, stop: Ints) -> None:
        """Have these intervals, sorted and disjoint, and no others."""
        last = np.append(code[1:] != code[:-1], True) if len(code) else np.zeros(0, np.bool_)
        self._lo[code[last]], self._hi[code[last]] = start[last], stop[last]
        self._low.put((code[~last], start[~last], stop[~last]))

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
        code, start, stop = self._low.settle(self._lo)
        low = keep[code]
        codes = np.concatenate([at, code[low]])
        return pa.table(
            {
                "origin": self._names.array().take(pa.array(codes)),
                "lo": np.concatenate([self._lo[at], start[low]]),
                "hi": np.concatenate([self._hi[at], stop[low]]),
                "seen_ms": self._seen_ms[codes],
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table, horizon_ms: int = 30 * 86_400_000) -> "OriginSets":
        sets = cls(horizon_ms)
        codes = sets.codes(table["origin"].combine_chunks())
        sets._put(*merged(codes, table["lo"].to_numpy(), table["hi"].to_numpy()))
        sets._seen_ms[codes] = table["seen_ms"].to_numpy()
        return sets


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
