"""A realistic load of each format, and what somebody would write by hand to have its columns."""

import gzip
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pj
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

from headwater import formats
from headwater.codec import Decoder
from headwater.contract import Contract, parse_contract

NOON_MS = 1_772_366_400_000
EVENTS = 20_000
LOADS = "json.loads and a loop"
_MANY = 100
"""Events of a record, of writers that put many into one."""
Rows = Iterable[dict[str, Any]]


@dataclass(frozen=True)
class FormatCase:
    """A format: `plain` is the library's call on a record, and `rows` the loop over what it gives; None where that is
    a table of the contract's columns."""

    name: str
    counterpart: str
    decoder: Decoder | None
    contract: Contract
    datas: list[bytes]
    plain: Callable[[bytes], Any]
    rows: Callable[[Any], Rows] | None


def contract(*fields: str, unknown: str = "ignore") -> Contract:
    head = f"name: c\nversion: 1\nkey: k\ntime: ts\nunknown: {unknown}\nfields:\n"
    return parse_contract(head + "".join(f"  - {{{field}}}\n" for field in fields), "bench")


def singles(make: Callable[[int], object]) -> list[bytes]:
    """A record an event, each another one."""
    return [json.dumps(make(at)).encode() for at in range(EVENTS)]


def batches(make: Callable[[range], bytes]) -> list[bytes]:
    return [make(range(at, at + _MANY)) for at in range(0, EVENTS, _MANY)]


def iso(at: int) -> str:
    return datetime.fromtimestamp(NOON_MS / 1000 + at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


READING = ("name: k, type: string", "name: ts, type: timestamp", "name: metric, type: string",
           "name: value, type: double")  # fmt: skip


def reading(at: int) -> dict[str, Any]:
    return {"k": f"device-{at % 5000}", "ts": NOON_MS - at, "metric": f"temp{at % 9}", "value": at / 7}


def json_lines() -> FormatCase:
    of = contract(*READING, unknown="refuse")
    kinds = pa.schema([one.with_type(pa.int64()) if one.name == "ts" else one for one in of.arrow_schema])
    how = pj.ParseOptions(explicit_schema=kinds, unexpected_field_behavior="error")
    datas = batches(lambda ats: b"\n".join(json.dumps(reading(at)).encode() for at in ats))
    once = pj.ReadOptions(use_threads=False)

    def plain(data: bytes) -> pa.Table:
        return pj.read_json(pa.BufferReader(data), read_options=once, parse_options=how)

    return FormatCase("JSON lines", "pyarrow.json.read_json", None, of, datas, plain, None)


def json_single() -> FormatCase:
    of = contract(*READING, unknown="refuse")
    return FormatCase("JSON, an event a record", LOADS, None, of, singles(reading), json.loads, lambda one: [one])


def eventbridge() -> FormatCase:
    of = contract("name: k, type: string, from: detail.instance-id", "name: ts, type: timestamp, from: time",
                  "name: state, type: string, from: detail.state")  # fmt: skip

    def made(at: int) -> object:
        return {"version": "0", "id": f"6a7e8feb-b491-4cf7-a9f1-{at:012}", "account": "111122223333",
                "detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2", "time": iso(-at),
                "region": "us-west-1", "resources": [f"arn:aws:ec2:us-west-1:123456789012:instance/i-{at}"],
                "detail": {"instance-id": f"i-{at}", "state": "terminated"}}  # fmt: skip

    def rows(one: Any) -> Rows:
        detail = one["detail"]
        yield {"k": detail["instance-id"], "ts": datetime.fromisoformat(one["time"]), "state": detail["state"]}

    return FormatCase("EventBridge", LOADS, None, of, singles(made), json.loads, rows)


def cloudevents() -> FormatCase:
    of = contract("name: k, type: string, from: subject", "name: ts, type: timestamp, from: time",
                  "name: amount, type: double, from: data.amount")  # fmt: skip

    def made(at: int) -> object:
        return {"specversion": "1.0", "type": "com.example.order", "source": "/shop", "id": f"A234-{at}",
                "subject": f"order-{at}", "time": iso(-at), "datacontenttype": "application/json",
                "data": {"amount": at / 4, "currency": "EUR", "lines": [{"sku": "a", "n": 1}]}}  # fmt: skip

    def rows(one: Any) -> Rows:
        yield {"k": one["subject"], "ts": datetime.fromisoformat(one["time"]), "amount": one["data"]["amount"]}

    return FormatCase("CloudEvents", LOADS, None, of, singles(made), json.loads, rows)


def fluentbit() -> FormatCase:
    of = contract("name: k, type: string, from: host", "name: ts, type: timestamp, from: date, epoch: s",
                  "name: log, type: string")  # fmt: skip

    def made(at: int) -> object:
        return {"date": NOON_MS / 1000 - at, "host": f"web-{at % 40}", "stream": "stdout", "log": f"GET /{at} 200"}

    def rows(one: Any) -> Rows:
        yield {"k": one["host"], "ts": round(one["date"] * 1000), "log": one["log"]}

    return FormatCase("Fluent Bit JSON", LOADS, None, of, singles(made), json.loads, rows)


def telegraf() -> FormatCase:
    of = contract("name: k, type: string, from: tags.host", "name: ts, type: timestamp, from: timestamp, epoch: s",
                  "name: idle, type: double, from: fields.usage_idle")  # fmt: skip

    def made(at: int) -> object:
        return {"name": "cpu", "tags": {"host": f"web-{at % 40}", "cpu": "cpu0"}, "timestamp": NOON_MS // 1000 - at,
                "fields": {"usage_idle": at / 3, "usage_user": 1.5}}  # fmt: skip

    def rows(found: Any) -> Rows:
        for one in found["metrics"]:
            yield {"k": one["tags"]["host"], "ts": one["timestamp"] * 1000, "idle": one["fields"]["usage_idle"]}

    datas = batches(lambda ats: json.dumps({"metrics": [made(at) for at in ats]}).encode())
    return FormatCase("Telegraf JSON", LOADS, formats.telegraf(), of, datas, json.loads, rows)


def csv_lines() -> FormatCase:
    of = contract(*READING)
    names = of.arrow_schema.names
    once = pacsv.ReadOptions(use_threads=False, column_names=names)
    kinds = pacsv.ConvertOptions(
        column_types={**dict(zip(names, of.arrow_schema.types, strict=True)), "ts": pa.int64()}
    )

    def plain(data: bytes) -> pa.Table:
        return pacsv.read_csv(pa.BufferReader(data), read_options=once, convert_options=kinds)

    datas = batches(lambda ats: "\n".join(",".join(map(str, reading(at).values())) for at in ats).encode())
    return FormatCase("CSV", "pyarrow.csv.read_csv", formats.csv(names), of, datas, plain, None)


AVRO: Any = {"type": "record", "name": "r", "fields": [
    {"name": "k", "type": "string"}, {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "value", "type": "double"}, {"name": "n", "type": "long"}]}  # fmt: skip
AVRO_FIELDS = ("name: k, type: string", "name: ts, type: timestamp", "name: value, type: double", "name: n, type: long")


def avro_row(at: int) -> dict[str, Any]:
    when = datetime.fromtimestamp(NOON_MS / 1000 - at, UTC)
    return {"k": f"k{at % 5000}", "ts": when, "value": at / 3, "n": at}


def avro_messages() -> FormatCase:
    parsed = fastavro.parse_schema(AVRO)

    def made(ats: range) -> bytes:
        sink = io.BytesIO()
        for at in ats:
            fastavro.schemaless_writer(sink, parsed, avro_row(at))
        return sink.getvalue()

    def plain(data: bytes) -> list[Any]:
        source = io.BytesIO(data)
        return [fastavro.schemaless_reader(source, parsed, None) for _ in range(_MANY)]

    of = contract(*AVRO_FIELDS)
    return FormatCase(
        "Avro", "fastavro.schemaless_reader and a loop", formats.avro(AVRO), of, batches(made), plain, lambda one: one
    )


def avro_container() -> FormatCase:
    def made(ats: range) -> bytes:
        sink = io.BytesIO()
        fastavro.writer(sink, AVRO, map(avro_row, ats), codec="deflate", sync_marker=b"0123456789abcdef")
        return sink.getvalue()

    def plain(data: bytes) -> list[Any]:
        return [*fastavro.reader(io.BytesIO(data))]

    of = contract(*AVRO_FIELDS)
    return FormatCase(
        "Avro container", "fastavro.reader and a loop", formats.avro(), of, batches(made), plain, lambda one: one
    )


def protobuf() -> FormatCase:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    order = file.message_type.add(name="Order")
    order.field.add(name="k", number=1, type=kinds.TYPE_STRING, label=1)
    order.field.add(name="ts", number=2, type=kinds.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=1)
    for number, (name, kind) in enumerate({"value": kinds.TYPE_DOUBLE, "n": kinds.TYPE_INT64}.items(), 3):
        order.field.add(name=name, number=number, type=kind, label=1)
    for number, name in enumerate(("customer", "currency", "state", "city"), 5):
        order.field.add(name=name, number=number, type=kinds.TYPE_STRING, label=1)
    both = descriptor_pb2.FileDescriptorSet()
    timestamp_pb2.DESCRIPTOR.CopyToProto(both.file.add())
    both.file.append(file)
    decoder = formats.protobuf(both.SerializeToString(), "shop.Order")
    texts = ("customer", "currency", "state", "city")
    of = contract(*AVRO_FIELDS, *(f"name: {name}, type: string" for name in texts))
    pool = descriptor_pool.Default()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))

    def made(at: int) -> bytes:
        when = timestamp_pb2.Timestamp(seconds=NOON_MS // 1000 - at, nanos=5_000_000)
        some = {"customer": f"c-{at % 900}", "currency": "EUR", "state": "paid", "city": "Bern"}
        return message(k=f"k{at % 5000}", ts=when, value=at / 3 + 1, n=at + 1, **some).SerializeToString()

    def rows(one: Any) -> Rows:
        yield {"k": one.k, "ts": one.ts.ToMilliseconds(), "value": one.value, "n": one.n, "customer": one.customer,
               "currency": one.currency, "state": one.state, "city": one.city}  # fmt: skip

    return FormatCase(
        "Protobuf", "FromString and a loop", decoder, of, [*map(made, range(EVENTS))], message.FromString, rows
    )


def cloudwatch() -> FormatCase:
    of = contract("name: k, type: string, from: logGroup", "name: ts, type: timestamp, from: timestamp",
                  "name: message, type: string")  # fmt: skip

    def made(ats: range) -> bytes:
        events = [{"id": str(10**55 + at), "timestamp": NOON_MS - at, "message": f"GET /{at} 200"} for at in ats]
        shared = {"owner": "1" * 12, "logGroup": "g", "logStream": "s", "messageType": "DATA_MESSAGE"}
        return gzip.compress(json.dumps({**shared, "logEvents": events}).encode())

    def rows(found: Any) -> Rows:
        for one in found["logEvents"]:
            yield {"k": found["logGroup"], "ts": one["timestamp"], "message": one["message"]}

    def plain(data: bytes) -> Any:
        return json.loads(gzip.decompress(data))

    return FormatCase(
        "CloudWatch Logs", "gzip, json.loads and a loop", formats.cloudwatch_logs(), of, batches(made), plain, rows
    )


def dynamodb() -> FormatCase:
    of = contract("name: k, type: string, from: item.id", "name: ts, type: timestamp, from: at",
                  "name: n, type: long, from: new.n")  # fmt: skip

    def made(at: int) -> object:
        image = {"id": {"S": f"o-{at}"}, "n": {"N": str(at)}, "text": {"S": "some text"}}
        change = {"ApproximateCreationDateTime": NOON_MS - at, "Keys": {"id": {"S": f"o-{at}"}}, "NewImage": image}
        return {"eventName": "INSERT", "tableName": "t", "dynamodb": change}

    def rows(found: Any) -> Rows:
        change = found["dynamodb"]
        new = change.get("NewImage") or {}
        item = new or change.get("OldImage") or change["Keys"]
        n = new.get("n")
        when = change["ApproximateCreationDateTime"]
        yield {"k": item["id"]["S"], "ts": when, "n": None if n is None else int(n["N"])}

    return FormatCase("DynamoDB changes", LOADS, formats.dynamodb_changes(), of, singles(made), json.loads, rows)


def debezium() -> FormatCase:
    of = contract("name: k, type: long, from: row.id", "name: ts, type: timestamp, from: ts_ms",
                  "name: total, type: double, from: row.total", "name: op, type: string")  # fmt: skip

    def made(at: int) -> object:
        source = {"version": "3.0", "connector": "postgresql", "name": "shop", "db": "shop", "table": "orders"}
        after = {"id": at, "total": at / 4, "state": "paid"}
        return {"before": None, "after": after, "source": source, "op": "c", "ts_ms": NOON_MS - at}

    def rows(found: Any) -> Rows:
        row = found["before"] if found["op"] == "d" else found["after"]
        yield {"k": row["id"], "ts": found["ts_ms"], "total": row["total"], "op": found["op"]}

    return FormatCase("Debezium", LOADS, formats.debezium(), of, singles(made), json.loads, rows)


def dms() -> FormatCase:
    of = contract("name: k, type: long, from: data.id", "name: ts, type: timestamp, from: metadata.timestamp",
                  "name: total, type: double, from: data.total")  # fmt: skip

    def made(at: int) -> object:
        metadata = {"timestamp": iso(-at), "record-type": "data", "operation": "insert", "schema-name": "shop",
                    "table-name": "orders", "partition-key-type": "primary-key", "transaction-id": at}  # fmt: skip
        return {"data": {"id": at, "total": at / 4, "state": "paid"}, "metadata": metadata}

    def rows(found: Any) -> Rows:
        data = found["data"]
        yield {"k": data["id"], "ts": datetime.fromisoformat(found["metadata"]["timestamp"]), "total": data["total"]}

    return FormatCase("DMS", LOADS, formats.dms(), of, singles(made), json.loads, rows)


def influx() -> FormatCase:
    of = contract("name: k, type: string, from: tags.host", "name: ts, type: timestamp, from: time",
                  "name: usage, type: double, from: fields.usage")  # fmt: skip

    def made(ats: range) -> bytes:
        lines = [
            f"cpu,host=h{at % 40},region=eu usage={at / 3},idle=8.5 {(NOON_MS - at // 40) * 10**6}\n" for at in ats
        ]
        return "".join(lines).encode()

    def rows(lines: list[str]) -> Rows:
        for line in lines:
            tags, fields, stamp = line.split(" ")
            of_tags = dict(one.split("=") for one in tags.split(",")[1:])
            of_fields = {name: float(value) for name, value in (one.split("=") for one in fields.split(","))}
            yield {"k": of_tags["host"], "ts": int(stamp) // 10**6, "usage": of_fields["usage"]}

    def plain(data: bytes) -> list[str]:
        return data.decode().splitlines()

    return FormatCase(
        "Influx line protocol", "a loop (there is no library)", formats.influx(), of, batches(made), plain, rows
    )


CASES = (json_lines, json_single, eventbridge, cloudevents, fluentbit, telegraf, csv_lines, avro_messages,
         avro_container, protobuf, cloudwatch, dynamodb, debezium, dms, influx)  # fmt: skip
