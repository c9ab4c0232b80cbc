"""Offer scalers to compare in a simulation: none, even splits by an alarm, on-demand mode, and the autoscaler.

Pure: each has its own memory and calls nothing outside.
"""

from dataclasses import dataclass, field

import numpy as np

from headwater.clock import DAY_MS
from headwater.processors.scaling.autoscale import LoadReading, Memory, Policy, decide
from headwater.processors.scaling.calls import Step, updates
from headwater.processors.scaling.limits import LIMITS
from headwater.processors.scaling.plan import Goal, cap_of
from headwater.processors.scaling.pricing import OnDemand, Prices
from headwater.processors.scaling.simulate import Observed, Scaler
from headwater.processors.scaling.trace import Trace

__all__ = ["EvenSplits", "Fixed", "OnDemandMode", "Ours", "contestants", "peak_shards"]


@dataclass
class Fixed:
    """Keep the layout that the simulation begins with."""

    name: str = "fixed"
    period: float = float("inf")
    price: OnDemand | None = None

    def act(self, seen: Observed) -> tuple[Step, ...]:
        """Return no calls."""
        del seen
        return ()


@dataclass
class EvenSplits:
    """Scale by UpdateShardCount on the mean load, as an alarm with a function behind it does.

    It goes outward by half as much again as needed, keeps half of the day's calls for that, and does not see hot
    shards.
    """

    target: float = 0.7
    low: float = 0.35
    name: str = "even splits"
    period: float = 300.0
    price: OnDemand | None = None
    _called: list[int] = field(default_factory=list)

    def act(self, seen: Observed) -> tuple[Step, ...]:
        """Return the calls towards a mean load of `target`, when the mean is over it or below `low`."""
        by, records = seen.curve.total
        need = max(by / LIMITS.write_bytes, records / LIMITS.write_records)
        count = len(seen.layout)
        self._called = [ms for ms in self._called if ms > seen.now_ms - DAY_MS]
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
    """Model on-demand mode: room for twice the highest load so far, within a quarter of an hour, 4 MB/s at least.

    Hash ranges are even, so one key still has no more than a shard's limit.
    """

    price: OnDemand | None
    name: str = "on-demand"
    period: float = 900.0
    _highest: float = 2.0

    def act(self, seen: Observed) -> tuple[Step, ...]:
        """Return a call to grow when twice the highest load so far is more than the shards hold."""
        by, records = seen.curve.total
        self._highest = max(self._highest, by / LIMITS.write_bytes, records / LIMITS.write_records)
        needed = int(np.ceil(2 * self._highest))
        return (Step("UpdateShardCount", count=needed),) if needed > len(seen.layout) else ()


@dataclass
class Ours:
    """Scale by the autoscaler's own `decide`."""

    policy: Policy
    prices: Prices
    memory: Memory = field(default_factory=Memory)
    name: str = "autoscale"
    period: float = 300.0
    price: OnDemand | None = None
    log: list[tuple[int, str, tuple[str, ...]]] = field(default_factory=list)
    """Every decision but those to hold: its time in milliseconds, its action, its reasons."""

    def act(self, seen: Observed) -> tuple[Step, ...]:
        """Return the steps of the plan that was decided on; none to hold."""
        reading = LoadReading(seen.curve, seen.usage, seen.throttled, seen.busy)
        decision = decide(seen.now_ms, reading, seen.layout, self.policy, self.memory, self.prices)
        self.memory = decision.memory
        if decision.plan is None:
            return ()
        self.log.append((seen.now_ms, decision.action, decision.reasons))
        return decision.plan.steps


def peak_shards(trace: Trace, target: float, margin: float = 0.0) -> int:
    """Return how many even shards hold the highest load of the trace, for a stream that is provisioned for its peak."""
    by, records = trace.totals()
    cap = cap_of(Goal(target=target, margin=margin), 1)
    return max(1, int(np.ceil(max(float(by.max()) / cap.bytes_s, float(records.max()) / cap.records_s))))


def contestants(trace: Trace, policy: Policy, prices: Prices) -> list[tuple[Scaler, int]]:
    """Return the autoscaler and what it is measured against, each with the number of even shards it begins with."""
    peak = min(policy.ceiling, peak_shards(trace, policy.target, policy.margin))
    first = trace.curve(0).total
    cap = cap_of(Goal(target=policy.target, margin=policy.margin), 1)
    now = max(policy.floor, int(np.ceil(max(first[0] / cap.bytes_s, first[1] / cap.records_s))))
    begin = max(4, int(np.ceil(2 * max(first[0] / LIMITS.write_bytes, first[1] / LIMITS.write_records))))
    return [
        (Ours(policy, prices), now),
        (Fixed(name=f"fixed for the peak ({peak})"), peak),
        (EvenSplits(policy.target), now),
        (OnDemandMode(prices.on_demand_standard, name="on-demand standard"), begin),
        (OnDemandMode(prices.on_demand_advantage, name="on-demand advantage"), begin),
    ]
