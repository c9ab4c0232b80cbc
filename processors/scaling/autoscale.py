"""Decide when to reshard: a policy, applied by a pure function that gives its reasons in words.

`decide` sees the load, the layout, the policy and what it remembers; it returns a decision and the new memory. It asks
for no more calls than the service takes: one plan at a time, a pause between two, UpdateShardCount ten times a day.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from headwater.clock import DAY_MS
from headwater.processors.scaling.calls import layouts, seconds
from headwater.processors.scaling.limits import LIMITS
from headwater.processors.scaling.load import LoadCurve
from headwater.processors.scaling.packing import over
from headwater.processors.scaling.plan import Goal, Plan, cap_of, least_shards, make_plan
from headwater.processors.scaling.pricing import Prices, Usage, provisioned
from headwater.processors.scaling.topology import Layout

__all__ = ["Decision", "LoadReading", "Memory", "Policy", "decide", "forecast", "memory_from_json", "remember"]

BUCKETS = 96
"""Quarters of an hour in a day, UTC."""


@dataclass(frozen=True)
class Policy:
    """Set what the autoscaler keeps to: how full shards may be, how many, how often it reshards, and the budget.

    Outward means to more shards, inward to fewer.
    """

    target: float = 0.7
    margin: float = 0.2
    """Head room on top of the forecast."""
    floor: int = 1
    ceiling: int = 1_000
    cool_off_seconds: float = 900.0
    """Pause between the end of a reshard and the next one outward."""
    cool_down_seconds: float = 7_200.0
    """Pause between the end of a reshard and one inward: longer, so that a short dip in the load changes nothing."""
    least_saving: float = 0.15
    """Inward only when at least this share of the shards goes."""
    horizon_seconds: float = 3_600.0
    """The time ahead for which the typical load is looked up."""
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
    """Hold what earlier decisions learned: the typical load by time of day, and when what was done."""

    day: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * BUCKETS
    """Per quarter of an hour: typical bytes and records per second; 0 is unknown."""
    resharded_ms: int | None = None
    """When the last reshard was, or is to be, done."""
    looked_ms: int | None = None
    """When shrinking was last considered and found not worth it."""
    updates_ms: tuple[int, ...] = ()
    """When UpdateShardCount was called in the last 24 hours."""

    def to_json(self) -> dict[str, Any]:
        """Return the memory as a JSON document, which `memory_from_json` reads."""
        return {
            "day": [list(row) for row in self.day],
            "resharded_ms": self.resharded_ms,
            "looked_ms": self.looked_ms,
            "updates_ms": self.updates_ms,
        }


def memory_from_json(doc: Mapping[str, Any]) -> Memory:
    """Return the memory that `Memory.to_json` wrote; an empty document is an empty memory.

    >>> memory_from_json({}) == Memory()
    True
    """
    if not doc:
        return Memory()
    day = tuple((row[0], row[1]) for row in doc["day"])
    return Memory(day, doc["resharded_ms"], doc["looked_ms"], tuple(doc["updates_ms"]))


@dataclass(frozen=True)
class LoadReading:
    """Hold what is measured now; `busy` says that a reshard is under way."""

    curve: LoadCurve
    usage: Usage
    throttled: bool = False
    busy: bool = False


@dataclass(frozen=True)
class Decision:
    """Hold what to do (`hold`, `out` or `in`), the reasons in words, the new memory, and the plan if there is one."""

    action: Literal["hold", "out", "in"]
    reasons: tuple[str, ...]
    memory: Memory
    plan: Plan | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the decision as the console and the ledger show it; of the plan just its id and its length."""
        return {
            "action": self.action,
            "reasons": list(self.reasons),
            "plan": self.plan.id if self.plan else None,
            "calls": len(self.plan.steps) if self.plan else 0,
            "numbers": dict(self.numbers),
        }


def remember(memory: Memory, now_ms: int, load: tuple[float, float]) -> Memory:
    """Return the memory with one more measurement of bytes and records per second.

    The typical load of this time of day moves a tenth of the way to it; the first measurement counts in full.
    UpdateShardCount calls older than 24 hours are forgotten.

    >>> memory = remember(Memory(), now_ms=0, load=(100.0, 10.0))
    >>> remember(memory, now_ms=86_400_000, load=(200.0, 10.0)).day[0]
    (110.0, 10.0)
    """
    at = now_ms % DAY_MS * BUCKETS // DAY_MS
    old = memory.day[at]
    new = load if old == (0.0, 0.0) else (old[0] + (load[0] - old[0]) / 10, old[1] + (load[1] - old[1]) / 10)
    day = (*memory.day[:at], new, *memory.day[at + 1 :])
    recent = tuple(ms for ms in memory.updates_ms if ms > now_ms - DAY_MS)
    return replace(memory, day=day, updates_ms=recent)


def forecast(memory: Memory, now_ms: int, horizon_seconds: float) -> float:
    """Return the factor from the typical load now to the highest up to the horizon, from 1 to 4.

    It is 1 for times of day of which nothing is known yet.

    >>> forecast(Memory(), now_ms=0, horizon_seconds=3_600)
    1.0
    >>> later = remember(remember(Memory(), 0, (100.0, 10.0)), 1_800_000, (250.0, 10.0))
    >>> forecast(later, now_ms=0, horizon_seconds=3_600)
    2.5
    """
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
    reading: LoadReading,
    layout: Layout,
    policy: Policy,
    memory: Memory,
    prices: Prices,
    stream: str = "",
) -> Decision:
    """Return the decision to hold, or a plan for more or fewer shards.

    More shards come as soon as the load expected puts a shard over the target, or records are refused; fewer only after
    the longer pause, and when enough shards are saved to be worth it.

    >>> from headwater.processors.scaling.load import even_load
    >>> from headwater.processors.scaling.pricing import load_prices
    >>> reading = LoadReading(even_load(1_800_000, 500), Usage(1_800_000, 500))
    >>> decision = decide(0, reading, (0, 2**127), Policy(), Memory(), load_prices(), "orders")
    >>> decision.action, decision.reasons[0]
    ('out', '2 of 2 shards over 70% at 1.00 times the present load')
    """
    memory = remember(memory, now_ms, reading.curve.total)
    factor = forecast(memory, now_ms, policy.horizon_seconds)
    expected = reading.curve.scaled(factor)
    goal, note = _goal(policy, memory, reading.usage, prices)
    since = float("inf") if memory.resharded_ms is None else (now_ms - memory.resharded_ms) / 1000
    numbers = {"shards": len(layout), "forecast": factor, "bytes_s": reading.curve.total[0]}
    ask = PlanRequest(stream, layout, expected, reading.usage, goal, policy, prices)
    turn = _DecisionMaker(now_ms, ask, memory, note, since, numbers)
    if reading.busy:
        return turn.hold("a reshard is under way")
    # The margin sizes the new layout; whether to act is decided without it, else the least growth would reshard.
    hot = over(expected, layout, cap_of(replace(goal, margin=0.0), reading.usage.consumers))
    if hot or reading.throttled:
        return turn.outward(len(hot))
    return turn.inward()


def _goal(policy: Policy, memory: Memory, usage: Usage, prices: Prices) -> tuple[Goal, tuple[str, ...]]:
    """Return the goal of a plan, its ceiling lowered to what the budget pays for, and a note of that."""
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
        updates_left=LIMITS.updates_per_day - len(memory.updates_ms),
    )
    return goal, note


@dataclass(frozen=True)
class PlanRequest:
    """Hold what a plan is made from."""

    stream: str
    layout: Layout
    curve: LoadCurve
    usage: Usage
    goal: Goal
    policy: Policy
    prices: Prices

    def plan(self, growth: float = 1.0, **change: Any) -> Plan:
        """Return the plan for `growth` times the load, with fields of the goal changed as named."""
        return make_plan(
            self.stream,
            self.layout,
            self.curve.scaled(growth),
            self.usage,
            replace(self.goal, **change),
            self.prices,
        )


@dataclass(frozen=True)
class _DecisionMaker:
    """Make one decision, from what is known at its time."""

    now_ms: int
    ask: PlanRequest
    memory: Memory
    note: tuple[str, ...]
    """About the goal, for whoever reads the decision."""
    since: float
    """Seconds since the last reshard was done."""
    numbers: dict[str, float]

    def hold(self, *reasons: str) -> Decision:
        """Return the decision to do nothing."""
        return Decision("hold", reasons, self.memory, numbers=self.numbers)

    def outward(self, hot: int) -> Decision:
        """Return the decision for more shards, of which so many are over the target; to hold where none helps."""
        policy, factor = self.ask.policy, self.numbers["forecast"]
        why = f"{hot} of {len(self.ask.layout)} shards over {policy.target:.0%} at {factor:.2f} times the present load"
        if self.since < policy.cool_off_seconds:
            return self.hold(
                why, f"cooling off: {self.since:.0f} of {policy.cool_off_seconds:.0f} s since the last reshard"
            )
        plan = _outward(self.ask)
        if not plan.steps:
            cures = (f"{key.key}: {key.cure}" for key in plan.hot_keys)
            return self.hold(why, *self.note, "no layout is better", *cures)
        if plan.hottest_after > 0.95 * plan.hottest_before:
            return self.hold(why, *self.note, "no layout within the limits makes the hottest shard noticeably cooler")
        return self._go("out", plan, (why, *self.note))

    def inward(self) -> Decision:
        """Return the decision for fewer shards; to hold where that saves little or comes too soon."""
        policy, layout, quiet = self.ask.policy, self.ask.layout, f"no shard over {self.ask.policy.target:.0%}"
        if self.since < policy.cool_down_seconds:
            return self.hold(f"{quiet}; {self.since:.0f} s since the last reshard, too soon to shrink")
        # 250: a quarter of the pause, in milliseconds. A plan that was not worth it need not be made at every turn.
        looked = self.memory.looked_ms
        if looked is not None and self.now_ms - looked < policy.cool_down_seconds * 250:
            return self.hold(f"{quiet}; shrinking was not worth it a short while ago")
        least = least_shards(self.ask.curve, self.ask.goal, self.ask.usage.consumers)
        if least > len(layout) * (1 - policy.least_saving):
            return self.hold(f"{quiet}, and hardly one to spare")
        plan = _inward(self.ask)
        saved = 1 - len(plan.new) / len(layout)
        if saved < policy.least_saving:
            looked_now = replace(self, memory=replace(self.memory, looked_ms=self.now_ms))
            return looked_now.hold(f"{quiet}; shrinking to {len(plan.new)} would save {max(0.0, saved):.0%}")
        factor = self.numbers["forecast"]
        why = f"{len(plan.new)} of {len(layout)} shards do, at {factor:.2f} times the present load"
        return self._go("in", plan, (why,))

    def _go(self, action: Literal["out", "in"], plan: Plan, reasons: tuple[str, ...]) -> Decision:
        """Return the decision to carry out the plan; the pause before the next one begins when this one is done."""
        updates = sum(step.call == "UpdateShardCount" for step in plan.steps)
        done = self.now_ms + round(plan.seconds * 1000)
        memory = replace(self.memory, resharded_ms=done, updates_ms=(*self.memory.updates_ms, *[self.now_ms] * updates))
        month = plan.month_after - plan.month_before
        summary = f"{len(plan.old)} to {len(plan.new)} shards in {len(plan.steps)} calls, about {plan.seconds:.0f} s"
        said = (*reasons, summary, f"{month:+,.0f} dollars a month")
        return Decision(action, said, memory, plan, self.numbers)


def _outward(ask: PlanRequest) -> Plan:
    """Return a plan for more shards.

    It is the cheapest layout where a few calls reach it; else a leap by UpdateShardCount with room to grow, because
    only ten a day are allowed; else only the hot shards are split.
    """
    whole = ask.plan(method="exact")
    if whole.steps and whole.seconds <= ask.policy.patience_seconds:
        return whole
    if ask.goal.updates_left:
        leap = ask.plan(growth=ask.policy.leap, method="auto")
        if _leaps(leap) and len(leap.new) > len(ask.layout):
            return leap
    local = ask.plan(method="local")
    return _cut(local if local.steps else whole, ask.policy.most_calls)


def _inward(ask: PlanRequest) -> Plan:
    """Return a plan for fewer shards.

    It is the cheapest layout where a few calls reach it; else UpdateShardCount while half a day's calls are left for
    growth; else merges of neighbours.
    """
    whole = ask.plan(method="exact")
    if whole.seconds <= ask.policy.patience_seconds:
        return whole
    if ask.goal.updates_left > LIMITS.updates_per_day // 2:
        leap = ask.plan(method="auto")
        if _leaps(leap) and len(leap.new) <= (1 - 2 * ask.policy.least_saving) * len(ask.layout):
            return leap
    return _cut(ask.plan(method="local"), ask.policy.most_calls)


def _leaps(plan: Plan) -> bool:
    """Tell whether the plan begins with UpdateShardCount."""
    return bool(plan.steps) and plan.steps[0].call == "UpdateShardCount"


def _cut(plan: Plan, most: int) -> Plan:
    """Return the first calls of a long plan; the rest is decided again when they are done."""
    if len(plan.steps) <= most:
        return plan
    steps = plan.steps[:most]
    *_, new = layouts(plan.old, steps)
    part = (len(new) - len(plan.old)) / (len(plan.new) - len(plan.old) or 1)
    month = plan.month_before + part * (plan.month_after - plan.month_before)
    return replace(plan, new=new, steps=steps, seconds=seconds(steps), month_after=month)
