"""The workflows, what a change triggers, and the gate for contracts."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.changes import ELSEWHERE, TRIGGERS, services
from infra.contracts import FOLDER, faults
from infra.settings import SERVICES
from infra.stacks.serverless import HANDLERS
from tests.infra.synthesis import Synthesis

ROOT = Path(__file__).parents[2]
_RUNS = ("AWS::ECS::TaskDefinition", "AWS::Lambda::Function")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7"


def test_actionlint_finds_nothing() -> None:
    go = shutil.which("go")
    if go is None:
        reason = "go is not on PATH: actionlint is a Go module"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    command = [go, "run", ACTIONLINT, *map(str, WORKFLOWS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


def test_every_job_says_what_it_may_and_how_long() -> None:
    for path in WORKFLOWS:
        found = yaml.safe_load(path.read_text())
        assert "write-all" not in str(found["permissions"])
        for name, job in found["jobs"].items():
            assert "uses" in job or job["timeout-minutes"] <= 45, (path.name, name)


def test_no_workflow_knows_a_long_lived_key() -> None:
    for path in WORKFLOWS:
        assert not re.search(r"AWS_SECRET|secrets\.", path.read_text()), path.name


def test_a_failed_smoke_test_rolls_back() -> None:
    """The audit comes after the deploy, the digest is remembered after the audit, and a failure deploys the old one."""
    steps = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())["jobs"]["deploy"]["steps"]
    names = [step.get("name") for step in steps]
    order = [names.index(name) for name in ("What runs now", "Deploy", "Smoke test", "Remember what runs", "Roll back")]
    assert order == sorted(order)
    by_name = dict(zip(names, steps, strict=True))
    assert by_name["Smoke test"]["run"].endswith("headwater audit --json")
    assert by_name["Roll back"]["if"].startswith("failure()")
    assert by_name["Roll back"]["run"] == by_name["Deploy"]["run"]


@pytest.mark.parametrize(
    ("path", "concerned"),
    [
        ("docs/concepts.md", set()),
        ("tests/unit/test_ledger.py", set()),
        ("producers/gateway/app.py", {"gateway"}),
        ("processors/shard/worker.py", set(SERVICES)),
        ("headwater/ledger.py", set(SERVICES)),
        ("requirements/dev.txt", set(SERVICES)),
        ("infra/lambda_bundle.py", set()),
    ],
)
def test_what_a_change_triggers(path: str, concerned: set[str]) -> None:
    assert set(services([path])) == concerned


def test_what_a_change_triggers_where_functions_run() -> None:
    assert services(["infra/lambda_bundle.py"], "serverless") == list(HANDLERS)
    assert services(["sinks/lake/buffer.py"], "serverless") == [*HANDLERS, "maintain", "alerts", "serve", "gateway"]


def test_each_model_delivers_what_its_stacks_are(containers: Synthesis, serverless: Synthesis) -> None:
    for made in (containers, serverless):
        stacks = {stack for kind in _RUNS for stack, _ in made.of(kind)}
        assert set(services(["pyproject.toml"], made.deployed.model)) == stacks
        assert set(TRIGGERS) - stacks == set(ELSEWHERE[made.deployed.model])


def test_every_service_is_delivered_and_stands_in_the_table() -> None:
    assert set(TRIGGERS) == {*SERVICES, *HANDLERS}
    assert list(TRIGGERS)[-1] == "gateway", "producers come last"
    page = (ROOT / "docs" / "delivery.md").read_text()
    for name, paths in TRIGGERS.items():
        (row,) = re.findall(rf"^\| `{name}` \| (`.+) \|$", page, re.MULTILINE)
        assert re.findall(r"`([^`]+)`", row) == list(paths), name


def test_triggers_cover_what_a_service_imports() -> None:
    """The gateway and the query API import the pipeline's definition: a change in it is a change of theirs."""
    names = "[n for n in sys.modules if n.startswith('headwater.processors')]"
    script = f"import headwater.producers.gateway.server, sys; print({names})"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    command = (ROOT / "commands/gateway.py").read_text()
    assert "headwater.processors" in loaded.stdout or "from headwater.processors" in command
    assert "processors/*" in TRIGGERS["gateway"]


def test_the_workflow_s_list_is_json() -> None:
    done = subprocess.run(
        [sys.executable, "infra/changes.py", "containers"],
        cwd=ROOT,
        input="producers/writer.py\n",
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout) == ["gateway"]


def test_a_contract_that_breaks_what_conformed_is_stopped(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *name, *arguments], cwd=tmp_path, check=True, capture_output=True)

    folder = tmp_path / FOLDER
    shutil.copytree(ROOT / FOLDER, folder)
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "in force")
    assert list(faults(tmp_path, "HEAD")) == []
    contract = folder / "telemetry.yaml"
    text = contract.read_text()
    contract.write_text(text.replace("version: 1", "version: 2", 1).replace("type: double", "type: string", 1))
    assert contract.read_text() != text
    assert list(faults(tmp_path, "HEAD"))
    contract.unlink()
    assert list(faults(tmp_path, "HEAD")) == [f"{FOLDER}/telemetry.yaml: is gone"]
