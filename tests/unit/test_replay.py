"""What a replay reads of a stream, how fast it puts, and where: on a clock of the test's."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
import pytest

from headwater.clock import ManualClock
from headwater.codec import Decoded, decode_record, encode_batch
from headwater.config import Settings
from headwater.contract import load_contract, parse_contract
from headwater.errors import UsageError
from headwater.ledger import Ledger
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.replay.backfill import waits
from headwater.processors.replay.chunk import HASH_KEY, ArrivalSpan, ReplayChunk, slices
from headwater.processors.replay.replay import Replay
from headwater.processors.replay.stream import from_stream
from headwater.processors.runners.pages import records_of
from headwater.processors.services import Services
from headwater.producers.lanes import lane_hash_key, lane_of, origin_hash_key
from headwater.producers.resending import Resender
from headwater.rates import Pace
from headwater.stream.hashkeys import HASH_SPACE
from headwater.stream.record import StreamRecord
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.kinesis import MemoryKinesis
from tests.kpl import aggregate
from tests.streams import memory_stream

CONTRACT = load_contract("telemetry")
OWN_IDS = parse_contract(
    "{name: own, version: 1, key: device, time: ts, id: {origin: device, seq: n, partitions: 4}, fields: ["
    "{name: device, type: string}, {name: n, type: long}, {name: ts, type: timestamp}]}",
    "own",
)
RECORDS = 60
STEP_MS = 30_000


def events(count: int) -> pa.Table:
    ts = pa.array([1_762_000_000_000 + at for at in range(count)], pa.timestamp("ms", "UTC"))
    return pa.table({"device": ["d"] * count, "metric": ["m"] * count, "ts": ts, "value": [1.0] * count})


def services(kinesis: MemoryKinesis, clock: ManualClock) -> Services:
    made = Services(Settings(stream="s"), Pipeline("p", contract=CONTRACT).lake("p"), clock)
    made.__dict__["kinesis"] = kinesis
    return made


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def kinesis(clock: ManualClock) -> MemoryKinesis:
    """Records of five events, each tenth one of JSON, every half minute over all shards; a split and a merge."""
    made = memory_stream(3, clock, reshard_seconds=0)
    for at in range(RECORDS):
        data = encode_batch(events(5), CONTRACT, origin="session", first_seq=5 * at)
        if at % 10 == 9:
            data = json.dumps({"device": "d", "metric": "json", "ts": 1_762_000_000_000, "value": float(at)}).encode()
        key = str(HASH_SPACE * (7 * at % RECORDS) // RECORDS)
        made.put_record(StreamName="s", PartitionKey="p", ExplicitHashKey=key, Data=data)
        if at == 20:
            made.split_shard(StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(1 << 125))
        if at == 40:
            pair = ("shardId-000000000001", "shardId-000000000002")
            made.merge_shards(StreamName="s", ShardToMerge=pair[0], AdjacentShardToMerge=pair[1])
        clock.advance(STEP_MS)
    return made


def found(chunks: list[ReplayChunk]) -> Counter[tuple[str, int]]:
    """How often each identity is there."""
    return Counter((row["_origin"], row["_seq"]) for one in chunks for row in one.rows.to_pylist())


def test_all_of_a_span_and_nothing_else_over_a_split_and_a_merge(kinesis: MemoryKinesis, clock: ManualClock) -> None:
    """From records 10 to 49; from whichever chunk on it is called again, it reads the rest."""
    source, began = services(kinesis, clock), clock.now_ms() - RECORDS * STEP_MS
    span = ArrivalSpan(began + 10 * STEP_MS, began + 50 * STEP_MS)
    chunks = list(from_stream(source.reader, span, {}, own=False))
    wanted = {("session", 5 * at + i) for at in range(10, 50) if at % 10 != 9 for i in range(5)}
    once = found(chunks)
    assert {one for one in once if one[0] == "session"} == wanted
    foreign = [origin for origin, _ in once if origin != "session"]
    assert len(foreign) == 4
    assert all(origin.startswith("s:shardId-") for origin in foreign)
    assert set(once.values()) == {1}
    for at, chunk in enumerate(chunks):
        rest = list(from_stream(source.reader, span, json.loads(json.dumps(chunk.position)), own=False))
        assert found(rest) == found(chunks[at + 1 :])


def test_onto_its_own_stream_an_event_goes_to_the_shard_it_was_on(kinesis: MemoryKinesis, clock: ManualClock) -> None:
    source, began = services(kinesis, clock), clock.now_ms() - RECORDS * STEP_MS
    chunks = list(from_stream(source.reader, ArrivalSpan(began, clock.now_ms()), {}, own=True))
    shards = {one["ShardId"]: one["HashKeyRange"] for one in kinesis.list_shards(StreamName="s")["Shards"]}
    was = dict[int, str]()
    for record in stored(kinesis, "s"):
        content = decode_record(record.data, CONTRACT)
        assert isinstance(content, Decoded)
        start = shards[record.shard_id]["StartingHashKey"]
        if content.origin:
            was |= dict.fromkeys(range(content.first_seq, content.first_seq + content.total), start)
    goes = {row["_seq"]: row[HASH_KEY] for one in chunks for row in one.rows.to_pylist()}
    assert goes == was
    assert sum(one.left_out.get("foreign", 0) for one in chunks) == RECORDS // 10


@pytest.mark.parametrize("own", [False, True])
def test_user_records_of_another_shard_are_not_put_again(clock: ManualClock, own: bool) -> None:
    """A KPL put them with those of a shard that was split, and again where they belong; one of the others, too."""
    kinesis = memory_stream(2, clock, reshard_seconds=0)
    rows = [{"device": "d", "n": at, "ts": 1_762_000_000_000} for at in range(3)]
    bodies, keys = [json.dumps(row).encode() for row in rows], [0, 1, HASH_SPACE - 1]
    users = [("k", body, key) for body, key in zip(bodies, keys, strict=True)]
    for data, key in [(aggregate(*users), 0), (bodies[2], keys[2]), (bodies[0], keys[0])]:
        kinesis.put_record(StreamName="s", Data=data, PartitionKey="k", ExplicitHashKey=str(key))
    clock.advance(STEP_MS)
    source = Services(Settings(stream="s"), Pipeline("p", contract=OWN_IDS).lake("p"), clock)
    source.__dict__["kinesis"] = kinesis
    chunks = list(from_stream(source.reader, ArrivalSpan(clock.now_ms() - 2 * STEP_MS, clock.now_ms()), {}, own=own))
    assert found(chunks) == {("d", 0): 1, ("d", 1): 1, ("d", 2): 1}
    goes = {row["_seq"]: row[HASH_KEY] for one in chunks for row in one.rows.to_pylist()}
    assert goes == ({0: "0", 1: "0", 2: str(HASH_SPACE // 2)} if own else dict.fromkeys(range(3), ""))


def test_what_a_kpl_sends_again_to_the_child_of_a_merge_is_not_put_again(clock: ManualClock) -> None:
    """Wherever the replay is taken up again."""
    kinesis = memory_stream(2, clock, reshard_seconds=0)
    rows = [json.dumps({"device": "d", "n": at, "ts": 1_762_000_000_000}).encode() for at in range(6)]

    def put(*users: int, to: int = 0) -> None:
        data = aggregate(*(("k", rows[at], to) for at in users)) if len(users) > 1 else rows[users[0]]
        kinesis.put_record(StreamName="s", Data=data, PartitionKey="k", ExplicitHashKey=str(to))

    put(0, 1)
    pair = ("shardId-000000000000", "shardId-000000000001")
    kinesis.merge_shards(StreamName="s", ShardToMerge=pair[0], AdjacentShardToMerge=pair[1])
    put(2, 3)
    put(2)
    put(2, 3)
    clock.advance(STEP_MS)
    contract = parse_contract(
        "{name: c, version: 1, key: device, time: ts, fields: [{name: device, type: string}, "
        "{name: n, type: long}, {name: ts, type: timestamp}]}",
        "c",
    )
    source = Services(Settings(stream="s"), Pipeline("p", contract=contract).lake("p"), clock)
    source.__dict__["kinesis"] = kinesis
    span = ArrivalSpan(clock.now_ms() - 2 * STEP_MS, clock.now_ms())
    chunks = list(from_stream(source.reader, span, {}, own=False))
    assert sorted(row["n"] for one in chunks for row in one.rows.to_pylist()) == [0, 1, 2, 3]
    for at, chunk in enumerate(chunks):
        rest = list(from_stream(source.reader, span, json.loads(json.dumps(chunk.position)), own=False))
        assert found(rest) == found(chunks[at + 1 :])


def stored(kinesis: MemoryKinesis, stream: str) -> Iterator[StreamRecord]:
    """Every record."""
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        name = shard["ShardId"]
        answer = kinesis.get_shard_iterator(StreamName=stream, ShardId=name, ShardIteratorType="TRIM_HORIZON")
        yield from records_of(kinesis.get_records(ShardIterator=answer["ShardIterator"]), name)


def test_what_the_retention_has_overtaken_is_refused(kinesis: MemoryKinesis, clock: ManualClock) -> None:
    """Between two calls, and in the middle of one."""
    source, day = services(kinesis, clock), 86_400_000
    span = ArrivalSpan(clock.now_ms() - RECORDS * STEP_MS, clock.now_ms())
    chunks = from_stream(source.reader, span, {}, own=False)
    first = next(chunks)
    clock.advance(day)
    with pytest.raises(UsageError, match="stream s keeps records for 24 h"):
        list(chunks)
    with pytest.raises(UsageError, match="take them from the lake"):
        list(from_stream(source.reader, span, first.position, own=False))


def test_a_replay_leaves_room_for_live_traffic(clock: ManualClock) -> None:
    """In no second there are more events than the rate, with a second's worth saved and one record on credit."""
    kinesis, rate, count = memory_stream(1, clock), 250, 3_000
    began, resender = clock.now_ms(), Resender(kinesis, "s", CONTRACT, clock, rate, lambda: 0.5)
    for at in range(0, count, 500):
        resender.put(events(500), ("session", at), None)
    resender.settle()
    read = [(one.arrived_ms, decode_record(one.data, CONTRACT)) for one in stored(kinesis, "s")]
    arrived = [(at, content.total) for at, content in read if isinstance(content, Decoded)]
    assert sum(total for _, total in arrived) == count
    for start, _ in arrived:
        assert sum(total for at, total in arrived if start <= at < start + 1000) <= 3 * rate
    assert clock.now_ms() - began >= 1000 * (count / rate - 1)


def test_a_slow_replay_is_told_of_every_second_and_can_be_cancelled(kinesis: MemoryKinesis, clock: ManualClock) -> None:
    """Whatever the stream hands over at once, and whatever the rate; and how far it came is written down."""
    kinesis.create_stream(StreamName="other", ShardCount=1)
    slow, dynamodb, told, unsaved = services(kinesis, clock), MemoryDynamoDB(), list[int](), list[int]()
    dynamodb.create_table(TableName="ledger", KeySchema=[{"AttributeName": name} for name in ("pipeline", "item")])
    slow.__dict__["ledger"] = Ledger(dynamodb, "ledger", "p")
    replay = Replay(slow.reader, ArrivalSpan(clock.now_ms() - RECORDS * STEP_MS, clock.now_ms()), "stream", "other")

    def advance(events: int, _: int) -> None:
        told.append(clock.now_ms())
        unsaved.append(events - slow.ledger.document(f"replay-{replay.id}")[0].get("events", 0))

    resender = Resender(kinesis, "other", slow.pipeline.contract, clock, 5)
    done = replay.run(resender, lambda: None, rate=5, advance=advance)
    assert done.events == 5 * (RECORDS - RECORDS // 10) + RECORDS // 10
    assert max(after - before for before, after in pairwise(told)) <= 3_000  # a page of a shard takes some, too
    assert max(unsaved) <= 2 * 5 * 5 + 5  # what goes in five seconds, what is read for five more, and a record


def test_a_slow_filling_is_told_of_every_second(clock: ManualClock) -> None:
    """A file's records are taken a few at a time, and a long wait is made of steps."""
    records = [(StreamRecord("backfill", str(at), 0, "o", b""), 5_000) for at in range(1, 11)]
    assert [rows for _, rows in slices(records)] == [20_000, 20_000, 10_000]
    pace, steps = Pace(100, clock), list[int]()
    for some, rows in slices(records, 100):
        assert len(some) == 1
        steps += [clock.now_ms() for _ in waits(pace, clock)]
        pace.take(rows)
    assert steps[-1] - steps[0] >= 9 * 49_000
    assert max(after - before for before, after in pairwise(steps)) <= 1_000


@pytest.mark.parametrize("rate", [0.5, 3, 7_000])
def test_a_pace_is_kept_in_the_long_run(clock: ManualClock, rate: float) -> None:
    pace, began = Pace(rate, clock), clock.now_ms()
    for _ in range(200):
        pace.take(3)
    assert 600 / rate - 3 / rate - 1 <= (clock.now_ms() - began) / 1000 <= 600 / rate + 1


def test_without_a_rate_nothing_waits_but_for_the_service(clock: ManualClock) -> None:
    """What is throttled, fails in passing or loses its answer is sent again; copies go to the same hash key."""
    kinesis, began = memory_stream(4, clock), clock.now_ms()
    kinesis.faults.partial([0, 2])
    kinesis.faults.fail_next("put_records", "InternalFailure")
    kinesis.faults.lose_answer("put_records")
    resender = Resender(kinesis, "s", CONTRACT, clock, random=lambda: 0.5)
    for at in range(4):
        resender.put(events(10), (f"session-{at}", 100), None)
        assert clock.now_ms() == began
    resender.settle()
    places = dict[str, set[str]]()
    for record in stored(kinesis, "s"):
        content = decode_record(record.data, CONTRACT)
        if isinstance(content, Decoded):
            assert (content.first_seq, content.total) == (100, 10)
            places.setdefault(str(content.origin), set()).add(record.shard_id)
    assert set(places) == {f"session-{at}" for at in range(4)}
    shards = kinesis.list_shards(StreamName="s")["Shards"]
    for origin, ids in places.items():
        assert ids == {owner(shards, origin_hash_key(origin))}


def owner(shards: list[dict[str, dict[str, str]]], key: int) -> str:
    ranges = {str(one["ShardId"]): one["HashKeyRange"] for one in shards}
    return next(name for name, one in ranges.items() if int(one["StartingHashKey"]) <= key <= int(one["EndingHashKey"]))


def test_events_with_ids_of_their_own_go_where_their_producer_sends_them(clock: ManualClock) -> None:
    kinesis, devices = memory_stream(4, clock), [f"device-{at % 20}" for at in range(100)]
    ts = pa.array([1_762_000_000_000] * 100, pa.timestamp("ms", "UTC"))
    resender = Resender(kinesis, "s", OWN_IDS, clock)
    resender.put(pa.table({"device": devices, "n": list(range(100)), "ts": ts}), None, None)
    resender.settle()
    shards, found_ids = kinesis.list_shards(StreamName="s")["Shards"], set[int]()
    for record in stored(kinesis, "s"):
        content = decode_record(record.data, OWN_IDS)
        if isinstance(content, Decoded):
            assert content.origin is None
            found_ids |= set(content.table["n"].to_pylist())
            for device in content.table["device"].to_pylist():
                assert record.shard_id == owner(shards, lane_hash_key(lane_of(device, 4), 4))
    assert found_ids == set(range(100))
