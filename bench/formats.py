"""Compare each decoder, through to the contract's columns, with the library call that it wraps.

Run: python -m bench.formats. Events a second on one core, and how many times the library's own time the whole takes.
"""

import gzip
import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import fastavro
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headwater import formats
from headwater.codec import Decoder
from headwater.contract import Contract, load_contract, parse_contract
from headwater.processors.operators.decode import Part, decode
from headwater.stream.record import StreamRecord

NOON_MS = 1_772_366_400_000
FIELDS = """
name: c
version: 1
key: k
time: ts
unknown: ignore
fields:
"""
EVENTS = 20_000


def contract(*fields: str) -> Contract:
    return parse_contract(FIELDS + "".join(f"  - {{{field}}}\n" for field in fields), "bench")


def seconds(run: Callable[[], object]) -> float:
    """The best of three."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def compare(name: str, decoder: Decoder, of: Contract, datas: list[bytes], plain: Callable[[bytes], object]) -> None:
    records = [StreamRecord("shard-0", str(at + 1), NOON_MS, "k", data) for at, data in enumerate(datas)]
    found = decode(records, of, decoder)
    events = sum(part.decoded.table.num_rows for part in found if isinstance(part, Part))
    assert events == EVENTS, (name, events, [part for part in found if not isinstance(part, Part)][:1])
    ours = seconds(lambda: decode(records, of, decoder))
    theirs = seconds(lambda: [plain(data) for data in datas])
    print(f"{name:24} {events / ours:12,.0f} events/s   {ours / theirs:5.2f} times the library's {theirs:.3f} s")


def cloudwatch() -> None:
    of = contract("name: k, type: string, from: logGroup", "name: ts, type: timestamp, from: timestamp",
                  "name: message, type: string")  # fmt: skip
    events = [{"id": str(10**50 + at), "timestamp": NOON_MS + at, "message": f"message {at}"} for at in range(100)]
    shared = {"owner": "1", "logGroup": "g", "logStream": "s", "messageType": "DATA_MESSAGE", "logEvents": events}
    datas = [gzip.compress(json.dumps(shared).encode())] * (EVENTS // 100)
    compare("CloudWatch Logs", formats.cloudwatch_logs(), of, datas, lambda data: json.loads(gzip.decompress(data)))


def changes() -> None:
    of = contract("name: k, type: string, from: item.id", "name: ts, type: timestamp, from: at",
                  "name: n, type: long, from: new.n")  # fmt: skip
    image = {"id": {"S": "o-1"}, "n": {"N": "7"}, "text": {"S": "some text"}}
    change = {"ApproximateCreationDateTime": NOON_MS, "Keys": {"id": {"S": "o-1"}}, "NewImage": image}
    datas = [json.dumps({"eventName": "INSERT", "tableName": "t", "dynamodb": change}).encode()] * EVENTS
    compare("DynamoDB", formats.dynamodb_changes(), of, datas, json.loads)


def avro() -> None:
    schema: Any = {"type": "record", "name": "r", "fields": [
        {"name": "k", "type": "string"}, {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "value", "type": "double"}, {"name": "n", "type": "long"}]}  # fmt: skip
    of = contract(
        "name: k, type: string", "name: ts, type: timestamp", "name: value, type: double", "name: n, type: long"
    )
    parsed, sink = fastavro.parse_schema(schema), io.BytesIO()
    rows = [
        {"k": f"k{at}", "ts": datetime.fromtimestamp(NOON_MS / 1000, UTC), "value": at / 3, "n": at}
        for at in range(100)
    ]
    for row in rows:
        fastavro.schemaless_writer(sink, parsed, row)

    def plain(data: bytes) -> list[object]:
        source = io.BytesIO(data)
        return [fastavro.schemaless_reader(source, parsed, None) for _ in rows]

    compare("Avro", formats.avro(schema), of, [sink.getvalue()] * (EVENTS // 100), plain)


def otlp() -> None:
    made = ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    spans = resource.scope_spans.add().spans
    for at in range(100):
        one = spans.add(name=f"span {at % 7}", trace_id=bytes(16), span_id=bytes(8), kind=2)
        one.start_time_unix_nano, one.end_time_unix_nano = NOON_MS * 10**6, NOON_MS * 10**6 + 1000
        one.attributes.add(key="http.method").value.string_value = "GET"
    datas = [made.SerializeToString()] * (EVENTS // 100)
    compare("OTLP spans", formats.otlp("otel_spans"), load_contract("otel_spans"), datas, made.FromString)


def influx() -> None:
    of = contract("name: k, type: string, from: tags.host", "name: ts, type: timestamp, from: time",
                  "name: usage, type: double, from: fields.usage")  # fmt: skip
    line = b"cpu,host=a,region=eu usage=91.5,idle=8.5 1772366400000000000\n"
    compare(
        "Influx line protocol",
        formats.influx(),
        of,
        [line * 100] * (EVENTS // 100),
        lambda data: data.decode().split("\n"),
    )


if __name__ == "__main__":
    for bench in (cloudwatch, changes, avro, otlp, influx):
        bench()
