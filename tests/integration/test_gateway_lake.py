"""From HTTP to the lake: the gateway killed under load with an outbox, clients that retry, a trace from end to end."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from gzip import decompress as gunzip
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from tests.cli import headwater
from tests.waiting import until

SETTINGS = Settings(commit_seconds=1.0, view_flush_seconds=0.5)
MAIN = [sys.executable, "-c", "from headwater.commands import main; main()"]
BATCH = 20
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def aws() -> Iterator[Mapping[str, str]]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        yield dict(server.environment) | {"HEADWATER_COMMIT_SECONDS": "1", "HEADWATER_VIEW_FLUSH_SECONDS": "0.5"}


def start(command: list[str], environment: Mapping[str, str], log: Path) -> "subprocess.Popen[str]":
    with log.open("ab") as errors:
        variables = dict(os.environ) | dict(environment)
        return subprocess.Popen([*MAIN, *command], env=variables, stdout=subprocess.PIPE, stderr=errors, text=True)


class World:
    """A gateway that is killed and started again, behind one changing address."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = dict(environment) | {
            "HEADWATER_GATEWAY_AUTH": "none",
            "HEADWATER_GATEWAY_PORT": "0",
            "HEADWATER_GATEWAY_GRPC_PORT": "0",
        }
        self._log = log
        self.start()

    def start(self) -> None:
        self.process = start(["gateway", "--json"], self._environment, self._log)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self._log.read_text()[-2000:]
        found = json.loads(line)
        self.url = found["gateway"]
        host, _, port = found["otlp_grpc"].rpartition(":")
        socket.create_connection((host, int(port)), 20).close()

    def post(self, name: str, key: bool) -> int:
        """A batch whose metric is its name; the status, 0 when there was no answer."""
        events = [{"device": f"d{n}", "metric": name, "ts": 1_790_000_000_000 + n, "value": n} for n in range(BATCH)]
        headers = {"Idempotency-Key": name} if key else {}
        try:
            return httpx.post(f"{self.url}/v1/events/telemetry", json=events, headers=headers, timeout=20).status_code
        except httpx.HTTPError:
            return 0

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self._log.read_text()[-2000:]


def lake(environment: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Of each batch, its rows and its different events."""
    sql = "SELECT metric, count(*) AS n, count(DISTINCT value) AS d FROM telemetry GROUP BY metric"
    answer = headwater("lake", "query", sql, "--json", environment=environment)
    assert answer.code == 0, answer
    found = [json.loads(line) for line in answer.out.splitlines()]
    return {row["metric"]: (row["n"], row["d"]) for row in found}


def processed(environment: Mapping[str, str], log: Path, enough: int) -> Services:
    """Run the processor until the lake's shards have so many events, then publish."""
    services = Services(SETTINGS, load(SETTINGS.pipeline))
    process = start(["process"], environment, log)
    reader = threading.Thread(target=lambda: log.with_suffix(".out").write_text(process.stdout.read()))  # type: ignore[union-attr]  # it is a pipe
    reader.start()

    def committed() -> int:
        counts = [entry.counts for entry in services.ledger.shards()]
        return sum(count.get("events", 0) - count.get("duplicates", 0) for count in counts)

    until(lambda: committed() >= enough, 180, lambda: f"{committed()} of {enough} events are committed")
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    reader.join()
    services.publisher("test").drain()
    return services


def test_killed_under_load_and_nothing_acknowledged_is_lost(aws: Mapping[str, str], tmp_path: Path) -> None:
    """kill -9, twice, in mid-load: what had a 2xx is in the lake once; what was retried under its key is, too."""
    world = World(dict(aws) | {"HEADWATER_GATEWAY_OUTBOX": str(tmp_path / "outbox")}, tmp_path / "log")
    acknowledged: set[str] = set()
    unanswered: set[str] = set()
    stop = threading.Event()

    def load_it(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name, key = f"{worker}-{number}", worker % 2 == 0
            while (status := world.post(name, key)) != 202 and key and not stop.is_set():
                time.sleep(0.02)
            (acknowledged if status == 202 else unanswered).add(name)
            if status != 202:
                time.sleep(0.05)

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(load_it, worker) for worker in range(4)]
        for round_ in (1, 2):
            until(lambda: len(acknowledged) >= 40 * round_, 120, lambda: f"{len(acknowledged)} acknowledged")  # noqa: B023 (waited for within the round)
            world.process.kill()
            assert world.process.wait() == -signal.SIGKILL
            world.start()
        time.sleep(0.2)
        stop.set()
        for one in work:
            one.result()
    world.end()
    assert len(acknowledged) >= 80

    services = processed(aws, tmp_path / "processor", len(acknowledged) * BATCH)
    found = lake(aws)
    assert {name: found.get(name) for name in acknowledged} == dict.fromkeys(acknowledged, (BATCH, BATCH))
    for name in found.keys() - acknowledged:
        assert name in unanswered
        assert found[name] == (BATCH, BATCH), "all of a batch or nothing"
    report = run_audit(services.reader)
    assert report.exact, report
    assert report.in_lake == sum(rows for rows, _ in found.values())


def test_retries_are_once_in_the_lake_and_a_trace_comes_out_there(aws: Mapping[str, str], tmp_path: Path) -> None:
    """The same key from two gateways; a traced request in the log line of the commit that has it."""
    worlds = [World(aws, tmp_path / "log") for _ in range(2)]
    assert [world.post("retried", True) for world in (*worlds, *worlds)] == [200] * 4
    traced: Any = httpx.post(
        f"{worlds[0].url}/v1/events/telemetry",
        json={"device": "d", "metric": "traced", "ts": 1_790_000_000_000, "value": 1},
        headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
    )
    assert traced.json() == {"accepted": 1, "rejected": 0, "in": "stream"}
    for world in worlds:
        world.end()
    services = processed(aws, tmp_path / "processor", BATCH + 1)
    assert lake(aws) == {"retried": (BATCH, BATCH), "traced": (1, 1)}
    assert run_audit(services.reader).exact
    lines = [json.loads(line) for line in (tmp_path / "processor.out").read_text().splitlines()]
    (told,) = [line for line in lines if line["message"] == "traced batches committed"]
    assert told["traces"] == [TRACE]
    assert told["files"]


class Receiver(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP, and keeps it by path."""

    got: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append((self.path, gunzip(body) if self.headers.get("content-encoding") == "gzip" else body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


def test_one_trace_from_the_request_to_the_commit(aws: Mapping[str, str], tmp_path: Path) -> None:
    """Gateway and processor export over OTLP: their spans belong to the client's trace, and there are metrics."""
    Receiver.got.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        otlp = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        environment = dict(aws) | otlp
        world = World(environment, tmp_path / "log")
        event = {"device": "d", "metric": "m", "ts": 1_790_000_000_000, "value": 1.0}
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        assert httpx.post(f"{world.url}/v1/events/telemetry", json=event, headers=headers).status_code == 200
        world.end()
        processed(environment, tmp_path / "processor", 1)
        server.shutdown()
    spans: dict[str, set[str]] = {}
    for path, body in Receiver.got:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                (service,) = (
                    one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
                )
                for scope in resource.scope_spans:
                    spans.setdefault(service, set()).update(span.trace_id.hex() for span in scope.spans)
    assert TRACE in spans["headwater-gateway"]
    assert TRACE in spans["headwater-processor"]
    names = {
        metric.name
        for path, body in Receiver.got
        if path == "/v1/metrics"
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert any(name.startswith("headwater") for name in names), names


def test_over_tls(aws: Mapping[str, str], tmp_path: Path) -> None:
    """With a certificate and its key in the settings the gateway speaks HTTPS, and nothing else."""
    certificate, key = self_signed(tmp_path)
    tls = {"HEADWATER_GATEWAY_TLS_CERTIFICATE": str(certificate), "HEADWATER_GATEWAY_TLS_KEY": str(key)}
    world = World(dict(aws) | tls, tmp_path / "log")
    assert world.url.startswith("https://")
    event = {"device": "d", "metric": "m", "ts": 1_790_000_000_000, "value": 1.0}
    trusted = ssl.create_default_context(cafile=str(certificate))
    assert httpx.post(f"{world.url}/v1/events/telemetry", json=event, verify=trusted).status_code == 200
    with pytest.raises(httpx.HTTPError):
        httpx.get(world.url.replace("https", "http") + "/health")
    world.end()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, private
