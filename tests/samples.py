"""A sample of each writer, as its public documentation shows it, and the rows that an engine makes of it."""

import io
import json
import struct
import uuid
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2, timestamp_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headwater import formats
from headwater.codec import Decoder
from headwater.contract import Contract, load_contract, parse_contract
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.engine.state import ShardState
from headwater.stream.record import StreamRecord

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_MS = 1_772_366_400_000
ARRIVED_MS = NOON_MS + 5_000
Rows = list[dict[str, Any]]


def contract(fields: str, key: str = "k", time: str = "ts", more: str = "") -> Contract:
    return parse_contract(f"{{name: c, version: 1, key: {key}, time: {time}, {more} fields: [{fields}]}}", "test")


def processed(decoder: Decoder | None, of: Contract, *datas: bytes) -> Effects:
    pipeline = Pipeline("p", of).lake("t")
    if decoder is not None:
        pipeline = pipeline.decode(decoder)
    engine = Engine(pipeline, "shard-0", ShardState(pipeline), lambda *_: pytest.fail("no references"))
    found = engine.process(
        [StreamRecord("shard-0", str(at + 1), ARRIVED_MS, "k", data) for at, data in enumerate(datas)]
    )
    assert found.taken == len(datas)
    return found


def lake(decoder: Decoder | None, of: Contract, *datas: bytes) -> Rows:
    """The rows that records come to; there must be no dead letter."""
    found = processed(decoder, of, *datas)
    assert [letter.reason for letter in found.letters] == []
    return [row for table in found.lake for row in table.to_pylist()]


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
LOGS = {
    "owner": "111111111111",
    "logGroup": "CloudTrail/logs",
    "logStream": "111111111111_CloudTrail/logs_us-east-1",
    "subscriptionFilters": ["Destination"],
    "messageType": "DATA_MESSAGE",
    "logEvents": [
        {"id": "31953106606966983378809025079804211143289615424298221568", "timestamp": NOON_MS, "message": "{}"},
        {"id": "31953106606966983378809025079804211143289615424298221569", "timestamp": NOON_MS, "message": "b",
         "extractedFields": {"a": "1"}},
    ],
}  # fmt: skip
LOGS_CONTRACT = contract(
    "{name: k, type: string, from: logGroup}, {name: stream, type: string, from: logStream}, {name: id, type: string},"
    "{name: ts, type: timestamp, from: timestamp}, {name: message, type: string},"
    "{name: extracted, type: json, required: false, from: extractedFields}",
    more="unknown: ignore,",
)


# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/kds_gettingstarted.html
CHANGE = {
    "awsRegion": "us-east-1",
    "eventID": "c4ca4238-a0b9-2382-0dcc-509a6f75849b",
    "eventName": "MODIFY",
    "userIdentity": None,
    "recordFormat": "application/json",
    "tableName": "orders",
    "dynamodb": {
        "ApproximateCreationDateTime": NOON_MS * 1000 + 5,
        "ApproximateCreationDateTimePrecision": "MICROSECOND",
        "Keys": {"id": {"S": "o-1"}},
        "NewImage": {"id": {"S": "o-1"}, "price": {"N": "12.5"}, "n": {"N": "9007199254740993"},
                     "tags": {"SS": ["b", "a"]}, "deep": {"M": {"l": {"L": [{"NULL": True}, {"BOOL": False}]}}}},
        "SizeBytes": 42,
    },
    "eventSource": "aws:dynamodb",
}  # fmt: skip


# https://debezium.io/documentation/reference/stable/connectors/postgresql.html
ROW_SCHEMA = [
    {"type": "int32", "optional": False, "field": "id"},
    {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
     "parameters": {"scale": "2", "connect.decimal.precision": "10"}, "field": "amount"},
    {"type": "int64", "name": "io.debezium.time.MicroTimestamp", "field": "made"},
    {"type": "int32", "name": "io.debezium.time.Date", "field": "day"},
]  # fmt: skip
DEBEZIUM = {
    "schema": {"type": "struct", "fields": [{"type": "struct", "field": one, "fields": ROW_SCHEMA}
                                            for one in ("before", "after")]},
    "payload": {
        "before": None,
        "after": {"id": 1, "amount": "AYagZA==", "made": NOON_MS * 1000, "day": 20513},
        "source": {"db": "shop", "table": "orders", "ts_ms": NOON_MS},
        "op": "c",
        "ts_ms": NOON_MS + 100,
    },
}  # fmt: skip
DEBEZIUM_CONTRACT = contract(
    "{name: k, type: int, from: row.id}, {name: ts, type: timestamp, from: ts_ms}, {name: op, type: string},"
    "{name: amount, type: double, required: false, from: row.amount}, {name: deleted, type: boolean},"
    "{name: made, type: timestamp, required: false, from: row.made},"
    "{name: day, type: date, required: false, from: row.day}",
    more="unknown: ignore,",
)


AVRO = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}
ORDER = {"id": "o-1", "at": NOON, "amount": Decimal("12.50"), "tags": ["x"]}
ORDERS = contract(
    "{name: k, type: string, from: id}, {name: ts, type: timestamp, from: at}, {name: amount, type: double},"
    "{name: tags, type: json}"
)
VERSION = uuid.UUID("b7b4a7f0-9c96-4e4a-a687-fb5de9ef0c63")


def avro_message(order: Any = ORDER) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, fastavro.parse_schema(AVRO), order)
    return sink.getvalue()


def glue(message: bytes, packed: bool = False) -> bytes:
    """The frame of https://docs.aws.amazon.com/glue/latest/dg/schema-registry.html serializers."""
    return bytes([3, 5 if packed else 0]) + VERSION.bytes + (zlib.compress(message) if packed else message)


def container() -> bytes:
    sink = io.BytesIO()
    fastavro.writer(sink, fastavro.parse_schema(AVRO), [ORDER, ORDER], codec="deflate")
    return sink.getvalue()


def descriptors() -> bytes:
    """What `protoc --include_imports --descriptor_set_out` writes for a message shop.Order."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    order = file.message_type.add(name="Order")
    kinds = descriptor_pb2.FieldDescriptorProto
    order.field.add(name="id", number=1, type=kinds.TYPE_STRING, label=1)
    order.field.add(name="at", number=2, type=kinds.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=1)
    order.field.add(name="n", number=3, type=kinds.TYPE_UINT64, label=1)
    order.field.add(name="tags", number=4, type=kinds.TYPE_STRING, label=3)
    both = descriptor_pb2.FileDescriptorSet()
    timestamp_pb2.DESCRIPTOR.CopyToProto(both.file.add())
    both.file.append(file)
    return bytes(both.SerializeToString())


AT = timestamp_pb2.Timestamp(seconds=NOON_MS // 1000).SerializeToString()
MESSAGE = b"\x0a\x03o-1\x12" + bytes([len(AT)]) + AT + b"\x18\x07\x22\x01x\x22\x01y"
PROTO_CONTRACT = contract(
    "{name: k, type: string, from: id}, {name: ts, type: timestamp, from: at}, "
    "{name: n, type: long}, {name: tags, type: json}"
)


def spans(start: int = NOON_MS * 10**6, end: int = NOON_MS * 10**6 + 5_000_000) -> ExportTraceServiceRequest:
    made = ExportTraceServiceRequest()
    resource = made.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.21.0")
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    span = resource.scope_spans.add().spans.add(name="pay", trace_id=bytes(range(16)), span_id=bytes(range(8)))
    span.start_time_unix_nano, span.end_time_unix_nano = start, end
    span.dropped_events_count = 3
    return made


OTLP_JSON = json.dumps(
    {"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
                        "schemaUrl": "https://opentelemetry.io/schemas/1.21.0",
                        "scopeSpans": [{"spans": [{"traceId": bytes(range(16)).hex(), "spanId": bytes(range(8)).hex(),
                                                   "name": "pay", "startTimeUnixNano": str(NOON_MS * 10**6),
                                                   "endTimeUnixNano": str(NOON_MS * 10**6 + 5_000_000),
                                                   "droppedEventsCount": 3}]}]}]}
).encode()  # fmt: skip


def user_function(data: bytes) -> pa.Table:
    """A user's own decoder of a binary format: key, seconds and a value."""
    if data == b"bug":
        raise ZeroDivisionError("oops")
    rows = [struct.unpack(">4sId", data[at : at + 16]) for at in range(0, len(data), 16)]
    return pa.table(
        {"k": [key.decode().strip() for key, _, _ in rows], "ts": [seconds * 1000 for _, seconds, _ in rows],
         "value": [value for _, _, value in rows]}
    )  # fmt: skip


USER_CONTRACT = contract(
    "{name: k, type: string}, {name: ts, type: timestamp}, {name: value, type: double, maximum: 100}"
)


def packed(key: bytes, value: float) -> bytes:
    return struct.pack(">4sId", key, NOON_MS // 1000, value)


DECODERS: dict[str, tuple[Decoder, Contract, bytes]] = {
    "cloudwatch logs": (formats.cloudwatch_logs(), LOGS_CONTRACT, encoded(LOGS)),
    "dynamodb": (formats.dynamodb_changes(), LOGS_CONTRACT, encoded(CHANGE)),
    "debezium": (formats.debezium(), DEBEZIUM_CONTRACT, encoded(DEBEZIUM)),
    "dms": (formats.dms(), LOGS_CONTRACT, b'{"data": {}, "metadata": {"record-type": "data"}}'),
    "telegraf": (formats.telegraf(), LOGS_CONTRACT, b'{"metrics": [{"name": "a"}]}'),
    "influx": (formats.influx(), LOGS_CONTRACT, b'cpu,host=a usage=91.5,s="x y" 1772366400000000000'),
    "csv": (formats.csv(["k", "ts", "value"]).for_contract(USER_CONTRACT), USER_CONTRACT, b'a,1772366400000,"1"\nb'),
    "avro": (formats.avro(AVRO), ORDERS, avro_message()),
    "avro container": (formats.avro(AVRO), ORDERS, container()),
    "avro glue": (formats.avro(schemas={str(VERSION): AVRO}, framing="glue"), ORDERS, glue(avro_message(), True)),
    "protobuf": (formats.protobuf(descriptors(), "shop.Order"), PROTO_CONTRACT, MESSAGE),
    "otlp": (formats.otlp("otel_spans"), load_contract("otel_spans"), spans().SerializeToString()),
    "otlp json": (formats.otlp("otel_spans"), load_contract("otel_spans"), OTLP_JSON),
    "metric stream": (formats.metric_stream(), load_contract("otel_metrics"), b"\x02\x0a\x00"),
}
