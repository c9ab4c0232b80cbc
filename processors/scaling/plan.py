"""Plan the cheapest layout that holds a measured load: the calls that lead to it, its price, and the alternatives.

Pure. The layout has the fewest shards that keep each under `target` of its limits with the forecast `margin` on top;
provisioned shards cost by the hour, so fewest is cheapest. Where one key alone is hotter than that, no split helps: it
gets a shard of its own and the plan says what to do about the key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from headwater.errors import HeadwaterError, UsageError
from headwater.processors.scaling.calls import Step, reshard, seconds, step_from_json, updates
from headwater.processors.scaling.limits import LIMITS
from headwater.processors.scaling.load import LoadCurve
from headwater.processors.scaling.packing import Cap, even_count, fewest_shards, over, split_and_merge
from headwater.processors.scaling.pricing import Prices, Usage, compare, provisioned
from headwater.processors.scaling.topology import Layout, even_layout, fingerprint

__all__ = ["Alternative", "Goal", "HotKey", "Plan", "cap_of", "least_shards", "make_plan", "plan_from_json"]

CURE = "splitting cannot cure one key: spread its batches (ordered=False), or add a part to the partition key"


@dataclass(frozen=True)
class Goal:
    """Set what a plan has to reach: the share of its limits that a shard may use, and the bounds on the shards.

    >>> Goal(target=0.5, margin=0.0).check().target
    0.5
    """

    target: float = 0.7
    """Share of a limit that a shard may use."""
    margin: float = 0.2
    """Growth to be ready for, on top of the load measured."""
    floor: int = 1
    ceiling: int = 10_000
    quota: int = LIMITS.account_shards
    """Shards that this stream may have at a time, also on the way."""
    method: Literal["auto", "exact", "local"] = "auto"
    """exact: splits and merges to the cheapest layout. local: hot shards split, cold neighbours merged, the rest stays.
    auto: exact, or UpdateShardCount where that gets there sooner with hardly more shards."""
    extra: float = 0.0
    """The share of shards that UpdateShardCount may cost on top for being sooner; 0 is none."""
    updates_left: int = LIMITS.updates_per_day
    """UpdateShardCount calls that may still be made today."""

    def check(self) -> "Goal":
        """Return the goal itself; raise UsageError for shares or bounds that contradict each other."""
        if not (0 < self.target <= 1 and self.margin >= 0 and 1 <= self.floor <= self.ceiling):
            raise UsageError("a plan needs 0 < target <= 1, margin >= 0 and 1 <= floor <= ceiling")
        return self


@dataclass(frozen=True)
class HotKey:
    """Name a partition key that alone exceeds what a shard may carry, and what cures it."""

    key: str
    position: int
    share: float
    """Its load as a share of one shard's limit, margin included; 1.0 is the limit."""
    cure: str = CURE


@dataclass(frozen=True)
class Alternative:
    """Hold another way to carry the load, with its price in dollars per month.

    `shards` is None where there is no number of shards: on-demand modes, or no even count found.
    """

    name: str
    shards: int | None
    month: float
    calls: int
    seconds: float
    holds: bool
    """True when every shard stays under the target."""
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """Hold a layout to reach, the calls that lead to it from the present one, and what it costs.

    `seconds` is an estimate of how long the calls take. Months are dollars.
    """

    stream: str
    old: Layout
    new: Layout
    steps: tuple[Step, ...]
    seconds: float
    hottest_before: float
    hottest_after: float
    """The hottest shard's share of its limit, margin included."""
    month_before: float
    month_after: float
    hot_keys: tuple[HotKey, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()
    prices: str = ""
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Return the plan's name: the fingerprints of both layouts, so equal reshards have an equal name."""
        return f"{fingerprint(self.old)}-{fingerprint(self.new)}"

    def to_json(self) -> dict[str, Any]:
        """Return the plan as the JSON document that `headwater shards plan` writes and `plan_from_json` reads."""
        return {
            "plan": self.id,
            "stream": self.stream,
            "old": [str(at) for at in self.old],
            "new": [str(at) for at in self.new],
            "steps": [step.to_json() for step in self.steps],
            "seconds": self.seconds,
            "hottest_before": self.hottest_before,
            "hottest_after": self.hottest_after,
            "month_before": self.month_before,
            "month_after": self.month_after,
            "hot_keys": [vars(key) | {"position": str(key.position)} for key in self.hot_keys],
            "alternatives": [vars(alternative) for alternative in self.alternatives],
            "notes": list(self.notes),
            "prices": self.prices,
            "made": self.made,
        }


def plan_from_json(doc: dict[str, Any]) -> Plan:
    """Return the plan that `Plan.to_json` wrote.

    Raises UsageError when the document is no plan, or its layouts are not those that its id names.
    """
    try:
        plan = Plan(
            stream=doc["stream"],
            old=tuple(int(at) for at in doc["old"]),
            new=tuple(int(at) for at in doc["new"]),
            steps=tuple(step_from_json(step) for step in doc["steps"]),
            seconds=doc["seconds"],
            hottest_before=doc["hottest_before"],
            hottest_after=doc["hottest_after"],
            month_before=doc["month_before"],
            month_after=doc["month_after"],
            hot_keys=tuple(HotKey(**(key | {"position": int(key["position"])})) for key in doc["hot_keys"]),
            alternatives=tuple(Alternative(**alternative) for alternative in doc["alternatives"]),
            notes=tuple(doc["notes"]),
            prices=doc["prices"],
            made=doc["made"],
        )
        named = doc["plan"]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"not a plan of `headwater shards plan`: {type(error).__name__}: {error}") from None
    if plan.id != named:
        raise UsageError(f"the plan was changed by hand: it says {named} and its layouts are {plan.id}; make a new one")
    return plan


def cap_of(goal: Goal, consumers: int) -> Cap:
    """Return the most that a shard may carry of today's load: `target` of the limit, divided by 1 + `margin`.

    All `consumers` share the read limit of a shard, so with more than two of them it is the lower one.

    >>> cap_of(Goal(target=0.6, margin=0.2), consumers=1)
    Cap(bytes_s=500000.0, records_s=500.0)
    >>> cap_of(Goal(target=0.6, margin=0.2), consumers=4)
    Cap(bytes_s=250000.0, records_s=500.0)
    """
    part = goal.target / (1 + goal.margin)
    bytes_s = min(LIMITS.write_bytes, LIMITS.read_bytes / max(1, consumers))
    return Cap(bytes_s * part, LIMITS.write_records * part)


def make_plan(
    stream: str,
    current: Layout,
    curve: LoadCurve,
    usage: Usage,
    goal: Goal,
    prices: Prices,
) -> Plan:
    """Return the plan for the stream with the layout `current`.

    `curve` is the load that the shards have to hold, usually a peak; `usage` is the average month, for the price.
    Raises UsageError for an impossible goal, HeadwaterError when the quota leaves no way to the layout.

    >>> from headwater.processors.scaling.load import even_load
    >>> from headwater.processors.scaling.pricing import load_prices
    >>> load = even_load(bytes_s=2_000_000, records_s=1_000)
    >>> plan = make_plan("orders", even_layout(2), load, Usage(2e6, 1e3), Goal(), load_prices())
    >>> len(plan.new), [step.call for step in plan.steps]
    (4, ['SplitShard', 'SplitShard'])
    >>> round(plan.hottest_before, 2), round(plan.hottest_after, 2)
    (1.2, 0.6)
    """
    goal.check()
    cap = cap_of(goal, usage.consumers)
    most_even = _most_even_shards(len(current), least_shards(curve, goal, usage.consumers), goal)
    naive = even_count(curve, cap, most_even)
    new, steps, notes = _layout(current, curve, cap, goal, naive)
    hot = _hot_keys(curve, cap, goal)
    if over(curve, new, cap) and not hot:
        notes.append(f"the ceiling of {goal.ceiling:,} shards does not hold the target; raise it, or send less")
    if usage.consumers > LIMITS.read_calls:
        notes.append(f"{usage.consumers} readers share 5 reads/s of a shard: give some of them enhanced fan-out")
    return Plan(
        stream=stream,
        old=current,
        new=new,
        steps=tuple(steps),
        seconds=seconds(steps),
        hottest_before=_hottest(curve, current, cap) * goal.target,
        hottest_after=_hottest(curve, new, cap) * goal.target,
        month_before=provisioned(prices, usage, len(current)).month,
        month_after=provisioned(prices, usage, len(new)).month,
        hot_keys=hot,
        alternatives=_alternatives(current, new, steps, naive, curve, cap, usage, prices),
        notes=tuple(notes),
        prices=f"{prices.region}, {prices.date}",
    )


def _most_even_shards(now: int, least: int, goal: Goal) -> int:
    """Return up to which number of even shards to look: trying more would take many times as long as the plan."""
    return min(goal.ceiling, max(400, 4 * (now + least)))


def least_shards(curve: LoadCurve, goal: Goal, consumers: int) -> int:
    """Return a lower bound of the shards of any layout: the total load, divided by what one shard may carry.

    >>> from headwater.processors.scaling.load import even_load
    >>> least_shards(even_load(2_000_000, 1_000), Goal(target=0.5, margin=0.0), consumers=1)
    4
    """
    cap = cap_of(goal, consumers)
    by, records = curve.total
    return int(np.ceil(max(by / cap.bytes_s, records / cap.records_s) * (1 - 1e-9)))


def _layout(
    current: Layout, curve: LoadCurve, cap: Cap, goal: Goal, naive: int | None
) -> tuple[Layout, list[Step], list[str]]:
    """Return the layout to reach, the calls that lead there, and notes for the user."""
    notes: list[str] = []
    if goal.method == "local":
        # Merging up to the cap itself would split again at the next small rise.
        new = split_and_merge(curve, current, cap, 0.85, goal.floor)
    else:
        hints = even_layout(naive) if naive else ()
        new = fewest_shards(curve, current, cap, hints, goal.floor)
    if len(new) > goal.ceiling:
        new = _fitting(current, curve, cap, goal)
    heat = _fill(curve, current, cap).tolist()
    steps = reshard(current, new, heat, min(goal.quota, LIMITS.account_shards))
    if goal.method == "auto" and naive is not None and steps and max(naive, goal.floor) <= len(new) * (1 + goal.extra):
        even = even_layout(max(naive, goal.floor))
        chain = updates(len(current), len(even))
        allowed = chain and len(chain) <= goal.updates_left and len(even) <= min(goal.quota, goal.ceiling)
        if chain and allowed and not over(curve, even, cap) and seconds(chain) < seconds(steps):
            notes.append("even shards do as well: UpdateShardCount gets there sooner than splits and merges")
            return even, chain, notes
    return new, steps, notes


def _fitting(current: Layout, curve: LoadCurve, cap: Cap, goal: Goal) -> Layout:
    """Return the layout with at most `ceiling` shards whose hottest shard is coolest.

    The fewest shards fall as the cap rises, so the cap is searched by bisection, on a logarithmic scale because it may
    have to rise by many orders of magnitude.
    """
    low, high = 1.0, 1e9
    best: Layout | None = None
    for _ in range(40):
        factor = (low * high) ** 0.5
        layout = fewest_shards(curve, current, cap.scaled(factor), floor=min(goal.floor, goal.ceiling))
        if len(layout) <= goal.ceiling:
            high, best = factor, layout
        else:
            low = factor
        if high / low < 1.01 and best is not None:
            break
    if best is None:
        raise HeadwaterError(f"no layout of {goal.ceiling:,} shards for this load; check what was measured")
    return best


def _fill(curve: LoadCurve, layout: Layout, cap: Cap) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the load of each shard as a share of the cap, by bytes or records, whichever is higher."""
    by, records = curve.per_shard(layout)
    fill: np.ndarray[tuple[int], np.dtype[np.float64]] = np.maximum(by / cap.bytes_s, records / cap.records_s)
    return fill


def _hottest(curve: LoadCurve, layout: Layout, cap: Cap) -> float:
    return float(_fill(curve, layout, cap).max())


def _hot_keys(curve: LoadCurve, cap: Cap, goal: Goal) -> tuple[HotKey, ...]:
    """Return the keys that alone exceed the cap, the hottest first."""
    found = [p for p in curve.points if p.bytes_s > cap.bytes_s or p.records_s > cap.records_s]
    grown = 1 + goal.margin
    shares = [(max(p.bytes_s / LIMITS.write_bytes, p.records_s / LIMITS.write_records) * grown, p) for p in found]
    return tuple(HotKey(p.key, p.position, share) for share, p in sorted(shares, key=lambda row: -row[0]))


def _alternatives(
    current: Layout,
    new: Layout,
    steps: Sequence[Step],
    naive: int | None,
    curve: LoadCurve,
    cap: Cap,
    usage: Usage,
    prices: Prices,
) -> tuple[Alternative, ...]:
    """Return what else could be done: nothing, even shards, on-demand modes, enhanced fan-out."""

    def priced(name: str, layout: Layout, calls: Sequence[Step], note: str = "") -> Alternative:
        month = provisioned(prices, usage, len(layout)).month
        return Alternative(name, len(layout), month, len(calls), seconds(calls), not over(curve, layout, cap), note)

    out = [priced("as it is", current, []), priced("this plan", new, steps)]
    if naive is None:
        out.append(Alternative("even shards", None, 0.0, 0, 0.0, False, "none of the counts tried holds the target"))
    else:
        chain = updates(len(current), naive)
        out.append(priced("even shards (UpdateShardCount)", even_layout(naive), chain or [], _days(chain)))
    for name, cost in compare(prices, usage, len(new)).items():
        if name == "provisioned":
            continue
        mode = name.startswith("provisioned")
        note = "" if not name.startswith("on-demand adv") else "with the account's whole commitment on this stream"
        shards = len(new) if mode else None
        out.append(Alternative(name, shards, cost.month, 0 if not mode else len(steps), 0.0, True, note))
    return tuple(out)


def _days(chain: Sequence[Step] | None) -> str:
    """Say why a chain of UpdateShardCount calls takes days or is impossible; empty when it is neither."""
    if chain is None:
        return f"UpdateShardCount goes no further than {LIMITS.stream_shards:,} shards"
    days = max(0, len(chain) - 1) // LIMITS.updates_per_day
    return f"{days} days of ten calls a day" if days else ""
