"""Compare each decoder, through to the contract's columns, with the library call that it wraps.

Run: python -m bench.formats. Events a CPU second on one core; how many times the CPU time of the library's call alone
the whole takes; and how many times that of a loop written by hand, which makes a table of the same columns of what the
library gives, and checks nothing.
"""

import gzip
import io
import json
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import fastavro
import pyarrow as pa
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
    """The CPU time of the best of five."""
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def compare(
    name: str,
    decoder: Decoder,
    of: Contract,
    datas: list[bytes],
    plain: Callable[[bytes], Any],
    rows: Callable[[Any], Iterable[dict[str, Any]]],
) -> None:
    """`plain` is the library's call, `rows` what somebody would write to have the contract's columns of its answer."""
    records = [StreamRecord("shard-0", str(at + 1), NOON_MS, "k", data) for at, data in enumerate(datas)]

    def by_hand() -> pa.Table:
        found = [row for data in datas for row in rows(plain(data))]
        return pa.Table.from_pylist(found, schema=of.arrow_schema)

    parts = [part for part in decode(records, of, decoder) if isinstance(part, Part)]
    ours = pa.concat_tables(part.decoded.table for part in parts).cast(of.arrow_schema)
    assert ours.num_rows == EVENTS
    wanted = [one.name for one in of.fields if not by_hand().column(one.name).null_count]
    assert ours.select(wanted).equals(by_hand().select(wanted)), name
    whole = seconds(lambda: decode(records, of, decoder))
    library, hand = seconds(lambda: [plain(data) for data in datas]), seconds(by_hand)
    print(
        f"{name:20} {EVENTS / whole:9,.0f} events/s   {whole / library:6.2f} times the library's {library:.3f} s"
        f"   {whole / hand:5.2f} times a loop by hand"
    )


def cloudwatch() -> None:
    of = contract("name: k, type: string, from: logGroup", "name: ts, type: timestamp, from: timestamp",
                  "name: message, type: string")  # fmt: skip
    events = [{"id": str(10**50 + at), "timestamp": NOON_MS + at, "message": f"message {at}"} for at in range(100)]
    shared = {"owner": "1", "logGroup": "g", "logStream": "s", "messageType": "DATA_MESSAGE", "logEvents": events}
    datas = [gzip.compress(json.dumps(shared).encode())] * (EVENTS // 100)

    def rows(found: Any) -> Iterable[dict[str, Any]]:
        return [
            {"k": found["logGroup"], "ts": one["timestamp"], "message": one["message"]} for one in found["logEvents"]
        ]

    compare(
        "CloudWatch Logs", formats.cloudwatch_logs(), of, datas, lambda data: json.loads(gzip.decompress(data)), rows
    )


def changes() -> None:
    of = contract("name: k, type: string, from: item.id", "name: ts, type: timestamp, from: at",
                  "name: n, type: long, from: new.n")  # fmt: skip
    image = {"id": {"S": "o-1"}, "n": {"N": "7"}, "text": {"S": "some text"}}
    change = {"ApproximateCreationDateTime": NOON_MS, "Keys": {"id": {"S": "o-1"}}, "NewImage": image}
    datas = [json.dumps({"eventName": "INSERT", "tableName": "t", "dynamodb": change}).encode()] * EVENTS

    def rows(found: Any) -> Iterable[dict[str, Any]]:
        change = found["dynamodb"]
        new = change["NewImage"]
        yield {"k": new["id"]["S"], "ts": change["ApproximateCreationDateTime"], "n": int(new["n"]["N"])}

    compare("DynamoDB", formats.dynamodb_changes(), of, datas, json.loads, rows)


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

    def plain(data: bytes) -> list[Any]:
        source = io.BytesIO(data)
        return [fastavro.schemaless_reader(source, parsed, None) for _ in rows]

    compare("Avro", formats.avro(schema), of, [sink.getvalue()] * (EVENTS // 100), plain, lambda found: found)


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
    compare(
        "OTLP spans", formats.otlp("otel_spans"), load_contract("otel_spans"), datas, made.FromString, spans_by_hand
    )


def attributes(listed: Any) -> str:
    return json.dumps({one.key: one.value.string_value for one in listed}, separators=(",", ":"))


def spans_by_hand(found: Any) -> Iterable[dict[str, Any]]:
    """Texts alone among the attributes, and no events and links: less than the decoder does."""
    for resource in found.resource_spans:
        shared = attributes(resource.resource.attributes)
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            start, end = span.start_time_unix_nano, span.end_time_unix_nano
            yield {
                "service": "shop", "ts": start // 10**6, "trace_id": span.trace_id.hex(), "span_id": span.span_id.hex(),
                "name": span.name, "kind": ["unspecified", "internal", "server"][span.kind], "start_ns": start,
                "end_ns": end, "duration_ms": (end - start) / 1e6, "status": "unset", "resource": shared,
                "attributes": attributes(span.attributes),
            }  # fmt: skip


def influx() -> None:
    of = contract("name: k, type: string, from: tags.host", "name: ts, type: timestamp, from: time",
                  "name: usage, type: double, from: fields.usage")  # fmt: skip
    line = b"cpu,host=a,region=eu usage=91.5,idle=8.5 1772366400000000000\n"

    def rows(lines: list[str]) -> Iterable[dict[str, Any]]:
        for line in lines:
            tags, fields, stamp = line.split(" ")
            of_tags = dict(one.split("=") for one in tags.split(",")[1:])
            of_fields = {name: float(value) for name, value in (one.split("=") for one in fields.split(","))}
            yield {"k": of_tags["host"], "ts": int(stamp) // 10**6, "usage": of_fields["usage"]}

    def plain(data: bytes) -> list[str]:
        return data.decode().splitlines()

    compare("Influx (no library)", formats.influx(), of, [line * 100] * (EVENTS // 100), plain, rows)


if __name__ == "__main__":
    for bench in (cloudwatch, changes, avro, otlp, influx):
        bench()
