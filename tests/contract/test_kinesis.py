"""One suite over the stream in memory, the embedded AWS that serves it, and kinesis-local: what is promised, all do.

Where kinesis-local does otherwise, the AWS documentation decides what the stream in memory does, and the test asserts
what kinesis-local really does: see DIFFERENCES, and docs/emulators.md.
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from headwater.clock import ManualClock
from headwater.commands.local.embedded import EmbeddedAws
from headwater.stream.hashkeys import HASH_SPACE
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.memoryshards import hash_of
from tests.kcl_servers import kinesis_local

DIFFERENCES = {
    "501 records": "kinesis-local takes 501 records in a PutRecords; the service refuses them",
    "split at the first key": "kinesis-local splits at the shard's own first hash key; the service refuses that",
    "broken iterator": "kinesis-local answers 500 to an iterator that is none; the service says what is wrong",
    "even shards": "kinesis-local's UpdateShardCount lays boundaries one hash key beside the even ones",
}
REFUSED = {"ValidationException", "InvalidArgumentException"}


@dataclass
class Backend:
    """A client, and what time is for it."""

    name: str
    client: Any
    clock: ManualClock | None

    @property
    def real(self) -> bool:
        return self.clock is None

    def stream(self, shards: int, **more: Any) -> str:
        name = f"s-{uuid.uuid4().hex[:8]}"
        self.client.create_stream(StreamName=name, ShardCount=shards, **more)
        self.active(name)
        return name

    def active(self, stream: str) -> None:
        """Wait until the stream is ACTIVE."""
        for _ in range(600):
            summary = self.client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
            if summary["StreamStatus"] == "ACTIVE":
                return
            self.pause(0.05)
        raise AssertionError(f"{stream} stays {summary['StreamStatus']}")

    def pause(self, seconds: float) -> None:
        if self.clock is None:
            time.sleep(seconds)
        else:
            self.clock.advance(round(seconds * 1000))

    def now(self) -> datetime:
        if self.clock is None:
            return datetime.now(UTC)
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    def shards(self, stream: str, **more: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.list_shards(StreamName=stream, **more)["Shards"]
        return found

    def iterator(self, stream: str, shard: str, kind: str = "TRIM_HORIZON", **more: Any) -> str:
        answer = self.client.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType=kind, **more)
        found: str = answer["ShardIterator"]
        return found

    def read(self, iterator: str | None, most: int = 40) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Records until the shard ends, or a call gives none; and the last answer."""
        records: list[dict[str, Any]] = []
        answer: dict[str, Any] = {}
        for _ in range(most):
            answer = self.client.get_records(ShardIterator=iterator)
            records += answer["Records"]
            iterator = answer.get("NextShardIterator")
            if iterator is None or not answer["Records"]:
                break
            self.pause(0.25)
        return records, answer


def differs(on: Backend, what: str) -> bool:
    """Whether the server is one that does otherwise, as DIFFERENCES has it."""
    assert what in DIFFERENCES
    return on.name == "kinesis-local"


def refusal(call: Any, **arguments: Any) -> str:
    """The code of the error that the call ends with."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return str(error.value.response["Error"]["Code"])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    lacking = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if lacking:
        reason = f"kinesis-local needs {', '.join(lacking)}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with kinesis_local() as url:
        yield url


@pytest.fixture(scope="module")
def embedded() -> Iterator[str]:
    with EmbeddedAws() as aws:
        yield aws.endpoint


@pytest.fixture(params=["memory", "embedded", "kinesis-local"])
def on(request: pytest.FixtureRequest) -> Backend:
    if request.param == "memory":
        clock = ManualClock(1_790_000_000_000)
        return Backend("memory", MemoryKinesis(clock, reshard_seconds=0.2), clock)
    client = boto3.client(
        "kinesis",
        endpoint_url=request.getfixturevalue("embedded" if request.param == "embedded" else "server"),
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )
    return Backend(request.param, client, None)


def test_shards_cover_the_hash_space(on: Backend) -> None:
    """In order, without gap or overlap; a stream of the name that is there, or none, is refused."""
    stream = on.stream(3)
    ranges = [
        (int(shard["HashKeyRange"]["StartingHashKey"]), int(shard["HashKeyRange"]["EndingHashKey"]))
        for shard in on.shards(stream)
    ]
    assert [start for start, _ in ranges] == [0, *[end + 1 for _, end in ranges[:-1]]]
    assert ranges[-1][1] == HASH_SPACE - 1
    assert [shard["ShardId"] for shard in on.shards(stream)] == [f"shardId-{at:012d}" for at in range(3)]
    summary = on.client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    assert (summary["OpenShardCount"], summary["RetentionPeriodHours"]) == (3, 24)
    assert refusal(on.client.create_stream, StreamName=stream, ShardCount=1) == "ResourceInUseException"
    for call in (on.client.describe_stream_summary, on.client.list_shards):
        assert refusal(call, StreamName="none") == "ResourceNotFoundException"


def test_records_lie_by_hash_and_in_order(on: Backend) -> None:
    """MD5 of the partition key, or the explicit key; 56 digits that grow; read as put."""
    stream = on.stream(4)
    ranges = {shard["ShardId"]: shard["HashKeyRange"] for shard in on.shards(stream)}
    where: dict[str, list[tuple[str, bytes]]] = {}
    for n in range(20):
        key, explicit = f"key-{n}", str(n * HASH_SPACE // 20) if n % 2 else None
        more = {"ExplicitHashKey": explicit} if explicit else {}
        data = bytes([n]) * (n + 1)
        answer = on.client.put_record(StreamName=stream, Data=data, PartitionKey=key, **more)
        keys = ranges[answer["ShardId"]]
        assert int(keys["StartingHashKey"]) <= hash_of(key, explicit) <= int(keys["EndingHashKey"])
        assert len(answer["SequenceNumber"]) == 56
        where.setdefault(answer["ShardId"], []).append((answer["SequenceNumber"], data))
    for shard, expected in where.items():
        assert [int(number) for number, _ in expected] == sorted(int(number) for number, _ in expected)
        records, last = on.read(on.iterator(stream, shard))
        assert [(one["SequenceNumber"], one["Data"]) for one in records] == expected
        assert abs(records[-1]["ApproximateArrivalTimestamp"] - on.now()).total_seconds() < 60
        assert last["MillisBehindLatest"] == 0
        assert last["NextShardIterator"]


def test_put_records_answers_each(on: Backend) -> None:
    stream = on.stream(2)
    wanted = [{"Data": bytes([n]), "PartitionKey": f"k{n}"} for n in range(50)]
    answer = on.client.put_records(StreamName=stream, Records=wanted)
    assert answer["FailedRecordCount"] == 0
    assert len(answer["Records"]) == 50
    found = [one["Data"] for shard in on.shards(stream) for one in on.read(on.iterator(stream, shard["ShardId"]))[0]]
    assert sorted(found) == [bytes([n]) for n in range(50)]


def test_what_a_record_may_be(on: Backend) -> None:
    """1 MiB with its key, 1 to 256 characters of key, a hash key below 2^128; 500 records and 10 MiB a request."""
    stream = on.stream(1)
    put = on.client.put_record
    put(StreamName=stream, Data=bytes((1 << 20) - 1), PartitionKey="k")
    on.pause(2)
    put(StreamName=stream, Data=b"x", PartitionKey="k", ExplicitHashKey=str(HASH_SPACE - 1))
    assert refusal(put, StreamName=stream, Data=bytes((1 << 20) + 1), PartitionKey="k") in REFUSED
    assert refusal(put, StreamName=stream, Data=b"x", PartitionKey="k" * 257) in REFUSED
    assert refusal(put, StreamName=stream, Data=b"x", PartitionKey="k", ExplicitHashKey=str(HASH_SPACE)) in REFUSED
    on.pause(3)
    many = [{"Data": b"x", "PartitionKey": "k"}] * 501
    if differs(on, "501 records"):
        assert on.client.put_records(StreamName=stream, Records=many)["FailedRecordCount"] == 0
    else:
        assert refusal(on.client.put_records, StreamName=stream, Records=many) in REFUSED


def test_where_an_iterator_begins(on: Backend) -> None:
    """At, after, from a time, at the end; a number that the shard cannot have and a broken iterator are refused."""
    stream = on.stream(1)
    shard = on.shards(stream)[0]["ShardId"]
    numbers = []
    for n in range(6):
        if n == 3:
            on.pause(1.1)
            middle = on.now()
            on.pause(0.2)
        numbers.append(on.client.put_record(StreamName=stream, Data=bytes([n]), PartitionKey="k")["SequenceNumber"])
    latest = on.iterator(stream, shard, "LATEST")

    def data(iterator: str) -> list[int]:
        on.pause(0 if on.real else 1)
        return [one["Data"][0] for one in on.read(iterator)[0]]

    assert data(on.iterator(stream, shard)) == [0, 1, 2, 3, 4, 5]
    assert data(on.iterator(stream, shard, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[2])) == [2, 3, 4, 5]
    assert data(on.iterator(stream, shard, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[2])) == [3, 4, 5]
    assert data(on.iterator(stream, shard, "AT_TIMESTAMP", Timestamp=middle)) == [3, 4, 5]
    assert data(latest) == []
    on.client.put_record(StreamName=stream, Data=b"\x09", PartitionKey="k")
    assert data(latest) == [9]
    first = on.client.get_records(ShardIterator=on.iterator(stream, shard), Limit=2)
    assert [one["Data"][0] for one in first["Records"]] == [0, 1]
    assert data(first["NextShardIterator"]) == [2, 3, 4, 5, 9]
    wrong = {"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "x"}
    assert refusal(on.client.get_shard_iterator, StreamName=stream, ShardId=shard, **wrong) in REFUSED
    broken = {"500"} if differs(on, "broken iterator") else REFUSED
    assert refusal(on.client.get_records, ShardIterator="AAAA") in broken
    missing = {"ShardId": "shardId-000000000099", "ShardIteratorType": "LATEST"}
    assert refusal(on.client.get_shard_iterator, StreamName=stream, **missing) == "ResourceNotFoundException"


def test_split(on: Backend) -> None:
    """The parent ends and names its children, which take what comes; nothing is lost or in two places."""
    stream = on.stream(1)
    parent = on.shards(stream)[0]["ShardId"]
    for n in range(5):
        on.client.put_record(StreamName=stream, Data=bytes([n]), PartitionKey=f"k{n}")
    held = on.iterator(stream, parent)
    split = {"StreamName": stream, "ShardToSplit": parent}
    if differs(on, "split at the first key"):
        on.client.split_shard(StreamName=on.stream(1), ShardToSplit=parent, NewStartingHashKey="0")
    else:
        assert refusal(on.client.split_shard, **split, NewStartingHashKey="0") in REFUSED
    middle = HASH_SPACE // 3
    on.client.split_shard(**split, NewStartingHashKey=str(middle))
    on.active(stream)
    (old, low, high) = on.shards(stream)
    assert "EndingSequenceNumber" in old["SequenceNumberRange"]
    assert [one["ParentShardId"] for one in (low, high)] == [parent, parent]
    assert [one["HashKeyRange"] for one in (low, high)] == [
        {"StartingHashKey": "0", "EndingHashKey": str(middle - 1)},
        {"StartingHashKey": str(middle), "EndingHashKey": str(HASH_SPACE - 1)},
    ]
    for n in range(5, 15):
        answer = on.client.put_record(StreamName=stream, Data=bytes([n]), PartitionKey=f"k{n}")
        assert answer["ShardId"] == (low if hash_of(f"k{n}", None) < middle else high)["ShardId"]
    records, last = on.read(held)
    assert [one["Data"][0] for one in records] == [0, 1, 2, 3, 4]
    assert last.get("NextShardIterator") is None
    assert sorted(child["ShardId"] for child in last["ChildShards"]) == [low["ShardId"], high["ShardId"]]
    assert all(child["ParentShards"] == [parent] for child in last["ChildShards"])
    found = [one["Data"][0] for shard in (low, high) for one in on.read(on.iterator(stream, shard["ShardId"]))[0]]
    assert sorted(found) == list(range(5, 15))
    for shard in (low, high):
        assert int(shard["SequenceNumberRange"]["StartingSequenceNumber"]) > int(records[-1]["SequenceNumber"])
    assert refusal(on.client.split_shard, **split, NewStartingHashKey=str(middle)) in {
        *REFUSED,
        "ResourceInUseException",
    }


def test_merge(on: Backend) -> None:
    """Neighbours only; both parents end and name the child, which covers both."""
    stream = on.stream(3)
    first, second, third = (shard["ShardId"] for shard in on.shards(stream))
    merge = on.client.merge_shards
    assert refusal(merge, StreamName=stream, ShardToMerge=first, AdjacentShardToMerge=third) in REFUSED
    for n in range(12):
        on.client.put_record(StreamName=stream, Data=bytes([n]), PartitionKey=f"k{n}")
    merge(StreamName=stream, ShardToMerge=first, AdjacentShardToMerge=second)
    on.active(stream)
    child = on.shards(stream)[3]
    assert {child["ParentShardId"], child["AdjacentParentShardId"]} == {first, second}
    assert int(child["HashKeyRange"]["StartingHashKey"]) == 0
    for n in range(12, 24):
        on.client.put_record(StreamName=stream, Data=bytes([n]), PartitionKey=f"k{n}")
    for parent in (first, second):
        _, last = on.read(on.iterator(stream, parent))
        assert last.get("NextShardIterator") is None
        assert [one["ShardId"] for one in last["ChildShards"]] == [child["ShardId"]]
        assert sorted(last["ChildShards"][0]["ParentShards"]) == [first, second]
    found = [one["Data"][0] for shard in on.shards(stream) for one in on.read(on.iterator(stream, shard["ShardId"]))[0]]
    assert sorted(found) == list(range(24))


def test_update_shard_count(on: Backend) -> None:
    """To even shards; at most double, at least half."""
    stream = on.stream(2)
    update = on.client.update_shard_count
    uniform = {"StreamName": stream, "ScalingType": "UNIFORM_SCALING"}
    assert refusal(update, **uniform, TargetShardCount=5) in {*REFUSED, "LimitExceededException"}
    update(**uniform, TargetShardCount=4)
    on.active(stream)
    open_ = [one for one in on.shards(stream) if "EndingSequenceNumber" not in one["SequenceNumberRange"]]
    starts = sorted(int(one["HashKeyRange"]["StartingHashKey"]) for one in open_)
    beside = [start - n * HASH_SPACE // 4 for n, start in enumerate(starts)]
    assert len(beside) == 4
    assert any(beside) == differs(on, "even shards")
    assert max(map(abs, beside)) <= 4


def test_lists_in_pages_and_filtered(on: Backend) -> None:
    stream = on.stream(3)
    on.client.split_shard(
        StreamName=stream, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(HASH_SPACE // 6)
    )
    on.active(stream)
    everything = [shard["ShardId"] for shard in on.shards(stream)]
    page = on.client.list_shards(StreamName=stream, MaxResults=2)
    found = [shard["ShardId"] for shard in page["Shards"]]
    while page.get("NextToken"):
        page = on.client.list_shards(NextToken=page["NextToken"], MaxResults=2)
        found += [shard["ShardId"] for shard in page["Shards"]]
    assert found == everything
    after = on.shards(stream, ExclusiveStartShardId=everything[1])
    assert [shard["ShardId"] for shard in after] == everything[2:]
    latest = on.shards(stream, ShardFilter={"Type": "AT_LATEST"})
    assert sorted(shard["ShardId"] for shard in latest) == everything[1:]


def test_answers_are_bounded(on: Backend) -> None:
    """12 MB are read in several answers of at most 10 MB, all of it and in order."""
    stream = on.stream(1)
    for n in range(12):
        on.client.put_records(StreamName=stream, Records=[{"Data": bytes([n]) * 1_000_000, "PartitionKey": "k"}])
        on.pause(1.1 if not on.real else 0)
    iterator: str | None = on.iterator(stream, on.shards(stream)[0]["ShardId"])
    found = []
    for _ in range(12):
        answer = on.client.get_records(ShardIterator=iterator)
        assert sum(len(one["Data"]) for one in answer["Records"]) <= 10_000_000
        found += [one["Data"][0] for one in answer["Records"]]
        iterator = answer["NextShardIterator"]
        on.pause(6 if not on.real else 0.2)
    assert found == list(range(12))


def test_retention(on: Backend) -> None:
    stream = on.stream(1)
    on.client.increase_stream_retention_period(StreamName=stream, RetentionPeriodHours=48)
    on.active(stream)
    shorter = {"StreamName": stream, "RetentionPeriodHours": 36}
    assert refusal(on.client.increase_stream_retention_period, **shorter) in REFUSED
    on.client.decrease_stream_retention_period(StreamName=stream, RetentionPeriodHours=24)
    on.active(stream)
    summary = on.client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    assert summary["RetentionPeriodHours"] == 24
