"""Applying a plan: exactly the planned layout, from any interruption, and a stop at the first surprise."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.errors import Fenced, HeadwaterError, Retryable, UsageError
from headwater.ledger import Ledger
from headwater.processors.scaling.apply import Applier
from headwater.processors.scaling.autoscale import Policy
from headwater.processors.scaling.heat import Sample
from headwater.processors.scaling.load import LoadCurve, even_load
from headwater.processors.scaling.plan import Goal, Plan, make_plan
from headwater.processors.scaling.pricing import Usage, load_prices
from headwater.processors.scaling.readings import read_topology
from headwater.processors.scaling.service import Autoscaler, AutoscalerInputs, Readers
from headwater.processors.scaling.topology import Layout, Topology, even_layout
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.streams import memory_stream
from tests.unit.test_shards_plan import curves

PRICES = load_prices()


class Setup:
    """A stream, a ledger, a clock, and an applier."""

    def __init__(self, shards: int) -> None:
        self.clock = ManualClock()
        self.stream = memory_stream(shards, self.clock)
        memory = MemoryDynamoDB()
        memory.create_table(
            TableName="ledger",
            KeySchema=[{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}],
        )
        self.ledger = Ledger(memory, "ledger", "p")

    def applier(self, who: str = "me") -> Applier:
        return Applier(self.stream, self.ledger, self.clock, who)

    def plan(self, curve: LoadCurve, method: Any = "exact") -> Plan:
        return plan_for(self.stream.layout("s"), curve, method)

    def audit(self, plan: Plan) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.ledger.document(f"reshard.{plan.id}.0")[0].get("entries", [])
        return entries


def plan_for(layout: Layout, curve: LoadCurve, method: Any = "exact") -> Plan:
    return make_plan("s", layout, curve, Usage(*curve.total), Goal(method=method), PRICES)


@given(curves(), st.integers(1, 12), st.sampled_from(["auto", "exact", "local"]))
@settings(max_examples=40)
def test_the_stream_ends_in_exactly_the_planned_layout(curve: LoadCurve, shards: int, method: str) -> None:
    """The stream refuses what the service refuses; a second run has nothing to do."""
    setup = Setup(shards)
    plan = setup.plan(curve, method)
    began = setup.clock.now_ms()
    applied = setup.applier().apply(plan)
    assert setup.stream.layout("s") == plan.new
    assert (applied.made, applied.left) == (len(plan.steps), 0)
    assert len(setup.stream.reshards) == len(plan.steps)
    if setup.stream.reshards:
        assert (setup.clock.now_ms() - began) / 1000 >= 29 * len(plan.steps)
    assert setup.applier().apply(plan).made == 0


@given(curves(), st.integers(1, 6), st.data())
@settings(max_examples=40)
def test_a_run_cut_off_anywhere_is_taken_up_where_it_stopped(
    curve: LoadCurve, shards: int, data: st.DataObject
) -> None:
    setup = Setup(shards)
    plan = setup.plan(curve)
    first = data.draw(st.integers(0, len(plan.steps)))
    setup.applier().apply(plan, most=first)
    done = setup.applier().apply(plan)
    assert (done.done_before, done.left) == (first, 0)
    assert setup.stream.layout("s") == plan.new
    assert len(setup.stream.reshards) == len(plan.steps)


def test_a_dry_run_changes_nothing() -> None:
    setup = Setup(2)
    plan = setup.plan(even_load(4e6, 100))
    assert setup.applier().check(plan).left == len(plan.steps) > 0
    assert setup.stream.reshards == []
    assert setup.audit(plan) == []


def test_a_lost_answer_and_a_refusal_for_now_change_nothing_in_the_end() -> None:
    """The split whose answer was lost is not made twice; a throttled call is made again."""
    setup = Setup(2)
    plan = setup.plan(even_load(4e6, 100))
    setup.stream.faults.lose_answer("split_shard")
    for code in ("LimitExceededException", "ResourceInUseException", "ThrottlingException"):
        setup.stream.faults.fail_next(
            "split_shard", ClientError({"Error": {"Code": code, "Message": ""}}, "SplitShard")
        )
    setup.stream.faults.fail_next("merge_shards", ReadTimeoutError(endpoint_url="test"))
    setup.applier().apply(plan)
    assert setup.stream.layout("s") == plan.new
    assert len(setup.stream.reshards) == len(plan.steps)


def test_a_plan_for_another_layout_is_refused() -> None:
    setup = Setup(3)
    plan = plan_for(even_layout(2), even_load(4e6, 100))
    with pytest.raises(HeadwaterError, match=r"was made for layout .* make a new plan"):
        setup.applier().apply(plan)
    assert setup.stream.reshards == []


def test_somebody_elses_split_stops_the_run() -> None:
    """Between two of our calls another splits a shard: the next listing is a surprise, and no call follows it."""
    setup = Setup(2)
    plan = setup.plan(even_load(4e6, 100))

    class Meddler:
        def __getattr__(self, name: str) -> Any:
            return getattr(setup.stream, name)

        def split_shard(self, **request: Any) -> Any:
            answer = setup.stream.split_shard(**request)
            setup.clock.advance(60_000)
            shard = max(read_topology(setup.stream, "s").open, key=lambda shard: shard.width)
            setup.stream.split_shard(
                StreamName="s",
                ShardToSplit=shard.shard_id,
                NewStartingHashKey=str(shard.start + 12345),
            )
            return answer

    with pytest.raises(HeadwaterError, match="stopped: after SplitShard"):
        Applier(Meddler(), setup.ledger, setup.clock, "me").apply(plan)
    assert len(setup.stream.reshards) == 2
    assert [entry["what"] for entry in setup.audit(plan)] == ["call", "stopped"]


def test_a_refused_call_stops_the_run_with_the_services_words() -> None:
    setup = Setup(2)
    plan = setup.plan(even_load(4e6, 100))
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "not you"}}, "SplitShard")
    setup.stream.faults.fail_next("split_shard", denied)
    with pytest.raises(HeadwaterError, match="SplitShard refused: AccessDeniedException: not you"):
        setup.applier().apply(plan)


def test_every_call_is_written_down_with_who_made_it() -> None:
    setup = Setup(2)
    plan = setup.plan(even_load(4e6, 100))
    setup.applier("ann").apply(plan, most=1)
    setup.applier("bob").apply(plan)
    entries = setup.audit(plan)
    assert [entry["who"] for entry in entries if entry["what"] == "call"] == ["ann"] + ["bob"] * (len(plan.steps) - 1)
    assert [entry["what"] for entry in entries] == ["call", "done"] * len(plan.steps)


def test_of_two_who_apply_at_a_time_one_is_fenced() -> None:
    """The other has written its record in between: our own append is refused before the call is made."""
    setup = Setup(2)
    plan = setup.plan(even_load(4e6, 100))

    def meddle(at: int, _step: object) -> None:
        if at == 1:
            setup.applier("other").apply(plan, most=1)

    with pytest.raises(Fenced):
        setup.applier().apply(plan, on_step=meddle)
    assert len(setup.stream.reshards) == 2


def test_a_stream_that_never_becomes_active_is_left_alone() -> None:
    setup = Setup(2)
    setup.stream = memory_stream(2, setup.clock, reshard_seconds=1e6)
    plan = setup.plan(even_load(4e6, 100))
    with pytest.raises(Retryable, match="UPDATING after"):
        setup.applier().apply(plan)
    assert len(setup.stream.reshards) == 1


def test_a_missing_stream_is_one_line() -> None:
    with pytest.raises(UsageError, match="no stream other"):
        read_topology(memory_stream(1, ManualClock()), "other")


def autoscaler(setup: Setup, owner: str, load: list[float]) -> Autoscaler:
    def samples(topology: Topology) -> dict[str, Sample]:
        each = load[0] / len(topology.open)
        return {
            shard.shard_id: Sample(shard.shard_id, setup.clock.now_ms(), 60, each, each / 1e5, each / 10)
            for shard in topology.open
        }

    inputs = AutoscalerInputs(samples, PRICES, Readers())
    return Autoscaler(setup.stream, setup.ledger, setup.clock, owner, "s", Policy(), inputs)


def test_the_autoscaler_scales_out_and_in_and_explains_itself() -> None:
    setup, load = Setup(2), [6e6]
    service = autoscaler(setup, "a", load)
    for _ in range(40):
        service.turn()
        setup.clock.advance(60_000)
    wide = len(setup.stream.layout("s"))
    assert 9 <= wide <= 14
    load[0] = 1e6
    for _ in range(200):
        service.turn()
        setup.clock.advance(60_000)
    assert len(setup.stream.layout("s")) <= 4
    decisions = setup.ledger.document("autoscaler.s")[0]["decisions"]
    assert {decision["action"] for decision in decisions} >= {"hold", "in"}
    assert all(decision["reasons"] for decision in decisions)


def test_one_autoscaler_leads_until_its_lease_ends() -> None:
    setup, load = Setup(2), [1e5]
    one, two = autoscaler(setup, "a", load), autoscaler(setup, "b", load)
    assert one.turn(lease_seconds=100) is not None
    assert two.turn(lease_seconds=100) is None
    setup.clock.advance(100_001)
    assert two.turn(lease_seconds=100) is not None
    assert one.turn(lease_seconds=100) is None


def test_a_dry_run_of_the_autoscaler_takes_no_lease() -> None:
    setup = Setup(2)
    decision = autoscaler(setup, "a", [6e6]).turn(dry_run=True)
    assert decision is not None
    assert decision.action == "out"
    assert setup.ledger.document("autoscaler.s") == ({}, 0)
    assert setup.stream.reshards == []
