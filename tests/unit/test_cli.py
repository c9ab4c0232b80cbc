"""Commands that need no AWS, and every kind of bad input: one line, the right exit code, no traceback."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st

from headwater import commands as cli
from headwater.commands.failures import explain
from headwater.sinks.views.items import key_parts, key_text
from tests.cli import headwater

CLOSED = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], ["nope"]),
        (["contract", "show"], ["contract show", "file"]),
        (["contract", "show", "telemetry", "--bogus"], ["--bogus"]),
        (["contract", "show", "no/such.yaml"], ["no/such.yaml", "no such contract file"]),
        (["contract", "check", "telemetry", "absent.yaml"], ["absent.yaml"]),
        (["demo", "--events", "0"], ["--events"]),
        (["view", "get", "nope", "x"], []),
        (["lake", "query", "SELECT 1", "--json", "--csv"], ["--json", "--csv"]),
        (["dlq", "redrive"], ["--all", "--id"]),
        (["produce", "x.csv", "--contract", "absent.yaml"], ["absent.yaml"]),
        (["produce", "x.csv", "--format", "xml"], ["--format", "xml"]),
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments: list[str], words: list[str]) -> None:
    """A mistake in the command line says what is wrong."""
    environment = {} if arguments[0] != "view" else {"HEADWATER_PIPELINE": "no_such_module:pipeline"}
    headwater(*arguments, environment=environment).failed(2, *words)


def test_a_broken_contract_names_file_and_line(tmp_path: Path) -> None:
    """What and where: the line in the YAML file."""
    file = tmp_path / "broken.yaml"
    file.write_text("name: a\nversion: 1\nkey: k\ntime: t\nfields:\n  - {name: k, type: strnig}\n")
    headwater("contract", "show", str(file)).failed(2, f"{file}:6", "strnig")


def test_a_setting_that_cannot_be_names_its_variable() -> None:
    """A wrong environment variable is named."""
    environment = {"HEADWATER_COMMIT_SECONDS": "soon"}
    headwater("lake", "query", "SELECT 1", environment=environment).failed(2, "HEADWATER_COMMIT_SECONDS", "soon")


@pytest.mark.parametrize("arguments", [["lake", "query", "SELECT 1"], ["view", "list", "device_10m"], ["dlq", "list"]])
def test_an_endpoint_that_is_shut_is_said_at_once(arguments: list[str]) -> None:
    """Before the first call: botocore's retries would say it otherwise."""
    headwater(*arguments, environment=CLOSED).failed(1, "nothing answers at http://127.0.0.1:1")


def test_an_endpoint_that_is_shut_ends_a_service_too() -> None:
    """`process` goes through botocore's retries, and they end."""
    ran = headwater("process", environment=CLOSED)
    ran.failed(1, "http://127.0.0.1:1")


@pytest.mark.parametrize("arguments", [["dlq", "list"], ["view", "list", "device_10m"], ["audit"]])
def test_missing_credentials_are_said(arguments: list[str]) -> None:
    """No network is needed to find out."""
    headwater(*arguments).failed(1, "no credentials")


def test_produce_says_that_credentials_are_missing(tmp_path: Path) -> None:
    """A person waits: the producer's two minutes of trying are for services."""
    file = tmp_path / "readings.ndjson"
    file.write_text('{"device": "d", "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": 1.0}\n')
    headwater("produce", str(file), "--contract", "telemetry", timeout=30).failed(
        1, "no credentials", "AWS_ACCESS_KEY_ID"
    )


def test_check_exits_1_on_an_incompatible_change(tmp_path: Path) -> None:
    """Faults are the answer, so they are on stdout."""
    text = (
        "name: a\nversion: {}\nkey: k\ntime: t\nfields:\n  - {{name: k, type: {}}}\n  - {{name: t, type: timestamp}}\n"
    )
    old, wider, other = (tmp_path / name for name in ("old.yaml", "wider.yaml", "other.yaml"))
    old.write_text(text.format(1, "int"))
    wider.write_text(text.format(2, "long"))
    other.write_text(text.format(2, "string"))
    assert headwater("contract", "check", str(old), str(wider)).code == 0
    ran = headwater("contract", "check", str(old), str(other))
    assert (ran.code, ran.err) == (1, "")
    assert "changes from int to string" in ran.out
    doc = json.loads(headwater("contract", "check", str(old), str(other), "--json").out)
    assert doc["compatible"] is False
    assert len(doc["faults"]) == 1


def test_show_gives_a_table_json_and_a_json_schema() -> None:
    """Three forms of the same."""
    assert "battery" not in headwater("contract", "show", "telemetry").out
    assert json.loads(headwater("contract", "show", "telemetry", "--json").out)["fields"][0]["field"] == "device"
    assert json.loads(headwater("contract", "show", "telemetry", "--json-schema").out)["type"] == "object"


def test_show_names_the_own_id(tmp_path: Path) -> None:
    """What numbers the events is the first thing that a newcomer looks for."""
    file = tmp_path / "orders.yaml"
    fields = "fields:\n  - {name: order, type: string}\n  - {name: n, type: long}\n  - {name: at, type: timestamp}\n"
    file.write_text(f"name: orders\nversion: 1\nkey: order\ntime: at\nid: {{origin: order, seq: n}}\n{fields}")
    shown = headwater("contract", "show", str(file)).out
    assert "events have an id of their own: order and n" in shown
    assert "key, id: origin" in shown
    assert json.loads(headwater("contract", "show", str(file), "--json").out)["id"]["seq"] == "n"


def test_a_reader_that_goes_away_is_no_failure_to_speak_of() -> None:
    """`headwater … | head -0` is quiet."""
    code = "from headwater.commands import main; main()"
    command = f'{sys.executable} -c "{code}" contract show flights --json-schema | true'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


def test_the_shell_completes_commands() -> None:
    """As the script does that `--install-completion` writes."""
    words = {"_HEADWATER_COMPLETE": "complete_bash", "COMP_WORDS": "headwater se", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'headwater'; from headwater.commands import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["serve", "settings"]


def test_help_imports_nothing_heavy() -> None:
    """`--help` stays quick because the commands import what they need when they run."""
    heavy = ("boto3", "pyarrow", "pandas", "duckdb")
    code = f"import sys, headwater.commands; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_debug_shows_the_traceback() -> None:
    """HEADWATER_DEBUG=1 is for whoever looks for the place in the code."""
    ran = headwater("contract", "show", "absent.yaml", environment={"HEADWATER_DEBUG": "1"})
    assert "Traceback" in ran.err


def test_whatever_is_raised_becomes_one_line() -> None:
    """Texts of libraries may have many lines."""
    assert explain(ValueError("a\nb")) == ("unexpected ValueError: a b (HEADWATER_DEBUG=1 shows where)", 1)
    assert explain(FileNotFoundError(2, "No such file or directory", "x")) == ("x: No such file or directory", 1)


@given(st.lists(st.one_of(st.none(), st.text(), st.text("|\\\\N#@\n", max_size=4)), min_size=1, max_size=4))
@example(["|"])
@example(["a|", ""])
def test_a_key_typed_is_the_key_written(key: list[str | None]) -> None:
    """`view get` takes apart what the views join."""
    assert key_parts(key_text(key)) == key


def test_an_interrupt_says_so_and_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Typer makes a status of a KeyboardInterrupt, and says nothing."""
    program = typer.Typer()

    @program.command()
    def waits() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", partial(program, args=[]))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "_end", sys.exit)  # this process goes on
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_command_ends_when_all_that_the_interpreter_ends_has_ended() -> None:
    """Threads are waited for, functions for the end are called, and what they print comes out, before its status."""
    code = """
import atexit, sys, threading, time
from headwater import commands

ended = threading.Event()

def late():
    ended.wait()
    time.sleep(0.2)
    print("a thread")

def run():
    ended.set()
    return 2

threading.Thread(target=late).start()
atexit.register(print, "the end")
atexit.register(sys.stderr.write, "and errors")
commands._run = run
commands.main()
"""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", code], env=buffered, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == "a thread\nthe end\n"
    assert done.stderr.endswith("and errors")
