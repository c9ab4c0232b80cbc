"""Properties, logs, health and crash loops of a fleet, without Java."""

import io
import json
import socket
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from headwater.clock import ManualClock, SystemClock
from headwater.config import KclSettings, Settings
from headwater.errors import HeadwaterError, UsageError
from headwater.processors.runners.kcl import fleet as kcldaemon
from headwater.processors.runners.kcl.health import serving
from headwater.processors.runners.kcl.logs import from_daemon, from_shard
from headwater.processors.runners.kcl.properties import FleetNames, foreign_endpoint, properties, render
from headwater.processors.runners.kcl.status import INITIALIZED, FleetStatus

SHARD = "shardId-000000000003"


def made(**kcl: Any) -> dict[str, str]:
    settings = Settings(stream="s", kcl=KclSettings(**kcl))
    return properties(settings, FleetNames(settings, "p"), "w", "/run/shard", {"kinesis": "http://127.0.0.1:1"})


def test_defaults() -> None:
    """Polling from the beginning, 2X-compatible, ticks on quiet shards."""
    found = made()
    assert found["applicationName"] == found["tableName"] == "s-p"
    assert found["clientVersionConfig"] == "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X"
    assert found["callProcessRecordsEvenForEmptyRecordList"] == "true"
    assert (found["retrievalMode"], found["initialPositionInStream"]) == ("POLLING", "TRIM_HORIZON")
    assert found["kinesisEndpoint"] == "http://127.0.0.1:1"


def test_settings_become_properties() -> None:
    """Each setting of the issue's point 6."""
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    found = made(
        start="AT_TIMESTAMP",
        start_at=at,
        retrieval="FANOUT",
        consumer="c",
        table="t",
        metrics="DETAILED",
        mode="3X",
        assignment_seconds=2,
        billing="PROVISIONED",
    )
    assert found["initialPositionInStreamExtended"] == str(int(at.timestamp()))
    assert "initialPositionInStream" not in found
    assert (found["retrievalMode"], found["fanoutConfig.consumerName"]) == ("FANOUT", "c")
    assert "maxRecords" not in found
    assert (found["tableName"], found["metricsLevel"]) == ("t", "DETAILED")
    assert found["clientVersionConfig"] == "CLIENT_VERSION_CONFIG_3X"
    assert found["leaseAssignmentIntervalMillis"] == "2000"
    assert found["workerMetricsBillingMode"] == "PROVISIONED"
    with pytest.raises(UsageError, match="HEADWATER_KCL_START_AT"):
        made(start="AT_TIMESTAMP")


def test_properties_text() -> None:
    """Windows paths and accents survive java.util.Properties."""
    assert render({"a": "C:\\x", "b": "é"}) == "a = C:\\\\x\nb = \\u00e9\n"


@pytest.mark.parametrize(
    ("url", "foreign"),
    [
        ("https://kinesis.us-east-1.amazonaws.com", False),
        ("https://dynamodb.cn-north-1.amazonaws.com.cn", False),
        ("http://127.0.0.1:4567", True),
        ("https://kinesis.example.com", True),
    ],
)
def test_endpoints_of_others_are_passed_on(url: str, foreign: bool) -> None:
    """The daemon finds AWS by itself."""
    assert foreign_endpoint(url) is foreign


def test_lines_of_the_daemon() -> None:
    """logback's JSON in our form, the shard taken from the text where it is about one."""
    raw = {
        "timestamp": 1_795_465_353_418,
        "level": "WARN",
        "loggerName": "software.amazon.kinesis.leases.X",
        "message": "lease {} of {}",
        "arguments": [SHARD, "w"],
        "mdc": {},
        "throwable": {"className": "E", "message": "m"},
    }
    line = from_daemon(json.dumps(raw), "w", "t", 0)
    assert line["message"] == f"lease {SHARD} of w"
    assert (line["level"], line["logger"], line["shard"]) == ("warning", "kinesis.leases.X", SHARD)
    assert (line["worker"], line["lease"], line["exception"]) == ("w", f"t/{SHARD}", "E: m")
    several = from_daemon(json.dumps(raw | {"arguments": [SHARD, "shardId-000000000004"]}), "w", "t", 0)
    assert (several["shard"], several["lease"]) == ("", "")
    assert from_daemon("OpenJDK warning", "w", "t", 0)["message"] == "OpenJDK warning"
    assert from_daemon('{"half', "w", "t", 0)["message"] == '{"half'


def test_lines_of_a_shard() -> None:
    """Ours as they are; a native library's wrapped."""
    ours = {"time": "x", "level": "info", "logger": "headwater.kcl", "message": "m", "shard": SHARD, "worker": ""}
    assert from_shard(json.dumps(ours), "w", "t", 0) == ours | {"worker": "w"}
    other = from_shard(f"Segmentation fault {SHARD}", "w", "t", 0)
    assert (other["logger"], other["level"], other["shard"]) == ("stderr", "warning", SHARD)
    assert from_shard("[1, 2]", "w", "t", 0)["message"] == "[1, 2]"


def said(worker: str, epoch: int, state: str = "reading", lag: int | None = 7) -> dict[str, Any]:
    counts = {"events": 5}
    own = {"shard": SHARD, "worker": worker, "epoch": epoch, "level": "info"}
    return own | {"message": "status", "state": state, "lag_ms": lag, "committed": "1", "counts": counts}


def test_health_and_metrics() -> None:
    """Ready once initialized; not live when a shard is silent; the old owner's last words do not count."""
    status = FleetStatus(silent_ms=1000)
    assert not status.ready(0)["ok"]
    status.started("w", 1)
    assert status.live(0)["ok"]
    assert not status.ready(0)["ok"]
    status.heard({"message": INITIALIZED, "worker": "w"}, 0)
    assert status.ready(0)["ok"]
    status.heard(said("w", 1), 0)
    status.heard(said("v", 2, lag=9), 10)
    status.heard(said("w", 1, "lost"), 20)
    text = status.metrics()
    assert f'headwater_shard_millis_behind_latest{{shard="{SHARD}",worker="v"}} 9' in text
    assert f'headwater_shard_count_total{{shard="{SHARD}",worker="v",kind="events"}} 5' in text
    assert status.live(1000)["ok"]
    assert "silent for 2 s" in status.live(2010)["problems"][0]
    status.heard(said("v", 2, "ended"), 20)
    assert status.live(9999)["ok"]
    status.ended("w", restarting=True)
    assert not status.ready(0)["ok"]
    assert 'headwater_kcl_worker_restarts_total{worker="w"} 1' in status.metrics()


def test_http() -> None:
    """200 and 503, on loopback; a port that is taken is one line."""
    status = FleetStatus(1000)
    with serving(status, ManualClock(), "127.0.0.1", 0) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live") as answer:
            assert json.load(answer) == {"ok": True, "problems": []}
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready")
        assert refused.value.code == 503
        with (
            pytest.raises(HeadwaterError, match="HEADWATER_KCL_HTTP_PORT"),
            serving(status, ManualClock(), "127.0.0.1", port),
        ):
            pass


def test_clients_that_stall_or_drip_hold_no_threads() -> None:
    """Beyond 32 connections they are closed at once, and each is left in time, whatever it sends."""
    with serving(FleetStatus(1000), ManualClock(), "127.0.0.1", 0, seconds=0.5) as port:
        held = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(32)]
        with socket.create_connection(("127.0.0.1", port), 10) as one_more:
            assert one_more.recv(1) == b""
        began = time.monotonic()
        with suppress(OSError):  # reset, or a broken pipe
            while time.monotonic() - began < 9:
                held[0].sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - began < 9
        assert all(one.recv(1) == b"" for one in held[1:])
        for one in held:
            one.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=10) as answer:
            assert json.load(answer)["ok"]


def test_no_java() -> None:
    """One line that says what to install."""
    with pytest.raises(HeadwaterError, match="default-jre-headless") as error:
        kcldaemon.find_java("no-such-java")
    assert "\n" not in str(error.value)


class _Client:
    """boto3, as far as the start needs it."""

    class meta:  # noqa: N801 (boto3's name)
        endpoint_url = "http://127.0.0.1:1"
        region_name = "us-east-1"


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A fleet whose daemon is the shell script of the test."""
    monkeypatch.setattr(kcldaemon, "find_java", lambda java: java)
    monkeypatch.setattr(kcldaemon, "ensure_tables", lambda *_: None)
    monkeypatch.setattr(kcldaemon, "seed_leases", lambda *_: 0)
    monkeypatch.setattr(kcldaemon, "_PAUSES", (0.01,))

    def make(script: str, workers: int = 1, **kcl: Any) -> tuple[kcldaemon.KclFleet, io.StringIO]:
        path = tmp_path / "daemon.sh"
        path.write_text(script)
        monkeypatch.setattr(kcldaemon, "daemon_command", lambda *_, **__: ["/bin/sh", str(path)])
        out = io.StringIO()
        settings = Settings(stream="s", kcl=KclSettings(http_port=-1, shutdown_seconds=1, **kcl))
        clients = kcldaemon.FleetClients(_Client(), _Client())
        return kcldaemon.KclFleet("p", settings, clients, SystemClock(), "owner", workers, out), out

    return make


def test_crash_loop_names_the_shard(fleet: Any) -> None:
    """The limit is reached; the reason is the shard's own last word."""
    line = json.dumps(said("w", 1) | {"level": "error", "message": "boom", "logger": "headwater.kcl"})
    run, out = fleet(f"echo '{line}' >&2; exit 1", crashes=3)
    with pytest.raises(HeadwaterError) as error:
        run.run(Event())
    assert str(error.value) == f"shard {SHARD} failed 3 times without a commit in between: boom"
    assert out.getvalue().count("starts again in") == 2
    assert not run.status.live(0)["ok"]


def test_progress_between_crashes_is_no_loop(fleet: Any, tmp_path: Path) -> None:
    """A shard that commits before each crash goes on for ever."""
    moving = json.dumps(said("w", 1) | {"logger": "headwater.kcl.status", "committed": "@@"})
    error = json.dumps(said("w", 1) | {"level": "error", "message": "boom", "logger": "headwater.kcl"})
    script = f"echo x >> {tmp_path}/runs\n" + f"echo '{moving}' | sed s/@@/$$/ >&2; echo '{error}' >&2; exit 1"
    run, _ = fleet(script, crashes=2)
    runs = tmp_path / "runs"

    class Stopping(Event):
        def wait(self, timeout: float | None = None) -> bool:
            if runs.exists() and len(runs.read_text().splitlines()) >= 5:
                self.set()
            return super().wait(timeout)

    run.run(Stopping())
    assert len(runs.read_text().splitlines()) >= 5


def test_stop_is_graceful_then_forced(fleet: Any, tmp_path: Path) -> None:
    """SIGTERM first, to every worker; what ignores it is killed."""
    ready = tmp_path / "ready"
    script = f"trap 'echo got >> {tmp_path}/term; exit 0' TERM\necho x >> {ready}\nwhile true; do sleep 0.05; done"
    run, out = fleet(script, workers=2)

    class AfterStart(Event):
        def wait(self, timeout: float | None = None) -> bool:
            if ready.exists() and len(ready.read_text().splitlines()) == 2:
                self.set()
            return super().wait(timeout)

    run.run(AfterStart())
    assert (tmp_path / "term").read_text() == "got\ngot\n"
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert sum(line["message"] == "worker ended" for line in lines) == 2
    assert all({"shard", "worker", "lease"} <= line.keys() for line in lines)
