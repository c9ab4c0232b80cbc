"""A Trino on loopback over the lake of the embedded AWS, and a client of its REST interface."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Answer", "Trino", "missing", "trino"]

VERSION = "476"
BUILD = Path(__file__).parents[2] / "build" / "trino"
_JVM = """-Xmx2G
-XX:+UseG1GC
-Djdk.attach.allowAttachSelf=true
-XX:+EnableDynamicAgentLoading
--add-modules=jdk.incubator.vector
"""
_CONFIG = """coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port={port}
node.internal-address=127.0.0.1
discovery.uri=http://127.0.0.1:{port}
query.max-memory=1GB
query.max-memory-per-node=1GB
memory.heap-headroom-per-node=512MB
"""
_CATALOG = """connector.name=iceberg
iceberg.catalog.type=glue
hive.metastore.glue.region=us-east-1
hive.metastore.glue.endpoint-url={aws}
hive.metastore.glue.aws-access-key=x
hive.metastore.glue.aws-secret-key=x
fs.native-s3.enabled=true
s3.endpoint={aws}
s3.region=us-east-1
s3.path-style-access=true
s3.aws-access-key=x
s3.aws-secret-key=x
iceberg.expire-snapshots.min-retention=0s
"""


@dataclass(frozen=True)
class Answer:
    """Rows, and how many rows the scans read for them."""

    columns: list[str]
    types: list[dict[str, Any]]
    rows: list[list[Any]]
    read: int


class Trino:
    """Statements over one database of the lake."""

    def __init__(self, port: int, database: str) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._headers = {
            "X-Trino-User": "test",
            "X-Trino-Catalog": "lake",
            "X-Trino-Schema": database,
            "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME",  # else times are rounded to milliseconds
        }

    def starting(self) -> bool:
        return bool(self._json(urllib.request.Request(f"{self._url}/v1/info"))["starting"])

    def run(self, sql: str, *values: str) -> Answer:
        """The values are SQL literals for the statement's parameters."""
        if values:
            escaped = sql.replace("'", "''")
            sql = f"EXECUTE IMMEDIATE '{escaped}' USING {', '.join(values)}"
        page = self._json(urllib.request.Request(f"{self._url}/v1/statement", sql.encode(), self._headers))
        columns: list[dict[str, Any]] = []
        rows: list[list[Any]] = []
        while True:
            if "error" in page:
                raise ValueError(page["error"]["message"])
            columns = page.get("columns") or columns
            rows += page.get("data", [])
            if "nextUri" not in page:
                names, types = ([one[key] for one in columns] for key in ("name", "typeSignature"))
                return Answer(names, types, rows, page["stats"]["processedRows"])
            page = self._json(urllib.request.Request(page["nextUri"], headers=self._headers))

    def _json(self, request: urllib.request.Request) -> dict[str, Any]:
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def missing() -> str:
    """Why it cannot run here; empty when it can."""
    if shutil.which("mvn") is None:
        return "Trino is fetched by Maven: mvn is not on PATH"
    return "" if _java() else "Trino needs a JDK 24 or newer: set JAVA_HOME to one"


def _java() -> str | None:
    places = [os.environ.get("JAVA_HOME", ""), *map(str, sorted(Path("/usr/lib/jvm").glob("*-2[4-9]-*")))]
    for place in filter(None, places):
        release = Path(place, "release")
        if release.exists() and any(f'JAVA_VERSION="{n}' in release.read_text() for n in range(24, 30)):
            return place
    return None


def program() -> Path:
    """Trino's directory, from Maven Central the first time (821 MB)."""
    made = BUILD / f"trino-server-{VERSION}"
    if not made.is_dir():
        BUILD.mkdir(parents=True, exist_ok=True)
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
        artifact = f"io.trino:trino-server:{VERSION}:tar.gz"
        subprocess.run(["mvn", "-q", plugin, f"-Dartifact={artifact}", f"-DoutputDirectory={BUILD}"], check=True)
        archive = BUILD / f"trino-server-{VERSION}.tar.gz"
        with tarfile.open(archive) as packed:
            packed.extractall(BUILD / "unpacked", filter="data")
        (BUILD / "unpacked" / made.name).rename(made)
        archive.unlink()
    return made


@contextmanager
def trino(aws: str, database: str, folder: Path) -> Iterator[Trino]:
    """Ended with the block, with all its processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    etc = folder / "etc"
    (etc / "catalog").mkdir(parents=True)
    data = folder / "data"
    node = f"node.environment=test\nnode.id=n1\nnode.data-dir={data}\nnode.bind-ip=127.0.0.1\n"
    (etc / "node.properties").write_text(node)
    (etc / "config.properties").write_text(_CONFIG.format(port=port))
    (etc / "jvm.config").write_text(_JVM)
    (etc / "catalog" / "lake.properties").write_text(_CATALOG.format(aws=aws))
    launcher = program() / "bin" / "launcher"
    java = _java() or ""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(launcher), "run", f"--etc-dir={etc}"],
            env=os.environ | {"JAVA_HOME": java, "PATH": f"{java}/bin:{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        server = Trino(port, database)
        _wait(server, process, folder / "log")
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(server: Trino, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if not server.starting():
                server.run("SELECT 1")
                return
        except (OSError, ValueError):
            pass  # not yet, or it has not found its own node yet
        time.sleep(0.5)
    raise RuntimeError(f"Trino did not start: {log.read_text()[-2000:]}")


if __name__ == "__main__":  # before pytest, whose timeout is for a test and not for 821 MB
    sys.exit(missing() or (0 if program() else 1))
