"""The autoscaler as a service: several may run, one leads.

The ledger document `autoscaler.<stream>` holds the leader's lease, what the policy remembers and the plan under way.
Every turn rewrites it from the revision read, so whoever lost the lease is fenced before it makes a call.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, Retryable
from processors.shards.apply import Applier
from processors.shards.autoscale import Decision, Memory, Policy, Reading, decide, memory_from_json
from processors.shards.edge import Documents, read_topology
from processors.shards.heat import Sample
from processors.shards.load import from_samples
from processors.shards.plan import Plan, plan_from_json
from processors.shards.pricing import Prices, Usage
from processors.shards.topology import Topology

__all__ = ["Autoscaler", "Readers", "Stop"]

log = logging.getLogger(__name__)
_KEPT = 100
"""Decisions in the document that the console reads."""


class Stop(Protocol):
    """threading.Event, as far as it is needed here."""

    def wait(self, timeout: float | None = None) -> bool: ...


@dataclass(frozen=True)
class Readers:
    """Who reads the stream; it decides on the read limits and the price."""

    consumers: int = 1
    fan_out: int = 0


class Autoscaler:
    """Measures, decides and reshards one stream. `samples` says what is measured of a topology."""

    def __init__(
        self,
        kinesis: Any,
        documents: Documents,
        clock: Clock,
        owner: str,
        stream: str,
        policy: Policy,
        sources: tuple[Callable[[Topology], Mapping[str, Sample]], Prices, Readers],
    ) -> None:
        self._kinesis, self._documents, self._clock = kinesis, documents, clock
        self._owner, self._stream, self._policy = owner, stream, policy
        self._samples, self._prices, self._readers = sources
        self._applier = Applier(kinesis, documents, clock, owner)
        self._rev = 0

    def run(self, stop: Stop, period: float = 60.0) -> None:
        """Turns until stopped; faster while a plan is under way."""
        busy = False
        while not stop.wait(1.0 if busy else period):
            try:
                decision = self.turn(lease_seconds=5 * period)
                busy = decision is not None and decision.reasons[:1] == (_UNDER_WAY,)
            except (Retryable, Fenced) as error:
                log.warning("autoscale: %s", error)

    def turn(self, lease_seconds: float = 300.0, dry_run: bool = False) -> Decision | None:
        """One look: go on with the plan under way, or decide; None while somebody else leads. A dry run only looks."""
        doc, rev = self._documents.document(self._name)
        now = self._clock.now_ms()
        if dry_run:
            return self._look(memory_from_json(doc.get("memory", {})), now)
        if doc.get("owner") not in (None, self._owner) and doc["until_ms"] > now:
            return None
        lease = {**doc, "owner": self._owner, "until_ms": now + round(lease_seconds * 1000)}
        try:
            self._rev = self._documents.put_document(self._name, lease, rev)
        except Fenced:
            return None
        memory = memory_from_json(lease.get("memory", {}))
        if lease.get("plan"):
            return self._go_on(lease, plan_from_json(lease["plan"]), memory)
        decision = self._look(memory, now)
        log.info("autoscale: %s: %s", decision.action, "; ".join(decision.reasons))
        changed = {
            **lease,
            "memory": decision.memory.to_json(),
            "plan": decision.plan.to_json() if decision.plan else None,
            "decisions": _kept(lease.get("decisions", []), {"at_ms": now, **decision.to_json()}),
        }
        self._rev = self._documents.put_document(self._name, changed, self._rev)
        return decision

    @property
    def _name(self) -> str:
        return f"autoscaler.{self._stream}"

    def _look(self, memory: Memory, now: int) -> Decision:
        topology = read_topology(self._kinesis, self._stream)
        samples = self._samples(topology)
        if not samples:
            return Decision("hold", ("nothing measured yet",), memory)
        curve = from_samples(topology, samples)
        usage = Usage(*curve.total, self._readers.consumers, self._readers.fan_out)
        throttled = any(sample.throttles_s > 0 for sample in samples.values())
        reading = Reading(curve, usage, throttled)
        return decide(now, reading, topology.layout, self._policy, memory, self._prices, self._stream)

    def _go_on(self, lease: dict[str, Any], plan: Plan, memory: Memory) -> Decision:
        """The next call of the plan; a surprise ends it, and the next turn decides anew."""
        try:
            applied = self._applier.apply(plan, most=1)
            left, reasons = applied.left, (_UNDER_WAY, f"{applied.left} calls left of plan {plan.id}")
        except (Retryable, Fenced):
            raise
        except HeadwaterError as error:
            left, reasons = 0, (f"plan {plan.id} ended: {error}", "deciding anew at the next turn")
            log.error("autoscale: %s", error)
        if not left:
            self._rev = self._documents.put_document(self._name, {**lease, "plan": None}, self._rev)
        return Decision("hold", reasons, memory, plan if left else None)


def _kept(decisions: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The latest decisions; of holds in a row just the last, so that they do not push out what was done."""
    if decisions and decisions[-1]["action"] == new["action"] == "hold":
        decisions = decisions[:-1]
    return [*decisions, new][-_KEPT:]


_UNDER_WAY = "a reshard is under way"
