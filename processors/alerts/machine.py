"""The state machine of one rule and one key: final windows in, a new state and what has changed out. No I/O.

Time is event time. Each window is judged once, when it is final, in order of its end; what comes for it later changes
the view and no alert. So the outcome depends on the windows alone: not on how many are judged at a time, in which
order they were read, nor on whether some are judged again after a crash.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from processors.alerts.rules import Rule

__all__ = ["CALM", "Change", "Reading", "State", "advance"]


@dataclass(frozen=True, order=True)
class Reading:
    """A key's row of one window: what a rule's column holds, None where it holds no number."""

    end_ms: int
    value: float | None


@dataclass(frozen=True)
class State:
    """`since_ms` is where the episode begins: at the first window of the breach, or the end of the last with data.
    Windows up to `through_ms` have been judged. Calm keys that never had an episode need no state at all."""

    phase: Literal["calm", "pending", "firing"] = "calm"
    since_ms: int = 0
    through_ms: int = -(1 << 62)
    value: float | None = None
    """What was measured when the phase last changed."""


CALM = State()


@dataclass(frozen=True)
class Change:
    """An episode begins or ends, at `at_ms`, the end of the window that decided it."""

    kind: Literal["raised", "cleared"]
    since_ms: int
    at_ms: int
    value: float | None


def advance(
    rule: Rule, state: State, readings: Iterable[Reading], after_ms: int, until_ms: int
) -> tuple[State, Sequence[Change]]:
    """Judge the windows that end in `(after, until]`, both on the grid of the view's windows. Readings may come in any
    order and must reach back by the rule's `lookback_ms`; those outside are passed over."""
    ordered = sorted({one.end_ms: one for one in readings if one.end_ms <= until_ms}.values())
    after_ms = max(after_ms, state.through_ms)
    judge = _absence if rule.when.kind == "absent" else _threshold
    changes: list[Change] = []
    return judge(rule, state, ordered, (after_ms, until_ms), changes), changes


def _threshold(
    rule: Rule, state: State, readings: Sequence[Reading], span: tuple[int, int], changes: list[Change]
) -> State:
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
                state = State("calm", state.since_ms, one.end_ms, measure)
        elif rule.when.is_breached(measure):
            goes_on = state.phase == "pending" and state.through_ms == one.end_ms - every
            since = state.since_ms if goes_on else one.end_ms - rule.window.size_ms
            state = State("pending", since, one.end_ms, measure)
            if one.end_ms - since >= rule.for_ms:
                state = replace(state, phase="firing")
                changes.append(Change("raised", since, one.end_ms, measure))
        elif state.phase == "pending":
            state = State("calm", through_ms=one.end_ms)
    return state


def _absence(
    rule: Rule, state: State, readings: Sequence[Reading], span: tuple[int, int], changes: list[Change]
) -> State:
    after, until = span
    every = rule.window.every_ms
    shown = -(-rule.for_ms // every) * every  # silence is seen when the windows that would break it are final
    last = max((one.end_ms for one in readings if one.end_ms <= after), default=None)
    ends = [one.end_ms for one in readings if one.end_ms > after]
    for end, is_data in [*((end, True) for end in ends), (until + every, False)]:
        if state.phase == "calm" and last is not None and end - every - last >= shown:
            state = State("firing", last, last)
            changes.append(Change("raised", last, last + shown, None))
        if is_data:
            if state.phase == "firing":
                changes.append(Change("cleared", state.since_ms, end, None))
                state = State("calm", state.since_ms, end)
            last = end
    return state
