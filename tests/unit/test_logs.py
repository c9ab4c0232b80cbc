"""What the command logs on a terminal: whole lines with their fields, and none behind the reason why it ended."""

import json
import logging
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.telemetry.logs import PlainLines

NAMES = st.text("abcdefgh_", min_size=1).map(lambda one: f"x{one}")
FAILS_WHILE_A_THREAD_LOGS = """
import logging, sys, threading, time
from headwater.commands import main

def work():
    while "headwater.config" not in sys.modules:  # imported once the command is at work
        time.sleep(0.001)
    while True:
        logging.getLogger("headwater.publisher").warning("will try again", extra={"reason": "no such host"})

begun = threading.Thread(target=work, daemon=True)
begun.start()
sys.argv = ["headwater", *sys.argv[1:]]
main()
"""


@given(st.text(), st.dictionaries(NAMES, st.text() | st.integers(), max_size=3), st.text())
def test_a_record_is_one_line_with_its_fields(message: str, fields: dict[str, object], reason: str) -> None:
    record = logging.makeLogRecord({"name": "headwater.publisher", "levelno": 30, "levelname": "WARNING"})
    record.msg, record.exc_info = message, (ValueError, ValueError(reason), None)
    vars(record).update(fields)
    line = PlainLines().format(record)
    assert line.isprintable()
    assert line.startswith("warning: publisher: ")
    assert all(f"{name}:" in line for name in [*fields, "exception"])


@pytest.mark.parametrize(
    ("argument", "code", "last"),
    [
        ("nosuch.py", 2, "headwater: no pipeline file nosuch.py"),
        ("--nosuch", 2, "headwater: check: No such option: --nosuch"),
    ],
)
def test_nothing_is_said_behind_the_reason_of_the_end(argument: str, code: int, last: str) -> None:
    """By threads that are still at work."""
    command = [sys.executable, "-c", FAILS_WHILE_A_THREAD_LOGS, "check", argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    *before, said = done.stderr.splitlines()
    assert (done.returncode, said) == (code, last)
    assert {*before} <= {"warning: publisher: will try again (reason: no such host)"}


def test_nothing_is_said_behind_an_interrupt() -> None:
    command = [sys.executable, "-c", FAILS_WHILE_A_THREAD_LOGS, "produce", "/dev/stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().splitlines()
    assert (process.returncode, said[-1]) == (130, "interrupted")


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_what_libraries_say_is_a_line_of_ours(first: bool) -> None:
    """The console's sockets had a handler of their own: plain lines with what a caller sent, in the midst of JSON."""
    steps = ["from headwater.telemetry.logs import to_stdout; to_stdout('info')", "import nicegui.nicegui"]
    speak = "import logging; logging.getLogger('engineio.server').error('no client %s', 'a\\nb')"
    code = "\n".join([*(steps if first else reversed(steps)), speak])
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stderr == ""
    assert [json.loads(line)["message"] for line in ran.stdout.splitlines()] == ["no client a\nb"]
