"""A function, its event source mapping and its stream in memory, where invocations die on purpose."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from headwater.aggregates import count, sum
from headwater.clock import ManualClock
from headwater.codec import encode_batch
from headwater.config import Settings
from headwater.errors import Fenced, Retryable
from headwater.ledger import Ledger
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.runners.serverless.shards import LambdaShards
from headwater.processors.shard.context import Ports
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.store import ViewStore
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects

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
    .view("by_device", by=["device"], window=tumbling("1h"), spread=2, events=count(), total=sum("value"))
    .lake("unit", partition=None)
)


class Stream:
    """Shards with their records, as GetRecords gives them: three at a time."""

    def __init__(self) -> None:
        self.records: dict[str, list[dict[str, Any]]] = {PARENT: []}
        self.parents: dict[str, str] = {}
        self.number = 0
        self.created = 1_762_160_400
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

    def describe_stream_summary(self, **_: Any) -> dict[str, Any]:
        created = datetime.fromtimestamp(self.created, UTC)
        return {"StreamDescriptionSummary": {"StreamCreationTimestamp": created, "RetentionPeriodHours": 24}}

    def list_shards(self, **_: Any) -> dict[str, Any]:
        ranges = {"HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "9"}}
        return {
            "Shards": [
                {"ShardId": one} | ranges | ({"ParentShardId": self.parents[one]} if one in self.parents else {})
                for one in self.records
            ]
        }

    def get_shard_iterator(self, *, ShardId: str, ShardIteratorType: str, **where: Any) -> dict[str, str]:  # noqa: N803 (boto3's name)
        return {"ShardIterator": f"{ShardId}/{where.get('StartingSequenceNumber', 0)}"}

    def get_records(self, *, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803 (boto3's name)
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
        rows = {str(row["device"]): (row["events"], row["total"]) for row in self.views.rows(view.spec)}
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
