"""The examples in docs/gateway.md, run as they stand."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from headwater.contract import load_contract
from tests.gateway import TELEMETRY, Served, served

METRICS = load_contract("otel_metrics")
TEXT = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
BLOCKS: dict[str, list[str]] = {}
for language, block in re.findall(r"(?ms)^```(\w+)\n(.*?)^```", TEXT):
    BLOCKS.setdefault(language, []).append(block)


@pytest.fixture
def gateway() -> Iterator[Served]:
    with served(contracts=(TELEMETRY, METRICS)) as found:
        yield found


def _missing(program: str) -> NoReturn:
    reason = f"{program} is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(program: str, *arguments: str, gateway: Served) -> str:
    found = shutil.which(program)
    if found is None:
        _missing(program)
    url = str(gateway.client.base_url).rstrip("/")
    environment = dict(os.environ) | {"GATEWAY": url, "KEY": "none", "PYTHON": sys.executable}
    done = subprocess.run([found, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    return done.stdout


def test_curl(gateway: Served) -> None:
    if shutil.which("curl") is None:
        _missing("curl")
    for _ in range(2):
        out = run("bash", "-c", BLOCKS["bash"][0], gateway=gateway)
        assert '"accepted":2,"rejected":0' in out
    identities = gateway.stream.identities(TELEMETRY)
    assert (len(identities), len(set(identities))) == (4, 2)
    assert gateway.values()[:2] == [81.5, 40.0]


def test_javascript(gateway: Served, tmp_path: Path) -> None:
    script = tmp_path / "example.mjs"
    script.write_text(BLOCKS["javascript"][0])
    assert run("node", str(script), gateway=gateway) == "100 accepted\n"
    assert gateway.values() == [float(n) for n in range(100)]


def test_opentelemetry(gateway: Served, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(BLOCKS["python"][0])
    run("bash", "-c", BLOCKS["bash"][1] + f'\n"$PYTHON" {script}', gateway=gateway)
    (batch,) = gateway.stream.decoded(METRICS)
    (row,) = batch.table.to_pylist()
    assert (row["service"], row["metric"], row["value_long"]) == ("shop", "orders", 3)
    assert row["attributes"] == '{"kind":"web"}'
