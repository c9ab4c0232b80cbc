"""Streams that were made again, parents and positions past the retention: refused or counted, never in silence."""

import io
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.clock import ManualClock, SystemClock
from headwater.codec import encode_batch
from headwater.config import Settings
from headwater.contract import load_contract
from headwater.errors import UsageError
from headwater.ledger import Ledger
from headwater.processors.audit.audit import audit
from headwater.processors.audit.report import AuditReport
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.ports import StreamClient
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.runners.upstream import StreamFacts, check_stream, claim_worker, stream_mismatch
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.snapshots import StateStore
from headwater.processors.shard.worker import ShardWorker
from headwater.stream import StreamRecord, list_shards
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.objects import MemoryObjects
from tests.waiting import until

CONTRACT = load_contract("telemetry")
PIPELINE = Pipeline("t", CONTRACT).lake("telemetry")
START = 1_762_160_400_000


class Nowhere:
    """A sink that nothing is read from."""

    def write(self, *_: Any) -> Any: ...


class World:
    """A ledger and a bucket that outlive streams."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        database = MemoryDynamoDB()
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        database.create_table(TableName="ledger", KeySchema=keys)
        self.ledger, self.objects = Ledger(database, "ledger", "t"), MemoryObjects()
        ports = Ports(self.ledger, self.objects, Nowhere(), Nowhere(), lambda *_: pytest.fail("no references"))
        self.settings = Settings(stream="s", commit_seconds=0.05)
        self.context = WorkerContext(PIPELINE, ports, self.settings, clock, "owner")

    def stream(self, shards: int = 1) -> MemoryKinesis:
        kinesis = MemoryKinesis(self.clock, limits=False)
        kinesis.create_stream(StreamName="s", ShardCount=shards)
        return kinesis

    def put(self, kinesis: MemoryKinesis, *numbers: int, origin: str = "o") -> None:
        for number in numbers:
            kinesis.put_record(StreamName="s", PartitionKey=f"k{number}", Data=batch(number, 1, origin))

    def claim(self, kinesis: Any, shard_id: str) -> ShardWorker:
        return claim_worker(ShardWorker, self.context, shard_id, list_shards(kinesis, "s"))

    def numbers(self) -> list[int]:
        """Of the events in committed files."""
        found: list[int] = []
        for entry in self.ledger.shards():
            for file in entry.pending:
                body = self.objects.get(file.uri.removeprefix("s3://memory/"))
                found += pq.read_table(io.BytesIO(body), columns=["_seq"])["_seq"].to_pylist()
        return sorted(found)

    def audited(self, kinesis: Any) -> AuditReport:
        entries, store = self.ledger.shards(), StateStore(PIPELINE, self.objects)
        states = [store.load(entry) for entry in entries]
        listed = {shard.shard_id: shard.parents for shard in list_shards(kinesis, "s")}
        return audit("t", entries, states, [], [], listed=listed)


def batch(first: int, count: int, origin: str = "o") -> bytes:
    rows = [{"device": "d", "metric": "m", "ts": START + first + at, "value": 1.0} for at in range(count)]
    table = pa.Table.from_pylist(rows, schema=CONTRACT.arrow_schema)
    return encode_batch(table, CONTRACT, origin=origin, first_seq=first)


def pass_time(world: World) -> bool:
    """Let a clock go on that would stand, so that what is due some time after a commit comes."""
    if isinstance(world.clock, ManualClock):
        world.clock.advance(100)
    return True


def read_all(world: World, kinesis: MemoryKinesis, done: Callable[[], bool]) -> None:
    """Run the embedded runner until it is done; raises what it raises."""
    runner = EmbeddedRunner(PIPELINE, kinesis, world.context.ports, world.settings, world.clock, "owner")
    stop, raised = Event(), list[BaseException]()

    def run() -> None:
        try:
            runner.run(stop, 0.05)
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        until(lambda: bool(raised) or (pass_time(world) and done()), 30)
    finally:
        stop.set()
        thread.join(30)
    if raised:
        raise raised[0]


def test_a_stream_made_again_under_its_name_is_refused_by_name() -> None:
    """Its shards have the names of old ones, whose positions and ends mean nothing in it: nothing would be read."""
    world = World(SystemClock())
    first = world.stream()
    world.put(first, *range(5))
    (shard,) = list_shards(first, "s")
    first.split_shard(StreamName="s", ShardToSplit=shard.shard_id, NewStartingHashKey=str(1 << 127))
    world.put(first, *range(5, 10))
    read_all(world, first, lambda: len(world.numbers()) == 10)
    second = world.stream()
    world.put(second, *range(10, 17))
    with pytest.raises(UsageError, match="stream s was deleted and made again at") as told:
        read_all(world, second, lambda: len(world.numbers()) == 17)
    assert "\n" not in str(told.value)
    assert world.numbers() == list(range(10)), "what was read stays"
    assert stream_mismatch(first, "s", world.ledger) == ""
    assert "give the pipeline another name" in stream_mismatch(second, "s", world.ledger)
    read_all(world, first, lambda: True)


def test_a_ledger_is_of_one_stream() -> None:
    """A setting that names another stream is refused as one that was made again."""
    world = World(ManualClock(START))
    kinesis = world.stream()
    kinesis.create_stream(StreamName="other", ShardCount=1)
    check_stream(StreamClient(kinesis, "s"), world.ledger, world.clock)
    with pytest.raises(UsageError, match="stream other is another than stream s"):
        check_stream(StreamClient(kinesis, "other"), world.ledger, world.clock)


def test_a_role_that_may_not_ask_goes_on() -> None:
    """Deployments of before are told, not stopped."""
    world = World(ManualClock(START))
    kinesis = world.stream()
    kinesis.faults.fail_next("describe_stream_summary", "AccessDeniedException")
    assert check_stream(StreamClient(kinesis, "s"), world.ledger, world.clock) == StreamFacts()
    assert check_stream(StreamClient(kinesis, "s"), world.ledger, world.clock).created_ms == START


def test_a_fleet_that_starts_at_once_waits_for_its_turn() -> None:
    """An account has 20 descriptions a second, and each process of a shard asks for one."""
    world = World(ManualClock(START))
    kinesis = world.stream()
    kinesis.faults.fail_next("describe_stream_summary", "LimitExceededException", times=4)
    assert check_stream(StreamClient(kinesis, "s"), world.ledger, world.clock).created_ms == START


class Expired:
    """What ListShards answers when the parents of a shard are past the retention."""

    def __init__(self, *parents: str) -> None:
        self.parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), parents, strict=False))

    def list_shards(self, **_: Any) -> dict[str, Any]:
        keys = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
        return {"Shards": [{"ShardId": "shardId-000000000009", "HashKeyRange": keys} | self.parents]}


def take(world: World, worker: ShardWorker, number: int, data: bytes) -> None:
    worker.process([StreamRecord(worker.shard_id, str(number), START, "k", data)])


def read_part(world: World, shard_id: str, data: bytes, *, closed: bool, parents: Sequence[str] = ()) -> None:
    worker = ShardWorker.claim(world.context, shard_id, parents)
    take(world, worker, 100, data)
    worker.commit(closed=closed)


def lost(world: World, name: str) -> int:
    return sum(entry.counts.get(name, 0) for entry in world.ledger.shards())


@pytest.mark.parametrize("closed", [True, False])
def test_a_child_has_the_sets_of_a_parent_that_is_no_longer_listed(closed: bool) -> None:
    """Read to its end or not: the ledger has them, and a copy of what it read is a copy. The rest counts as lost."""
    world = World(ManualClock(START))
    read_part(world, "shardId-000000000000", batch(0, 10), closed=closed)
    worker = world.claim(Expired("shardId-000000000000"), "shardId-000000000009")
    take(world, worker, 200, batch(0, 10))
    worker.commit()
    assert world.numbers() == list(range(10))
    assert lost(world, "lost_parents") == (not closed)
    assert world.audited(Expired("shardId-000000000000")).lost == (not closed)


def test_a_merged_child_has_the_sets_of_both() -> None:
    """One read to its end, one not."""
    world = World(ManualClock(START))
    read_part(world, "shardId-000000000000", batch(0, 10), closed=True)
    read_part(world, "shardId-000000000001", batch(10, 10), closed=False)
    parents = ("shardId-000000000000", "shardId-000000000001")
    worker = world.claim(Expired(*parents), "shardId-000000000009")
    take(world, worker, 200, batch(0, 20))
    worker.commit()
    assert world.numbers() == list(range(20))
    assert lost(world, "lost_parents") == 1


def test_a_parent_that_nobody_read_passes_on_the_sets_of_its_ancestors() -> None:
    """The pipeline stood still for longer than the retention, and the stream was resharded twice meanwhile."""
    world = World(ManualClock(START))
    for at in range(3):
        read_part(world, f"shardId-00000000000{at}", batch(10 * at, 10), closed=at < 2)
    worker = world.claim(Expired("shardId-000000000007"), "shardId-000000000009")
    take(world, worker, 200, batch(0, 30))
    worker.commit()
    assert world.numbers() == list(range(30))
    assert lost(world, "lost_parents") == 2, "what followed in the open one, and the one that was never met"


def test_a_new_pipeline_has_lost_nothing() -> None:
    """Shards that ended before it was there are not its own."""
    world = World(ManualClock(START))
    worker = world.claim(Expired("shardId-000000000007"), "shardId-000000000009")
    worker.commit()
    assert [entry.shard_id for entry in world.ledger.shards()] == ["shardId-000000000009"]


def test_a_shard_made_since_the_listing_is_not_gone() -> None:
    """Another worker begins it while this one goes by its listing from before: nothing of it is closed or lost."""
    world, newer = World(ManualClock(START)), "shardId-000000000011"
    read_part(world, newer, batch(0, 3), closed=False)
    world.claim(Expired("shardId-000000000007"), "shardId-000000000009").commit()
    entry = world.ledger.shard(newer)
    assert entry is not None
    assert not entry.closed
    assert lost(world, "lost_parents") == 0
