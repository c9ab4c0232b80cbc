"""OTLP as collectors and metric streams write it, through a pipeline's engine into rows."""

import gzip
import zlib
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from headwater import formats
from headwater.contract import load_contract
from headwater.errors import InvalidRecord
from headwater.formats.otlpitems import SIGNALS, has_unknown_fields
from tests.samples import ARRIVED_MS, NOON, NOON_MS, OTLP_JSON, lake, processed, spans


def flate(data: bytes, level: int = -1) -> bytes:
    """As Go's compress/flate ends a stream that is flushed and closed: with an empty last block."""
    made = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush(zlib.Z_SYNC_FLUSH) + made.flush()


@pytest.mark.parametrize(
    "data",
    [
        spans().SerializeToString(), gzip.compress(spans().SerializeToString()), zlib.compress(OTLP_JSON), OTLP_JSON,
        *(flate(data, level) for data in (spans().SerializeToString(), OTLP_JSON) for level in (-1, 1, 9)),
    ],
)  # fmt: skip
def test_what_the_collectors_awskinesis_exporter_writes(data: bytes) -> None:
    """Its encodings otlp_proto and otlp_json with its compressions gzip, zlib and flate."""
    (row,) = lake(formats.otlp("otel_spans"), load_contract("otel_spans"), data)
    assert (row["service"], row["name"], row["duration_ms"], row["ts"]) == ("shop", "pay", 5.0, NOON)
    assert (row["dropped_events"], row["trace_id"]) == (3, bytes(range(16)).hex())
    assert row["schema_url"] == "https://opentelemetry.io/schemas/1.21.0"


def test_otlp_without_times_takes_what_there_is() -> None:
    """A span that has not ended has no end and duration; without any time the arrival is the time."""
    unended, timeless = spans(end=0), spans(0, 0)
    first, second = lake(
        formats.otlp("otel_spans"),
        load_contract("otel_spans"),
        *(one.SerializeToString() for one in (unended, timeless)),
    )
    assert (first["ts"], first["end_ns"], first["duration_ms"]) == (NOON, None, None)
    assert (second["ts"].timestamp() * 1000, second["start_ns"]) == (ARRIVED_MS, None)


def test_metric_stream() -> None:
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-metric-streams-formats-opentelemetry.html"""
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    resource.resource.attributes.add(key="cloud.provider").value.string_value = "aws"
    metric = resource.scope_metrics.add().metrics.add(name="amazonaws.com/AWS/EC2/CPUUtilization", unit="%")
    point = metric.summary.data_points.add(time_unix_nano=NOON_MS * 10**6, count=5, sum=50.0)
    point.quantile_values.add(quantile=0.0, value=1.0)
    point.quantile_values.add(quantile=1.0, value=20.0)
    body = made.SerializeToString()
    assert len(body) > 127
    frame = bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body
    rows = lake(formats.metric_stream(), load_contract("otel_metrics"), frame * 2, gzip.compress(frame))
    assert [(row["metric"], row["kind"], row["sum"], row["ts"]) for row in rows] == [
        ("amazonaws.com/AWS/EC2/CPUUtilization", "summary", 50.0, NOON)
    ] * 3


def deep(levels: int) -> ExportLogsServiceRequest:
    made = ExportLogsServiceRequest()
    scope = made.resource_logs.add().scope_logs.add()
    for body in ("good", ""):
        record = scope.log_records.add(time_unix_nano=NOON_MS * 10**6)
        value = record.body
        for _ in range(0 if body else levels):
            value = value.array_value.values.add()
        value.string_value = body or "deep"
    return made


@pytest.mark.parametrize("levels", [40, 90])
def test_one_bad_item_of_a_request_costs_only_itself(levels: int) -> None:
    """Nested too deeply, or with text that is no UTF-8: the others are rows, and the letter can be sent again."""
    broken = deep(1).SerializeToString().replace(b"deep", b"d\xffep")
    for body in (deep(levels).SerializeToString(), broken):
        found = processed(formats.otlp("otel_logs"), load_contract("otel_logs"), body)
        assert [row["body"] for table in found.lake for row in table.to_pylist()] == ["good"]
        (letter,) = found.letters
        again = processed(formats.otlp("otel_logs"), load_contract("otel_logs"), letter.payload)
        assert (sum(table.num_rows for table in again.lake), len(again.letters)) == (0, 1)


@pytest.mark.parametrize("contract", ["otel_spans", "otel_logs", "otel_metrics"])
@given(st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(flate),
                 st.sampled_from([b"\x02\0", b"\x02\0\x12\0", b"\x0a\x02\x02\0"])))  # fmt: skip
def test_bytes_that_are_no_otlp_are_never_no_events(contract: str, data: bytes) -> None:
    """They are refused, whole or in part, unless protobuf itself reads a request without items in them."""
    signal = SIGNALS[contract]
    try:
        found = [*formats.otlp(contract)(data)]
    except InvalidRecord:
        return
    if not found:
        read = (data, *unflated(data))
        assert any(is_empty(signal.request, one) or one.lstrip().startswith(b"{") for one in read)


def unflated(data: bytes) -> list[bytes]:
    with suppress(zlib.error):
        return [zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)]
    return []


def is_empty(request: Any, data: bytes) -> bool:
    with suppress(DecodeError):
        return not has_unknown_fields(request.FromString(data))
    return False


def test_a_stream_of_deflate_that_comes_to_too_much_is_a_dead_letter() -> None:
    """And so is one that is cut, or has something behind it: the reason is that of bytes which are no OTLP."""
    data = flate(spans().SerializeToString())
    name = spans()
    name.resource_spans[0].scope_spans[0].spans[0].name = "x" * (1 << 20)
    for broken in (data[:-1], data + b"x", flate(name.SerializeToString())):
        with pytest.raises(InvalidRecord, match="not an OTLP request"):
            formats.otlp("otel_spans")(broken)
