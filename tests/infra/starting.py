"""What the Dockerfile says of a target, and its command started with what the image and the task give."""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.infra.synthesis import Synthesis

__all__ = [
    "DOCKERFILE",
    "ROOT",
    "command",
    "image_environment",
    "lacking",
    "lineage",
    "running",
    "targets",
    "task_environment",
    "wait_for",
]

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra" / "containers" / "Dockerfile"
HERE = {
    "HEADWATER_PUBLISH_SECONDS": "0.5",
    "HEADWATER_KCL_SHUTDOWN_SECONDS": "5",
    "HEADWATER_GATEWAY_HOST": "127.0.0.1",
    "HEADWATER_GATEWAY_PORT": "0",
    "HEADWATER_SERVE_HOST": "127.0.0.1",
    "HEADWATER_SERVE_PORT": "0",
    "HEADWATER_KCL_HTTP_PORT": "0",
}
"""What a machine that others use too needs otherwise than a task: free ports, none of them open to the network."""


def targets() -> dict[str, list[list[str]]]:
    """The instructions of each stage, in order."""
    found: dict[str, list[list[str]]] = {}
    for line in DOCKERFILE.read_text().replace("\\\n", " ").splitlines():
        words = line.split(None, 1)
        if line.startswith("FROM"):
            stage = found[line.split()[-1]] = [words]
        elif words and found and not line.startswith("#"):
            stage.append(words)
    return found


def lineage(target: str) -> Iterator[list[str]]:
    """The instructions of a stage and of those below it, the base's first."""
    stages = targets()
    if target in stages:
        yield from lineage(stages[target][0][1].split()[0])
        yield from stages[target]


def command(target: str, word: str = "CMD") -> list[str]:
    """What it runs: CMD or ENTRYPOINT, the last that holds."""
    found = [text for name, text in lineage(target) if name == word]
    return [str(part) for part in yaml.safe_load(found[-1])]


def image_environment(target: str) -> dict[str, str]:
    """What ENV sets."""
    texts = [text for name, text in lineage(target) if name == "ENV"]
    return dict(pair.split("=", 1) for text in texts for pair in text.split())


def task_environment(made: Synthesis, service: str) -> dict[str, str]:
    """The template's. `process` has no stack and kcl's settings."""
    return made.environment("kcl" if service == "process" else service) | HERE


@contextmanager
def running(
    arguments: Sequence[str | Path], given: Mapping[str, str], where: Path
) -> "Iterator[subprocess.Popen[bytes]]":
    """In an empty folder, with `given` and nothing else of this process's environment; what it says goes to `log`."""
    with (where / "log").open("wb") as log:
        process = subprocess.Popen(arguments, cwd=where, env=dict(given), stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(process: "subprocess.Popen[bytes]", where: Path, text: str) -> str:
    """What it has said once that matches."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = (where / "log").read_text()
        if re.search(text, said):
            return said
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"{text} not in: {(where / 'log').read_text()[-2000:]}")


def lacking(reason: str) -> None:
    """Skip, saying why; where tests must all run, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
