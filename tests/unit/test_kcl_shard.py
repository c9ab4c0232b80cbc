"""One shard under the KCL, in memory: ledger first, checkpoint second, gaps read, fenced workers silent."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.codec import decode_record, encode_batch
from headwater.codec.decoded import Decoded
from headwater.config import KclSettings, Settings
from headwater.errors import Fenced, Retryable, UsageError
from headwater.ledger import Ledger
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.ports import StreamClient
from headwater.processors.runners.kcl.gap import Resume, plan_resume
from headwater.processors.runners.kcl.shard import KclShard
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.store import ViewStore
from headwater.stream import sequence
from headwater.stream.record import StreamRecord
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects

PIPELINE = Pipeline("unit", contract="telemetry").lake("unit", partition=None)
SHARD = "shardId-000000000000"


class Stream:
    """One shard's records by sequence number, readable as by GetRecords: two at a time."""

    def __init__(self) -> None:
        self.records: list[StreamRecord] = []
        self.parents: tuple[str, ...] = ()
        self.reads = 0
        self.created = 1_762_160_400

    def add(self, number: int, origin: str = "o") -> StreamRecord:
        body = encode_batch(_rows(number), PIPELINE.contract, origin=origin, first_seq=number * 10)
        record = StreamRecord(SHARD, str(number), 1_762_160_400_000 + number, "k", body)
        self.records.append(record)
        return record

    def describe_stream_summary(self, **_: Any) -> dict[str, Any]:
        created = datetime.fromtimestamp(self.created, UTC)
        return {"StreamDescriptionSummary": {"StreamCreationTimestamp": created, "RetentionPeriodHours": 24}}

    def list_shards(self, **_: Any) -> dict[str, Any]:
        parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), self.parents, strict=False))
        keys = {"HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "99"}}
        shards = [{"ShardId": one} for one in self.parents] + [{"ShardId": SHARD} | parents]
        return {"Shards": [shard | keys for shard in shards]}

    def get_shard_iterator(self, *, ShardIteratorType: str, **where: Any) -> dict[str, str]:  # noqa: N803 (boto3's name)
        after = int(where["StartingSequenceNumber"]) if ShardIteratorType == "AFTER_SEQUENCE_NUMBER" else 0
        return {"ShardIterator": str(after)}

    def get_records(self, *, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        self.reads += 1
        found = [one for one in self.records if int(one.sequence_number) > int(ShardIterator)][:2]
        return {
            "Records": [
                {
                    "SequenceNumber": one.sequence_number,
                    "ApproximateArrivalTimestamp": datetime.fromtimestamp(one.arrived_ms / 1000, UTC),
                    "PartitionKey": one.partition_key,
                    "Data": one.data,
                }
                for one in found
            ],
            "NextShardIterator": found[-1].sequence_number if found else ShardIterator,
            "MillisBehindLatest": 1000 if found else 0,
        }


class Kcl:
    """The checkpoints that were taken, and whether another is."""

    def __init__(self) -> None:
        self.taken: list[str | None] = []
        self.refuses = False

    def __call__(self, sequence_number: str | None) -> bool:
        if not self.refuses:
            self.taken.append(sequence_number)
        return not self.refuses


class Machine:
    """What all workers of a pipeline share."""

    def __init__(self, **kcl: Any) -> None:
        self.stream, self.clock, self.kcl = Stream(), ManualClock(), Kcl()
        dynamodb = MemoryDynamoDB()
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        dynamodb.create_table(TableName="ledger", KeySchema=keys)
        self.ledger = Ledger(dynamodb, "ledger", PIPELINE.name)
        self.objects = MemoryObjects()
        self.settings = Settings(stream="s", commit_seconds=60, kcl=KclSettings(**kcl))

    def shard(self, shard_id: str = SHARD, owner: str = "one") -> KclShard:
        ports = Ports(
            ledger=self.ledger,
            objects=self.objects,
            views=ViewStore(MemoryDynamoDB(), "views"),
            letters=DeadLetters(self.objects),
            references=lambda _name, _uri: pytest.fail("no references here"),
        )
        context = WorkerContext(PIPELINE, ports, self.settings, self.clock, owner)
        return KclShard.claim(context, StreamClient(self.stream, "s"), shard_id)

    def started(self, checkpoint: str | None = "TRIM_HORIZON", owner: str = "one") -> KclShard:
        shard = self.shard(owner=owner)
        shard.resume(checkpoint)
        return shard

    @property
    def committed(self) -> str:
        entry = self.ledger.shard(SHARD)
        return sequence.unpad(entry.position) if entry else ""

    @property
    def counts(self) -> dict[str, int]:
        entry = self.ledger.shard(SHARD)
        return dict(entry.counts) if entry else {}


def test_checkpoint_only_after_a_commit_and_at_its_position() -> None:
    """Until the commit is due nothing is checkpointed; then exactly what was committed."""
    m = Machine()
    shard = m.started()
    shard.process([m.stream.add(1), m.stream.add(2)], 0, m.kcl)
    assert m.kcl.taken == []
    m.clock.advance(61_000)
    shard.process([], 0, m.kcl)
    assert m.kcl.taken == ["2"]
    assert m.committed == "2"
    shard.process([m.stream.add(3)], 0, m.kcl)
    assert m.kcl.taken == ["2"]


def test_stop_commits_then_checkpoints() -> None:
    """shutdown_requested leaves no uncommitted work."""
    m = Machine()
    shard = m.started()
    shard.process([m.stream.add(1)], 0, m.kcl)
    shard.requested(m.kcl)
    assert (m.committed, m.kcl.taken) == ("1", ["1"])


def test_lease_lost_writes_nothing() -> None:
    """Neither ledger nor checkpoint; a later owner does the work again, once."""
    m = Machine()
    shard = m.started()
    record = m.stream.add(1)
    shard.process([record], 0, m.kcl)
    before = dict(m.objects.bodies)
    shard.lost()
    assert (m.committed, m.kcl.taken, m.objects.bodies) == ("0", [], before)
    other = m.started(owner="two")
    other.process([record], 0, m.kcl)
    other.requested(m.kcl)
    assert m.counts["lake"] == 10


def test_end_of_shard_closes_then_checkpoints() -> None:
    """The KCL is told of the end after the ledger; told again, nothing changes."""
    m = Machine()
    shard = m.started()
    shard.process([m.stream.add(1)], 0, m.kcl)
    shard.ended(m.kcl)
    entry = m.ledger.shard(SHARD)
    assert entry is not None
    assert entry.closed
    assert m.kcl.taken == [None]
    again = m.started("0")
    again.process(m.stream.records, 0, m.kcl)
    again.ended(m.kcl)
    assert m.counts["lake"] == 10


def test_a_fenced_worker_is_silent_then_ends() -> None:
    """A rebalance fences first and says so later: no checkpoint, no crash; only a lease that stays ends the process."""
    m = Machine(failover_seconds=10)
    old = m.started()
    old.process([m.stream.add(1)], 0, m.kcl)
    new = m.started("0", owner="two")
    m.clock.advance(61_000)
    old.process([m.stream.add(2)], 0, m.kcl)
    old.process([m.stream.add(3)], 0, m.kcl)
    assert m.kcl.taken == []
    old.requested(m.kcl)
    assert m.kcl.taken == []
    with pytest.raises(Fenced, match="end was not committed"):
        old.ended(m.kcl)
    m.clock.advance(31_000)
    with pytest.raises(Fenced, match="lease is still ours"):
        old.process([], 0, m.kcl)
    new.process(m.stream.records, 0, m.kcl)
    new.requested(m.kcl)
    assert (m.committed, m.counts["lake"]) == ("3", 30)


def test_replay_below_the_ledger_is_skipped_and_checkpointed() -> None:
    """The checkpoint lags after a crash: what comes again is skipped, and it catches up as far as it may."""
    m = Machine()
    first = m.started()
    first.process([m.stream.add(n) for n in (1, 2, 3)], 0, Kcl())
    first.requested(Kcl())
    second = m.started("TRIM_HORIZON", owner="two")
    second.process(m.stream.records[:2], 0, m.kcl)
    assert m.kcl.taken == ["2"]  # not 3: the KCL has delivered no further
    second.process(m.stream.records[2:], 0, m.kcl)
    assert m.kcl.taken == ["2", "3"]
    assert m.counts["lake"] == 30


@pytest.mark.parametrize("checkpoint", ["5", "LATEST", "AT_TIMESTAMP"])
def test_checkpoint_ahead_of_the_ledger(checkpoint: str) -> None:
    """Records that the KCL will not deliver any more are read from the stream, once, in order."""
    m = Machine()
    first = m.started()
    first.process([m.stream.add(1)], 0, m.kcl)
    first.requested(m.kcl)
    for number in (2, 3, 4, 5):
        m.stream.add(number)
    second = m.started(checkpoint, owner="two")
    late = [m.stream.add(number) for number in (6, 7, 8)]
    second.process(late[1:] if checkpoint != "5" else late, 0, m.kcl)
    second.requested(m.kcl)
    assert m.committed == "8"
    assert m.counts == m.counts | {"lake": 80, "records": 8}


def test_gap_at_the_end_of_a_shard() -> None:
    """Nothing is delivered after a start at LATEST, and the shard ends: the rest of it is read before it is closed."""
    m = Machine()
    first = m.started()
    first.process([m.stream.add(1)], 0, m.kcl)
    first.requested(m.kcl)
    second = m.started("LATEST", owner="two")
    m.stream.add(2)
    second.ended(m.kcl)
    assert (m.committed, m.counts["lake"]) == ("2", 20)


def test_unknown_shard_with_a_checkpoint() -> None:
    """A lease table of another consumer: read from the beginning unless its checkpoints are adopted."""
    m = Machine()
    for number in (1, 2, 3):
        m.stream.add(number)
    m.started("2")
    assert (m.committed, m.counts["lake"]) == ("2", 20)
    m = Machine(adopt_checkpoints=True)
    for number in (1, 2, 3):
        m.stream.add(number)
    shard = m.started("2")
    assert m.stream.reads == 0
    assert m.committed == "2"
    shard.process(m.stream.records[2:], 0, m.kcl)
    shard.requested(m.kcl)
    assert m.counts["lake"] == 10


def test_latest_is_pinned_by_the_first_records() -> None:
    """A start that cannot be found again is committed at once."""
    m = Machine()
    shard = m.started("LATEST")
    shard.process([], 0, m.kcl)
    shard.process([m.stream.add(7)], 0, m.kcl)
    assert (m.committed, m.kcl.taken) == ("7", ["7"])


def test_waits_for_parents_then_gives_up() -> None:
    """A parent that is not closed in the ledger: a bounded wait, then an error that ends the process."""
    m = Machine(parents_seconds=5)
    parent = "shardId-000000000009"
    m.stream.parents = (parent,)
    m.ledger.claim(parent, "somebody", None, 0)
    started = m.clock.now_ms()
    with pytest.raises(Retryable, match="not read to their end"):
        m.started()
    assert 5_000 <= m.clock.now_ms() - started < 10_000


def test_refused_checkpoint_is_tried_again() -> None:
    """The KCL throttles a checkpoint, or has lost the lease: no error, and the next call says it again."""
    m = Machine()
    shard = m.started()
    m.kcl.refuses = True
    shard.process([m.stream.add(1)], 0, m.kcl)
    m.clock.advance(61_000)
    shard.process([], 0, m.kcl)
    m.kcl.refuses = False
    shard.process([], 0, m.kcl)
    assert m.kcl.taken == ["1"]


numbers = st.integers(1, 10**55)


@given(position=st.one_of(st.just(0), numbers), checkpoint=numbers, adopt=st.booleans())
def test_resume_loses_nothing(position: int, checkpoint: int, adopt: bool) -> None:
    """Whatever the two say: delivery begins after the checkpoint, so all between ledger and checkpoint is read."""
    plan = plan_resume(sequence.pad(str(position)), str(checkpoint), adopt=adopt)
    if checkpoint <= position:
        assert plan == Resume()
    elif position == 0 and adopt:
        assert plan == Resume(adopt=sequence.pad(str(checkpoint)))
    else:
        assert plan == Resume(until=sequence.pad(str(checkpoint)))


def test_aggregates_keep_their_rows_places() -> None:
    """Put together again, an aggregate decodes as it would have from the stream."""
    pytest.importorskip("amazon_kclpy")
    from amazon_kclpy.messages import Record

    from headwater.processors.runners.kcl.processor import stream_records

    rows = [
        json.dumps({"device": f"d{i}", "metric": "m", "ts": 1_762_160_400_000, "value": 1.0}).encode() for i in range(4)
    ]
    parts = [Record(delivered_record("5", i, row)) for i, row in enumerate(rows)]
    single = Record(delivered_record("6", 0, rows[0]))
    found = stream_records(SHARD, [*parts, single])
    assert [(one.sequence_number, one.arrived_ms) for one in found] == [
        ("5", 1_762_160_400_099),
        ("6", 1_762_160_400_099),
    ]
    decoded = decode_record(found[0].data, PIPELINE.contract)
    assert isinstance(decoded, Decoded)
    assert decoded.table["device"].to_pylist() == ["d0", "d1", "d2", "d3"]
    assert found[1].data == rows[0]


def delivered_record(number: str, sub: int, data: bytes) -> dict[str, Any]:
    return {
        "sequenceNumber": number,
        "subSequenceNumber": sub,
        "approximateArrivalTimestamp": 1_762_160_400_099,
        "partitionKey": "k",
        "data": base64.b64encode(data).decode(),
        "action": "record",
    }


def _rows(number: int) -> pa.Table:
    fields: dict[str, Sequence[object]] = {
        "device": [f"d{number}"] * 10,
        "metric": ["m"] * 10,
        "ts": [1_762_160_400_000] * 10,
        "value": [1.0] * 10,
    }
    columns = {}
    for one in PIPELINE.contract.arrow_schema:
        values = fields.get(one.name, [None] * 10)
        plain = pa.int64() if pa.types.is_timestamp(one.type) else one.type
        columns[one.name] = pa.array(values, plain).cast(one.type)
    return pa.table(columns)


def test_a_stream_made_again_is_refused_before_the_shard_is_claimed() -> None:
    """Its sequence numbers begin anew: the ledger's position is of another stream."""
    machine = Machine()
    machine.started()
    machine.stream.created += 3600
    with pytest.raises(UsageError, match="was deleted and made again"):
        machine.started(owner="two")
    entry = machine.ledger.shard(SHARD)
    assert entry is not None
    assert entry.owner == "one"
