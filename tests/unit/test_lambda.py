"""The Lambda runner in memory: whatever the mapping does with batches, and wherever a container dies, it is exact."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates import count, sum
from headwater.clock import ManualClock
from headwater.codec import encode_batch
from headwater.config import Settings
from headwater.errors import Fenced, HeadwaterError, Retryable, UsageError
from headwater.ledger import Ledger
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects
from processors.pipeline import Pipeline
from processors.runners.lambdaevents import check_mapping
from processors.runners.lambdashards import LambdaShards
from processors.windows import tumbling
from processors.worker import Ports
from sinks.deadletter import DeadLetters
from sinks.views import ViewStore

ARN = "arn:aws:kinesis:us-east-1:1:stream/s"
START = 1_762_160_400_000
ROWS = 10
PARENT, CHILD = "shardId-000000000000", "shardId-000000000001"


class Died(BaseException):
    """The container, at an AWS call or in the user's function."""


class Killer:
    """Kills in the user's function at a value, every time or so many times."""

    def __init__(self) -> None:
        self.value: float | None = None
        self.largest: int | None = None

    def __call__(self, events: pa.Table) -> pa.Table:
        if self.value in events["value"].to_pylist() or (self.largest and events.num_rows > self.largest):
            raise Died
        return pa.table({"doubled": events["value"]})


killer = Killer()
PIPELINE = (
    Pipeline("unit", contract="telemetry")
    .map(killer, adds={"doubled": "double"})
    .view("by_device", by=["device"], window=tumbling("1h"), events=count(), total=sum("value"))
    .lake("unit", partition=None)
)


class Stream:
    """Shards with their records, as GetRecords gives them: three at a time."""

    def __init__(self) -> None:
        self.records: dict[str, list[dict[str, Any]]] = {PARENT: []}
        self.parents: dict[str, str] = {}
        self.number = 0
        self.limit = 3
        self.endless = False
        """A closed shard goes on giving iterators, as on moto."""

    def put(self, shard: str = PARENT) -> str:
        self.number += 1
        body = encode_batch(_rows(self.number), PIPELINE.contract, origin="o", first_seq=self.number * ROWS)
        record = {
            "SequenceNumber": str(self.number * 1000),
            "ApproximateArrivalTimestamp": datetime.fromtimestamp((START + self.number) / 1000, UTC),
            "PartitionKey": f"k{self.number}",
            "Data": body,
        }
        self.records[shard].append(record)
        return str(record["SequenceNumber"])

    def split(self) -> None:
        self.records[CHILD], self.parents[CHILD] = [], PARENT

    def event(self, *numbers: str, shard: str = PARENT) -> dict[str, Any]:
        found = [one for one in self.records[shard] if one["SequenceNumber"] in numbers]
        return {"Records": [_item(shard, one) for one in found]}

    def list_shards(self, **_: Any) -> dict[str, Any]:
        ranges = {"HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "9"}}
        return {
            "Shards": [
                {"ShardId": one} | ranges | ({"ParentShardId": self.parents[one]} if one in self.parents else {})
                for one in self.records
            ]
        }

    def get_shard_iterator(self, *, ShardId: str, ShardIteratorType: str, **where: Any) -> dict[str, str]:  # noqa: N803
        return {"ShardIterator": f"{ShardId}/{where.get('StartingSequenceNumber', 0)}"}

    def get_records(self, *, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803
        shard, after = ShardIterator.split("/")
        behind = [one for one in self.records[shard] if int(one["SequenceNumber"]) > int(after)]
        found = behind[: min(self.limit, Limit)]
        last = found[-1]["SequenceNumber"] if found else after
        ended = shard in self.parents.values() and not behind and not self.endless
        return {
            "Records": found,
            "MillisBehindLatest": 1000 if len(behind) > len(found) else 0,
        } | ({} if ended else {"NextShardIterator": f"{shard}/{last}"})


def _item(shard: str, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "eventSource": "aws:kinesis",
        "eventID": f"{shard}:{record['SequenceNumber']}",
        "eventSourceARN": ARN,
        "kinesis": {
            "partitionKey": record["PartitionKey"],
            "sequenceNumber": record["SequenceNumber"],
            "data": base64.b64encode(record["Data"]).decode(),
            "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
        },
    }


class Mortal:
    """A client in one of whose calls the container may die: before it is carried out, or after."""

    def __init__(self, target: Any, world: "World") -> None:
        self._target = target
        self._world = world

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found) or name in ("get_paginator", "uri"):
            return found

        def call(*args: Any, **request: Any) -> Any:
            self._world.step()
            answer = found(*args, **request)
            self._world.step()
            return answer

        return call


class World:
    """The account, and two containers of the function."""

    def __init__(self) -> None:
        killer.value = killer.largest = None
        self.stream, self.clock, self.objects = Stream(), ManualClock(), MemoryObjects()
        self.dynamodb = MemoryDynamoDB()
        for table, names in (("ledger", ("pipeline", "item")), ("views", ("pk", "sk"))):
            keys = [
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=True)
            ]
            self.dynamodb.create_table(TableName=table, KeySchema=keys)
        self.ledger = Ledger(self.dynamodb, "ledger", PIPELINE.name)
        self.views = ViewStore(self.dynamodb, "views")
        self.dies_in: int | None = None
        self.containers = [self.container(), self.container()]
        self.meanwhile: Callable[[], object] | None = None
        self.meanwhile_in = 0
        """What another does at the call so far ahead, while the container that makes the call waits."""

    def container(self) -> LambdaShards:
        mortal = Mortal(self.objects, self)
        ports = Ports(
            ledger=Ledger(Mortal(self.dynamodb, self), "ledger", PIPELINE.name),
            objects=mortal,
            views=ViewStore(Mortal(self.dynamodb, self), "views", clock=self.clock),
            letters=DeadLetters(mortal),
            references=lambda _name, _uri: pytest.fail("no references here"),
        )
        names = iter(range(10**6))
        owner = f"c{id(ports)}"
        kinesis = Mortal(self.stream, self)
        options = Settings(stream="s", commit_seconds=60)
        return LambdaShards(PIPELINE, kinesis, ports, options, self.clock, lambda: f"{owner}-{next(names)}")

    def step(self) -> None:
        if self.meanwhile is not None:
            self.meanwhile_in -= 1
            if self.meanwhile_in < 0:
                job, self.meanwhile = self.meanwhile, None
                job()
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                raise Died

    def invoke(
        self, event: Mapping[str, Any], at: int = 0, dies_in: int | None = None, seconds: float = 60
    ) -> list[str] | None:
        """Where the batch is to go on; None when nothing of it was taken. A dead container is replaced."""
        self.dies_in = dies_in
        end = self.clock.now_ms() + seconds * 1000
        try:
            answer = self.containers[at].invoke(event, lambda: round(end - self.clock.now_ms()))
            return [one["itemIdentifier"] for one in answer["batchItemFailures"]]
        except Died:
            self.containers[at] = self.container()
            return None
        except (Retryable, Fenced):
            return None
        finally:
            self.dies_in = None

    def committed(self) -> Counter[int]:
        """Events in the files that the ledger names, by seq."""
        out: Counter[int] = Counter()
        for entry in self.ledger.shards():
            for file in entry.pending:
                body = self.objects.bodies[file.uri.removeprefix("s3://memory/")]
                out.update(pq.read_table(io.BytesIO(body))["_seq"].to_pylist())
        return out

    def check(self, *numbers: int) -> None:
        """Of exactly these records each event is in the lake once and in the views once."""
        expected = [seq for number in numbers for seq in range(number * ROWS, number * ROWS + ROWS)]
        found = self.committed()
        assert sorted(found.elements()) == expected
        view = PIPELINE.views[0]
        rows = {str(row["device"]): (row["events"], row["total"]) for row in self.views.scan(view.spec)}
        assert rows == {f"d{number}": (ROWS, float(number * ROWS)) for number in numbers}


Step = tuple[str, int, int, int, int | None]
"""What the mapping does next: which, over which span, on which container, dying at which call."""
steps = st.lists(
    st.tuples(
        st.sampled_from(["deliver", "deliver", "deliver", "again", "half", "skip"]),
        st.integers(1, 6),
        st.integers(0, 1),
        st.integers(0, 3),
        st.one_of(st.none(), st.integers(0, 60)),
    ),
    max_size=12,
)


@settings(max_examples=80)
@given(steps=steps, records=st.integers(1, 14))
def test_exact_whatever_the_mapping_does(steps: list[Step], records: int) -> None:
    """Batches repeated, halved, given up; containers that take turns and die before or after any call to AWS."""
    world = World()
    numbers = [world.stream.put() for _ in range(records)]
    next_ = 0
    for kind, span, at, back, dies_in in steps:
        first = max(0, next_ - back) if kind == "again" else next_
        given_ = numbers[first : first + span]
        if not given_:
            break
        if kind == "skip":
            next_ += len(given_)
            continue
        if kind == "half":
            given_ = given_[: max(1, len(given_) // 2)]
        left = world.invoke(world.stream.event(*given_), at, dies_in)
        if left is not None:
            next_ = max(next_, numbers.index(left[0]) if left else first + len(given_))
    assert world.invoke(world.stream.event(numbers[-1])) in ([], None)
    assert world.invoke(world.stream.event(numbers[-1]), 1) == []
    world.check(*range(1, records + 1))


@settings(max_examples=60)
@given(
    parent=st.integers(0, 6),
    child=st.integers(1, 6),
    delivered=st.integers(0, 6),
    deaths=st.lists(st.tuples(st.integers(0, 1), st.one_of(st.none(), st.integers(0, 90))), max_size=6),
    endless=st.booleans(),
)
def test_exact_across_a_split(
    parent: int, child: int, delivered: int, deaths: list[tuple[int, int | None]], endless: bool
) -> None:
    """Part of the parent was given up; containers die while they finish it for its child."""
    world = World()
    world.stream.endless = endless
    numbers = [world.stream.put() for _ in range(parent)]
    if numbers[:delivered]:
        world.invoke(world.stream.event(*numbers[:delivered]))
    world.stream.split()
    event = world.stream.event(*[world.stream.put(CHILD) for _ in range(child)], shard=CHILD)
    for at, dies_in in deaths:
        world.invoke(event, at, dies_in)
    assert world.invoke(event) == []
    world.check(*range(1, parent + child + 1))
    closed = world.ledger.shard(PARENT)
    assert closed is not None
    assert closed.closed


@settings(max_examples=60)
@given(records=st.integers(1, 8), first=st.integers(1, 8), second=st.integers(1, 8), call=st.integers(0, 60))
def test_exact_when_another_invocation_comes_in_between(records: int, first: int, second: int, call: int) -> None:
    """At any call to AWS: the container goes on afterwards as if nothing had been, and must write nothing wrong."""
    world = World()
    numbers = [world.stream.put() for _ in range(records)]
    world.meanwhile = lambda: world.invoke(world.stream.event(*numbers[:second]), 1)
    world.meanwhile_in = call
    world.invoke(world.stream.event(*numbers[:first]))
    world.meanwhile = None
    assert world.invoke(world.stream.event(*numbers)) == []
    assert world.invoke(world.stream.event(*numbers), 1) == []
    world.check(*range(1, records + 1))


def test_a_warm_container_goes_on_without_a_claim_and_a_stale_one_takes_over() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(4)]
    epochs = []
    for number, at in zip(numbers, (0, 0, 1, 0), strict=True):
        world.stream.limit = 1
        assert world.invoke(world.stream.event(number), at) == []
        entry = world.ledger.shard(PARENT)
        assert entry is not None
        epochs.append(entry.epoch)
    assert epochs == [1, 1, 2, 3]
    world.check(1, 2, 3, 4)


def test_a_repetition_claims_nothing() -> None:
    world = World()
    event = world.stream.event(world.stream.put())
    assert [world.invoke(event, at) for at in (0, 1, 0)] == [[], [], []]
    entry = world.ledger.shard(PARENT)
    assert entry is not None
    assert entry.epoch == 1


def test_what_the_mapping_gave_up_comes_with_the_next_batch() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(9)]
    assert world.invoke(world.stream.event(numbers[0])) == []
    assert world.invoke(world.stream.event(numbers[8])) == []
    world.check(*range(1, 10))


def test_what_was_given_up_at_the_end_comes_with_the_message_of_the_destination() -> None:
    """No batch may follow: the on-failure destination's queue invokes the function too."""
    world = World()
    numbers = [world.stream.put() for _ in range(5)]
    world.invoke(world.stream.event(numbers[0]))
    good = _message("m1", PARENT, numbers[1], numbers[4])
    assert world.invoke({"Records": [good]}) == []
    world.check(1, 2, 3, 4, 5)
    assert world.invoke({"Records": [good]}) == []
    other = _message("m2", PARENT, numbers[0], "9999999")
    assert world.invoke({"Records": [good, other, {"messageId": "m3", "eventSource": "aws:sqs", "body": "{}"}]}) == [
        "m2",
        "m3",
    ]
    world.check(1, 2, 3, 4, 5)


def test_a_batch_with_holes_is_refused_before_anything_is_written() -> None:
    """A parallelization factor of 2 splits a shard's records by key."""
    world = World()
    numbers = [world.stream.put() for _ in range(6)]
    with pytest.raises(HeadwaterError, match="ParallelizationFactor 1"):
        world.invoke(world.stream.event(*numbers[0::2]))
    assert not world.committed()
    with pytest.raises(HeadwaterError, match="lacks 1 records in its middle, the first is 2000"):
        world.invoke(world.stream.event(numbers[0], numbers[2]))
    assert world.invoke(world.stream.event(*numbers)) == []
    world.check(1, 2, 3, 4, 5, 6)


def test_two_at_once_fence_each_other_and_say_what_to_set() -> None:
    world = World()
    event = world.stream.event(world.stream.put())
    put = world.objects.put

    def overtaken(key: str, body: bytes) -> str:
        world.objects.put = put  # type: ignore[method-assign]
        assert world.invoke(event, 1) == []
        return put(key, body)

    world.objects.put = overtaken  # type: ignore[method-assign]
    with pytest.raises(Fenced, match="set ParallelizationFactor to 1"):
        world.containers[0].invoke(event, lambda: 60_000)
    assert world.invoke(event, 0) == []
    world.check(1)


def test_parents_are_read_to_their_end_before_a_child() -> None:
    """Nothing tells a function that a shard has ended; the parent's last batch was given up besides."""
    world = World()
    first = world.stream.put()
    world.stream.put()
    world.stream.split()
    child = world.stream.put(CHILD)
    assert world.invoke(world.stream.event(first)) == []
    assert world.invoke(world.stream.event(child, shard=CHILD), 1) == []
    parent = world.ledger.shard(PARENT)
    assert parent is not None
    assert parent.closed
    world.check(1, 2, 3)


def test_a_child_waits_when_its_parents_take_too_long() -> None:
    world = World()
    for _ in range(7):
        world.stream.put()
    world.stream.split()
    child = world.stream.put(CHILD)
    event = world.stream.event(child, shard=CHILD)
    get = world.stream.get_records

    def slow(**request: Any) -> dict[str, Any]:
        world.clock.advance(9_000)
        return get(**request)

    world.stream.get_records = slow  # type: ignore[method-assign]
    assert world.invoke(event, seconds=20) is None
    assert world.ledger.shard(CHILD) is None
    answers = [world.invoke(event, seconds=20) for _ in range(4)]
    assert answers[-1] == []
    world.check(*range(1, 9))


def test_time_runs_out_between_reads_and_the_response_says_from_where() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(8)]
    get = world.stream.get_records

    def slow(**request: Any) -> dict[str, Any]:
        world.clock.advance(15_000)
        return get(**request)

    world.stream.get_records = slow  # type: ignore[method-assign]
    assert world.invoke(world.stream.event(*numbers), seconds=30) == [numbers[6]]
    world.check(*range(1, 7))
    assert world.invoke(world.stream.event(*numbers[6:]), seconds=60) == []
    world.check(*range(1, 9))


def test_a_batch_behind_a_long_gap_fails_until_the_gap_is_read() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(8)]
    get = world.stream.get_records

    def slow(**request: Any) -> dict[str, Any]:
        world.clock.advance(15_000)
        return get(**request)

    world.stream.get_records = slow  # type: ignore[method-assign]
    assert world.invoke(world.stream.event(numbers[7]), seconds=30) is None
    world.check(*range(1, 7))
    assert world.invoke(world.stream.event(numbers[7]), seconds=30) == []
    world.check(*range(1, 9))


def test_what_expired_from_the_stream_is_taken_from_the_batch() -> None:
    world = World()
    numbers = [world.stream.put() for _ in range(4)]
    whole = world.stream.event(*numbers)
    world.stream.limit = 1
    assert world.invoke(world.stream.event(numbers[0])) == []
    del world.stream.records[PARENT][:2]
    assert world.invoke(whole) == []
    world.check(1, 2, 3, 4)
    last = world.stream.event(world.stream.put())
    world.stream.records[PARENT].clear()
    assert world.invoke(last) == []
    world.check(1, 2, 3, 4, 5)


def test_a_record_that_kills_is_buried_and_its_neighbours_are_not() -> None:
    """Each death is a new container; in the end the record is in the dead letters, everything else in the lake."""
    world = World()
    world.stream.limit = 10_000
    numbers = [world.stream.put() for _ in range(30)]
    killer.value = 17.0
    event, deaths = world.stream.event(*numbers), 0
    while world.invoke(event) is None:
        deaths += 1
        assert deaths < 40
    world.check(*[number for number in range(1, 31) if number != 17])
    (letter,) = DeadLetters(world.objects).list("unit")
    assert letter.sequence_number == numbers[16]
    assert letter.reason == "the function died 3 times on this record"
    assert world.invoke(world.stream.event(world.stream.put())) == []


def test_a_record_that_kills_leaves_the_batches_before_it_alone() -> None:
    """What is read beyond a batch costs it one death, not its retries."""
    world = World()
    world.stream.limit = 10_000
    numbers = [world.stream.put() for _ in range(10)]
    killer.value = 8.0
    event = world.stream.event(*numbers[:3])
    assert [world.invoke(event), world.invoke(event)] == [None, []]
    world.check(1, 2, 3)


def test_past_the_trouble_parts_are_whole_again() -> None:
    """Two deaths at the same place: thirty records, ten of them one by one and the rest together."""
    world = World()
    world.stream.limit = 10_000
    event = world.stream.event(*[world.stream.put() for _ in range(30)])
    assert [world.invoke(event, dies_in=30), world.invoke(event, dies_in=30)] == [None, None]
    assert world.invoke(event) == []
    world.check(*range(1, 31))
    entry = world.ledger.shard(PARENT)
    assert entry is not None
    assert len(entry.pending) == 11


def test_a_batch_that_is_too_large_to_hold_goes_in_parts() -> None:
    """Out of memory over 50 events: nothing is buried."""
    world = World()
    world.stream.limit = 10_000
    numbers = [world.stream.put() for _ in range(30)]
    killer.largest = 150
    event, deaths = world.stream.event(*numbers), 0
    while world.invoke(event) is None:
        deaths += 1
        assert deaths < 40
    world.check(*range(1, 31))
    assert not list(DeadLetters(world.objects).list("unit"))


def test_deaths_outside_of_the_function_bury_nothing() -> None:
    """S3 hangs until the function is killed, again and again: the record is taken once S3 is back."""
    world = World()
    event = world.stream.event(world.stream.put())
    put = world.objects.put

    def hangs(key: str, body: bytes) -> str:
        raise Died

    world.objects.put = hangs  # type: ignore[method-assign]
    assert {world.invoke(event) for _ in range(12)} == {None}
    world.objects.put = put  # type: ignore[method-assign]
    assert world.invoke(event) == []
    world.check(1)
    epochs = []
    for _ in range(16):  # the doubts fade, and the container keeps the shard again
        assert world.invoke(world.stream.event(world.stream.put())) == []
        entry = world.ledger.shard(PARENT)
        assert entry is not None
        epochs.append(entry.epoch)
    assert epochs[-3] == epochs[-1]
    world.check(*range(1, 18))


def test_a_passing_failure_of_the_commit_is_tried_again() -> None:
    world = World()
    event = world.stream.event(world.stream.put())
    put, failures = world.objects.put, iter([1, 2])

    def throttled(key: str, body: bytes) -> str:
        if next(failures, None):
            raise ClientError({"Error": {"Code": "SlowDown", "Message": ""}}, "PutObject")
        return put(key, body)

    world.objects.put = throttled  # type: ignore[method-assign]
    assert world.invoke(event) == []
    world.check(1)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({}, "no source"),
        ({"Records": [{"eventSource": "aws:dynamodb"}]}, "aws:dynamodb"),
        ({"source": "aws.events"}, "no source"),
    ],
)
def test_events_of_others_are_refused(event: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        World().invoke(event)


def test_another_stream_is_refused() -> None:
    world = World()
    event = world.stream.event(world.stream.put())
    event["Records"][0]["eventSourceARN"] = "arn:aws:kinesis:us-east-1:1:stream/other/consumer/c:1"
    with pytest.raises(UsageError, match="HEADWATER_STREAM is s"):
        world.invoke(event)


def test_mappings() -> None:
    good = {"StartingPosition": "TRIM_HORIZON", "FunctionResponseTypes": ["ReportBatchItemFailures"]}
    assert check_mapping(good) == []
    tells = {"DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:1:q"}}}
    assert check_mapping(good | {"MaximumRetryAttempts": 20} | tells) == []
    wrong: list[tuple[dict[str, Any], str]] = [
        (good | {"ParallelizationFactor": 2}, "ParallelizationFactor is 2"),
        (good | {"MaximumRetryAttempts": 20}, "MaximumRetryAttempts"),
        (good | {"MaximumRecordAgeInSeconds": 60}, "MaximumRecordAgeInSeconds"),
        (good | {"TumblingWindowInSeconds": 60}, "TumblingWindowInSeconds"),
        (good | {"StartingPosition": "LATEST"}, "StartingPosition"),
        (good | {"FunctionResponseTypes": []}, "ReportBatchItemFailures"),
        (good | {"FilterCriteria": {"Filters": [{"Pattern": "{}"}]}}, "FilterCriteria"),
    ]
    for mapping, name in wrong:
        (line,) = check_mapping(mapping)
        assert name in line


def _message(message_id: str, shard: str, first: str, last: str) -> dict[str, Any]:
    info = (
        f'{{"shardId": "{shard}", "startSequenceNumber": "{first}", "endSequenceNumber": "{last}", '
        f'"batchSize": 4, "streamArn": "{ARN}"}}'
    )
    return {"messageId": message_id, "eventSource": "aws:sqs", "body": f'{{"KinesisBatchInfo": {info}}}'}


def _rows(number: int) -> pa.Table:
    fields: dict[str, Sequence[object]] = {
        "device": [f"d{number}"] * ROWS,
        "metric": ["m"] * ROWS,
        "ts": [START] * ROWS,
        "value": [float(number)] * ROWS,
    }
    columns = {}
    for one in PIPELINE.contract.arrow_schema:
        values = fields.get(one.name, [None] * ROWS)
        plain = pa.int64() if pa.types.is_timestamp(one.type) else one.type
        columns[one.name] = pa.array(values, plain).cast(one.type)
    return pa.table(columns)
