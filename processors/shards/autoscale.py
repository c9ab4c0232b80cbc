"""When to reshard: a policy, decided by a pure function and explained in words.

`decide` sees the load, the layout, the policy and what it remembers; it returns a decision and the new memory. It
asks for no more calls than the service takes: one plan at a time, a pause between two, UpdateShardCount ten times
a day.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from processors.shards.calls import layouts, seconds
from processors.shards.cover import over
from processors.shards.limits import LIMITS, Limits
from processors.shards.load import LoadCurve
from processors.shards.plan import Goal, Plan, cap_of, least_shards, make_plan
from processors.shards.pricing import Prices, Usage, provisioned
from processors.shards.topology import Layout

__all__ = ["Decision", "Memory", "Policy", "Reading", "decide", "forecast", "memory_from_json", "remember"]

DAY_MS = 86_400_000
BUCKETS = 96
"""Quarters of an hour in a day, UTC."""


@dataclass(frozen=True)
class Policy:
    """What the autoscaler is to keep to."""

    target: float = 0.7
    margin: float = 0.2
    """Head room on top of the forecast."""
    floor: int = 1
    ceiling: int = 1_000
    cool_off_seconds: float = 900.0
    """Between the end of a reshard and the next one outward."""
    cool_down_seconds: float = 7_200.0
    """Between the end of a reshard and one inward."""
    least_saving: float = 0.15
    """Inward only when at least this share of the shards goes."""
    horizon_seconds: float = 3_600.0
    """How far ahead the time of day is looked up."""
    budget_per_day: float | None = None
    """Dollars: never more shards than this pays for."""
    patience_seconds: float = 1_800.0
    """A plan for the whole layout that takes longer gives way to splitting just what is hot."""
    leap: float = 1.4
    """Room that an UpdateShardCount outward makes, times the load expected."""
    most_calls: int = 60
    """Longest plan; a hotter stream is relieved where it is hottest first."""


@dataclass(frozen=True)
class Memory:
    """What is known from earlier decisions."""

    day: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * BUCKETS
    """Per quarter of an hour: typical bytes and records per second; 0 is unknown."""
    resharded_ms: int | None = None
    """When the last reshard was, or is to be, done."""
    looked_ms: int | None = None
    """When shrinking was last considered and found not worth it."""
    updates_ms: tuple[int, ...] = ()
    """When UpdateShardCount was called in the last 24 hours."""

    def to_json(self) -> dict[str, Any]:
        return {
            "day": [list(row) for row in self.day],
            "resharded_ms": self.resharded_ms,
            "looked_ms": self.looked_ms,
            "updates_ms": self.updates_ms,
        }


def memory_from_json(doc: Mapping[str, Any]) -> Memory:
    """What to_json wrote; an empty document is an empty memory."""
    if not doc:
        return Memory()
    day = tuple((row[0], row[1]) for row in doc["day"])
    return Memory(day, doc["resharded_ms"], doc["looked_ms"], tuple(doc["updates_ms"]))


@dataclass(frozen=True)
class Reading:
    """What is measured now. `busy`: a reshard is under way."""

    curve: LoadCurve
    usage: Usage
    throttled: bool = False
    busy: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do, why, and what to remember."""

    action: Literal["hold", "out", "in"]
    reasons: tuple[str, ...]
    memory: Memory
    plan: Plan | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "reasons": list(self.reasons),
            "plan": self.plan.id if self.plan else None,
            "calls": len(self.plan.steps) if self.plan else 0,
            "numbers": dict(self.numbers),
        }


def remember(memory: Memory, now_ms: int, load: tuple[float, float]) -> Memory:
    """Take a measurement in: the typical load of this time of day moves a tenth of the way to it."""
    at = now_ms % DAY_MS * BUCKETS // DAY_MS
    old = memory.day[at]
    new = load if old == (0.0, 0.0) else (old[0] + (load[0] - old[0]) / 10, old[1] + (load[1] - old[1]) / 10)
    day = (*memory.day[:at], new, *memory.day[at + 1 :])
    recent = tuple(ms for ms in memory.updates_ms if ms > now_ms - DAY_MS)
    return replace(memory, day=day, updates_ms=recent)


def forecast(memory: Memory, now_ms: int, horizon_seconds: float) -> float:
    """How many times the present load is to be expected at most until the horizon: 1 to 4; 1 while days are unknown."""
    at = now_ms % DAY_MS * BUCKETS // DAY_MS
    ahead = int(horizon_seconds * 1000 * BUCKETS // DAY_MS) + 1
    factor = 1.0
    for measure in (0, 1):
        present = memory.day[at][measure]
        if present > 0:
            highest = max(memory.day[(at + i) % BUCKETS][measure] for i in range(1, ahead + 1))
            factor = max(factor, highest / present)
    return min(4.0, factor)


def decide(
    now_ms: int,
    reading: Reading,
    layout: Layout,
    policy: Policy,
    memory: Memory,
    prices: Prices,
    stream: str = "",
    limits: Limits = LIMITS,
) -> Decision:
    """Hold, or a plan outward or inward."""
    memory = remember(memory, now_ms, reading.curve.total)
    factor = forecast(memory, now_ms, policy.horizon_seconds)
    expected = reading.curve.scaled(factor)
    numbers = {"shards": len(layout), "forecast": factor, "bytes_s": reading.curve.total[0]}

    def hold(*reasons: str) -> Decision:
        return Decision("hold", reasons, memory, numbers=numbers)

    if reading.busy:
        return hold("a reshard is under way")
    goal, note = _goal(policy, memory, reading.usage, prices, limits)
    hot = over(expected, layout, cap_of(replace(goal, margin=0.0), reading.usage.consumers, limits))
    since = float("inf") if memory.resharded_ms is None else (now_ms - memory.resharded_ms) / 1000
    if hot or reading.throttled:
        why = f"{len(hot)} of {len(layout)} shards over {policy.target:.0%} at {factor:.2f} times the present load"
        if since < policy.cool_off_seconds:
            return hold(why, f"cooling off: {since:.0f} of {policy.cool_off_seconds:.0f} s since the last reshard")
        plan = _outward(Ask(stream, layout, expected, reading.usage, goal, policy, prices, limits))
        if not plan.steps:
            return hold(why, *note, "no layout is better", *(f"{key.key}: {key.cure}" for key in plan.hot_keys))
        if plan.hottest_after > 0.95 * plan.hottest_before:
            return hold(why, *note, "no layout within the limits makes the hottest shard noticeably cooler")
        return _go("out", now_ms, plan, (why, *note), memory, numbers)
    if since < policy.cool_down_seconds:
        return hold(f"no shard over {policy.target:.0%}; {since:.0f} s since the last reshard, too soon to shrink")
    if memory.looked_ms is not None and now_ms - memory.looked_ms < policy.cool_down_seconds * 250:
        return hold(f"no shard over {policy.target:.0%}; shrinking was not worth it a short while ago")
    if least_shards(expected, goal, reading.usage.consumers, limits) > len(layout) * (1 - policy.least_saving):
        return hold(f"no shard over {policy.target:.0%}, and hardly one to spare")
    plan = _inward(Ask(stream, layout, expected, reading.usage, goal, policy, prices, limits))
    saved = 1 - len(plan.new) / len(layout)
    if saved < policy.least_saving:
        memory = replace(memory, looked_ms=now_ms)
        return hold(f"no shard over {policy.target:.0%}; shrinking to {len(plan.new)} would save {max(0.0, saved):.0%}")
    why = f"{len(plan.new)} of {len(layout)} shards do, at {factor:.2f} times the present load"
    return _go("in", now_ms, plan, (why,), memory, numbers)


def _go(
    action: Literal["out", "in"],
    now_ms: int,
    plan: Plan,
    reasons: tuple[str, ...],
    memory: Memory,
    numbers: dict[str, float],
) -> Decision:
    updates = sum(step.call == "UpdateShardCount" for step in plan.steps)
    done = now_ms + round(plan.seconds * 1000)
    memory = replace(memory, resharded_ms=done, updates_ms=(*memory.updates_ms, *[now_ms] * updates))
    month = plan.month_after - plan.month_before
    told = f"{len(plan.old)} to {len(plan.new)} shards in {len(plan.steps)} calls, about {plan.seconds:.0f} s"
    reasons = (*reasons, told, f"{month:+,.0f} dollars a month")
    return Decision(action, reasons, memory, plan, numbers)


def _goal(policy: Policy, memory: Memory, usage: Usage, prices: Prices, limits: Limits) -> tuple[Goal, tuple[str, ...]]:
    ceiling, note = policy.ceiling, tuple[str, ...]()
    if policy.budget_per_day is not None:
        fixed = provisioned(prices, usage, 0).hour
        each = provisioned(prices, usage, 1).hour - fixed
        payable = max(policy.floor, int((policy.budget_per_day / 24 - fixed) / each))
        if payable < ceiling:
            ceiling, note = payable, (f"the budget of {policy.budget_per_day:,.2f} a day pays for {payable} shards",)
    goal = Goal(
        target=policy.target,
        margin=policy.margin,
        floor=policy.floor,
        ceiling=ceiling,
        extra=0.1,
        updates_left=limits.updates_per_day - len(memory.updates_ms),
    )
    return goal, note


@dataclass(frozen=True)
class Ask:
    """What a plan is made for."""

    stream: str
    layout: Layout
    curve: LoadCurve
    usage: Usage
    goal: Goal
    policy: Policy
    prices: Prices
    limits: Limits

    def plan(self, growth: float = 1.0, **change: Any) -> Plan:
        return make_plan(
            self.stream,
            self.layout,
            self.curve.scaled(growth),
            self.usage,
            replace(self.goal, **change),
            self.prices,
            self.limits,
        )


def _outward(ask: Ask) -> Plan:
    """The cheapest layout where a few calls reach it; else a leap by UpdateShardCount with room to grow, for there are
    ten a day; else hot shards split and the rest left alone."""
    whole = ask.plan(method="exact")
    if whole.steps and whole.seconds <= ask.policy.patience_seconds:
        return whole
    if ask.goal.updates_left:
        leap = ask.plan(growth=ask.policy.leap, method="auto")
        if _leaps(leap) and len(leap.new) > len(ask.layout):
            return leap
    local = ask.plan(method="local")
    return _cut(local if local.steps else whole, ask.policy.most_calls)


def _inward(ask: Ask) -> Plan:
    """The cheapest layout where a few calls reach it; else UpdateShardCount while half a day's calls are left; else
    merges of neighbours."""
    whole = ask.plan(method="exact")
    if whole.seconds <= ask.policy.patience_seconds:
        return whole
    if ask.goal.updates_left > ask.limits.updates_per_day // 2:
        leap = ask.plan(method="auto")
        if _leaps(leap) and len(leap.new) <= (1 - 2 * ask.policy.least_saving) * len(ask.layout):
            return leap
    return _cut(ask.plan(method="local"), ask.policy.most_calls)


def _leaps(plan: Plan) -> bool:
    return bool(plan.steps) and plan.steps[0].call == "UpdateShardCount"


def _cut(plan: Plan, most: int) -> Plan:
    """The first calls of a long plan; the rest is decided again when they are done."""
    if len(plan.steps) <= most:
        return plan
    steps = plan.steps[:most]
    *_, new = layouts(plan.old, steps)
    part = (len(new) - len(plan.old)) / (len(plan.new) - len(plan.old) or 1)
    month = plan.month_before + part * (plan.month_after - plan.month_before)
    return replace(plan, new=new, steps=steps, seconds=seconds(steps), month_after=month)
