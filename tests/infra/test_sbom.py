"""Bills of materials: of a lock file, and what differs between two."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.sbom import components, sbom
from infra.sbom_diff import changes, table

ROOT = Path(__file__).parents[2]
LOCK = """\
anyio==4.11.0 \\
    --hash=sha256:aa
Boto3[crt]==1.42.0 \\
    --hash=sha256:bb
pywin32==311 ; sys_platform == 'win32' \\
    --hash=sha256:cc
"""


def locked(folder: Path, text: str) -> dict[str, object]:
    """The document of a lock file."""
    file = folder / "lock.txt"
    file.write_text(text)
    found: dict[str, object] = json.loads(sbom(file))
    return found


def test_a_lock_file_is_what_it_locks(tmp_path: Path) -> None:
    """Each line with a version, whatever extras and markers it has."""
    file = tmp_path / "lock.txt"
    file.write_text(LOCK)
    assert [url.to_string() for url in sorted(components(file))] == [
        "pkg:pypi/anyio@4.11.0", "pkg:pypi/boto3@1.42.0", "pkg:pypi/pywin32@311"
    ]  # fmt: skip
    named = (ROOT / "requirements/dev.txt").read_text().count("==")
    assert 0.9 * named < len(list(components(ROOT / "requirements/dev.txt"))) <= named


def test_what_came_went_and_changed(tmp_path: Path) -> None:
    """And nothing else."""
    before = locked(tmp_path, LOCK)
    after = locked(tmp_path, LOCK.replace("4.11.0", "4.12.0").replace("pywin32==311", "idna==3.11"))
    assert changes(before, after) == [
        ("pypi/anyio", "4.11.0", "4.12.0"), ("pypi/idna", "", "3.11"), ("pypi/pywin32", "311", "")
    ]  # fmt: skip
    assert list(table(changes(before, after)))[3] == "| pypi/idna | not there | 3.11 |"
    assert list(table(changes(before, before))) == ["The components are the same."]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"bomFormat": "CycloneDX", "components": [{"purl": "x"}]}', None])
def test_what_is_no_bill_of_materials_is_one_line(tmp_path: Path, text: str | None) -> None:
    """Not a table that says that all is as it was."""
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(sbom(ROOT / "requirements/dev.txt"))
    if text is not None:
        after.write_text(text)
    command = [sys.executable, "-m", "infra.sbom_diff", str(before), str(after)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_the_workflow_says_it_on_each_push() -> None:
    """Beside it known faults are asked for, and the tests look for secrets."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())["jobs"]
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    assert "infra.sbom_diff before.json after.json" in commands
    assert "pip-audit --require-hashes --disable-pip -r requirements/dev.txt" in commands
    assert "make test" in commands
    assert (ROOT / "tests/unit/test_secrets.py").exists()
