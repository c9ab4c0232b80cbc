"""OTLP from the real OpenTelemetry SDK and by hand: each point, record and span is a row; retries make no copies."""

import json
import logging
import random
import string
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from headwater.contract import load_contract
from tests.gateway import Served, served

METRICS, LOGS, SPANS = (load_contract(f"otel_{name}") for name in ("metrics", "logs", "spans"))
RESOURCE = Resource({"service.name": "shop", "host.cpus": 4, "zones": ["a", "b"]})
PROTOBUF = "application/x-protobuf"


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with served(contracts=(METRICS, LOGS, SPANS), max_rows=500) as found:
        yield found


@pytest.fixture
def gateway(shared: Served) -> Served:
    shared.stream.records.clear()
    return shared


def url(gateway: Served, signal: str) -> str:
    return f"{str(gateway.client.base_url).rstrip('/')}/v1/{signal}"


def rows(gateway: Served, contract: Any) -> list[dict[str, Any]]:
    return [row for one in gateway.stream.decoded(contract) for row in one.table.to_pylist()]


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_metrics_of_the_sdk(gateway: Served, compression: Compression) -> None:
    exporter = OTLPMetricExporter(url(gateway, "metrics"), compression=compression)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 60_000)], resource=RESOURCE)
    meter = provider.get_meter("orders", "1.2")
    meter.create_counter("orders", "1", "Orders taken").add(3, {"kind": "web", "vip": True})
    meter.create_gauge("temperature", "Cel").set(21.5)
    latency = meter.create_histogram("latency", "ms")
    for value in (1.0, 3.0, 700.0):
        latency.record(value)
    assert provider.force_flush()
    provider.shutdown()
    found = {row["metric"]: row for row in rows(gateway, METRICS)}
    orders, temperature, histogram = found["orders"], found["temperature"], found["latency"]
    assert (orders["service"], orders["kind"], orders["unit"]) == ("shop", "sum", "1")
    assert (orders["value"], orders["value_long"], orders["monotonic"]) == (3.0, 3, True)
    assert (orders["temporality"], orders["scope"], orders["scope_version"]) == ("cumulative", "orders", "1.2")
    assert json.loads(orders["attributes"]) == {"kind": "web", "vip": True}
    resource = json.loads(orders["resource"])
    assert (resource["host.cpus"], resource["zones"]) == (4, ["a", "b"])
    assert (temperature["kind"], temperature["value"], temperature["value_long"]) == ("gauge", 21.5, None)
    assert (histogram["count"], histogram["sum"]) == (3, 704.0)
    assert (histogram["minimum"], histogram["maximum"]) == (1.0, 700.0)
    assert sum(json.loads(histogram["buckets"])["bucket_counts"]) == 3
    assert orders["time_ns"] // 1_000_000 == round(orders["ts"].timestamp() * 1000)


def test_logs_and_traces_of_the_sdk(gateway: Served) -> None:
    """The log record carries the ids of the span that it was written in."""
    traces = TracerProvider(resource=RESOURCE)
    traces.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(url(gateway, "traces"))))
    logs = LoggerProvider(RESOURCE)
    logs.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(url(gateway, "logs"))))
    logger = logging.Logger("shop")
    logger.addHandler(LoggingHandler(logger_provider=logs))
    tracer = traces.get_tracer("tracer")
    with tracer.start_as_current_span("outer") as outer, tracer.start_as_current_span("inner") as inner:
        inner.add_event("paid", {"euros": 7})
        logger.warning("sold %d", 3, extra={"sku": "x-1"})
        context = inner.get_span_context()
    traces.shutdown()
    logs.shutdown()
    spans = {row["name"]: row for row in rows(gateway, SPANS)}
    assert spans["inner"]["parent_span_id"] == spans["outer"]["span_id"] == f"{outer.get_span_context().span_id:016x}"
    assert spans["inner"]["trace_id"] == f"{context.trace_id:032x}"
    assert spans["outer"]["parent_span_id"] is None
    (paid,) = json.loads(spans["inner"]["events"])
    assert (paid["name"], paid["attributes"]) == ("paid", {"euros": 7})
    assert spans["inner"]["duration_ms"] == (spans["inner"]["end_ns"] - spans["inner"]["start_ns"]) / 1e6
    (record,) = rows(gateway, LOGS)
    assert (record["body"], record["severity_text"], record["service"]) == ("sold 3", "WARN", "shop")
    assert (record["trace_id"], record["span_id"]) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    assert json.loads(record["attributes"])["sku"] == "x-1"


def gauge(value: float, ns: int = 1_700_000_000_000_000_000) -> ExportMetricsServiceRequest:
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="g")
    metric.gauge.data_points.add(as_double=value, time_unix_nano=ns)
    return made


def test_grpc() -> None:
    """The SDK's gRPC exporter; a request that is refused is an error of its client, not lost in silence."""
    with served(contracts=(METRICS, LOGS, SPANS), grpc_port=0) as found:
        address = f"127.0.0.1:{found.app.state.grpc_port}"
        traces = TracerProvider(resource=RESOURCE)
        exporter = GrpcSpanExporter(address, insecure=True)
        traces.add_span_processor(SimpleSpanProcessor(exporter))
        with traces.get_tracer("t").start_as_current_span("over gRPC"):
            pass
        traces.shutdown()
        assert [row["name"] for row in rows(found, SPANS)] == ["over gRPC"]
        with grpc.insecure_channel(address) as channel:
            metrics = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]  # made by protoc, without types
            with pytest.raises(grpc.RpcError) as refused:
                metrics.Export(ExportMetricsServiceRequest.FromString(b"\x52\x01x"), timeout=20)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            answer = metrics.Export(nested(40), timeout=20)
        assert answer.partial_success.rejected_data_points == 1


def test_partial_success(gateway: Served) -> None:
    """A point that the contract cannot hold is counted and named, the others are taken."""
    request = gauge(1.0)
    for value, ns in ((3.0, 1), (2.0, 2**64 - 1)):
        request.resource_metrics.append(gauge(value, ns).resource_metrics[0])
    answer = gateway.client.post("/v1/metrics", content=request.SerializeToString(), headers={"content-type": PROTOBUF})
    assert (answer.status_code, answer.headers["content-type"]) == (200, PROTOBUF)
    partial = ExportMetricsServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_data_points == 2
    assert "1: field ts" in partial.error_message
    (row,) = rows(gateway, METRICS)
    assert (row["value"], row["service"]) == (1.0, "unknown_service")


def test_numbers_that_no_column_holds_are_kept_as_text(gateway: Served) -> None:
    """NaN and infinities of a gauge, spelled as OTLP's JSON does."""
    request = gauge(1.0)
    for value in (float("nan"), float("inf"), float("-inf")):
        request.resource_metrics.append(gauge(value).resource_metrics[0])
    in_json = MessageToJson(request).encode()
    assert b'"NaN"' in in_json
    for content, kind in ((request.SerializeToString(), PROTOBUF), (in_json, "application/json")):
        gateway.stream.records.clear()
        answer = gateway.client.post("/v1/metrics", content=content, headers={"content-type": kind})
        assert answer.status_code == 200
        found = [(row["value"], row["value_text"]) for row in rows(gateway, METRICS)]
        assert found == [(1.0, None), (None, "NaN"), (None, "Infinity"), (None, "-Infinity")]


def log_record(body: str) -> dict[str, Any]:
    return {"timeUnixNano": "1772366400000000000", "body": {"stringValue": body}}


def logs_request(*records: dict[str, Any]) -> bytes:
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()


HUGE = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=3_000_000))


@pytest.mark.parametrize(
    "bad",
    [log_record(HUGE), {**log_record("x"), "traceId": "no hex"}, {**log_record("x"), "severityNumber": {}}],
    ids=["too large", "no hex", "another type"],
)
def test_one_bad_item_costs_only_itself(gateway: Served, bad: dict[str, Any]) -> None:
    """Exporters drop a request that is refused, with all that is good in it."""
    body = logs_request(*(log_record(f"small {at}") for at in range(5)), bad)
    answer = gateway.client.post("/v1/logs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["partialSuccess"]["rejectedLogRecords"] == "1"
    assert [row["body"] for row in rows(gateway, LOGS)] == [f"small {at}" for at in range(5)]


def test_content_with_nothing_known_in_it_is_no_success(gateway: Served) -> None:
    """A sender would believe that its events are safe."""
    old = {"resourceSpans": [{"instrumentationLibrarySpans": [{"spans": [{"name": "n"}]}]}]}
    headers = {"content-type": "application/json"}
    assert gateway.client.post("/v1/logs", content=b'{"message":"hello"}', headers=headers).status_code == 400
    answer = gateway.client.post("/v1/traces", content=json.dumps(old).encode(), headers=headers)
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    assert "instrumentationLibrarySpans" in answer.json()["partialSuccess"]["errorMessage"]
    unknown = gateway.client.post("/v1/traces", content=b"\x52\x01x", headers={"content-type": PROTOBUF})
    assert unknown.status_code == 400
    for empty in (b"{}", b'{"resourceSpans": []}'):
        assert gateway.client.post("/v1/traces", content=empty, headers=headers).json() == {}


def test_a_retry_of_an_exporter_has_the_same_identity(gateway: Served) -> None:
    for request in (gauge(1.0), gauge(1.0), gauge(2.0)):
        gateway.client.post("/v1/metrics", content=request.SerializeToString(), headers={"content-type": PROTOBUF})
    first, again, other = gateway.stream.identities(METRICS)
    assert first == again
    assert first != other


def test_json(gateway: Served) -> None:
    """Ids in hexadecimal, 64-bit numbers as text, unknown fields passed over: as the specification has it."""
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "name": "I'm a server span",
        "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": "1544712661000000000",
        "kind": 2,
        "someday": {"new": 1},
        "attributes": [{"key": "my.span.attr", "value": {"stringValue": "some value"}}],
    }
    body = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [span]}]}]}
    answer = gateway.client.post("/v1/traces", json=body)
    assert (answer.status_code, answer.json()) == (200, {})
    (row,) = rows(gateway, SPANS)
    assert (row["trace_id"], row["span_id"]) == (span["traceId"], span["spanId"])
    assert (row["kind"], row["duration_ms"]) == ("server", 1000.0)
    refused = gateway.client.post("/v1/traces", content=b"[]", headers={"content-type": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (400, 3)


def nested(depth: int) -> ExportMetricsServiceRequest:
    made = gauge(1.0)
    point = made.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0]
    value = point.attributes.add(key="k").value
    for _ in range(depth):
        value = value.array_value.values.add()
    value.int_value = 1
    return made


def test_bounds(gateway: Served) -> None:
    """Nesting and rows; another media type."""
    many = gauge(1.0)
    for _ in range(500):
        many.resource_metrics.append(gauge(1.0).resource_metrics[0])
    cases = {413: many, 200: nested(20)}
    for status, request in cases.items():
        answer = gateway.client.post(
            "/v1/metrics", content=request.SerializeToString(), headers={"content-type": PROTOBUF}
        )
        assert answer.status_code == status
    deep = b'{"resourceSpans":' + b"[" * 50_000
    answer = gateway.client.post("/v1/traces", content=deep, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert gateway.client.post("/v1/logs", content=b"", headers={"content-type": "text/plain"}).status_code == 415


NUMBERS = st.one_of(st.integers(-5, 2**70), st.text(max_size=4), st.none(), st.booleans(), st.floats())
NAMES = [
    "resourceMetrics",
    "resourceSpans",
    "resourceLogs",
    "scopeMetrics",
    "scopeSpans",
    "scopeLogs",
    "spans",
    "metrics",
    "logRecords",
    "gauge",
    "body",
    "kind",
    "histogram",
    "dataPoints",
    "traceId",
    "attributes",
    "value",
    "stringValue",
    "asDouble",
    "asInt",
    "timeUnixNano",
    "bucketCounts",
    "status",
    "name",
]
VALUES = st.recursive(
    NUMBERS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=30,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(signal=st.sampled_from(["metrics", "logs", "traces"]), value=VALUES, junk=st.binary(max_size=60))
def test_no_request_makes_a_5xx(shared: Served, signal: str, value: Any, junk: bytes) -> None:
    for body, kind in ((json.dumps(value).encode(), "application/json"), (junk, PROTOBUF), (junk, "application/json")):
        answer = shared.client.post(f"/v1/{signal}", content=body, headers={"content-type": kind})
        assert answer.status_code < 500, (body, answer.text)
