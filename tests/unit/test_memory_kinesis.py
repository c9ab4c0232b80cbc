"""What no emulator does and the stream in memory has to: limits, expiry, retention, faults; and nothing is lost."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.stream.hashkeys import HASH_SPACE
from headwater.testing.kinesis import MemoryKinesis
from tests.streams import memory_stream

FIRST = "shardId-000000000000"
THROTTLED = "ProvisionedThroughputExceededException"


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def put(kinesis: MemoryKinesis, count: int, size: int = 1) -> dict[str, Any]:
    records = [{"Data": bytes(size), "PartitionKey": str(n)} for n in range(count)]
    return kinesis.put_records(StreamName="s", Records=records)


def iterator(kinesis: MemoryKinesis, shard: str = FIRST, kind: str = "TRIM_HORIZON") -> str:
    found: str = kinesis.get_shard_iterator(StreamName="s", ShardId=shard, ShardIteratorType=kind)["ShardIterator"]
    return found


def test_a_thousand_records_a_second_go_in() -> None:
    kinesis = memory_stream(1, ManualClock())
    assert [put(kinesis, 500)["FailedRecordCount"] for _ in range(3)] == [0, 0, 500]
    kinesis.clock.sleep(0.1)
    answer = put(kinesis, 200)
    assert answer["FailedRecordCount"] == 100
    assert {one.get("ErrorCode") for one in answer["Records"]} == {None, THROTTLED}
    with pytest.raises(ClientError) as error:
        kinesis.put_record(StreamName="s", Data=b"x", PartitionKey="k")
    assert code(error) == THROTTLED
    with pytest.raises(kinesis.exceptions.ProvisionedThroughputExceededException):
        kinesis.put_record(StreamName="s", Data=b"x", PartitionKey="k")


def test_a_megabyte_a_second_goes_in() -> None:
    """Over ten seconds, whatever is offered: what a second allows, and the burst at the start."""
    clock = ManualClock()
    kinesis = memory_stream(2, clock)
    for _ in range(100):
        put(kinesis, 40, 50_000)
        clock.advance(100)
    for shard in kinesis.shards("s"):
        assert shard.taken_bytes == pytest.approx(11e6, rel=0.02)
        assert shard.refused


def test_a_record_larger_than_a_second_holds_the_shard_up() -> None:
    kinesis = MemoryKinesis(ManualClock())
    kinesis.create_stream(StreamName="s", ShardCount=1, MaxRecordSizeInKiB=10240)
    large: dict[str, Any] = {"StreamName": "s", "Data": bytes(5_000_000), "PartitionKey": "k"}
    kinesis.put_record(**large)
    kinesis.clock.sleep(3)
    with pytest.raises(ClientError, match="Rate exceeded"):
        kinesis.put_record(**large)
    kinesis.clock.sleep(3)
    kinesis.put_record(**large)


def test_five_reads_and_two_megabytes_a_second_come_out() -> None:
    clock = ManualClock()
    kinesis = memory_stream(1, clock)
    for _ in range(5):
        kinesis.get_records(ShardIterator=iterator(kinesis))
    with pytest.raises(ClientError) as error:
        kinesis.get_records(ShardIterator=iterator(kinesis))
    assert code(error) == THROTTLED
    for _ in range(10):
        put(kinesis, 1, 1_000_000)
        clock.advance(1_100)
    assert len(kinesis.get_records(ShardIterator=iterator(kinesis))["Records"]) == 10
    clock.advance(2_000)
    with pytest.raises(ClientError, match="Rate exceeded"):
        kinesis.get_records(ShardIterator=iterator(kinesis))
    clock.advance(2_100)
    kinesis.get_records(ShardIterator=iterator(kinesis))


def test_sizes_of_a_request() -> None:
    kinesis = MemoryKinesis(ManualClock(), limits=False)
    kinesis.create_stream(StreamName="s", ShardCount=1)
    for count, size in ((501, 1), (0, 1), (11, 1_000_000), (1, 1 << 20)):
        with pytest.raises(ClientError) as error:
            put(kinesis, count, size)
        assert code(error) in ("ValidationException", "InvalidArgumentException")
    assert put(kinesis, 500, 20_000)["FailedRecordCount"] == 0


def test_an_iterator_expires_after_five_minutes() -> None:
    clock = ManualClock()
    kinesis = memory_stream(1, clock)
    old = iterator(kinesis)
    clock.advance(300_000)
    kinesis.get_records(ShardIterator=old)
    clock.advance(1)
    with pytest.raises(kinesis.exceptions.ExpiredIteratorException):
        kinesis.get_records(ShardIterator=old)


def test_what_is_older_than_the_retention_is_gone() -> None:
    """Records, and closed shards when their end is."""
    clock = ManualClock()
    kinesis = memory_stream(1, clock, reshard_seconds=0)
    put(kinesis, 3)
    clock.advance(12 * 3_600_000)
    put(kinesis, 2)
    kinesis.split_shard(StreamName="s", ShardToSplit=FIRST, NewStartingHashKey=str(HASH_SPACE // 2))
    clock.advance(12 * 3_600_000 + 1)
    assert len(kinesis.get_records(ShardIterator=iterator(kinesis))["Records"]) == 2
    assert len(kinesis.list_shards(StreamName="s")["Shards"]) == 3
    clock.advance(12 * 3_600_000)
    assert len(kinesis.list_shards(StreamName="s")["Shards"]) == 2


def test_one_reshard_at_a_time_and_ten_updates_a_day() -> None:
    clock = ManualClock()
    kinesis = memory_stream(2, clock, reshard_seconds=30)
    update: dict[str, Any] = {"StreamName": "s", "ScalingType": "UNIFORM_SCALING"}
    kinesis.update_shard_count(**update, TargetShardCount=3)
    with pytest.raises(kinesis.exceptions.ResourceInUseException):
        kinesis.update_shard_count(**update, TargetShardCount=2)
    for n in range(9):
        clock.advance(30_000)
        kinesis.update_shard_count(**update, TargetShardCount=2 + n % 2)
    clock.advance(30_000)
    with pytest.raises(kinesis.exceptions.LimitExceededException):
        kinesis.update_shard_count(**update, TargetShardCount=2)
    clock.advance(86_400_000)
    kinesis.update_shard_count(**update, TargetShardCount=4)


def test_faults_by_script() -> None:
    """Fail before, lose the answer after, refuse some: each once, in its order."""
    kinesis = memory_stream(1, ManualClock())
    kinesis.faults.fail_next("put_records", "InternalFailure")
    with pytest.raises(ClientError) as error:
        put(kinesis, 1)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert kinesis.shards("s")[0].taken_records == 0
    kinesis.faults.partial({0, 2})
    assert [one.get("ErrorCode") for one in put(kinesis, 3)["Records"]] == [THROTTLED, None, THROTTLED]
    kinesis.faults.lose_answer("put_records")
    with pytest.raises(ReadTimeoutError):
        put(kinesis, 1)
    assert kinesis.shards("s")[0].taken_records == 2
    assert put(kinesis, 3)["FailedRecordCount"] == 0
    assert kinesis.faults.calls["put_records"] == 4


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 5), st.integers(0, 9)),
        st.tuples(st.just("split"), st.integers(0, 20), st.integers(2, 9)),
        st.tuples(st.just("merge"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("update"), st.integers(1, 8), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(shards=st.integers(1, 4), todo=steps)
def test_every_record_is_met_once_on_the_way_from_parents_to_children(
    shards: int, todo: list[tuple[str, int, int]]
) -> None:
    """Whatever is put, split and merged: open shards tile the hash space; a walk along ChildShards, parents first,
    meets every record once, and those of one key in the order they were put."""
    kinesis = memory_stream(shards, ManualClock(), reshard_seconds=0)
    expected: list[tuple[str, bytes]] = []
    for kind, a, b in todo:
        _do(kinesis, kind, a, b, expected)
        ranges = sorted((one.start, one.end) for one in kinesis.shards("s") if one.closed is None)
        assert [start for start, _ in ranges] == [0, *(end + 1 for _, end in ranges[:-1])]
        assert ranges[-1][1] == HASH_SPACE - 1
    found: list[tuple[str, bytes]] = []
    waiting = [f"shardId-{n:012d}" for n in range(shards)]
    done: set[str] = set()
    while waiting:
        shard = next(one for one in waiting if set(_parents(kinesis, one)) <= done)
        waiting.remove(shard)
        children = _drain(kinesis, shard, found)
        done.add(shard)
        waiting += [one for one in children if one not in waiting]
    assert sorted(found) == sorted(expected)
    for key in {key for key, _ in expected}:
        assert [data for name, data in found if name == key] == [data for name, data in expected if name == key]


def _do(kinesis: MemoryKinesis, kind: str, a: int, b: int, expected: list[tuple[str, bytes]]) -> None:
    open_ = sorted((one for one in kinesis.shards("s") if one.closed is None), key=lambda one: one.start)
    chosen = open_[a % len(open_)]
    if kind == "put":
        for n in range(a):
            event = (f"key-{b}", bytes([len(expected) % 256, n]))
            kinesis.put_record(StreamName="s", Data=event[1], PartitionKey=event[0])
            expected.append(event)
    elif kind == "split":
        key = chosen.start + (chosen.end - chosen.start) * b // 10
        if chosen.start + 1 < key < chosen.end:
            kinesis.split_shard(StreamName="s", ShardToSplit=chosen.shard_id, NewStartingHashKey=str(key))
    elif kind == "merge" and len(open_) > 1:
        left, right = open_[a % (len(open_) - 1) :][:2]
        kinesis.merge_shards(StreamName="s", ShardToMerge=left.shard_id, AdjacentShardToMerge=right.shard_id)
    elif kind == "update" and len(open_) / 2 <= a <= 2 * len(open_):
        try:
            kinesis.update_shard_count(StreamName="s", TargetShardCount=a, ScalingType="UNIFORM_SCALING")
        except kinesis.exceptions.LimitExceededException:
            assert kinesis.reshards.count("update_shard_count") == 10


def _parents(kinesis: MemoryKinesis, shard_id: str) -> tuple[str, ...]:
    return next(one.parents for one in kinesis.shards("s") if one.shard_id == shard_id)


def _drain(kinesis: MemoryKinesis, shard: str, found: list[tuple[str, bytes]]) -> list[str]:
    """Read to the end, or to the tip of an open one; the children."""
    at: str | None = iterator(kinesis, shard)
    while at is not None:
        answer = kinesis.get_records(ShardIterator=at, Limit=3)
        found += [(one["PartitionKey"], one["Data"]) for one in answer["Records"]]
        at = answer.get("NextShardIterator")
        kinesis.clock.sleep(1)
        if at is None:
            return [one["ShardId"] for one in answer["ChildShards"]]
        if not answer["Records"]:
            return []
    return []
