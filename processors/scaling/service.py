"""Run the autoscaler as a service: several may run, one leads.

The ledger document `autoscaler.<stream>` holds the leader's lease, what the policy remembers and the plan under way.
Every turn rewrites it from the revision read, so whoever lost the lease is fenced before it makes a call.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, Retryable
from headwater.lease import Lease, Stop, run_service
from headwater.processors.scaling.apply import Applier
from headwater.processors.scaling.autoscale import Decision, LoadReading, Memory, Policy, decide, memory_from_json
from headwater.processors.scaling.heat import Sample
from headwater.processors.scaling.load import from_samples
from headwater.processors.scaling.plan import Plan, plan_from_json
from headwater.processors.scaling.pricing import Prices, Usage
from headwater.processors.scaling.readings import read_topology
from headwater.processors.scaling.topology import Topology
from headwater.stores import DocumentStore

__all__ = ["Autoscaler", "AutoscalerInputs", "Readers"]

log = logging.getLogger(__name__)
_KEPT = 100
"""Decisions in the document that the console reads."""


@dataclass(frozen=True)
class Readers:
    """Count the readers of the stream, which decide the read limits and the price."""

    consumers: int = 1
    fan_out: int = 0


@dataclass(frozen=True)
class AutoscalerInputs:
    """Hold what an autoscaler decides by: a function that measures a topology, the prices, and the readers."""

    samples: Callable[[Topology], Mapping[str, Sample]]
    prices: Prices
    readers: Readers


class Autoscaler:
    """Measure, decide and reshard one stream, while leading."""

    def __init__(
        self,
        kinesis: Any,
        documents: DocumentStore,
        clock: Clock,
        owner: str,
        stream: str,
        policy: Policy,
        inputs: AutoscalerInputs,
    ) -> None:
        self._kinesis, self._documents, self._clock = kinesis, documents, clock
        self._stream, self._policy = stream, policy
        self._lease = Lease(documents, clock, f"autoscaler.{stream}", owner)
        self._inputs = inputs
        self._applier = Applier(kinesis, documents, clock, owner)

    def run(self, stop: Stop, period: float = 60.0) -> None:
        """Take a turn every `period` seconds until told to stop, and every second while a plan is under way."""

        def turn() -> float:
            decision = self.turn(lease_seconds=5 * period)
            return 1.0 if decision and decision.reasons[:1] == (_UNDER_WAY,) else period

        run_service(stop, turn, self._lease, log, pause=period, retry=period)

    def turn(self, lease_seconds: float = 300.0, dry_run: bool = False) -> Decision | None:
        """Go on with the plan under way, or decide; return None while another owner leads. A dry run only looks."""
        now = self._clock.now_ms()
        if dry_run:
            known, _ = self._documents.document(self._lease.name)
            return self._look(memory_from_json(known.get("memory", {})), now)
        if not self._lease.acquire(lease_seconds):
            return None
        known = dict(self._lease.document)
        memory = memory_from_json(known.get("memory", {}))
        if known.get("plan"):
            return self._go_on(plan_from_json(known["plan"]), memory)
        decision = self._look(memory, now)
        log.info("autoscale: %s: %s", decision.action, "; ".join(decision.reasons))
        self._lease.update(
            memory=decision.memory.to_json(),
            plan=decision.plan.to_json() if decision.plan else None,
            decisions=_kept(known.get("decisions", []), {"at_ms": now, **decision.to_json()}),
        )
        return decision

    def _look(self, memory: Memory, now: int) -> Decision:
        """Measure and decide; hold while nothing is measured yet."""
        topology = read_topology(self._kinesis, self._stream)
        samples = self._inputs.samples(topology)
        if not samples:
            return Decision("hold", ("nothing measured yet",), memory)
        curve = from_samples(topology, samples)
        usage = Usage(*curve.total, self._inputs.readers.consumers, self._inputs.readers.fan_out)
        throttled = any(sample.throttles_s > 0 for sample in samples.values())
        reading = LoadReading(curve, usage, throttled)
        return decide(now, reading, topology.layout, self._policy, memory, self._inputs.prices, self._stream)

    def _go_on(self, plan: Plan, memory: Memory) -> Decision:
        """Make the next call of the plan; a surprise ends it, and the next turn decides anew."""
        try:
            applied = self._applier.apply(plan, most=1)
            left, reasons = applied.left, (_UNDER_WAY, f"{applied.left} calls left of plan {plan.id}")
        except (Retryable, Fenced):
            raise
        except HeadwaterError as error:
            left, reasons = 0, (f"plan {plan.id} ended: {error}", "deciding anew at the next turn")
            log.error("autoscale: %s", error)
        if not left:
            self._lease.update(plan=None)
        return Decision("hold", reasons, memory, plan if left else None)


def _kept(decisions: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the latest decisions; of holds in a row only the last, so that they do not push out what was done."""
    if decisions and decisions[-1]["action"] == new["action"] == "hold":
        decisions = decisions[:-1]
    return [*decisions, new][-_KEPT:]


_UNDER_WAY = "a reshard is under way"
