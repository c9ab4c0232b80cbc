"""Sets of event identities, `(origin, seq)`, as intervals.

One mechanism answers whether an event was seen, which events are missing, and what may be replayed. A seq is any 64-bit
integer. Intervals in answers are half-open Python integers, `[start, stop)`; in arrays they have a first and a last
number (see `lowintervals`).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, Mask
from headwater.clock import DAY_MS
from headwater.lineage.intervals import Interval, IntervalSet
from headwater.lineage.lowintervals import LowIntervals, Runs, total, touching, united
from headwater.stringcodes import StringCodes, grown

__all__ = ["HORIZON_MS", "OriginSets", "sorted_rows"]

HORIZON_MS = 30 * DAY_MS
"""Time for which an origin is remembered after the last that arrived of it, an event or a receipt. Kinesis keeps
a record for 24 hours to 365 days; a copy that arrives later than this after its origin's last event counts as new."""

_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


class OriginSets:
    """Hold an IntervalSet per origin, laid out in arrays so that a whole batch is looked up and added at once.

    Each origin keeps its highest interval in arrays, for an origin of counted events nearly always goes on where it
    stopped; lower intervals (left by gaps, or of random ids) lie in `_low`. `horizon_ms` bounds the memory: an origin
    from which nothing arrived for longer is as good as never seen. That is decided from the arrival times of the
    records alone, and only when the origin is met again, so it does not depend on when anything was pruned.

    An origin takes some 70 bytes beside its name, an interval that is not its origin's highest 24. Counted events make
    few intervals; of random ids each is one, for as long as its origin is within the horizon.

    >>> import numpy as np
    >>> sets = OriginSets()
    >>> codes = sets.codes(["a", "a", "a", "b"])
    >>> sets.add(codes, np.array([7, 8, 7, 7]), np.full(4, 1_762_160_400_000)).tolist()
    [True, True, False, True]
    >>> sets.get("a")
    IntervalSet([(7, 9)])
    """

    def __init__(self, horizon_ms: int = HORIZON_MS) -> None:
        self.horizon_ms = horizon_ms
        self._names = StringCodes()
        # The highest interval of each origin; none where the last number is below the first.
        self._first: Ints = np.zeros(0, np.int64)
        self._last: Ints = np.zeros(0, np.int64)
        self._seen_ms: Ints = np.zeros(0, np.int64)
        self._low = LowIntervals()

    def __len__(self) -> int:
        """Return the number of origins that were ever met."""
        return len(self._names)

    def codes(self, origins: pa.Array | Sequence[str]) -> Ints:
        """Return the code of each origin; one not met before gets the next."""
        codes = self._names.codes(origins if isinstance(origins, pa.Array) else pa.array(origins, pa.string()))
        size, before = len(self._names), len(self._first)
        if size > before:
            self._first, self._last, self._seen_ms = (
                grown(column, size) for column in (self._first, self._last, self._seen_ms)
            )
            self._last[before:] = -1
        return codes

    def name(self, code: int) -> str:
        """Return the origin of a code."""
        return self._names[code]

    def add(self, codes: Ints, seqs: Ints, arrived_ms: Ints) -> Mask:
        """Add events in their order on the shard; return True where the event was not in the set before.

        All three arrays have one entry an event; `arrived_ms` must not span more than the horizon. Of copies within
        the call the first is the new one.
        """
        new = np.zeros(len(codes), np.bool_)
        if not len(codes):
            return new
        order, code, seq = sorted_rows(codes, seqs)
        changed = np.empty(len(code), np.bool_)
        changed[0] = True
        np.not_equal(code[1:], code[:-1], out=changed[1:])
        keep = changed.copy()
        keep[1:] |= seq[1:] != seq[:-1]
        firsts = np.flatnonzero(changed)
        arrived = arrived_ms[order]
        self._forget_expired(code[firsts], np.minimum.reduceat(arrived, firsts))
        self._add_sorted(code, seq, changed, keep)
        new[order[keep]] = True
        met = code[firsts]
        self._seen_ms[met] = np.maximum(self._seen_ms[met], np.maximum.reduceat(arrived, firsts))
        return new

    def expired(self, codes: Ints, arrived_ms: Ints) -> list[str]:
        """Return the origins of these codes that are to be forgotten when events of them arrive then: see `add`."""
        gone = self.known(codes) & (self._seen_ms[codes] + self.horizon_ms < arrived_ms)
        return [self.name(code) for code in np.unique(codes[gone]).tolist()] if gone.any() else []

    def forget(self, origins: Sequence[str]) -> None:
        """Forget all events of these origins."""
        if origins:
            gone = self.codes(origins)
            self._first[gone], self._last[gone] = 0, -1
            self._low.forget(gone)

    def touch(self, origins: Sequence[str], arrived_ms: int) -> None:
        """Note that something of these origins arrived, no event of theirs: those that are known stay within the
        horizon.
        """
        codes = self.codes(origins)
        met = codes[self.known(codes) & (self._seen_ms[codes] + self.horizon_ms >= arrived_ms)]
        self._seen_ms[met] = np.maximum(self._seen_ms[met], arrived_ms)

    def _forget_expired(self, met: Ints, arrived_ms: Ints) -> None:
        gone = met[self.known(met) & (self._seen_ms[met] + self.horizon_ms < arrived_ms)]
        self._first[gone], self._last[gone] = 0, -1
        self._low.forget(gone)

    def known(self, code: Ints) -> Mask:
        """Tell of each origin, by its code, whether it has any interval."""
        known: Mask = self._last[code] >= self._first[code]
        return known

    def _add_sorted(self, code: Ints, seq: Ints, changed: Mask, keep: Mask) -> None:
        """Add events sorted by code and number; leave True in `keep` those that are new.

        The first run of each origin is nearly always its first ever, or goes on where the highest interval stops: such
        runs need no lookup. The events of all other runs are looked up one by one, all in step.
        """
        goes_on = touching(code, seq, seq)
        starts = np.flatnonzero(~goes_on)
        stops = np.append(starts[1:], len(code))
        c, a, b = code[starts], seq[starts], seq[stops - 1]
        first, last, known = self._first[c], self._last[c], self.known(c)
        leads = changed[starts]
        fresh = leads & ~known
        # a - 1 wraps for the lowest number alone, which then does not lie behind any other
        joins = leads & known & (a >= first) & ((a <= last) | (a - 1 == last))
        self._first[c[fresh]], self._last[c[fresh]] = a[fresh], b[fresh]
        self._last[c[joins]] = np.maximum(last, b)[joins]
        sizes = stops - starts
        if joins.any():
            seen = np.repeat(joins, sizes) & (seq <= np.repeat(last, sizes))
            keep &= ~seen
        rest = ~(fresh | joins)
        if rest.any():
            at = np.flatnonzero(np.repeat(rest, sizes) & keep)
            keep[at] = self._look_up(code[at], seq[at])
            at = at[keep[at]]
            self._insert(_runs(code[at], seq[at]))

    def _look_up(self, code: Ints, seq: Ints) -> Mask:
        """Tell of each event, sorted, whether it is in no interval."""
        below = seq < self._first[code]
        outside = below | (seq > self._last[code])
        at = np.flatnonzero(below)
        outside[at] = ~self._low.holds(code[at], seq[at])
        return outside

    def _insert(self, rows: Runs) -> None:
        """Take in sorted runs that are in no interval yet."""
        code, a, b = rows
        # at most one run of an origin goes on where its highest interval stops, and one ends where that begins
        up = (a > self._last[code]) & (a - 1 == self._last[code])
        self._last[code[up]] = b[up]
        down = (b < self._first[code]) & (b + 1 == self._first[code])
        self._first[code[down]] = a[down]
        left = ~(up | down)
        code, a, b = code[left], a[left], b[left]
        if not len(code):
            return
        # the highest run above an origin's highest interval takes its place, and that goes down among the others
        ends = np.append(code[1:] != code[:-1], True)
        top = np.flatnonzero(ends & (a > self._last[code]))
        of = code[top]
        lower = np.ones(len(code), np.bool_)
        lower[top] = False
        columns = (code[lower], a[lower], b[lower]), (of, self._first[of], self._last[of])
        down_code, down_a, down_b = (np.concatenate(pair) for pair in zip(*columns, strict=True))
        self._first[of], self._last[of] = a[top], b[top]
        order = np.lexsort((down_a, down_code))
        self._low.add((down_code[order], down_a[order], down_b[order]))

    def add_intervals(self, origin: str, intervals: Iterable[Interval], arrived_ms: int) -> None:
        """Unite one origin with whole intervals, half-open. Numbers beyond 64 bits are left out: no event has one."""
        code = int(self.codes([origin])[0])
        for start, stop in intervals:
            first, last = max(start, _LOWEST), min(stop - 1, _HIGHEST)
            if first <= last:
                self._unite(code, first, last)
        self._seen_ms[code] = max(int(self._seen_ms[code]), arrived_ms)

    def _unite(self, code: int, first: int, last: int) -> None:
        top_first, top_last = int(self._first[code]), int(self._last[code])
        if top_last < top_first:
            self._first[code], self._last[code] = first, last
        elif top_first <= first <= top_last + 1:
            self._last[code] = max(top_last, last)
        else:
            known = IntervalSet((a, b + 1) for a, b in self._low.between(code, first, last))
            known.add(top_first, top_last + 1)
            gaps = np.array([(a, b - 1) for a, b in known.gaps(first, last + 1)], np.int64).reshape(-1, 2)
            self._insert((np.full(len(gaps), code, np.int64), gaps[:, 0].copy(), gaps[:, 1].copy()))

    def get(self, origin: str) -> IntervalSet:
        """Return the numbers of one origin; the empty set for one never met."""
        code = self._names.get(origin)
        if code is None:
            return IntervalSet()
        first, last = int(self._first[code]), int(self._last[code])
        low = self._low.between(code, _LOWEST, _HIGHEST)
        return IntervalSet([*((a, b + 1) for a, b in low), (first, last + 1)])

    def origins(self) -> list[str]:
        """Return the origins that have any event, in the order in which they were met."""
        names: list[str] = self._names.array().take(pa.array(self._filled())).to_pylist()
        return names

    def _filled(self) -> Ints:
        return np.flatnonzero(self._last >= self._first)

    def count(self) -> int:
        """Return how many events are in all sets together."""
        at, (_, first, last) = self._filled(), self._settle()
        return total(self._first[at], self._last[at]) + total(first, last)

    def update(self, other: "OriginSets") -> None:
        """Unite with another (the other parent of a merged shard)."""
        theirs = other._filled()
        if not len(theirs):
            return
        codes = self.codes(other._names.array().take(pa.array(theirs)))
        place = np.zeros(len(other._first), np.int64)
        place[theirs] = codes
        low, mine = other._settle(), self._filled()
        columns = zip(
            self._settle(),
            (mine, self._first[mine], self._last[mine]),
            (place[low[0]], low[1], low[2]),
            (codes, other._first[theirs], other._last[theirs]),
            strict=True,
        )
        self._put(united(*(np.concatenate(column) for column in columns)))
        self._seen_ms[codes] = np.maximum(self._seen_ms[codes], other._seen_ms[theirs])

    def _settle(self) -> Runs:
        """Return the rows below the highest intervals, with none that touches another or a highest one."""
        rows = self._low.settle()
        code, first, last = rows
        if len(code):
            ends = np.append(code[1:] != code[:-1], True)
            joins = ends & (last + 1 == self._first[code])
            if joins.any():
                self._first[code[joins]] = first[joins]
                rows = (code[~joins], first[~joins], last[~joins])
                self._low.put(rows)
        return rows

    def _put(self, rows: Runs) -> None:
        """Hold these intervals, sorted and disjoint, and no others."""
        code, first, last = rows
        top = np.append(code[1:] != code[:-1], True) if len(code) else np.zeros(0, np.bool_)
        self._first[code[top]], self._last[code[top]] = first[top], last[top]
        self._low.put((code[~top], first[~top], last[~top]))

    def seen_ms(self, origin: str) -> int:
        """Return when something of the origin arrived last, in epoch ms; 0 for one never met."""
        code = self._names.get(origin)
        return 0 if code is None else int(self._seen_ms[code])

    def to_table(self, now_ms: int | None = None) -> pa.Table:
        """Return columns origin, lo, hi, seen_ms: one row an interval `[lo, hi)`, each origin's highest first of all.

        A `hi` beyond the highest 64-bit integer is written as the lowest one. What fell out of the horizon by `now_ms`,
        the newest arrival time, is left out.
        """
        n = len(self._names)
        keep = self._last[:n] >= self._first[:n]
        if now_ms is not None:
            keep &= self._seen_ms[:n] + self.horizon_ms >= now_ms
        code, first, last = self._settle()
        at = np.flatnonzero(keep)
        low = keep[code]
        codes = np.concatenate([at, code[low]])
        return pa.table(
            {
                "origin": self._names.array().take(pa.array(codes)),
                "lo": np.concatenate([self._first[at], first[low]]),
                # an interval is never empty, so the number that wraps means one thing
                "hi": np.concatenate([self._last[at], last[low]]) + 1,
                "seen_ms": self._seen_ms[codes],
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table, horizon_ms: int = HORIZON_MS) -> "OriginSets":
        """Return the sets that `to_table` wrote."""
        sets = cls(horizon_ms)
        if not table.num_rows:
            return sets
        codes = sets.codes(table["origin"].combine_chunks())
        sets._put(united(codes, table["lo"].to_numpy(), table["hi"].to_numpy() - 1))
        sets._seen_ms[codes] = table["seen_ms"].to_numpy()
        return sets


def _runs(code: Ints, seq: Ints) -> Runs:
    """Return the runs of consecutive numbers among sorted events."""
    starts = np.flatnonzero(~touching(code, seq, seq))
    return code[starts], seq[starts], seq[np.append(starts[1:], len(code)) - 1] if len(code) else seq[:0]


def sorted_rows(codes: Ints, seqs: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the rows ordered by (code, seq, row): their indices, codes and seqs.

    Packed into one integer with the row number in its lowest bits the sort is several times faster than an
    indirect one; numbers too wide for that take the indirect one.
    """
    if len(codes) > 1 and codes[0] == codes[-1] and (codes == codes[0]).all() and (seqs[1:] > seqs[:-1]).all():
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
