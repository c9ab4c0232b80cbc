"""Judge one rule for one key: a state machine from final windows to a new state and changes. No I/O.

Time is event time. Each window is judged once, when it is final, in the order of window ends. Data that arrives later
changes the view and can end a silence, but raises nothing. So the outcome depends on the windows alone: not on how many
are judged at a time, in which order they were read, or whether some are judged again after a crash.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from headwater.processors.alerts.rules import Rule

__all__ = ["CALM", "Change", "Episode", "Reading", "State", "advance", "close"]


@dataclass(frozen=True, order=True, slots=True)
class Reading:
    """Hold a key's value in one window; the value is None when the column holds no number."""

    end_ms: int
    value: float | None


@dataclass(frozen=True)
class Episode:
    """Hold an episode that is over. `value` is what was measured when it was cleared."""

    since_ms: int
    cleared_ms: int
    value: float | None


@dataclass(frozen=True)
class State:
    """Hold what is remembered of a key for one rule.

    `since_ms` is where the episode begins: the start of the first window of the breach, or the end of the last window
    with data. Windows that end up to `through_ms` have been judged. A calm key that has had no episode needs no state
    at all.
    """

    phase: Literal["calm", "pending", "firing"] = "calm"
    since_ms: int = 0
    """For a calm key that was silent before: the end of the window whose data ended the silence."""
    through_ms: int = -(1 << 62)
    value: float | None = None
    """Value that was measured when the phase last changed."""
    last: Episode | None = None
    """The last episode that is over; None while another fires."""

    @property
    def is_kept(self) -> bool:
        """Return True when there is something to remember: the key is not calm, or has had an episode."""
        return self.phase != "calm" or self.last is not None

    def cleared(self, at_ms: int, value: float | None, through_ms: int) -> "State":
        """Return the state of a firing key after the end of its episode."""
        return State("calm", through_ms=through_ms, last=Episode(self.since_ms, at_ms, value))


CALM = State()


@dataclass(frozen=True)
class Change:
    """Hold the begin or the end of an episode. `at_ms` is the end of the window that decided it."""

    kind: Literal["raised", "cleared"]
    since_ms: int
    at_ms: int
    value: float | None


def advance(
    rule: Rule, state: State, readings: Iterable[Reading], after_ms: int, until_ms: int
) -> tuple[State, Sequence[Change]]:
    """Judge the windows that end in `(after, until]`; return the new state and the changes, oldest first.

    Both bounds lie on the grid of the view's windows. Readings may come in any order and must reach back by the rule's
    `lookback_ms`; for `absent` the last one up to `after` is enough. Readings outside are ignored.
    """
    ordered = sorted({one.end_ms: one for one in readings if one.end_ms <= until_ms}.values())
    after_ms = max(after_ms, state.through_ms)  # after a crash a span comes again; what was judged stays judged
    judge = _absence if rule.when.kind == "absent" else _threshold
    changes: list[Change] = []
    return judge(rule, state, ordered, (after_ms, until_ms), changes), changes


def close(state: State, at_ms: int) -> tuple[State, Sequence[Change]]:
    """End the state of a key for which no window can come any more, as its rule or the view's keys have changed."""
    if state.phase != "firing":
        return (state if state.phase == "calm" else State(through_ms=at_ms, last=state.last)), []
    return state.cleared(at_ms, None, at_ms), [Change("cleared", state.since_ms, at_ms, None)]


def _threshold(
    rule: Rule, state: State, readings: Sequence[Reading], span: tuple[int, int], changes: list[Change]
) -> State:
    """Judge a condition on values: a breach becomes pending, and fires once it has held for `for_ms`."""
    every, values = rule.window.every_ms, {one.end_ms: one.value for one in readings}
    for one in readings:
        if one.end_ms <= span[0]:
            continue
        measure = rule.when.measure(one.value, values.get(one.end_ms - every), every)
        if measure is None:
            continue
        if state.phase == "firing":
            if rule.when.is_clear(measure):
                changes.append(Change("cleared", state.since_ms, one.end_ms, measure))
                state = state.cleared(one.end_ms, measure, one.end_ms)
        elif rule.when.is_breached(measure):
            # a breach goes on only from the window right before: a gap begins a new run
            goes_on = state.phase == "pending" and state.through_ms == one.end_ms - every
            since = state.since_ms if goes_on else one.end_ms - rule.window.size_ms
            state = State("pending", since, one.end_ms, measure, state.last)
            if one.end_ms - since >= rule.for_ms:
                state = replace(state, phase="firing", last=None)
                changes.append(Change("raised", since, one.end_ms, measure))
        elif state.phase == "pending":
            state = State(through_ms=one.end_ms, last=state.last)
    if state.phase == "pending" and state.through_ms + every <= span[1]:  # the next window has no data: the run is over
        state = State(through_ms=span[1], last=state.last)
    return state


def _absence(
    rule: Rule, state: State, readings: Sequence[Reading], span: tuple[int, int], changes: list[Change]
) -> State:
    """Judge a silence: it fires when a key has had no data for `for_ms` and ends with the next data."""
    after, until = span
    every = rule.window.every_ms
    shown = -(-rule.for_ms // every) * every  # silence is seen when the windows that would break it are final
    seen = max((one.end_ms for one in readings if one.end_ms <= after), default=None)
    if state.phase == "firing" and seen is not None and seen > state.since_ms:  # came late
        at = max(after, state.since_ms + shown)
        changes.append(Change("cleared", state.since_ms, at, None))
        state = replace(state.cleared(at, None, at), since_ms=seen)
    # late data end a silence when they are seen, and the next one counts from there
    last = seen if state.last is None else max(state.through_ms, seen or 0)
    comes_late = state.last is not None and seen is not None and state.since_ms < seen <= state.through_ms
    ends = [one.end_ms for one in readings if one.end_ms > after]
    for end, is_data in [*((end, True) for end in ends), (until + every, False)]:
        if state.phase == "calm" and last is not None and end - every - last >= shown and comes_late:
            last, comes_late = after, False
            state = replace(state, since_ms=seen or 0, through_ms=after)
        if state.phase == "calm" and last is not None and end - every - last >= shown:
            state = State("firing", last, last)
            changes.append(Change("raised", last, last + shown, None))
        if is_data:
            if state.phase == "firing":
                changes.append(Change("cleared", state.since_ms, end, None))
                state = replace(state.cleared(end, None, end), since_ms=end)
            last = end
    return state
