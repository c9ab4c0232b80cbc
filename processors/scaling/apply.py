"""Carry out a plan: one call at a time, each waited for, each written down before it is made.

Resumable and idempotent: where to go on is found from the layout the stream has, so the same plan may be applied again
after a crash, a lost answer, or when done. A stream that has none of the plan's layouts is refused: the plan was made
for another. After each call the shards are listed again, and anything but the layout expected stops the run.

The audit record lies in ledger documents (`reshard.<plan>.<part>`). It is appended to with the revision that was read,
before the call, so when two apply the same plan at a time, one of them is fenced.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from headwater.awscodes import THROTTLED
from headwater.clock import Clock
from headwater.errors import HeadwaterError, Throttled
from headwater.processors.scaling.calls import Step, after, layouts
from headwater.processors.scaling.plan import Plan
from headwater.processors.scaling.readings import code_of, read_topology, wait_active
from headwater.processors.scaling.topology import Layout, Topology, fingerprint, same_layout
from headwater.stores import DocumentStore

__all__ = ["Applied", "Applier", "position_in"]

_PART = 500
"""Entries an audit document holds: well below the 400 KB of an item."""
_ATTEMPTS = 8
_ACTIVE_SECONDS = 1_800.0
"""Longest wait for a stream to be ACTIVE: an UpdateShardCount of a large stream takes many minutes."""
_LOOKS = 10
_REFUSED_FOR_NOW = THROTTLED | {"ResourceInUseException"}


@dataclass(frozen=True)
class Applied:
    """Report a run: the steps made before it, the steps it made, those left, and the layout reached."""

    plan: str
    done_before: int
    """Steps that an earlier run had made."""
    made: int
    left: int
    layout: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        return vars(self)


def position_in(plan: Plan, layout: Layout) -> int:
    """Return how many of the plan's steps are done, judged by the stream's layout.

    Raises HeadwaterError when the stream has none of the plan's layouts.
    """
    found = None
    for at, expected in enumerate(layouts(plan.old, plan.steps)):
        # An exact match wins over one that only agrees up to the service's rounding.
        if expected == layout:
            return at
        if found is None and same_layout(expected, layout):
            found = at
    if found is None:
        raise HeadwaterError(
            f"plan {plan.id} was made for layout {fingerprint(plan.old)} of stream {plan.stream}, which now has "
            f"{fingerprint(layout)} ({len(layout)} open shards); make a new plan"
        )
    return found


class _Audit:
    """Append to the plan's audit documents; raise Fenced when another process has appended meanwhile."""

    def __init__(self, documents: DocumentStore, plan: Plan, who: str) -> None:
        self._documents, self._plan, self._who = documents, plan, who
        self._part = 0
        self._doc, self._rev = documents.document(self._name)
        while len(self._doc.get("entries", ())) >= _PART:
            self._part += 1
            self._doc, self._rev = documents.document(self._name)

    @property
    def _name(self) -> str:
        return f"reshard.{self._plan.id}.{self._part}"

    def append(self, now_ms: int, what: str, **more: Any) -> None:
        """Append an entry, in a further document when this one is full."""
        if len(self._doc.get("entries", ())) >= _PART:
            self._part += 1
            self._doc, self._rev = {}, 0
        entry = {"at_ms": now_ms, "who": self._who, "what": what, **more}
        doc = {"stream": self._plan.stream, "entries": [*self._doc.get("entries", ()), entry]}
        self._rev = self._documents.put_document(self._name, doc, self._rev)
        self._doc = doc


class Applier:
    """Apply plans to one stream. `who` goes into the audit record."""

    def __init__(self, kinesis: Any, documents: DocumentStore, clock: Clock, who: str) -> None:
        self._kinesis = kinesis
        self._documents = documents
        self._clock = clock
        self._who = who

    def check(self, plan: Plan) -> Applied:
        """Return what `apply` would do; change nothing."""
        layout = read_topology(self._kinesis, plan.stream).layout
        at = position_in(plan, layout)
        return Applied(plan.id, at, 0, len(plan.steps) - at, fingerprint(layout))

    def apply(
        self, plan: Plan, most: int | None = None, on_step: Callable[[int, Step], None] = lambda _at, _step: None
    ) -> Applied:
        """Make the steps that are left, or the first `most` of them; call `on_step` before each.

        Raises HeadwaterError when the stream has another layout than the plan expects, Throttled and Retryable when the
        same call may succeed later, Fenced when another process applies the plan too.
        """
        wait_active(self._kinesis, plan.stream, self._clock, _ACTIVE_SECONDS)
        topology = read_topology(self._kinesis, plan.stream)
        first = position_in(plan, topology.layout)
        last = len(plan.steps) if most is None else min(len(plan.steps), first + most)
        audit = _Audit(self._documents, plan, self._who)
        for at in range(first, last):
            step = plan.steps[at]
            on_step(at, step)
            audit.append(self._clock.now_ms(), "call", step=at, **step.to_json())
            try:
                topology = self._make(plan, step, topology)
            except HeadwaterError as error:
                audit.append(self._clock.now_ms(), "stopped", step=at, error=str(error))
                raise
            audit.append(self._clock.now_ms(), "done", step=at, layout=fingerprint(topology.layout))
        return Applied(plan.id, first, last - first, len(plan.steps) - last, fingerprint(topology.layout))

    def _make(self, plan: Plan, step: Step, before: Topology) -> Topology:
        """Make the step; return the topology after it, and raise HeadwaterError when that is not the one expected."""
        expected = after(before.layout, step)
        for attempt in range(_ATTEMPTS):
            taken = self._call(step, before)
            now = self._settled(plan.stream, before, looks=_LOOKS if taken else 1)
            if same_layout(now.layout, expected):
                return now
            # Only a call that was refused and changed nothing may be made again.
            if taken or now.layout != before.layout:
                raise HeadwaterError(
                    f"stopped: after {step.call} stream {plan.stream} has layout {fingerprint(now.layout)} "
                    f"({len(now.open)} open shards), not {fingerprint(expected)}; does somebody else reshard it? "
                    f"See `headwater shards map` and make a new plan"
                )
            self._clock.sleep(min(60.0, 2.0**attempt))
        raise Throttled(f"stream {plan.stream}: Kinesis keeps refusing {step.call}; run the same command again later")

    def _settled(self, stream: str, before: Topology, looks: int) -> Topology:
        """Return the topology once the stream is ACTIVE; list again while it is the old one: answers may be stale."""
        for look in range(looks):
            if look:
                self._clock.sleep(3.0)
            wait_active(self._kinesis, stream, self._clock, _ACTIVE_SECONDS)
            now = read_topology(self._kinesis, stream)
            if now.layout != before.layout:
                break
        return now

    def _call(self, step: Step, topology: Topology) -> bool:
        """Make the call; return False when it was refused for now or its answer was lost, so it may be repeated."""
        try:
            self._send(step, topology)
        except ClientError as error:
            if code_of(error) in _REFUSED_FOR_NOW:
                return False
            message = error.response["Error"].get("Message", "")
            raise HeadwaterError(f"stopped: {step.call} refused: {code_of(error)}: {message}") from None
        except (ConnectionError, HTTPClientError):
            return False
        return True

    def _send(self, step: Step, topology: Topology) -> None:
        """Call Kinesis, with the shards that the step's boundary lies in or between."""
        stream = topology.stream
        if step.call == "UpdateShardCount":
            self._kinesis.update_shard_count(
                StreamName=stream, TargetShardCount=step.count, ScalingType="UNIFORM_SCALING"
            )
        elif step.call == "SplitShard":
            shard = topology.at(step.at)
            self._kinesis.split_shard(StreamName=stream, ShardToSplit=shard.shard_id, NewStartingHashKey=str(step.at))
        else:
            left, right = topology.at(step.at - 1), topology.at(step.at)
            self._kinesis.merge_shards(
                StreamName=stream, ShardToMerge=left.shard_id, AdjacentShardToMerge=right.shard_id
            )
