"""Interval sets against plain Python sets."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.intervals import merged
from headwater.lineage import IntervalSet, OriginSets

small = st.integers(0, 40)
pairs = st.lists(st.tuples(small, small).map(lambda p: (min(p), max(p))), max_size=12)
events = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 60)), max_size=60)


def numbers(intervals: list[tuple[int, int]]) -> set[int]:
    return {n for start, stop in intervals for n in range(start, stop)}


@given(pairs, pairs)
def test_interval_sets_are_sets(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    a, b = IntervalSet(left), IntervalSet(right)
    assert numbers(a.intervals) == numbers(left)
    assert numbers(a.union(b).intervals) == numbers(left) | numbers(right)
    assert numbers(a.difference(b).intervals) == numbers(left) - numbers(right)
    assert len(a) == len(numbers(left))
    assert all(x[1] < y[0] for x, y in zip(a.intervals, a.intervals[1:], strict=False))
    assert all((n in a) == (n in numbers(left)) for n in range(42))


@settings(max_examples=600)
@given(st.lists(st.tuples(events, st.sampled_from(["", "settle", "snapshot"])), max_size=8), st.booleans())
def test_first_copies_only_whatever_the_batches(batches: list[tuple[list[tuple[str, int]], str]], far: bool) -> None:
    """However events are cut into batches, exactly the first copy of each is new, also past a snapshot."""
    sets, seen = OriginSets(), set()
    stretch = 1 << 55 if far else 1
    for batch, then in batches:
        codes = sets.codes([origin for origin, _ in batch])
        seqs = np.array([seq * stretch for _, seq in batch], np.int64)
        keep = sets.add(codes, seqs, np.full(len(batch), 5, np.int64))
        for new, event in zip(keep.tolist(), batch, strict=True):
            assert new == (event not in seen)
            seen.add(event)
        for origin in "abcd":
            want = IntervalSet((s * stretch, s * stretch + 1) for o, s in seen if o == origin)
            assert sets.get(origin) == want
        table = sets.to_table() if then else None
        if then == "snapshot":
            sets = OriginSets.from_table(table)
        if then:
            assert sets.count() == len(seen)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from("ab"), pairs, st.booleans()), max_size=8))
def test_whole_intervals_are_united(added: list[tuple[str, list[tuple[int, int]], bool]]) -> None:
    """As plain sets are, whether or not what came before is settled."""
    sets, plain = OriginSets(), {"a": set[int](), "b": set[int]()}
    for origin, intervals, settle in added:
        sets.add_intervals(origin, intervals, 0)
        plain[origin] |= numbers(intervals)
        assert {name: numbers(sets.get(name).intervals) for name in plain} == plain
        if settle:
            assert sets.count() == sum(map(len, plain.values()))
    assert sorted(sets.origins()) == sorted(name for name, some in plain.items() if some)


@given(st.lists(st.tuples(st.integers(0, 2), small, st.integers(1, 12)), max_size=30))
def test_intervals_in_arrays_are_united_as_sets_are(rows: list[tuple[int, int, int]]) -> None:
    """Per code, sorted and disjoint."""
    columns = [np.array(column, np.int64) for column in zip(*((c, a, a + n) for c, a, n in rows), strict=True)]
    code, start, stop = merged(*columns) if rows else merged(*(np.zeros(0, np.int64),) * 3)
    found = list(zip(code.tolist(), start.tolist(), stop.tolist(), strict=True))
    sets = {one: IntervalSet((a, a + n) for c, a, n in rows if c == one) for one in range(3)}
    assert found == [(one, *interval) for one, some in sets.items() for interval in some]


@settings(max_examples=400)
@given(events, events)
def test_a_merge_unites(left: list[tuple[str, int]], right: list[tuple[str, int]]) -> None:
    """Both parents' events, each origin met when the later of both met it."""
    both, other = OriginSets(), OriginSets()
    for sets, rows, at in ((both, left, 5), (other, right, 7)):
        sets.add(
            sets.codes([o for o, _ in rows]), np.array([s for _, s in rows], np.int64), np.full(len(rows), at, np.int64)
        )
    both.update(other)
    for origin in "abcd":
        assert both.get(origin) == IntervalSet((seq, seq + 1) for name, seq in [*left, *right] if name == origin)
        newest = 7 if origin in dict(right) else 5 if origin in dict(left) else 0
        assert both.seen_ms(origin) == newest
    united = OriginSets.from_table(both.to_table())
    assert {origin: united.get(origin) for origin in "abcd"} == {origin: both.get(origin) for origin in "abcd"}


def test_an_origin_out_of_the_horizon_is_as_good_as_never_seen() -> None:
    sets = OriginSets(horizon_ms=1000)

    def add(origin: str, seq: int, at: int) -> bool:
        return bool(sets.add(sets.codes([origin]), np.array([seq], np.int64), np.array([at], np.int64))[0])

    assert add("a", 1, 0)
    assert not add("a", 1, 1000)
    assert add("a", 5, 1000)
    assert sets.count() == 2
    assert add("a", 5, 2001)
    assert add("a", 1, 2001)
    assert sets.to_table(now_ms=9999).num_rows == 0
    assert isinstance(sets.to_table(), pa.Table)
