"""Sets of event identities beside a model in plain sets, call by call, in time and across snapshots and merges."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from headwater.lineage.intervals import IntervalSet
from headwater.lineage.origins import OriginSets, sorted_rows

HORIZON = 10
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
NEAR = range(-4, 14)
ENDS = (LOWEST, LOWEST + 1, LOWEST + 2, HIGHEST - 2, HIGHEST - 1, HIGHEST)
FAR = tuple(n << 58 for n in range(-30, 31, 7))
NAMES = "abcde"


@dataclass
class Model:
    """The numbers of each origin that was met, and when something of it arrived last."""

    sets: dict[str, set[int]] = field(default_factory=dict)
    seen_ms: dict[str, int] = field(default_factory=dict)

    def is_expired(self, origin: str, at: int) -> bool:
        return bool(self.sets.get(origin)) and self.seen_ms[origin] + HORIZON < at

    def meet(self, origin: str, at: int) -> set[int]:
        self.seen_ms[origin] = max(self.seen_ms.get(origin, 0), at)
        return self.sets.setdefault(origin, set())


class Both:
    """The sets and the model, which do the same."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.sets, self.model, self.now = chance, OriginSets(HORIZON), Model(), 20

    def number(self) -> int:
        return self.chance.choice(self.chance.choice((NEAR, NEAR, NEAR, ENDS, FAR)))

    def add(self) -> None:
        names = self.chance.choices(NAMES, k=self.chance.choice((1, 2, 9)))
        seqs = [self.number() for _ in names]
        if self.chance.random() < 0.3:  # a run, as of a session
            names, start = [self.chance.choice(NAMES)] * len(names), self.chance.choice(NEAR)
            seqs = list(range(start, start + len(names)))
        times = [self.now + self.chance.randrange(HORIZON) for _ in names]
        for name in set(names):
            if self.model.is_expired(name, min(at for one, at in zip(names, times, strict=True) if one == name)):
                self.model.sets[name] = set()
        wanted = []
        for name, seq, at in zip(names, seqs, times, strict=True):
            known = self.model.meet(name, at)
            wanted.append(seq not in known)
            known.add(seq)
        codes = self.sets.codes(names)
        assert [self.sets.name(code) for code in codes.tolist()] == names
        assert self.sets.add(codes, np.array(seqs), np.array(times)).tolist() == wanted

    def add_intervals(self) -> None:
        name, starts = self.chance.choice(NAMES), self.chance.choices([*NEAR, LOWEST, HIGHEST - 1], k=2)
        intervals = [(start, start + self.chance.choice((0, 1, 2, 3, 7))) for start in starts]
        self.sets.add_intervals(name, intervals, self.now)
        self.model.meet(name, self.now).update(
            n for start, stop in intervals for n in range(start, stop) if LOWEST <= n <= HIGHEST
        )

    def touch(self) -> None:
        names = self.chance.sample(NAMES, 2)
        self.sets.touch(names, self.now)
        for name in names:
            if self.model.sets.get(name) and not self.model.is_expired(name, self.now):
                self.model.meet(name, self.now)

    def forget(self) -> None:
        names = self.chance.sample(NAMES, self.chance.randrange(3))
        self.sets.forget(names)
        for name in names:
            self.model.sets[name] = set()

    def ask(self) -> None:
        codes = self.sets.codes(list(NAMES) * 2)
        found = self.sets.expired(codes, np.full(len(codes), self.now))
        assert sorted(found) == [name for name in NAMES if self.model.is_expired(name, self.now)]

    def snapshot(self) -> None:
        now = self.chance.choice((None, self.now))
        table = self.sets.to_table(now)
        self.sets = OriginSets.from_table(table, HORIZON)
        for name in NAMES:
            gone = now is not None and self.model.is_expired(name, now)
            if gone or not self.model.sets.get(name):
                self.model.sets.pop(name, None), self.model.seen_ms.pop(name, None)
        rows = [len(IntervalSet((n, n + 1) for n in some).intervals) for some in self.model.sets.values()]
        assert table.num_rows == sum(rows), "no two rows touch each other"
        highest = table["origin"].to_pylist()[: len(self.sets.origins())]
        assert sorted(highest) == sorted(self.sets.origins()), "each origin's highest interval is first of all"

    def merge(self) -> None:
        other = Both(self.chance)
        other.now = self.now + self.chance.randrange(-5, 5)
        for _ in range(3):
            self.chance.choice((other.add, other.add_intervals, other.forget))()
        self.sets.update(other.sets)
        for name, some in other.model.sets.items():
            if some:
                self.model.meet(name, other.model.seen_ms[name]).update(some)

    def check(self) -> None:
        for name in (*NAMES, "never met"):
            numbers = self.model.sets.get(name, set())
            assert self.sets.get(name) == IntervalSet((n, n + 1) for n in numbers)
            assert self.sets.seen_ms(name) == self.model.seen_ms.get(name, 0)
        assert sorted(self.sets.origins()) == sorted(name for name, some in self.model.sets.items() if some)


@pytest.mark.parametrize("seed", range(12))
def test_sets_are_those_of_the_model(seed: int) -> None:
    """Whatever is done, one thing after the other; counting settles them, which changes nothing."""
    chance = random.Random(seed)
    for _ in range(12):
        both = Both(chance)
        steps = [both.add] * 4 + [both.add_intervals, both.touch, both.forget, both.ask, both.snapshot, both.merge]
        for _ in range(12):
            both.now += chance.choice((0, 0, 1, 4, HORIZON, HORIZON + 1))
            chance.choice(steps)()
            both.check()
            if chance.random() < 0.3:
                assert both.sets.count() == sum(map(len, both.model.sets.values()))
                both.check()


def test_nothing_is_added_by_an_empty_call_and_codes_are_given_in_order() -> None:
    sets = OriginSets(HORIZON)
    none = np.zeros(0, np.int64)
    assert sets.add(none, none, none).tolist() == []
    assert (len(sets), sets.origins(), sets.count(), sets.to_table().num_rows) == (0, [], 0, 0)
    sets.update(OriginSets())
    assert (sets.count(), sets.origins()) == (0, [])
    assert OriginSets.from_table(sets.to_table(), 7).horizon_ms == 7
    assert (sets.codes(["b", "a"]).tolist(), sets.codes(["a", "c", "b"]).tolist(), len(sets)) == ([0, 1], [1, 2, 0], 3)


@pytest.mark.parametrize("shift", [0, 1, 20, 50, 57, 60])
def test_rows_are_sorted_by_code_number_and_place(shift: int) -> None:
    """In whatever form that is done, for numbers of any width."""
    chance = random.Random(shift)
    for count in (1, 2, 7, 8, 40):
        codes = [chance.randrange(3) for _ in range(count)]
        seqs = [chance.randrange(-4, 4) << shift for _ in range(count)]
        one, ascending = [1] * count, list(range(count))
        for some, numbers in (
            (codes, seqs),
            (one, seqs),
            (one, ascending),
            ([*codes[1:], codes[1 % count]], ascending),
        ):
            order, code, seq = sorted_rows(np.array(some), np.array(numbers))
            wanted = sorted(zip(some, numbers, ascending, strict=True))
            assert list(zip(code.tolist(), seq.tolist(), order.tolist(), strict=True)) == wanted


def test_an_interval_that_touches_the_highest_one_from_below_is_one_with_it() -> None:
    """Of each origin by itself; the highest of all origins come first."""
    sets = OriginSets(HORIZON)
    for name, numbers in {"a": (5, 3, 4), "b": (9, 2, 7, 8), "c": (5, 1), "d": (5, 3, 4)}.items():
        for number in numbers:
            sets.add(sets.codes([name]), np.array([number]), np.array([1]))
    rows = [tuple(row.values())[:3] for row in sets.to_table().to_pylist()]
    assert rows == [("a", 3, 6), ("b", 7, 10), ("c", 5, 6), ("d", 3, 6), ("b", 2, 3), ("c", 1, 2)]
