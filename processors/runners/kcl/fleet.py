"""Supervise the MultiLangDaemons on this machine: start them, merge their logs, restart those that end, stop all.

A daemon ends as soon as one process of its shards fails (MultiLangShardRecordProcessor.exit): its other shards are
committed and given up on the way, and other workers take the leases. It is started again after a pause. A shard, or
a daemon, that fails again and again with no commit in between is a crash loop; `KclFleet.run` then stops everything and
says which.
"""

import ctypes
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Lock, Thread
from typing import IO, Any, TextIO

from headwater.clock import Clock
from headwater.config import Settings, environment
from headwater.errors import HeadwaterError
from headwater.processors.runners.kcl.health import serving
from headwater.processors.runners.kcl.logs import from_daemon, from_shard
from headwater.processors.runners.kcl.properties import LOGBACK, FleetNames, foreign_endpoint, properties, render
from headwater.processors.runners.kcl.status import FleetStatus
from headwater.processors.runners.kcl.tables import ensure_tables, seed_leases

__all__ = ["FleetClients", "KclFleet", "daemon_command", "find_java"]

log = logging.getLogger("headwater.fleet")

MAIN = "software.amazon.kinesis.multilang.MultiLangDaemon"
NO_JAVA = (
    "no Java runtime: the KCL needs java (8 or later) on PATH; install one (Debian: apt install "
    "default-jre-headless), or name it in HEADWATER_KCL_JAVA"
)
NO_KCLPY = "amazon_kclpy is not installed: pip install 'headwater[kcl]'"
_PR_SET_PDEATHSIG = 1
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


def find_java(java: str) -> str:
    """Return the path of a java that runs. Raises HeadwaterError, with what to install, when there is none."""
    found = shutil.which(java)
    if found is None:
        raise HeadwaterError(NO_JAVA)
    # macOS has a java that only tells where to download one
    if subprocess.run([found, "-version"], capture_output=True, check=False).returncode:
        raise HeadwaterError(NO_JAVA)
    return found


def daemon_command(java: str, options: str, folder: Path, *, plain_json: bool) -> list[str]:
    """Return the command of a daemon over the jars that amazon_kclpy ships; `plain_json` for emulators without CBOR."""
    spec = find_spec("amazon_kclpy")
    if spec is None or spec.origin is None:
        raise HeadwaterError(NO_KCLPY)
    jars = Path(spec.origin).parent / "jars"
    return [
        java,
        *shlex.split(options),
        *(["-Daws.cborEnabled=false"] if plain_json else []),
        "-cp",
        f"{jars}/*",
        MAIN,
        "--log-configuration",
        str(folder / "logback.xml"),
        "--properties-file",
        str(folder / "daemon.properties"),
    ]


def _die_with(parent: int) -> Callable[[], None] | None:
    """Return what a daemon's process runs first, so that it is killed when its supervisor is; None but on Linux.

    The processes of its shards then find their input closed, and end. Elsewhere a daemon outlives its supervisor.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return ask


@dataclass
class _Daemon:
    """Hold one worker of the KCL: a Java process, and below it a Python process for each shard."""

    worker: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    readers: list[Thread] = field(default_factory=list)
    failures: int = 0
    start_ms: int = 0
    next_start_ms: int = 0
    failed_shard: str = ""
    last_error: str = ""
    failing: bool = False
    """It has logged that it ends: System.exit, and with it a graceful stop of the other shards, is under way."""

    def blame(self, line: Mapping[str, Any]) -> None:
        """Remember why it may end soon. A shard's own word counts most, then the daemon's about the shard's process."""
        shard = str(line.get("shard", ""))
        self.failing |= str(line["message"]).startswith("Encountered an error while trying to")
        if "epoch" in line or (shard and not self.failed_shard and "multilang" in str(line["logger"])):
            self.failed_shard, self.last_error = shard, str(line["message"])
        elif not self.failed_shard:
            self.last_error = str(line.get("exception") or line["message"])


@dataclass(frozen=True)
class FleetClients:
    """Hold the boto3 clients that a fleet starts with: to seed the leases, and to tell the daemon the endpoints."""

    kinesis: Any
    dynamodb: Any


class KclFleet:
    """Run KCL workers on this machine until stopped; then every shard is committed and the leases are given up."""

    def __init__(
        self,
        pipeline: str,
        settings: Settings,
        clients: FleetClients,
        clock: Clock,
        owner: str,
        workers: int = 1,
        out: TextIO | None = None,
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._clock = clock
        self._kcl = settings.kcl
        self.names = FleetNames(settings, pipeline)
        self._owner = owner
        self._workers = workers
        self._out = out or sys.stdout
        self._lock = Lock()
        self._daemons: list[_Daemon] = []
        self._loops: dict[str, tuple[str, int]] = {}
        self.status = FleetStatus(round(self._kcl.silent_seconds * 1000))
        self.port = -1

    def run(self, stop: Event) -> None:
        """Supervise the workers until `stop` is set.

        Raises HeadwaterError, with one line, for a crash loop, after the other shards were stopped gracefully.
        """
        java = find_java(self._kcl.java)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headwater-kcl-")))
            self._prepare(java, folder)
            if self._kcl.http_port >= 0:
                served = serving(self.status, self._clock, self._kcl.http_host, self._kcl.http_port)
                self.port = stack.enter_context(served)
                self._emit({"message": f"health and metrics on {self._kcl.http_host}:{self.port}"})
            stack.callback(self._end)
            for daemon in self._daemons:
                self._start(daemon)
            while not stop.wait(0.2):
                self._look_after()

    def _prepare(self, java: str, folder: Path) -> None:
        """Make the KCL's tables, and for each worker a folder with its properties and the program that a shard runs."""
        kinesis, dynamodb = self._clients.kinesis, self._clients.dynamodb
        urls = {"kinesis": kinesis.meta.endpoint_url, "dynamodb": dynamodb.meta.endpoint_url}
        endpoints = {service: url for service, url in urls.items() if foreign_endpoint(url)}
        region = {"region": kinesis.meta.region_name}
        ensure_tables(dynamodb, self.names, self._kcl)
        if self._kcl.start == "TRIM_HORIZON":
            seed_leases(kinesis, dynamodb, self._settings.stream, self.names.table)
        for number in range(self._workers):
            worker = self._kcl.worker or self._owner
            worker = f"{worker}-{number}" if self._workers > 1 else worker
            own = folder / str(number)
            own.mkdir()
            program = own / "shard"
            program.write_text(
                f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m headwater.processors.runners.kcl.processor\n"
            )
            program.chmod(0o700)
            values = properties(self._settings, self.names, worker, str(program), endpoints | region)
            (own / "daemon.properties").write_text(render(values))
            (own / "logback.xml").write_text(LOGBACK)
            command = daemon_command(java, self._kcl.java_options, own, plain_json="kinesis" in endpoints)
            self._daemons.append(_Daemon(worker, command))

    def _start(self, daemon: _Daemon) -> None:
        daemon.start_ms, daemon.failed_shard, daemon.last_error = self._clock.now_ms(), "", ""
        daemon.failing = False
        daemon.process = subprocess.Popen(
            daemon.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment({"HEADWATER_KCL_WORKER": daemon.worker}),
            # a session of its own: Ctrl-C reaches us alone, and a stop is graceful
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )
        assert daemon.process.stdout is not None
        assert daemon.process.stderr is not None
        self.status.started(daemon.worker, daemon.process.pid)
        daemon.readers = [
            Thread(target=self._read, args=(daemon, stream, convert), daemon=True)
            for stream, convert in ((daemon.process.stdout, from_daemon), (daemon.process.stderr, from_shard))
        ]
        for reader in daemon.readers:
            reader.start()
        self._emit({"message": "worker started", "worker": daemon.worker, "pid": daemon.process.pid})

    def _read(self, daemon: _Daemon, stream: IO[bytes], convert: Callable[..., dict[str, Any]]) -> None:
        for raw in stream:
            text = raw.decode(errors="replace").rstrip()
            if not text:
                continue
            now = self._clock.now_ms()
            line = convert(text, daemon.worker, self.names.table, now)
            if line["level"] == "error":
                daemon.blame(line)
            self.status.heard(line, now)
            self._write(line)

    def _look_after(self) -> None:
        now = self._clock.now_ms()
        for daemon in self._daemons:
            if daemon.process is None:
                if now >= daemon.next_start_ms:
                    self._start(daemon)
            elif daemon.process.poll() is not None:
                self._ended(daemon, daemon.process.returncode, now)
            elif daemon.failing and daemon.failed_shard and self.status.reading(daemon.worker) <= {daemon.failed_shard}:
                # The rest is committed and given up. Its stop would go on to its time limit: it waits for the failed
                # shard's thread, which waits in System.exit for the stop.
                self._ended(daemon, 1, now)

    def _ended(self, daemon: _Daemon, code: int, now: int) -> None:
        """Kill what is left of a daemon and plan its next start. Raises HeadwaterError for a crash loop."""
        self._kill(daemon)
        what, failures = self._count(daemon)
        self.status.ended(daemon.worker, restarting=failures < self._kcl.crashes)
        reason = daemon.last_error or f"exit status {code}"
        if failures >= self._kcl.crashes:
            self.status.failed = f"{what} failed {failures} times without a commit in between: {reason}"
            raise HeadwaterError(self.status.failed)
        pause = _PAUSES[min(failures, len(_PAUSES)) - 1]
        daemon.next_start_ms = now + round(pause * 1000)
        self._emit(
            {"level": "error", "message": f"worker ended, starts again in {pause:.0f} s", "worker": daemon.worker}
            | {"shard": daemon.failed_shard, "status": code, "reason": reason, "failures": failures}
        )

    def _count(self, daemon: _Daemon) -> tuple[str, int]:
        """Return who failed and how often at the same place: the shard, or the daemon when no shard is to blame."""
        if daemon.failed_shard:
            committed = {shard.shard_id: shard.committed for shard in self.status.shards()}
            what, place = f"shard {daemon.failed_shard}", committed.get(daemon.failed_shard, "")
        else:
            alive = self._clock.now_ms() - daemon.start_ms > 10 * 60_000
            what, place = f"worker {daemon.worker}", str(daemon.start_ms if alive else "")
        last, failures = self._loops.get(what, (place, 0))
        failures = failures + 1 if place == last else 1
        self._loops[what] = (place, failures)
        return what, failures

    def _end(self) -> None:
        """Send SIGTERM to every daemon, which brings shutdown_requested to its shards; kill what is left in the end."""
        running = [daemon for daemon in self._daemons if daemon.process is not None]
        for daemon in running:
            assert daemon.process is not None
            daemon.process.terminate()
        deadline = self._clock.now_ms() + round(1000 * self._kcl.shutdown_seconds) + 5000
        for daemon in running:
            assert daemon.process is not None
            try:
                daemon.process.wait(max(0.1, (deadline - self._clock.now_ms()) / 1000))
                self._emit({"message": "worker ended", "worker": daemon.worker})
            except subprocess.TimeoutExpired:
                self._emit({"level": "error", "message": "worker did not end in time", "worker": daemon.worker})
            self._kill(daemon)
            self.status.ended(daemon.worker, restarting=False)

    def _kill(self, daemon: _Daemon) -> None:
        """Kill the daemon's whole session, so that no process of a shard is left, and read its last lines."""
        assert daemon.process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait()
        for reader in daemon.readers:
            reader.join(timeout=5)
        daemon.process = None

    def _emit(self, fields: Mapping[str, Any]) -> None:
        worker = str(fields.get("worker", ""))
        line = from_daemon("", worker, self.names.table, self._clock.now_ms()) | {"logger": "headwater.fleet"}
        self._write(line | dict(fields))

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(line, default=str) + "\n")
            self._out.flush()
