"""The short form of `make chaos`, with a new seed each time.

Skipped with the reason where Node, Java or Maven is missing; a failure in CI.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.producer import PIECE
from tests.chaos.run import KILLS_A_MINUTE

SECONDS = 30


def test_killed_stopped_and_cut_off_and_exact() -> None:
    """Two producers, two workers and a publisher over a stream that is resharded: the end state is exact."""
    lacking = [tool for tool in ("java", "mvn", "node", "npm") if shutil.which(tool) is None]
    if lacking:
        reason = f"the chaos run needs {', '.join(lacking)}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos.run", "--seconds", str(SECONDS)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=460,
        check=False,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout[-6000:]
    did = {
        name.strip(): int(number.replace(",", ""))
        for name, number in re.findall(r"(?m)^(\S.*?) +([\d,]+)$", ran.stdout)
    }
    assert did["kill -9"] >= KILLS_A_MINUTE * SECONDS / 60
    assert did["SIGSTOP past the lease"] >= 1
    assert (did["splits"], did["merges"]) == (2, 1)
    assert min(did["events of producer 0"], did["events of producer 1"]) > PIECE
