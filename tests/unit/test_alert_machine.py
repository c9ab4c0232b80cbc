"""The state machine of alerts: what raises an episode, and that its outcome depends on the windows alone."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import UsageError
from headwater.processors.alerts import Rule, above, absent, below, falling, rising
from headwater.processors.alerts.machine import CALM, Change, Episode, Reading, State, advance
from headwater.processors.definition.windows import hopping, tumbling

MINUTE = 60_000
ONE = tumbling("1m")
Told = list[tuple[str, int, int]]


def readings(*values: float | None, first: int = 1) -> list[Reading]:
    """One a minute; the first ends in minute `first`."""
    return [Reading((first + at) * MINUTE, value) for at, value in enumerate(values)]


def told(changes: Sequence[Change]) -> Told:
    """Kind, beginning of the episode and time of the change, in minutes."""
    return [(one.kind, one.since_ms // MINUTE, one.at_ms // MINUTE) for one in changes]


def judged(rule: Rule, *values: float | None) -> Told:
    _, changes = advance(rule, CALM, readings(*values), 0, len(values) * MINUTE)
    return told(changes)


def test_above_until_clear() -> None:
    """Between clear and limit nothing changes, in either direction."""
    rule = Rule("hot", "v", ONE, above("mean", 30, clear=28))
    assert judged(rule, 29, 31, 29, 30.5, 28.5, 28, 29, 30) == [("raised", 1, 2), ("cleared", 1, 6)]
    assert judged(rule, 31, 20, 31) == [("raised", 0, 1), ("cleared", 0, 2), ("raised", 2, 3)]


def test_below_is_the_mirror() -> None:
    rule = Rule("low", "v", ONE, below("mean", 10, clear=12))
    assert judged(rule, 11, 9, 11, 9.5, 12, 11) == [("raised", 1, 2), ("cleared", 1, 5)]


def test_it_has_to_hold_in_windows_that_follow_one_another() -> None:
    rule = Rule("hot", "v", ONE, above("mean", 30), for_ms=3 * MINUTE)
    assert judged(rule, 31, 31, 30, 31, 31, 31) == [("raised", 3, 6)]
    assert judged(rule, 31, 31, None, 31, 31) == []
    gap = [*readings(31, 31), *readings(31, 31, 31, first=4)]
    assert told(advance(rule, CALM, gap, 0, 6 * MINUTE)[1]) == [("raised", 3, 6)]


def test_a_window_without_data_does_not_clear() -> None:
    rule = Rule("hot", "v", ONE, above("mean", 30))
    assert judged(rule, 31, None, None, 31, 29) == [("raised", 0, 1), ("cleared", 0, 5)]


def test_rates_compare_neighbours() -> None:
    """A rate needs the window right before; its unit is its own."""
    up = Rule("up", "v", ONE, rising("mean", 60, per="1h", clear=0))
    assert judged(up, 0, 1, 3, 3.5, 3) == [("raised", 2, 3), ("cleared", 2, 5)]
    assert judged(up, 0, None, 9) == []
    down = Rule("down", "v", ONE, falling("mean", 2, per="1m"))
    assert judged(down, 9, 7, 4, 3) == [("raised", 2, 3), ("cleared", 2, 4)]


def test_the_context_counts_but_is_not_judged() -> None:
    up = Rule("up", "v", ONE, rising("mean", 2, per="1m"))
    assert told(advance(up, CALM, readings(0, 9, 18), 2 * MINUTE, 3 * MINUTE)[1]) == [("raised", 2, 3)]


def test_absence() -> None:
    """Seen when the windows that would break the silence are final; the episode begins where the data ended."""
    rule = Rule("silent", "v", ONE, absent(), for_ms=3 * MINUTE)
    seen = readings(1.0, 1.0)
    assert told(advance(rule, CALM, seen, 0, 4 * MINUTE)[1]) == []
    state, changes = advance(rule, CALM, seen, 0, 5 * MINUTE)
    assert told(changes) == [("raised", 2, 5)]
    back = [*seen, *readings(1.0, first=9)]
    assert told(advance(rule, state, back, 5 * MINUTE, 9 * MINUTE)[1]) == [("cleared", 2, 9)]
    assert told(advance(rule, CALM, back, 0, 9 * MINUTE)[1]) == [("raised", 2, 5), ("cleared", 2, 9)]


def test_what_comes_late_raises_nothing() -> None:
    """A window judged calm is amended to a breach: it is not judged again."""
    rule = Rule("hot", "v", ONE, above("mean", 30))
    state, changes = advance(rule, CALM, readings(20, 20), 0, 2 * MINUTE)
    assert (state, told(changes)) == (CALM, [])
    assert told(advance(rule, state, readings(99, 99), 2 * MINUTE, 3 * MINUTE)[1]) == []
    fired, _ = advance(rule, CALM, readings(99), 0, MINUTE)
    assert advance(rule, fired, readings(99), 0, MINUTE) == (fired, [])


def test_a_brief_breach_leaves_the_last_episode() -> None:
    rule = Rule("hot", "v", ONE, above("mean", 30), for_ms=2 * MINUTE)
    state, _ = advance(rule, CALM, readings(31, 31, 20), 0, 3 * MINUTE)
    over = Episode(0, 3 * MINUTE, 20)
    assert (state.phase, state.last) == ("calm", over)
    state, changes = advance(rule, state, readings(31, first=4), 3 * MINUTE, 4 * MINUTE)
    assert (state.phase, state.since_ms, state.last, changes) == ("pending", 3 * MINUTE, over, [])
    state, _ = advance(rule, state, readings(20, first=5), 4 * MINUTE, 5 * MINUTE)
    assert (state.phase, state.last) == ("calm", over)
    state, _ = advance(rule, state, readings(31, 31, first=6), 5 * MINUTE, 7 * MINUTE)
    assert (state.phase, state.since_ms, state.last) == ("firing", 5 * MINUTE, None)


def test_a_run_ends_when_the_next_window_has_no_data() -> None:
    """Once that is final; until then it is about to fire."""
    rule = Rule("hot", "v", ONE, above("mean", 30), for_ms=2 * MINUTE)
    state, _ = advance(rule, CALM, readings(31), 0, MINUTE)
    assert state.phase == "pending"
    assert advance(rule, state, [], MINUTE, MINUTE)[0] == state
    state, _ = advance(rule, state, [], MINUTE, 2 * MINUTE)
    assert not state.is_kept


def test_data_that_come_late_end_a_silence() -> None:
    """When they are seen; the next one counts from there, and again while more come."""
    rule = Rule("silent", "v", ONE, absent(), for_ms=3 * MINUTE)
    state, told_, rows = CALM, list[Change](), readings(1.0, 1.0)
    for until in range(1, 60):
        state, changes = advance(rule, state, rows, (until - 1) * MINUTE, until * MINUTE)
        told_ += changes
        if 10 < until < 40:
            rows.append(Reading((until - 4) * MINUTE, 1.0))
    assert [(kind, since) for kind, since, _ in told(told_)] == [("raised", 2), ("cleared", 2), ("raised", 39)]
    assert told(told_)[1][2] == 11


def test_wrong_definitions() -> None:
    for make in (
        lambda: above("mean", 30, clear=31),
        lambda: below("mean", 30, clear=29),
        lambda: Rule("silent", "v", ONE, absent()),
        lambda: Rule("a/b", "v", ONE, above("mean", 1)),
        lambda: rising("mean", 1, per="soon"),
    ):
        with pytest.raises(UsageError):
            make()


@given(st.lists(st.floats(28.001, 30), min_size=1, max_size=40), st.sampled_from(["calm", "firing"]))
def test_flapping_within_the_band_changes_nothing(values: list[float], phase: str) -> None:
    rule = Rule("hot", "v", ONE, above("mean", 30, clear=28))
    before = State("firing", 5, 5) if phase == "firing" else CALM
    assert advance(rule, before, readings(*values), 0, 99 * MINUTE) == (before, [])


windows = st.sampled_from([ONE, tumbling("2m"), hopping("3m", every="1m")])
conditions = st.sampled_from(
    [above("x", 2, clear=1), below("x", 1), rising("x", 1, per="1m", clear=0), falling("x", 1, per="2m"), absent()]
)


@st.composite
def lives(draw: st.DrawFn) -> tuple[Rule, list[Reading], list[int]]:
    """A rule, the rows of a key (some windows have none) and the watermarks at which a service looked."""
    window = draw(windows)
    every = window.every_ms
    rule = Rule("r", "v", window, draw(conditions), draw(st.sampled_from([1, 2, 3, 5])) * MINUTE)
    values = draw(st.lists(st.one_of(st.none(), st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.0])), min_size=1, max_size=30))
    absent_at = draw(st.sets(st.integers(0, 29)))
    rows = [Reading((at + 3) * every, value) for at, value in enumerate(values) if at not in absent_at]
    last = (len(values) + 12) * every
    cuts = draw(st.sets(st.integers(0, last // every), max_size=8))
    return rule, rows, sorted({*(cut * every for cut in cuts), last})


@given(lives(), st.randoms(use_true_random=False))
def test_the_same_episodes_however_it_is_evaluated(life: tuple[Rule, list[Reading], list[int]], chance: Random) -> None:
    """At once or in turns, rows in any order and twice, only as far back as the rule says, and with turns repeated
    after a crash that came before the progress was stored: each change comes out the same, and as often."""
    rule, rows, cuts = life
    _, expected = advance(rule, CALM, rows, 0, cuts[-1])
    state, after = CALM, 0
    found: list[Change] = []
    for until in cuts:
        for _ in range(1 + chance.randint(0, 1)):
            seen = [one for one in rows if after - rule.lookback_ms < one.end_ms <= until + rule.window.every_ms] * 2
            chance.shuffle(seen)
            state, changes = advance(rule, state, seen, after, until)
            found += changes
        after = until
    assert found == list(expected)
    kinds = [one.kind for one in found]
    assert kinds == [("raised", "cleared")[at % 2] for at in range(len(kinds))]
    assert len({(one.kind, one.since_ms) for one in found}) == len(found)
