"""The command `headwater` as a subprocess."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Ran", "headwater", "started", "up"]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def failed(self, code: int, *words: str) -> None:
        """Exit code, exactly one line on stderr with these words, no traceback anywhere."""
        assert self.code == code, self
        assert len(self.err.splitlines()) == 1, self.err
        for word in words:
            assert word in self.err, (word, self.err)
        assert "Traceback" not in self.out + self.err


def headwater(
    *arguments: str, environment: Mapping[str, str] | None = None, stdin: str = "", timeout: float = 60
) -> Ran:
    """Run it with no AWS settings but those given."""
    done = subprocess.run(
        [*_COMMAND, *arguments],
        env=_clean(environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def started(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """The same, for whoever wants to kill it; what it says goes nowhere."""
    return subprocess.Popen(
        [*_COMMAND, *arguments], env=_clean(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@contextmanager
def up(*arguments: str, **settings: str) -> Iterator[dict[str, Any]]:
    """`headwater up` as a process, on free ports; yields what it says of itself. Ctrl-C ends it with 0."""
    environment = os.environ | {"HEADWATER_SERVE_PORT": "0", "HEADWATER_GATEWAY_PORT": "0"} | settings
    command = [*_COMMAND, "up", *arguments, "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "it has ended"
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


_COMMAND = (sys.executable, "-c", "from headwater.commands import main; main()")


def _clean(environment: Mapping[str, str] | None) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HEADWATER_"))}
    clean |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    clean |= {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "NO_COLOR": "1"}
    return clean | dict(environment or {})
