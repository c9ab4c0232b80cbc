"""The servers of the KCL's tests: kinesis-local (npm) for the stream, DynamoDB Local (Maven Central) for ledger, views
and leases, moto for S3 and Glue. All on loopback, on free ports, each checked to be our own child."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from headwater.commands.local.embedded import EmbeddedAws, owns_listener

__all__ = [
    "KclServers",
    "dynamodb_local",
    "jars",
    "kinesis_local",
    "kinesis_local_ports",
    "missing",
    "rest_catalog",
    "servers",
    "servers_for_tests",
]

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
KINESIS = HERE / "kinesis-local"
DYNAMODB = HERE / "dynamodb-local"
CATALOG = HERE / "rest-catalog"
_ATTEMPTS = 3

_BIND = """
const net = require('net'), listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...a) {
  if (a[0] && typeof a[0] === 'object' && a[0].port !== undefined) a[0] = { ...a[0], host: '127.0.0.1' };
  else if (/^\\d+$/.test(String(a[0]))) a.splice(1, typeof a[1] === 'string' ? 1 : 0, '127.0.0.1');
  return listen.apply(this, a);
};
"""


@dataclass(frozen=True)
class KclServers:
    """Where they are."""

    kinesis: str
    dynamodb: str
    aws: str

    @property
    def environment(self) -> Mapping[str, str]:
        """For boto3 and for the daemon's Java SDK."""
        return {
            "AWS_ENDPOINT_URL": self.aws,
            "AWS_ENDPOINT_URL_KINESIS": self.kinesis,
            "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def missing() -> str:
    """Why the tests cannot run here; empty when they can."""
    lacking = [tool for tool in ("java", "node", "npm", "mvn") if shutil.which(tool) is None]
    if find_spec("amazon_kclpy") is None:
        lacking.append("amazon_kclpy (pip install 'headwater[kcl]')")
    return f"the KCL's tests need {', '.join(lacking)}" if lacking else ""


@contextmanager
def servers_for_tests() -> Iterator[KclServers]:
    """All three, and this process's AWS settings theirs. Where they cannot run the test is skipped, or fails in CI."""
    reason = missing()
    if reason:
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with servers() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield found


@contextmanager
def servers() -> Iterator[KclServers]:
    """All three, ended with the block."""
    with ExitStack() as stack:
        dynamodb = stack.enter_context(dynamodb_local())
        kinesis = stack.enter_context(kinesis_local())
        aws = stack.enter_context(EmbeddedAws())
        yield KclServers(kinesis, dynamodb, aws.endpoint)


@contextmanager
def kinesis_local() -> Iterator[str]:
    with kinesis_local_ports() as (plain, _):
        yield f"http://127.0.0.1:{plain}"


@contextmanager
def kinesis_local_ports() -> Iterator[tuple[int, int]]:
    """Yield its port, and the one where it speaks TLS with a certificate of its own."""
    with _prepared("kinesis-local") as todo:
        if todo:
            _run(["npm", "ci", "--prefix", str(KINESIS), "--no-audit", "--no-fund"])
            (BUILD / "loopback.js").write_text(_BIND)

    def start(plain: int, tls: int) -> subprocess.Popen[bytes]:
        ports = {"KINESIS_MOCK_PLAIN_PORT": str(plain), "KINESIS_MOCK_TLS_PORT": str(tls)}
        environment = os.environ | ports | {"LOG_LEVEL": "WARN", "SHARD_LIMIT": "200"}
        # it finds its certificate in its own folder only
        folder = KINESIS / "node_modules" / "kinesis-local"
        return _started(["node", "-r", str(BUILD / "loopback.js"), "main.js"], folder, environment, plain)

    with _listening(start) as ports:
        yield ports


@contextmanager
def dynamodb_local() -> Iterator[str]:
    libraries = jars("dynamodb-local")

    def start(port: int, _: int) -> subprocess.Popen[bytes]:
        # IPv4, or the socket is listed where its owner is not looked for
        command = ["java", "-Djava.net.preferIPv4Stack=true", "-Xmx512m", "-XX:+UseSerialGC"]
        command += [f"-Dsqlite4java.library.path={libraries}", "-cp", f"{libraries}/*"]
        command += [str(DYNAMODB / "Loopback.java"), "-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port)]
        return _started(command, BUILD, dict(os.environ), port)

    with _listening(start) as (port, _):
        yield f"http://127.0.0.1:{port}"


def jars(name: str) -> Path:
    """Return the folder with what the pom.xml in tests/NAME asks for, fetched from Maven Central once."""
    found = BUILD / name
    with _prepared(name) as todo:
        if todo:
            options = ["-DincludeScope=runtime", f"-DoutputDirectory={found}"]
            _run(["mvn", "-q", "-B", "-f", str(HERE / name / "pom.xml"), "dependency:copy-dependencies", *options])
    return found


@contextmanager
def rest_catalog(database: Path, s3: str) -> Iterator[str]:
    """Iceberg's own REST catalog, which keeps what it has in the file `database`."""
    libraries = jars("rest-catalog")

    def start(port: int, _: int) -> subprocess.Popen[bytes]:
        command = ["java", "-Djava.net.preferIPv4Stack=true", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{libraries}/*"]
        command += [str(CATALOG / "Loopback.java"), str(port), str(database), s3]
        return _started(command, BUILD, dict(os.environ), port)

    with _listening(start) as (port, _):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _prepared(name: str) -> Iterator[bool]:
    """Whether it is still to be fetched: by one process at a time, and again when that was not finished."""
    BUILD.mkdir(exist_ok=True)
    done = BUILD / f"{name}.fetched"
    with (BUILD / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not done.exists()
        done.touch()


@contextmanager
def _listening(start: Callable[[int, int], subprocess.Popen[bytes]]) -> Iterator[tuple[int, int]]:
    """The ports of a server, once this very process listens on the first: another, where one was taken meanwhile."""
    for attempt in range(_ATTEMPTS):
        port, other = _free_ports()
        process = start(port, other)
        try:
            if not _listens(process, port):
                if attempt < _ATTEMPTS - 1:
                    continue
                raise RuntimeError(f"{process.args!r} does not start: {_log(port).read_text()[-2000:]}")
            yield port, other
            return
        finally:
            process.terminate()
            try:
                process.wait(3)  # in memory: there is nothing to save
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _log(port).unlink(missing_ok=True)


def _started(command: list[str], folder: Path, environment: Mapping[str, str], port: int) -> subprocess.Popen[bytes]:
    with _log(port).open("wb") as out:
        return subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _log(port: int) -> Path:
    return BUILD / f"server-{port}.log"


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Waits for it, 60 s at most."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if owns_listener(process.pid, port):
            return True
        time.sleep(0.05)
    return False


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


if __name__ == "__main__":
    with servers() as found:
        for name, value in found.environment.items():
            sys.stdout.write(f"export {name}={value}\n")
        sys.stdout.flush()
        sys.stdin.read()
