"""Define the command `headwater`. Every failure is one line on stderr, what and where; the exit code is 2 for wrong
usage, else 1, and 130 for an interrupt.

HEADWATER_DEBUG=1 shows tracebacks. The commands import what they need when they run, so that `--help` is quick.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from io import TextIOWrapper
from typing import Annotated

import typer

from headwater.commands import (
    alerts,
    audit,
    data,
    gateway,
    jobs,
    lake,
    names,
    project,
    replay,
    run,
    serving,
    settings,
    shards,
    views,
)
from headwater.commands import lake_query as lakequery
from headwater.commands import lake_upkeep as lakecare
from headwater.telemetry.logs import fall_silent, to_stderr

__all__ = ["app", "main"]

app = typer.Typer(
    name="headwater",
    help="Exactly-once streaming on Amazon Kinesis: from the application to Parquet on S3 and views in DynamoDB.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_PARTS = (
    project,
    run,
    audit,
    data,
    gateway,
    serving,
    views,
    lake,
    lakequery,
    lakecare,
    replay,
    shards,
    alerts,
    jobs,
    names,
    settings,
)
for part in _PARTS:
    part.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from headwater import __version__

        sys.stdout.write(f"headwater {__version__}\n")
        raise typer.Exit


@app.callback()
def _program(
    # eager, so that it is answered before a missing command is complained about
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    del version


_INTERRUPTED = 130


def main() -> None:
    """Run the command that the arguments name, and end the process: the entry point.

    SIGTERM is as Ctrl-C, but for commands that say otherwise.
    """
    _prepare_streams()
    to_stderr(_debugging)  # services write JSON lines in place of these
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    status = _run()
    try:
        sys.stdout.flush()
    except OSError as error:  # nobody reads any more, or the disk is full
        status = status or 1
        # the interpreter flushes once more at its end, and would complain
        with contextlib.suppress(OSError):
            sys.stdout.close()
        if not isinstance(error, BrokenPipeError):
            _say_last(f"headwater: the output cannot be written: {error.strerror}")
    _end(status)


def _end(status: int) -> None:
    """End the process as `sys.exit` does, but leave what C++ libraries hold to the system.

    When their statics are taken apart, a thread of Arrow's pools that has just been started aborts the process now and
    then ("terminate called without an active exception"), with all its work done: seen in 2 of 60 calls of `check`.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # the interpreter's own first step: other threads are waited for
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more, or it is closed
            stream.flush()
    os._exit(status)


def _debugging() -> bool:
    from headwater.config import debugging

    return debugging()


def _say_last(line: str) -> None:
    """Write the line that says how it ended; threads that are still at work have no say behind it."""
    fall_silent()
    sys.stderr.write(f"{line}\n")


def _cannot_flush() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _prepare_streams() -> None:
    """Open what the parent has closed, and write what the terminal's encoding does not have as escapes."""
    # in this order each gets the lowest free number, which is its own
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 (for the rest of the process)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 (the same)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (the same)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run() -> int:
    try:
        status = app(standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        return 1  # whoever read our output has gone: nothing to say, and nobody to say it to
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except jobs.Interrupted as error:
        _say_last(f"interrupted: {error}")
        return _INTERRUPTED
    except Exception as error:
        from headwater.commands.failures import explain

        if _debugging():
            raise
        if isinstance(error, OSError) and _cannot_flush():
            return 1  # of the output: `main` says it when it tries once more
        text, status = explain(error)
        if text:
            _say_last(f"headwater: {text}")
    if status == _INTERRUPTED:  # typer makes this of a KeyboardInterrupt
        _say_last("interrupted")
    return status if isinstance(status, int) else 0
