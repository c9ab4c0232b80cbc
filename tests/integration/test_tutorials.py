"""The tutorials: typed in order, each command succeeds and prints what the page says that it prints."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cli import up

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r"```(\w+)\n(?:# (\S+\.py)\n)?(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["analyst.md", "shards.md"])
def test_what_a_tutorial_says_happens(page: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall((TUTORIALS / page).read_text())
    assert {kind for kind, _, _ in blocks} == {"python", "sh", "text"}
    with up("--shards", "2", HEADWATER_COMMIT_SECONDS="2", HEADWATER_PUBLISH_SECONDS="2") as said:
        environment = os.environ | said["settings"] | {"NO_COLOR": "1"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        for (kind, name, body), (after, _, shown) in pairwise([*blocks, ("", "", "")]):
            if kind == "python":
                (tmp_path / name).write_text(body)
            if kind == "sh":
                printed = typed(body, tmp_path, environment)
                assert after != "text" or fits(printed, shown), f"{page} shows\n{shown}\nprinted\n{printed}"


def test_every_tutorial_is_tried() -> None:
    assert {page.name for page in TUTORIALS.glob("*.md")} == {"analyst.md", "shards.md"}


def typed(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    ran = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(ran, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def fits(printed: str, shown: str) -> bool:
    """A line of three dots stands for all that comes after it."""
    before, dots, _ = shown.partition("…\n")
    return printed.startswith(before) if dots else printed == shown
