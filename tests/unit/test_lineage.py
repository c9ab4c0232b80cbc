"""Sets of event identities against plain Python sets of integers, up to the ends of 64 bits."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.lineage.intervals import IntervalSet
from headwater.lineage.lowintervals import LowIntervals, total, united
from headwater.lineage.origins import OriginSets, sorted_rows

LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
small = st.integers(0, 40)
pairs = st.lists(st.tuples(small, small).map(lambda p: (min(p), max(p))), max_size=12)
near = st.integers(-6, 30)
numbers_64 = st.one_of(
    near,
    near.map(lambda n: HIGHEST - abs(n)),
    near.map(lambda n: LOWEST + abs(n)),
    near.map(lambda n: n << 55),
    st.integers(LOWEST, HIGHEST),
)
"""Close together, at both ends, far apart, and anywhere."""
events = st.lists(st.tuples(st.sampled_from("abcd"), numbers_64), max_size=60)


def numbers(intervals: list[tuple[int, int]]) -> set[int]:
    return {n for start, stop in intervals for n in range(start, stop)}


def added(sets: OriginSets, batch: list[tuple[str, int]], at: int = 5) -> list[bool]:
    codes = sets.codes([origin for origin, _ in batch])
    seqs = np.array([seq for _, seq in batch], np.int64)
    new: list[bool] = sets.add(codes, seqs, np.full(len(batch), at, np.int64)).tolist()
    return new


def has(sets: OriginSets, seen: set[tuple[str, int]]) -> bool:
    return all(
        sets.get(origin) == IntervalSet((seq, seq + 1) for name, seq in seen if name == origin) for origin in "abcd"
    )


@given(pairs, pairs)
def test_interval_sets_are_sets(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    """Union, difference, size and membership are those of the numbers."""
    a, b = IntervalSet(left), IntervalSet(right)
    assert numbers(a.intervals) == numbers(left)
    assert numbers(a.union(b).intervals) == numbers(left) | numbers(right)
    assert numbers(a.difference(b).intervals) == numbers(left) - numbers(right)
    assert len(a) == len(numbers(left))
    assert all(x[1] < y[0] for x, y in zip(a.intervals, a.intervals[1:], strict=False))
    assert all((n in a) == (n in numbers(left)) for n in range(42))


@settings(max_examples=200)
@given(st.lists(st.tuples(events, st.sampled_from(["", "settle", "snapshot"])), max_size=8))
def test_first_copies_only_whatever_the_batches(batches: list[tuple[list[tuple[str, int]], str]]) -> None:
    """However events are cut into batches, exactly the first copy of each is new, also past a snapshot."""
    sets, seen = OriginSets(), set[tuple[str, int]]()
    for batch, then in batches:
        for new, event in zip(added(sets, batch), batch, strict=True):
            assert new == (event not in seen)
            seen.add(event)
        assert has(sets, seen)
        table = sets.to_table() if then else None
        if then == "snapshot":
            sets = OriginSets.from_table(table)
        if then:
            assert sets.count() == len(seen)


class Event(NamedTuple):
    """An identity, and where it lies among the others."""

    origin: str
    seq: int


@pytest.mark.parametrize("origins", [1, 20, 500])
@pytest.mark.parametrize("batch", [7, 400])
def test_random_64_bit_ids_are_exact(origins: int, batch: int) -> None:
    """Thousands of them, with copies, in batches that make many levels and ask few or many origins at once."""
    draw = np.random.default_rng(origins + batch)
    pool = [Event(f"o{n % origins}", int(seq)) for n, seq in enumerate(draw.integers(LOWEST, HIGHEST, 1_500))]
    pool += [Event(f"o{n % origins}", end) for n in range(origins) for end in (LOWEST, LOWEST + 1, -1, 0, HIGHEST)]
    sets, seen = OriginSets(), set[Event]()
    for _ in range(2_000 // batch):
        some = [pool[at] for at in draw.integers(0, len(pool), batch)]
        for new, event in zip(added(sets, [*some]), some, strict=True):
            assert new == (event not in seen)
            seen.add(event)
    assert sets.count() == len(seen)
    again = OriginSets.from_table(sets.to_table())
    for origin in {event.origin for event in seen}:
        want = IntervalSet((event.seq, event.seq + 1) for event in seen if event.origin == origin)
        assert sets.get(origin) == again.get(origin) == want


def test_the_highest_number_is_met_once() -> None:
    """It has no number behind it, in memory as in a snapshot."""
    sets = OriginSets()
    assert added(sets, [("a", HIGHEST), ("a", HIGHEST)]) == [True, False]
    sets = OriginSets.from_table(sets.to_table())
    assert added(sets, [("a", HIGHEST), ("a", LOWEST), ("a", HIGHEST - 1), ("a", LOWEST)]) == [False, True, True, False]
    assert sets.get("a").intervals == [(LOWEST, LOWEST + 1), (HIGHEST - 1, HIGHEST + 1)]
    sets.add_intervals("a", [(LOWEST, HIGHEST + 1)], 0)
    assert (sets.count(), sets.get("a").intervals) == (1 << 64, [(LOWEST, HIGHEST + 1)])


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), pairs, st.sampled_from([0, LOWEST, HIGHEST - 39]), st.booleans()), max_size=8
    )
)
def test_whole_intervals_are_united(adding: list[tuple[str, list[tuple[int, int]], int, bool]]) -> None:
    """As plain sets are, whether or not what came before is settled, at both ends and in the middle."""
    sets, plain = OriginSets(), {"a": set[int](), "b": set[int]()}
    for origin, intervals, base, settle in adding:
        shifted = [(base + start, base + stop) for start, stop in intervals]
        sets.add_intervals(origin, shifted, 0)
        plain[origin] |= numbers(shifted)
        assert {name: numbers(sets.get(name).intervals) for name in plain} == plain
        if settle:
            assert sets.count() == sum(map(len, plain.values()))
    assert sorted(sets.origins()) == sorted(name for name, some in plain.items() if some)


@given(st.lists(st.tuples(events, pairs), max_size=5))
def test_events_and_whole_intervals_together(steps: list[tuple[list[tuple[str, int]], list[tuple[int, int]]]]) -> None:
    """Receipts bring intervals, records bring events; a set has the union of both."""
    sets, seen = OriginSets(), set[tuple[str, int]]()
    for batch, intervals in steps:
        assert added(sets, batch).count(True) == len(set(batch) - seen)
        sets.add_intervals("b", intervals, 5)
        seen |= {*batch, *(("b", n) for n in numbers(intervals))}
        assert has(sets, seen)
    assert sets.count() == len(seen)


def test_sets_of_other_numbers_are_not_equal() -> None:
    """Nor is a set equal to what is none."""
    assert IntervalSet([(0, 1)]) != IntervalSet([(0, 2)])
    assert IntervalSet([(0, 1)]) != [(0, 1)]


def test_intervals_beyond_64_bits_hold_no_event() -> None:
    """A forged receipt may name any numbers: only those that an event can have are taken in."""
    sets = OriginSets()
    sets.add_intervals("a", [(-(10**400), LOWEST + 2), (HIGHEST, 10**400), (1 << 64, 1 << 65)], 0)
    assert sets.get("a").intervals == [(LOWEST, LOWEST + 2), (HIGHEST, HIGHEST + 1)]


rows = st.lists(st.tuples(st.integers(0, 2), numbers_64, st.integers(0, 12)), max_size=30)


def columns(some: list[tuple[int, int, int]]) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...]:
    """Code, first and last; none beyond the highest number."""
    made = [(code, first, min(first + more, HIGHEST)) for code, first, more in some]
    return tuple(np.array([row[at] for row in made], np.int64) for at in range(3))


@given(rows)
def test_intervals_in_arrays_are_united_as_sets_are(some: list[tuple[int, int, int]]) -> None:
    """Per code, sorted and disjoint, none touching another."""
    code, first, last = columns(some)
    found = [column.tolist() for column in united(code, first, last)]
    sets = {
        one: IntervalSet(
            (a, b + 1) for c, a, b in zip(*map(np.ndarray.tolist, (code, first, last)), strict=True) if c == one
        )
        for one in range(3)
    }
    want = [(one, start, stop - 1) for one, each in sets.items() for start, stop in each]
    assert list(zip(*found, strict=True)) == want
    assert total(np.array(found[1], np.int64), np.array(found[2], np.int64)) == sum(map(len, sets.values()))


@given(st.lists(rows, max_size=12), st.lists(st.tuples(st.integers(0, 200), numbers_64), max_size=100))
def test_levels_hold_what_was_added(batches: list[list[tuple[int, int, int]]], asked: list[tuple[int, int]]) -> None:
    """Whatever levels the rows lie in; asked for few codes, or for more than are searched one by one."""
    low, plain = LowIntervals(), {code: IntervalSet() for code in range(201)}
    for some in batches:
        new = [
            (code, gap) for code, first, more in some for gap in plain[code].gaps(first, min(first + more, HIGHEST) + 1)
        ]
        parts: dict[int, IntervalSet] = {}
        for code, (start, stop) in new:
            parts.setdefault(code, IntervalSet()).add(start, stop)
            plain[code].add(start, stop)
        flat = [(code, start, stop - 1 - start) for code in sorted(parts) for start, stop in parts[code]]
        low.add(columns(flat))  # type: ignore[arg-type]  # rows as columns
    asked = sorted({*asked, *((code, 0) for code in range(100))})
    codes, wanted = (np.array([one[at] for one in asked], np.int64) for at in (0, 1))
    assert low.holds(codes, wanted).tolist() == [one[1] in plain[one[0]] for one in asked]
    settled = list(zip(*(column.tolist() for column in low.settle()), strict=True))
    assert settled == [(code, start, stop - 1) for code, each in plain.items() for start, stop in each]
    for one in range(3):
        assert low.between(one, -3, 7) == [(a, b - 1) for a, b in plain[one] if a <= 7 and b > -3]


def test_levels_stay_few() -> None:
    """A lookup visits a handful of levels, and a row is moved a few times, however many batches there were."""
    low = LowIntervals()
    for at in range(2_000):
        first = np.arange(at * 10, at * 10 + 10, dtype=np.int64) * 2
        low.add((np.zeros(10, np.int64), first, first))
        assert len(low._levels) <= 8
    assert len(low) == 20_000


@settings(max_examples=150)
@given(events, events)
def test_a_merge_unites(left: list[tuple[str, int]], right: list[tuple[str, int]]) -> None:
    """Both parents' events, each origin met when the later of both met it."""
    both, other = OriginSets(), OriginSets()
    added(both, left, 5)
    added(other, right, 7)
    both.update(other)
    assert has(both, {*left, *right})
    for origin in "abcd":
        newest = 7 if origin in dict(right) else 5 if origin in dict(left) else 0
        assert both.seen_ms(origin) == newest
    united_ = OriginSets.from_table(both.to_table())
    assert {origin: united_.get(origin) for origin in "abcd"} == {origin: both.get(origin) for origin in "abcd"}


@given(events.filter(len))
def test_sorting_keeps_rows_together(some: list[tuple[str, int]]) -> None:
    """By code, number and row, in the packed form and in the one for numbers too far apart for it."""
    codes = np.array([ord(origin) - ord("a") for origin, _ in some], np.int64)
    order, code, seq = sorted_rows(codes, np.array([seq for _, seq in some], np.int64))
    want = sorted((ord(origin) - ord("a"), seq, at) for at, (origin, seq) in enumerate(some))
    assert list(zip(code.tolist(), seq.tolist(), order.tolist(), strict=True)) == want


def test_an_origin_out_of_the_horizon_is_as_good_as_never_seen() -> None:
    """Whether it had one interval or several; another origin's stay."""
    sets = OriginSets(horizon_ms=1000)

    def add(origin: str, seq: int, at: int) -> bool:
        return added(sets, [(origin, seq)], at)[0]

    assert add("a", 1, 0)
    assert add("b", 1, 900)
    assert add("b", 7, 900)
    assert not add("a", 1, 1000)
    assert add("a", 5, 1000)
    assert sets.count() == 4
    assert add("a", 5, 2001)
    assert add("a", 1, 2001)
    assert sets.get("b").intervals == [(1, 2), (7, 8)]
    assert sets.to_table(now_ms=9999).num_rows == 0
    assert isinstance(sets.to_table(), pa.Table)


def test_a_snapshot_of_an_earlier_version_is_read() -> None:
    """Rows of origin, lo, hi and seen_ms, an origin's highest interval before its others."""
    table = pa.table(
        {
            "origin": pa.array(["a", "b", "a", "a"], pa.large_string()),
            "lo": [20, 0, 1, 7],
            "hi": [30, 5, 4, 9],
            "seen_ms": [11, 12, 11, 11],
        }
    )
    sets = OriginSets.from_table(table)
    assert sets.get("a").intervals == [(1, 4), (7, 9), (20, 30)]
    assert (sets.get("b").intervals, sets.seen_ms("b")) == ([(0, 5)], 12)
    assert sets.to_table().equals(table)
