"""A real OpenTelemetry Collector, built of tests/collector, exports to the gateway over gRPC and over HTTP."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headwater.contract import load_contract
from tests.gateway import Served, served
from tests.waiting import until

METRICS, LOGS, SPANS = (load_contract(f"otel_{signal}") for signal in ("metrics", "logs", "spans"))
SOURCE = Path(__file__).parents[1] / "collector"
NOON_NS = 1_772_366_400_000_000_000
BUILD_SECONDS = 280
CONFIGURATION = """
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{port}"}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{grpc}", tls: {{insecure: true}}}}
  otlp_http: {{endpoint: "{url}", encoding: json}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_grpc]}}
    metrics: {{receivers: [otlp], exporters: [otlp_http]}}
    logs: {{receivers: [otlp], exporters: [otlp_grpc, otlp_http]}}
"""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program; skipped with the reason where it cannot be built."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    program = tmp_path_factory.mktemp("collector") / "collector"
    try:
        made = subprocess.run(
            ["go", "build", "-o", str(program), "."],
            cwd=SOURCE,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the Collector is not built in {BUILD_SECONDS} s; what was compiled is kept for the next time")
    if made.returncode:
        pytest.skip(f"the Collector cannot be built: {made.stderr[-300:]}")
    return program


@pytest.fixture
def gateway() -> Iterator[Served]:
    with served(contracts=(METRICS, LOGS, SPANS), grpc_port=0) as found:
        yield found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def names(gateway: Served) -> list[str]:
    """Of what is on the stream."""
    columns = ((SPANS, "name"), (METRICS, "metric"), (LOGS, "body"))
    return sorted(
        row[column]
        for contract, column in columns
        for one in gateway.stream.decoded(contract)
        for row in one.table.to_pylist()
    )


def test_what_the_collector_exports_is_on_the_stream(collector: Path, gateway: Served, tmp_path: Path) -> None:
    """A span over gRPC, a point over HTTP as JSON, a log record over both; compressed, as is its default."""
    port, url = free_port(), str(gateway.client.base_url).rstrip("/")
    file = tmp_path / "collector.yaml"
    file.write_text(CONFIGURATION.format(port=port, grpc=gateway.app.state.grpc_port, url=url))
    spans, metrics, logs = ExportTraceServiceRequest(), ExportMetricsServiceRequest(), ExportLogsServiceRequest()
    spans.resource_spans.add().scope_spans.add().spans.add(
        name="pay",
        trace_id=os.urandom(16),
        span_id=os.urandom(8),
        start_time_unix_nano=NOON_NS,
        end_time_unix_nano=NOON_NS + 1,
    )
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="load")
    metric.gauge.data_points.add(as_double=1.5, time_unix_nano=NOON_NS)
    record = logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=NOON_NS)
    record.body.string_value = "sold"
    log = tmp_path / "collector.log"
    with log.open("wb") as out:
        process = subprocess.Popen([str(collector), "--config", f"file:{file}"], stdout=out, stderr=out)
    try:
        for signal, request in (("traces", spans), ("metrics", metrics), ("logs", logs)):

            def sent(signal: str = signal, body: bytes = request.SerializeToString()) -> bool:
                assert process.poll() is None, log.read_text()[-2000:]
                try:
                    found = httpx.post(
                        f"http://127.0.0.1:{port}/v1/{signal}",
                        content=body,
                        headers={"content-type": "application/x-protobuf"},
                    )
                except httpx.TransportError:
                    return False
                return found.status_code == 200

            until(sent, 60, "the Collector takes nothing")
        until(lambda: names(gateway) == ["load", "pay", "sold", "sold"], 60, lambda: f"{names(gateway)}")
    finally:
        process.terminate()
        process.wait(60)
