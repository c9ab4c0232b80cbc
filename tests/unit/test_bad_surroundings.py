"""What surrounds a command may be wrong: endpoints, ports, closed streams, encodings. One line each, no traceback."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from headwater.aws import client
from headwater.commands.output import print_json
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.web.http_server import bound_socket
from tests.called import called

ENTRY = "from headwater.commands import main; main()"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A pipeline over the fleet's events, and what is wrong with others."""
    head = "from headwater import Pipeline, Reference, count\nmade = Pipeline('p', contract='telemetry')\n"
    lacking = "Reference('devices', 'nowhere.csv', key='device', columns={'site': 'string'})"
    (tmp_path / "no_lake.py").write_text(f"{head}pipeline = made.view('v', by=['device'], n=count())\n")
    (tmp_path / "no_table.py").write_text(f"{head}pipeline = made.enrich({lacking}, on='device').lake('p')\n")
    (tmp_path / "good.py").write_text(f"{head}pipeline = made.lake('p')\n")
    fields = "fields:\n  - {name: k, type: string}\n  - {name: t, type: timestamp}\n"
    (tmp_path / "own.yaml").write_text(f"name: own\nversion: 1\nkey: k\ntime: t\n{fields}")
    own = str(tmp_path / "own.yaml")
    (tmp_path / "own.py").write_text(f"from headwater import Pipeline\npipeline = Pipeline('p', {own!r}).lake('p')\n")
    return tmp_path


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with bound_socket("127.0.0.1", 0) as (listener, _):
        listener.listen()
        yield listener.getsockname()[1]


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    | st.from_regex(r"[a-z]*:?/*\[?[a-z0-9.:]*\]?", fullmatch=True)
)
@example("nonsense")
@example("http://localhost:99999")
@example("http://localhost:abc")
@example("http://[::1")
@example("ftp://localhost")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
def test_an_endpoint_is_a_url_or_refused(url: str) -> None:
    """Whatever AWS_ENDPOINT_URL says."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1"}).items():
            patch.setenv(name, value)
        try:
            made = client("kinesis", Settings())
        except UsageError as error:
            line = str(error)
        else:
            line = "AWS_ENDPOINT_URL" if made.meta.endpoint_url.startswith("http") else ""
    assert "AWS_ENDPOINT_URL" in line


def test_a_command_names_the_endpoint() -> None:
    """With the exit code of wrong usage."""
    environment = CREDENTIALS | {"AWS_ENDPOINT_URL": "http://localhost:99999"}
    called("view", "list", "x", environment=environment).failed(2, "AWS_ENDPOINT_URL", "Port out of range")


@pytest.mark.parametrize("name", ["SERVE", "GATEWAY"])
def test_a_port_that_was_asked_for_and_is_taken_names_its_variable(name: str, taken: int, project: Path) -> None:
    """Before an AWS is built."""
    wanted = {f"HEADWATER_{name}_PORT": str(taken), "HEADWATER_PIPELINE": str(project / "good.py")}
    ran = called("up", environment=wanted)
    ran.failed(2, f"port {taken} of 127.0.0.1", "in use", f"HEADWATER_{name}_PORT")


def test_a_port_that_nobody_asked_for_gives_way_to_a_free_one(taken: int) -> None:
    """And a host that is none is refused."""
    with bound_socket("127.0.0.1", taken, "X", or_free=True) as (listener, authority):
        assert authority == f"127.0.0.1:{listener.getsockname()[1]}"
        assert listener.getsockname()[1] != taken
    for host in ("a..b", "203.0.113.1"):
        with pytest.raises(UsageError, match="X asks for another"), bound_socket(host, 0, "X", or_free=True):
            pass


@pytest.mark.parametrize("command", ["up", "demo"])
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("absent.py", ["no pipeline file"]),
        ("no_lake.py", ["add .lake("]),
        ("no_table.py", ["reference table devices", "nowhere.csv"]),
    ],
)
def test_a_pipeline_that_cannot_run_is_refused_first(command: str, file: str, words: list[str], project: Path) -> None:
    """Before an AWS is built: nothing else is on stderr."""
    called(command, environment={"HEADWATER_PIPELINE": str(project / file)}).failed(2, *words)


def test_the_demo_is_of_the_fleet_alone(project: Path) -> None:
    """A pipeline over other events has nothing to read in it."""
    ran = called("demo", environment={"HEADWATER_PIPELINE": str(project / "own.py")})
    ran.failed(2, "simulated fleet", "headwater up")


def run(redirections: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a shell that closes or turns its streams."""
    line = f'exec "{sys.executable}" -c "{ENTRY}" {" ".join(arguments)} {redirections}'
    return subprocess.run(
        ["bash", "-c", line],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )


def test_closed_streams_are_as_if_nobody_listened() -> None:
    """A service may be started without any."""
    done = run(">&- 2>&- <&-", "contract", "show", "telemetry")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_said(unbuffered: str) -> None:
    """In one line, whether it fails as it is written or as the command ends."""
    done = run(">/dev/full", "contract", "show", "telemetry", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "No space left" in done.stderr


def test_what_the_terminal_cannot_show_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In JSON as JSON has it, so that nothing is lost."""
    file = tmp_path / "c.yaml"
    fields = '  - {name: k, type: string, doc: "aé…"}\n  - {name: t, type: timestamp}\n'
    file.write_text(f"name: a\nversion: 1\nkey: k\ntime: t\nfields:\n{fields}")
    done = run("", "contract", "show", str(file), PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "a\\u2026" in done.stdout.replace("\N{REPLACEMENT CHARACTER}", "").replace("\xe9", "")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
    print_json({"doc": "aé…"})
    assert json.loads(written.getvalue()) == {"doc": "aé…"}
