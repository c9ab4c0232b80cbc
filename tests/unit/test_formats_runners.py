"""A sample of each writer comes to the same rows of SQL on all three runners."""

import base64
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC
from threading import Event, Thread
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from headwater import formats
from headwater.clock import ManualClock
from headwater.codec import Decoder, encode_kpl
from headwater.codec.kpl import is_kpl, user_payloads
from headwater.config import Settings
from headwater.contract import Contract, load_contract
from headwater.ledger import Ledger
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.ports import StreamClient
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.runners.kcl.shard import KclShard
from headwater.processors.runners.serverless.shards import LambdaShards
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.views.store import ViewStore
from headwater.stream.record import StreamRecord
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects
from tests.samples import ARRIVED_MS, CHANGE, DECODERS, NOON_MS, contract, encoded
from tests.streams import memory_stream
from tests.waiting import until

SHARD = "shardId-000000000000"


def of(key: str, time: str, unit: str = "ms") -> Contract:
    """A contract that finds its key and time there, and keeps all else."""
    epoch = "" if unit == "ms" else f", epoch: {unit}"
    fields = f"{{name: k, type: string, from: {key}}}, {{name: ts, type: timestamp, from: {time}{epoch}}}"
    return contract(f"{fields}, {{name: rest, type: json, required: false}}", more="unknown: rest,")


def metrics() -> bytes:
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="CPUUtilization", unit="%")
    metric.summary.data_points.add(time_unix_nano=NOON_MS * 10**6, count=5, sum=50.0)
    body = made.SerializeToString()
    return bytes([len(body), *body])


BRIDGE = {"version": "0", "detail-type": "Order", "time": "2026-03-01T12:00:00Z", "detail": {"user": {"id": "u"}}}
DMS = {"data": {"id": "a", "at": "2026-03-01T12:00:00Z"}, "metadata": {"record-type": "data", "operation": "insert"}}
TELEGRAF = {"metrics": [{"name": "cpu", "tags": {}, "fields": {"idle": 91.5}, "timestamp": NOON_MS // 1000}]}
SAMPLES: dict[str, tuple[Decoder | None, Contract, bytes]] = DECODERS | {
    "eventbridge": (None, of("detail.user.id", "time"), encoded(BRIDGE)),
    "dynamodb": (formats.dynamodb_changes(), of("eventName", "at"), encoded(CHANGE)),
    "dms": (formats.dms(), of("data.id", "data.at"), encoded(DMS)),
    "telegraf": (formats.telegraf(), of("name", "timestamp", "s"), encoded(TELEGRAF)),
    "influx": (formats.influx(), of("measurement", "time"), DECODERS["influx"][2]),
    "csv": (DECODERS["csv"][0], DECODERS["csv"][1], b"a,2026-03-01T12:00:00Z,1\n"),
    "metric stream": (formats.metric_stream(), load_contract("otel_metrics"), metrics()),
}


class World:
    """A stream of one shard in memory, with a pipeline's ledger and bucket."""

    def __init__(self, pipeline: Pipeline, datas: list[bytes]) -> None:
        self.pipeline, self.clock, self.objects = pipeline, ManualClock(ARRIVED_MS), MemoryObjects()
        self.kinesis = memory_stream(1, self.clock)
        for data in datas:
            self.kinesis.put_record(StreamName="s", PartitionKey="k", Data=data)
        start = self.kinesis.get_shard_iterator(StreamName="s", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
        self.records = self.kinesis.get_records(ShardIterator=start["ShardIterator"], Limit=100)["Records"]
        database = MemoryDynamoDB()
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        database.create_table(TableName="ledger", KeySchema=keys)
        self.ledger, self.settings = Ledger(database, "ledger", pipeline.name), Settings(stream="s")
        views = ViewStore(MemoryDynamoDB(), "views", clock=self.clock)
        self.ports = Ports(self.ledger, self.objects, views, DeadLetters(self.objects), lambda *_: pytest.fail("none"))

    def rows(self) -> list[Any]:
        """All that the files hold that the ledger names, by SQL."""
        uris = [file.uri for entry in self.ledger.shards() for file in entry.pending]
        bodies = [self.objects.get(uri.removeprefix("s3://memory/")) for uri in uris]
        return by_sql(pa.concat_tables([pq.read_table(io.BytesIO(body)) for body in bodies]))


def embedded(world: World) -> None:
    runner = EmbeddedRunner(world.pipeline, world.kinesis, world.ports, world.settings, world.clock, "me")
    stop, last = Event(), world.records[-1]["SequenceNumber"]
    thread = Thread(target=runner.run, args=(stop, 0.02))
    thread.start()
    try:
        until(lambda: any(one.position.endswith(last) for one in runner.status()), 60)
    finally:
        stop.set()  # what was read is committed
        thread.join(60)


def kcl(world: World) -> None:
    """As the KCL's daemon hands records over: user records of an aggregate one by one."""
    loop = pytest.importorskip("amazon_kclpy.kcl")
    from headwater.processors.runners.kcl.processor import LogContext, ShardProcessor

    context = WorkerContext(world.pipeline, world.ports, world.settings, world.clock, "me")
    delivered = [
        {
            "sequenceNumber": record["SequenceNumber"],
            "subSequenceNumber": sub,
            "approximateArrivalTimestamp": round(record["ApproximateArrivalTimestamp"].timestamp() * 1000),
            "partitionKey": "k",
            "data": base64.b64encode(data).decode(),
            "action": "record",
        }
        for record in world.records
        for sub, data in enumerate(user_payloads(record["Data"]) if is_kpl(record["Data"]) else [record["Data"]])
    ]
    lines: list[dict[str, Any]] = [
        {"action": "initialize", "shardId": SHARD, "sequenceNumber": "TRIM_HORIZON", "subSequenceNumber": 0},
        {"action": "processRecords", "records": delivered, "millisBehindLatest": 0},
        {"action": "shutdownRequested"},
        {"action": "checkpoint", "sequenceNumber": "1", "subSequenceNumber": None, "error": None},
    ]
    source = io.StringIO("".join(json.dumps(line) + "\n" for line in lines))
    processor = ShardProcessor(
        lambda shard_id: KclShard.claim(context, StreamClient(world.kinesis, "s"), shard_id), LogContext("w", "t")
    )
    loop.KCLProcess(processor, source, io.StringIO(), io.StringIO()).run()


def serverless(world: World) -> None:
    shards = LambdaShards(world.pipeline, world.kinesis, world.ports, world.settings, world.clock, lambda: "me")
    items = [
        {
            "eventSource": "aws:kinesis",
            "eventID": f"{SHARD}:{record['SequenceNumber']}",
            "eventSourceARN": "arn:aws:kinesis:eu-central-1:1:stream/s",
            "kinesis": {
                "partitionKey": "k",
                "sequenceNumber": record["SequenceNumber"],
                "data": base64.b64encode(record["Data"]).decode(),
                "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
            },
        }
        for record in world.records
    ]
    assert shards.invoke({"Records": items}, lambda: 60_000) == {"batchItemFailures": []}


RUNNERS: dict[str, Callable[[World], None]] = {"embedded": embedded, "kcl": kcl, "lambda": serverless}


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_comes_to_its_rows_on_every_runner(name: str, runner: str) -> None:
    """Alone, under gzip and in an aggregate; what the rows are is said by the engine over the same records."""
    decoder, its, sample = SAMPLES[name]
    pipeline = Pipeline("p", its).lake("t", partition=None)
    pipeline = pipeline if decoder is None else pipeline.decode(decoder)
    world = World(pipeline, [sample, gzip.compress(sample), encode_kpl([sample, sample], "k", None)])
    RUNNERS[runner](world)
    assert [letter.reason for letter in DeadLetters(world.objects).list("p")] == []
    found = world.rows()
    assert found == engine_rows(pipeline, world)
    assert len(found) % 4 == 0  # as many of each of the four copies
    assert len(found) > 0


def engine_rows(pipeline: Pipeline, world: World) -> list[Any]:
    from headwater.processors.engine.engine import Engine
    from headwater.processors.engine.state import ShardState

    records = [
        StreamRecord(
            SHARD,
            one["SequenceNumber"],
            round(one["ApproximateArrivalTimestamp"].astimezone(UTC).timestamp() * 1000),
            "k",
            one["Data"],
        )
        for one in world.records
    ]
    engine = Engine(pipeline, SHARD, ShardState(pipeline), lambda *_: pytest.fail("none"))
    return by_sql(pa.concat_tables([table.cast(pipeline.lake_schema) for table in engine.process(records).lake]))


def by_sql(lake: pa.Table) -> list[Any]:
    database = duckdb.connect()
    database.register("lake", lake)
    found: list[Any] = database.sql("select * from lake order by _origin, _seq").to_arrow_table().to_pylist()
    return found
