"""Who may reshard in a simulation: nobody, even splits, on-demand mode, our autoscaler. Pure."""

from dataclasses import dataclass, field

import numpy as np

from processors.shards.autoscale import Memory, Policy, Reading, decide
from processors.shards.calls import Step, updates
from processors.shards.limits import LIMITS
from processors.shards.plan import Goal, cap_of
from processors.shards.pricing import OnDemand, Prices
from processors.shards.simulate import Observed, Scaler
from processors.shards.trace import Trace

__all__ = ["EvenSplits", "Fixed", "OnDemandMode", "Ours", "contestants", "peak_shards"]


@dataclass
class Fixed:
    """The layout it began with, for ever."""

    name: str = "fixed"
    period: float = float("inf")
    price: OnDemand | None = None

    def act(self, seen: Observed) -> tuple[Step, ...]:
        del seen
        return ()


@dataclass
class EvenSplits:
    """UpdateShardCount by the mean load, half as much again outward, half a day's calls kept for it: what an alarm with
    a function behind it does. Blind to hot shards."""

    target: float = 0.7
    low: float = 0.35
    name: str = "even splits"
    period: float = 300.0
    price: OnDemand | None = None
    _called: list[int] = field(default_factory=list)

    def act(self, seen: Observed) -> tuple[Step, ...]:
        by, records = seen.curve.total
        need = max(by / LIMITS.write_bytes, records / LIMITS.write_records)
        count = len(seen.layout)
        self._called = [ms for ms in self._called if ms > seen.now_ms - 86_400_000]
        left = LIMITS.updates_per_day - len(self._called)
        if need / count > self.target:
            wanted = int(np.ceil(1.5 * need / self.target))
        elif need / count < self.low and left > LIMITS.updates_per_day // 2:
            wanted = max(1, int(np.ceil(need / self.target)), -(-count // 2))
        else:
            return ()
        chain = (updates(count, min(wanted, LIMITS.stream_shards)) or [])[:left]
        self._called += [seen.now_ms] * len(chain)
        return tuple(chain)


@dataclass
class OnDemandMode:
    """Room for twice the highest load so far, within a quarter of an hour; never under 4 MB/s. Hash ranges are even,
    so one key still has a shard's limit."""

    price: OnDemand | None
    name: str = "on-demand"
    period: float = 900.0
    _highest: float = 2.0

    def act(self, seen: Observed) -> tuple[Step, ...]:
        by, records = seen.curve.total
        self._highest = max(self._highest, by / LIMITS.write_bytes, records / LIMITS.write_records)
        room = int(np.ceil(2 * self._highest))
        return (Step("UpdateShardCount", count=room),) if room > len(seen.layout) else ()


@dataclass
class Ours:
    """The autoscaler."""

    policy: Policy
    prices: Prices
    memory: Memory = field(default_factory=Memory)
    name: str = "autoscale"
    period: float = 300.0
    price: OnDemand | None = None
    log: list[tuple[int, str, tuple[str, ...]]] = field(default_factory=list)
    """Each decision that is not to hold: when, what, why."""

    def act(self, seen: Observed) -> tuple[Step, ...]:
        reading = Reading(seen.curve, seen.usage, seen.throttled, seen.busy)
        decision = decide(seen.now_ms, reading, seen.layout, self.policy, self.memory, self.prices)
        self.memory = decision.memory
        if decision.plan is None:
            return ()
        self.log.append((seen.now_ms, decision.action, decision.reasons))
        return decision.plan.steps


def peak_shards(trace: Trace, target: float, margin: float = 0.0) -> int:
    """Even shards for the highest load of the trace, as who provisions for the peak does."""
    by, records = trace.totals()
    cap = cap_of(Goal(target=target, margin=margin), 1)
    return max(1, int(np.ceil(max(float(by.max()) / cap.bytes_s, float(records.max()) / cap.records_s))))


def contestants(
    trace: Trace, policy: Policy, prices: Prices, learned: Memory | None = None
) -> list[tuple[Scaler, int]]:
    """Ours and those it is measured against, each with the even shards it begins with."""
    peak = min(policy.ceiling, peak_shards(trace, policy.target, policy.margin))
    first = trace.curve(0).total
    cap = cap_of(Goal(target=policy.target, margin=policy.margin), 1)
    now = max(policy.floor, int(np.ceil(max(first[0] / cap.bytes_s, first[1] / cap.records_s))))
    begin = max(4, int(np.ceil(2 * max(first[0] / LIMITS.write_bytes, first[1] / LIMITS.write_records))))
    return [
        (Ours(policy, prices, learned or Memory()), now),
        (Fixed(name=f"fixed for the peak ({peak})"), peak),
        (EvenSplits(policy.target), now),
        (OnDemandMode(prices.on_demand_standard, name="on-demand standard"), begin),
        (OnDemandMode(prices.on_demand_advantage, name="on-demand advantage"), begin),
    ]
