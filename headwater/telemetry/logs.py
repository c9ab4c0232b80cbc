"""Logs: JSON lines of services (twelve-factor, XI), one object a line, the fields of `extra` beside the message; and
plain lines on stderr of all other commands, for whoever started them.
"""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

__all__ = ["JsonLines", "PlainLines", "fall_silent", "to_stderr", "to_stdout"]

_OUTSPOKEN = ("engineio.server", "socketio.server")
"""Loggers whose libraries, while they have no level, give them a handler of their own: plain lines on stderr."""
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Format a record as one JSON object: time, level, logger, message, the fields of `extra`, an exception as one
    field.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _extra(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class PlainLines(logging.Formatter):
    """Format a record as one line for people: level, what it is about, message, the fields of `extra`.

    An exception is one more field; its traceback follows where `traces`, asked then, says so.

    Example:
        >>> record = logging.LogRecord("headwater.processor", logging.WARNING, "", 0, "fenced", None, None)
        >>> record.shard = "shardId-000000000000"
        >>> PlainLines().format(record)
        'warning: processor: fenced (shard: shardId-000000000000)'
    """

    def __init__(self, traces: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._traces = traces

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, but for the traceback."""
        fields = _extra(record)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields["exception"] = f"{type(error).__name__}: {error}"
        named = ", ".join(f"{name}: {value}" for name, value in fields.items())
        head = f"{record.levelname.lower()}: {record.name.removeprefix('headwater.')}: {record.getMessage()}"
        words = " ".join((f"{head} ({named})" if named else head).split())
        # a control character in data must not move the terminal's cursor
        line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in words)
        if record.exc_info and self._traces():
            line += "\n" + self.formatException(record.exc_info)
        return line


class _LogHandler(logging.Handler):
    """Write lines to a stream, which is asked for each time (a progress bar puts itself between), until told to end."""

    def __init__(self, stream: Callable[[], TextIO]) -> None:
        super().__init__()
        self._stream = stream
        self._ended = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; `logging` calls this with the handler's lock held."""
        if self._ended:
            return
        try:
            stream = self._stream()
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:  # what logging does with it is set by its `raiseExceptions`
            self.handleError(record)

    def end(self) -> None:
        """Write nothing more, also of what other threads have begun to log."""
        self.acquire()
        self._ended = True
        self.release()


def to_stdout(level: str, stream: TextIO | None = None) -> None:
    """Write all of headwater's logs, and warnings of others, to stdout as JSON lines."""
    found = stream or sys.stdout
    _handle(_LogHandler(lambda: found), JsonLines())
    logging.getLogger("headwater").setLevel(level.upper())


def to_stderr(traces: Callable[[], bool]) -> None:
    """Write warnings, and what is worse, to stderr for people; see `PlainLines`."""
    _handle(_LogHandler(lambda: sys.stderr), PlainLines(traces))


def fall_silent() -> None:
    """Let no log line follow: the next line is the last of the program, and its threads may still be at work."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LogHandler):
            handler.end()


def _handle(handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for one in map(logging.getLogger, _OUTSPOKEN):
        one.handlers.clear()
        one.setLevel(logging.ERROR)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}
