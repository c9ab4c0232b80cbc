"""A shard that is read on just when a rebuild takes it over begins where it is by then, not where it was."""

from typing import Any

import pytest

from headwater.aggregates import count
from headwater.clock import ManualClock
from headwater.ledger import Commit, Ledger, ShardEntry
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState
from headwater.processors.jobs import NoProgress
from headwater.processors.ports import PipelineStores
from headwater.processors.rebuild.beginnings import Beginnings
from headwater.processors.rebuild.ports import RebuildPorts
from headwater.stream import sequence
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects

PIPELINE = Pipeline("t", contract="telemetry").view("v", by=["device"], n=count()).lake("t")
SHARD = "shardId-000000000000"


class Overtaken(Ledger):
    """A processor reads its shard to the end between the rebuild's look at the shards and its claim."""

    processor: ShardEntry | None = None

    def claim(self, shard_id: str, owner: str, initial: bytes | None, now_ms: int) -> ShardEntry:
        if owner == "rebuild" and self.processor is not None:
            state = ShardState(PIPELINE).dumps()
            self.commit(self.processor, Commit(sequence.pad("7"), state, None, [], {"events": 27}, None, True, now_ms))
            self.processor = None
        return super().claim(shard_id, owner, initial, now_ms)


@pytest.mark.parametrize("overtaken", [True, False])
def test_a_shard_that_was_read_meanwhile_begins_where_it_is(overtaken: bool) -> None:
    """Else nobody would count what had been read of it: seen in the simulation as a view without those events."""
    database = MemoryDynamoDB()
    keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
    database.create_table(TableName="l", KeySchema=keys)
    ledger, clock = Overtaken(database, "l", "t"), ManualClock(1_790_000_000_000)
    entry = ledger.claim(SHARD, "processor", ShardState(PIPELINE).dumps(), clock.now_ms())
    ledger.processor = entry if overtaken else None
    views: Any = None

    def claim(shard_id: str, _owner: str) -> Any:
        raise AssertionError(f"{shard_id} is claimed without a worker")

    ports = RebuildPorts(PipelineStores(PIPELINE, ledger, MemoryObjects(), clock), views, 1.0, claim)  # type: ignore[arg-type]  # objects in memory
    begun = Beginnings(ports, "v@2", NoProgress(), "rebuild").wait()
    assert begun[SHARD]["position"] == (sequence.pad("7") if overtaken else sequence.NONE)
    assert begun[SHARD]["events"] == (27 if overtaken else 0)
