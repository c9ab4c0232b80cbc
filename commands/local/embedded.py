"""Run an embedded AWS as a child process on a free loopback port."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from headwater.clock import SystemClock
from headwater.config import use_environment
from headwater.errors import HeadwaterError

__all__ = ["EmbeddedAws", "owns_listener"]

_LISTEN = "0A"
_START_SECONDS = 120.0


class EmbeddedAws:
    """Run the server while a `with` block runs; it ends with the block, whatever happens in it."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.port = 0

    @property
    def endpoint(self) -> str:
        """Return the URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables by which boto3 finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "embedded",
            "AWS_SECRET_ACCESS_KEY": "embedded",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def use(self) -> None:
        """Let this process talk to it."""
        use_environment(self.environment)

    def __enter__(self) -> "EmbeddedAws":
        for _ in range(5):
            self.port = _free_port()
            self._log = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headwater.commands.local.server", str(self.port)],
                stdin=subprocess.PIPE,  # it ends with this pipe, so also when we are killed
                stdout=self._log,
                stderr=self._log,
                # a group of its own: Ctrl-C reaches us alone, and we end it after the last commit
                start_new_session=True,
            )
            if self._wait():
                return self
            runs = self._process.poll() is None
            self._end()
            if runs:
                # nothing is in its way: another try would be as slow
                raise HeadwaterError(
                    f"the embedded AWS does not listen after {_START_SECONDS:g} s; is the machine very busy?"
                )
        raise HeadwaterError(f"the embedded AWS does not start: {self._last_line()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def ended(self) -> str:
        """Return what the server said when it ended by itself, or how it was ended; empty while it runs."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return ""
        return f"signal {-code}" if code < 0 else f"exit code {code}: {self._last_line()}"

    def _wait(self) -> bool:
        assert self._process is not None
        deadline = self._clock.now_ms() + _START_SECONDS * 1000
        while self._clock.now_ms() < deadline:
            if self._process.poll() is not None:
                return False
            if owns_listener(self._process.pid, self.port):
                return True
            self._clock.sleep(0.05)
        return False

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process = None

    def _last_line(self) -> str:
        if self._log is None:
            return "no log"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing; is the extra headwater[local] installed?"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def owns_listener(pid: int, port: int) -> bool:
    """Tell whether this very process listens on the loopback port: one that answers may be somebody else's server.

    Where there is no /proc (macOS) an answer has to do.
    """
    if not Path("/proc/net/tcp").exists():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
    sockets = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTEN and fields[1] == f"0100007F:{port:04X}":
            sockets.add(f"socket:[{fields[9]}]")
    try:
        return any(os.readlink(one) in sockets for one in Path(f"/proc/{pid}/fd").iterdir())  # noqa: PTH115 (a socket's link names no path)
    except OSError:
        return False
