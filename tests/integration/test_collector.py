"""A real OpenTelemetry Collector, built of tests/collector, exports to the gateway over gRPC and over HTTP, and to a
stream by its awskinesis exporter."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headwater import formats
from headwater.aws import client
from headwater.codec.inflate import decompressed
from headwater.commands.local.embedded import EmbeddedAws
from headwater.config import Settings
from headwater.contract import load_contract
from headwater.formats.framing import unflated
from tests.gateway import Served, served
from tests.samples import lake
from tests.waiting import until

METRICS, LOGS, SPANS = (load_contract(f"otel_{signal}") for signal in ("metrics", "logs", "spans"))
SOURCE = Path(__file__).parents[1] / "collector"
NOON_NS = 1_772_366_400_000_000_000
BUILD_SECONDS = 540
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
STREAMS = """
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{port}"}}
exporters:
{sinks}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: &all [{exporters}]}}
    metrics: {{receivers: [otlp], exporters: *all}}
    logs: {{receivers: [otlp], exporters: *all}}
"""
SINK = """
  awskinesis/{name}:
    aws: {{stream_name: {name}, region: us-east-1, kinesis_endpoint: "{url}"}}
    encoding: {{name: {encoding}, compression: {compression}}}"""
WRITTEN = {
    "proto": ("otlp_proto", "gzip", b"\x1f\x8b"),
    "json": ("otlp_json", "zlib", b"\x78"),
    "flate": ("otlp_proto", "flate", b""),
    "flate_json": ("otlp_json", "flate", b""),
    "plain": ("otlp_proto", "none", b"\n"),
}
"""Give for each stream its encoding, its compression and the first bytes on it; a deflate stream has no mark."""


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


def requests() -> dict[str, bytes]:
    """A span, a point and a log record, by the names of their signals."""
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
    made: dict[str, Message] = {"traces": spans, "metrics": metrics, "logs": logs}
    return {signal: request.SerializeToString() for signal, request in made.items()}


@contextmanager
def exporting(program: Path, configuration: str, port: int, folder: Path, more: Mapping[str, str]) -> Iterator[None]:
    """The Collector runs, and has taken a request of each signal."""
    file, log = folder / "collector.yaml", folder / "collector.log"
    file.write_text(configuration)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(program), "--config", f"file:{file}"], stdout=out, stderr=out, env={**os.environ, **more}
        )
    try:
        for signal, request in requests().items():

            def sent(signal: str = signal, body: bytes = request) -> bool:
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
        yield
    finally:
        process.terminate()
        process.wait(60)


def test_what_the_collector_exports_is_on_the_stream(collector: Path, gateway: Served, tmp_path: Path) -> None:
    """A span over gRPC, a point over HTTP as JSON, a log record over both; compressed, as is its default."""
    port, url = free_port(), str(gateway.client.base_url).rstrip("/")
    configuration = CONFIGURATION.format(port=port, grpc=gateway.app.state.grpc_port, url=url)
    with exporting(collector, configuration, port, tmp_path, {}):
        until(lambda: names(gateway) == ["load", "pay", "sold", "sold"], 60, lambda: f"{names(gateway)}")


def test_what_its_awskinesis_exporter_puts_on_a_stream_is_read(collector: Path, tmp_path: Path) -> None:
    """Each signal, in each of its compressions and both encodings, comes to the rows of its contract."""
    port = free_port()
    with EmbeddedAws() as aws, pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        kinesis = client("kinesis", Settings())

        def datas(stream: str) -> list[bytes]:
            shard = kinesis.list_shards(StreamName=stream)["Shards"][0]["ShardId"]
            start = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
            return [one["Data"] for one in kinesis.get_records(ShardIterator=start["ShardIterator"])["Records"]]

        for stream in WRITTEN:
            kinesis.create_stream(StreamName=stream, ShardCount=1)
        exporters = ", ".join(f"awskinesis/{stream}" for stream in WRITTEN)
        sinks = "".join(
            SINK.format(name=name, encoding=encoding, compression=how, url=aws.endpoint)
            for name, (encoding, how, _) in WRITTEN.items()
        )
        with exporting(collector, STREAMS.format(port=port, sinks=sinks, exporters=exporters), port, tmp_path, {}):
            until(lambda: all(len(datas(one)) == 3 for one in WRITTEN), 60, "the stream has not all")
        for stream, (_, _, mark) in WRITTEN.items():
            assert {data[: len(mark)] for data in datas(stream)} == {mark}
            found = [one for data in datas(stream) for one in read(data)]
            assert sorted(found) == ["load", "pay", "sold"]


def read(data: bytes) -> list[str]:
    """What a pipeline of the record's signal makes of it; protobuf does not say which it is, but its text does."""
    for text, contract, column in ((b"pay", SPANS, "name"), (b"load", METRICS, "metric"), (b"sold", LOGS, "body")):
        if text in (unflated(data) or decompressed(data)):
            return [row[column] for row in lake(formats.otlp(contract.name), contract, data)]
    raise AssertionError(data)
