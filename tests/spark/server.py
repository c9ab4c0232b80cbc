"""Sparks on loopback over a REST catalog, each in an environment of its own below build/spark."""

import base64
import json
import os
import pickle
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["VERSIONS", "Spark", "fetch", "missing", "spark"]

BUILD = Path(__file__).parents[2] / "build" / "spark"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"


@dataclass(frozen=True)
class Version:
    """A release of Spark from PyPI, and Iceberg's runtime for it from Maven Central."""

    pyspark: str
    runtime: str
    iceberg: str

    @property
    def python(self) -> Path:
        return BUILD / f"pyspark-{self.pyspark}" / "bin" / "python"

    @property
    def jars(self) -> list[Path]:
        return [BUILD / f"{name}-{self.iceberg}.jar" for name in (self.runtime, "iceberg-aws-bundle")]


VERSIONS = {
    "3.5-iceberg-1.9": Version("3.5.6", "iceberg-spark-runtime-3.5_2.12", "1.9.2"),
    "3.5-iceberg-1.10": Version("3.5.6", "iceberg-spark-runtime-3.5_2.12", "1.10.1"),
    "4.0-iceberg-1.10": Version("4.0.1", "iceberg-spark-runtime-4.0_2.13", "1.10.1"),
}


class Spark:
    """Statements over the lake's namespace, one after the other."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows; raise ValueError with what Spark says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(sql) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ValueError("Spark has ended")
        found: list[dict[str, Any]] | str = pickle.loads(base64.b64decode(line))
        if isinstance(found, str):
            raise ValueError(found)
        return found


def missing() -> str:
    """Why it cannot run here; empty when it can."""
    lacking = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    return f"Spark needs {' and '.join(lacking)}" if lacking else ""


def fetch() -> None:
    """Get what is not there yet."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for version in VERSIONS.values():
        if not version.python.exists():
            venv.create(version.python.parents[1], with_pip=True)
            command = [str(version.python), "-m", "pip", "install", "--quiet", f"pyspark=={version.pyspark}"]
            subprocess.run(command, check=True)
        for jar in version.jars:
            if not jar.exists():
                artifact = f"org.apache.iceberg:{jar.stem.removesuffix(f'-{version.iceberg}')}:{version.iceberg}"
                subprocess.run(["mvn", "-q", _COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={BUILD}"], check=True)


@contextmanager
def spark(name: str, catalog: str, s3: str, log: Path) -> Iterator[Spark]:
    """A Spark whose catalog `lake` is the REST catalog; ended with the block."""
    version = VERSIONS[name]
    script, jars = Path(__file__).with_name("session.py"), ",".join(map(str, version.jars))
    environment = os.environ | {"TZ": "UTC", "AWS_REGION": "us-east-1", "PYSPARK_PYTHON": str(version.python)}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [str(version.python), str(script), catalog, s3, jars],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    try:
        yield Spark(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":  # before pytest, whose timeout is for a test and not for 1.2 GB
    if not missing():
        fetch()
    sys.exit(missing() or 0)
