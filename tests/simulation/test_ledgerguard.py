"""Which writes to views are told apart: those of an owner that lost its shard while it wrote, and no others."""

import pytest

from headwater import aggregates as agg
from headwater.ledger import Ledger
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.slots import Upsert, slot_version
from headwater.sinks.views.store import ViewStore
from tests.simulation.ledgerguard import LEDGER, PIPELINE, VIEWS, GuardedDynamoDB
from tests.simulation.world import Actor, World
from tests.typed import a_key

SPEC = ViewSpec("ever", ("device",), (agg.count("events"),))


@pytest.mark.parametrize(
    ("calls", "woken"),
    [
        ([(VIEWS, 0)], True),  # it hung in its write
        ([(LEDGER, 0), (VIEWS, 2)], True),  # after it had looked who has the shard
        ([(LEDGER, 0), ("kinesis", 1), (VIEWS, 2)], False),  # it wrote when another had the shard, and did not look
        ([("kinesis", 0), (LEDGER, 2), (VIEWS, 3)], False),
    ],
)
def test_a_write_that_hung_while_the_shard_was_taken(calls: list[tuple[str, int]], woken: bool) -> None:
    world = World(0, {}, now=1)
    dynamodb = GuardedDynamoDB(world)
    ledger, views = Ledger(dynamodb, LEDGER, PIPELINE), ViewStore(dynamodb, VIEWS)
    shard = "shardId-000000000000"
    ledger.claim(shard, "old", b"", 0)
    ledger.claim(shard, "new", b"", 0)
    world.current = Actor("old", lambda: None, process="old")
    for place, at in calls:
        world.current.begin(place, at)
    partial = agg.merging.nothing(SPEC.aggregates)
    views.write(SPEC, [Upsert(("d0",), None, None, f"{shard}/0", slot_version("7".zfill(56), 1), partial)])
    assert dynamodb.woken == ({"ever#d0"} if woken else set())
    views.remove(SPEC, a_key("device", "d0"))
    assert not dynamodb.woken
    views.write(SPEC, [Upsert(("d0",), None, None, f"{shard}/0", slot_version("7".zfill(56), 2), partial)])
    assert not dynamodb.woken, "who has the shard may write"
