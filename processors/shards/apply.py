"""Carry out a plan: one call at a time, each waited for, each written down before it is made.

Resumable and idempotent: where to go on is found from the layout the stream has, so the same plan may be applied again
after a crash, a lost answer, or when done. A stream that has none of the plan's layouts is refused: the plan was made
for another. After each call the shards are listed again, and anything but the layout expected stops the run.

The audit record lies in ledger documents (`reshard.<plan>.<part>`). It is appended to with the revision that was read,
before the call, so of two who apply the same plan at a time one is fenced.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from headwater.clock import Clock
from headwater.errors import HeadwaterError, Throttled
from processors.shards.calls import Step, after, layouts
from processors.shards.edge import Documents, code_of, read_topology, wait_active
from processors.shards.plan import Plan
from processors.shards.topology import Layout, Topology, fingerprint, same_layout

__all__ = ["Applied", "Applier", "position_in"]

_PART = 500
"""Entries an audit document holds: well below the 400 KB of an item."""
_ATTEMPTS = 8
_LOOKS = 10
_REFUSED_FOR_NOW = ("LimitExceededException", "ThrottlingException", "ResourceInUseException")


@dataclass(frozen=True)
class Applied:
    """What a run came to."""

    plan: str
    done_before: int
    """Steps that an earlier run had made."""
    made: int
    left: int
    layout: str

    def to_json(self) -> dict[str, Any]:
        return vars(self)


def position_in(plan: Plan, layout: Layout) -> int:
    """How many of the plan's steps this layout has behind it."""
    found = None
    for at, expected in enumerate(layouts(plan.old, plan.steps)):
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
    """Appends to the plan's audit documents; Fenced when somebody else appended."""

    def __init__(self, documents: Documents, plan: Plan, who: str) -> None:
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
        if len(self._doc.get("entries", ())) >= _PART:
            self._part += 1
            self._doc, self._rev = {}, 0
        entry = {"at_ms": now_ms, "who": self._who, "what": what, **more}
        doc = {"stream": self._plan.stream, "entries": [*self._doc.get("entries", ()), entry]}
        self._rev = self._documents.put_document(self._name, doc, self._rev)
        self._doc = doc


class Applier:
    """Applies plans to one stream. `who` goes into the audit record."""

    def __init__(
        self, kinesis: Any, documents: Documents, clock: Clock, who: str, active_seconds: float = 1800.0
    ) -> None:
        self._kinesis = kinesis
        self._documents = documents
        self._clock = clock
        self._who = who
        self._active_seconds = active_seconds

    def check(self, plan: Plan) -> Applied:
        """What would be done; changes nothing."""
        layout = read_topology(self._kinesis, plan.stream).layout
        at = position_in(plan, layout)
        return Applied(plan.id, at, 0, len(plan.steps) - at, fingerprint(layout))

    def apply(
        self, plan: Plan, most: int | None = None, on_step: Callable[[int, Step], None] = lambda _at, _step: None
    ) -> Applied:
        """Make the steps that are left, or the first `most` of them."""
        wait_active(self._kinesis, plan.stream, self._clock, self._active_seconds)
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
        """The topology after the step; an error at the first surprise."""
        expected = after(before.layout, step)
        for attempt in range(_ATTEMPTS):
            taken = self._call(step, before)
            now = self._settled(plan.stream, before, looks=_LOOKS if taken else 1)
            if same_layout(now.layout, expected):
                return now
            if taken or now.layout != before.layout:
                raise HeadwaterError(
                    f"stopped: after {step.call} stream {plan.stream} has layout {fingerprint(now.layout)} "
                    f"({len(now.open)} open shards), not {fingerprint(expected)}; does somebody else reshard it? "
                    f"See `headwater shards map` and make a new plan"
                )
            self._clock.sleep(min(60.0, 2.0**attempt))
        raise Throttled(f"stream {plan.stream}: Kinesis keeps refusing {step.call}; run the same command again later")

    def _settled(self, stream: str, before: Topology, looks: int) -> Topology:
        """The topology once the stream is ACTIVE; looked at again while it is the old one, for answers may be stale."""
        for look in range(looks):
            if look:
                self._clock.sleep(3.0)
            wait_active(self._kinesis, stream, self._clock, self._active_seconds)
            now = read_topology(self._kinesis, stream)
            if now.layout != before.layout:
                break
        return now

    def _call(self, step: Step, topology: Topology) -> bool:
        """Make the call; False when it was refused for now or its answer was lost, so that it may be made again."""
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
