"""Where nothing answers at a local endpoint, every command says so in the same line, at once."""

import signal
import sys
from collections.abc import Iterator

import pytest

from headwater.commands import main

ENDPOINT = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", ENDPOINT)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    "arguments",
    [
        "process",
        "publish",
        "audit",
        "reference publish sites",
        "shards map",
        "shards heat",
        "autoscale --dry-run",
        "view versions",
        "jobs list",
        "dlq list",
        "lake health",
        "lake query SELECT+1",
        "names list",
        "alerts list",
        "keys list",
    ],
)
def test_a_dead_endpoint_is_told_in_one_way(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the address, the variable that sets it and what may be missing; exit code 1."""
    monkeypatch.setattr(sys, "argv", ["headwater", *(word.replace("+", " ") for word in arguments.split())])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(f"headwater: nothing answers at {ENDPOINT} (AWS_ENDPOINT_URL): ")
    assert told.endswith("is `headwater up` running?\n")
