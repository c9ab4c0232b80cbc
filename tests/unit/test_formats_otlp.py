"""OTLP as collectors and metric streams write it, through a pipeline's engine into rows."""

import gzip
import zlib

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from headwater import formats
from headwater.contract import load_contract
from tests.samples import ARRIVED_MS, NOON, NOON_MS, OTLP_JSON, lake, processed, spans


@pytest.mark.parametrize(
    "data",
    [spans().SerializeToString(), gzip.compress(spans().SerializeToString()), zlib.compress(OTLP_JSON), OTLP_JSON],
)
def test_what_the_collectors_awskinesis_exporter_writes(data: bytes) -> None:
    """Its encodings otlp_proto and otlp_json with its compressions gzip and zlib."""
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
