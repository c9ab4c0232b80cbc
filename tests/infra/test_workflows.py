"""The shell of the workflows, run: the steps up to what AWS, the registry and the CDK would be asked."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from infra.changes import TRIGGERS
from infra.contracts import FOLDER

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "a" * 64


class Runner:
    """A machine with a checkout, and commands that write down how they were called and answer as they are told."""

    def __init__(self, folder: Path) -> None:
        self.work, self.bin, self._calls = folder / "work", folder / "bin", folder / "calls"
        self.work.mkdir()
        self.bin.mkdir()
        self.output = folder / "output"
        for name in ("aws", "docker", "npx"):
            self.answer(name, "")

    def answer(self, name: str, text: str, code: int = 0) -> None:
        stub = self.bin / name
        heard = f'cat > /dev/null\necho {name} "$@" >> {self._calls}\n'
        stub.write_text(f"#!/bin/sh\n{heard}printf '%s' '{text}'\nexit {code}\n")
        stub.chmod(0o755)

    def git(self, *arguments: str) -> str:
        named = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments)
        return subprocess.run(named, cwd=self.work, check=True, capture_output=True, text=True).stdout.strip()

    def run(self, workflow: str, job: str, step: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a step as GitHub does: `bash -e`, with the job's and the step's variables that are given here."""
        jobs = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text())["jobs"]
        (text,) = (one["run"] for one in jobs[job]["steps"] if one.get("name") == step)
        named = {"GITHUB_OUTPUT": str(self.output), "GITHUB_SHA": "c0ffee", "GITHUB_REPOSITORY": "example/headwater"}
        variables = os.environ | named | environment | {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
        return subprocess.run(
            command, cwd=self.work, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    @property
    def outputs(self) -> Mapping[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """With the contracts of this tree committed, and its Python."""
    made = Runner(tmp_path)
    for name in ("infra/changes.py", *(str(one.relative_to(ROOT)) for one in (ROOT / FOLDER).glob("*.yaml"))):
        target = made.work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((ROOT / name).read_text())
    python = made.work / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (made.work / ".gitignore").write_text(".venv\n")
    made.git("init", "-q")
    made.git("add", ".")
    made.git("commit", "-qm", "delivered")
    return made


def changed(runner: Runner) -> subprocess.CompletedProcess[str]:
    step = "What changed since the last delivery, and may its contracts follow"
    return runner.run("deliver.yml", "changes", step, STAGE="dev", MODEL="containers")


def test_a_first_delivery_is_of_every_service(runner: Runner) -> None:
    """Parameter Store has nothing, and says so with an error."""
    runner.answer("aws", "", code=254)
    assert changed(runner).returncode == 0
    assert json.loads(runner.outputs["services"]) == [name for name in TRIGGERS if not name.startswith("function")]


def test_what_has_changed_is_what_no_delivery_had(runner: Runner) -> None:
    """Two pushes after the last delivery that succeeded: both count."""
    runner.answer("aws", runner.git("rev-parse", "HEAD"))
    for path in ("producers/a.py", "docs/b.md"):
        (runner.work / path).parent.mkdir(exist_ok=True)
        (runner.work / path).write_text("")
        runner.git("add", ".")
        runner.git("commit", "-qm", path)
    assert changed(runner).returncode == 0
    assert json.loads(runner.outputs["services"]) == ["gateway"]


def test_a_contract_that_may_not_follow_the_delivered_one_stops_the_delivery(runner: Runner) -> None:
    runner.answer("aws", runner.git("rev-parse", "HEAD"))
    contract = runner.work / FOLDER / "telemetry.yaml"
    contract.write_text(
        contract.read_text().replace("version: 1", "version: 2", 1).replace("type: double", "type: string", 1)
    )
    runner.git("commit", "-qam", "breaks")
    done = changed(runner)
    assert done.returncode != 0
    assert "telemetry.yaml" in done.stdout
    assert not runner.output.exists()


def test_a_commit_that_is_no_ancestor_tells_nothing(runner: Runner) -> None:
    """After a force push, or of another branch: everything is delivered."""
    runner.answer("aws", "f" * 40)
    assert changed(runner).returncode == 0
    assert "gateway" in json.loads(runner.outputs["services"])


@pytest.mark.parametrize("there", [True, False])
def test_an_image_is_built_once_for_a_commit(runner: Runner, there: bool) -> None:
    """The registry refuses a tag that it has: a run that is made again takes what is there."""
    runner.answer("docker", f"registry/headwater-dev/kcl@{DIGEST}")
    login = 'echo aws "$@" >> "$CALLS"; case "$*" in *login*) echo secret;; *) printf %s "$FOUND"; exit "$CODE";; esac'
    (runner.bin / "aws").write_text(f"#!/bin/sh\n{login}\n")
    more = {
        "CALLS": str(runner.bin.parent / "calls"),
        "FOUND": DIGEST if there else "",
        "CODE": "0" if there else "254",
    }
    where = {"STAGE": "dev", "SERVICE": "kcl", "ACCOUNT": "222222222222", "REGION": "eu-central-1", "PYTHON_IMAGE": "p"}
    done = runner.run("deploy.yml", "deploy", "Build and push", **where, **more)
    assert done.returncode == 0, done.stderr
    assert runner.outputs["digest"] == DIGEST
    built = [call for call in runner.calls if call.startswith(("docker build", "docker push"))]
    assert len(built) == (0 if there else 2)
    assert all("headwater-dev/kcl:c0ffee" in call for call in built)


@pytest.mark.parametrize(
    ("workflow", "more"),
    [("stacks.yml", {"STACKS": "data lake"}), ("deploy.yml", {"SERVICE": "kcl", "DIGEST": DIGEST})],
)
def test_the_cdk_is_given_all_that_has_no_stand_in(runner: Runner, workflow: str, more: dict[str, str]) -> None:
    where = {"STAGE": "dev", "MODEL": "containers", "ACCOUNT": "222222222222", "REGION": "eu-central-1"}
    given = where | {"CERTIFICATE": "12345678-1234-1234-1234-123456789012", "ALARM_EMAIL": ""} | more
    done = runner.run(workflow, "deploy", "Deploy", **given)
    assert done.returncode == 0, done.stderr
    names = more.get("STACKS", "kcl").split()
    assert [call.split()[4] for call in runner.calls] == [f"headwater-dev-{name}" for name in names]
    for call in runner.calls:
        for name in ("account", "region", "certificate"):
            assert f"-c {name}={given[name.upper()]}" in call


def test_nothing_goes_on_after_a_failure() -> None:
    found = yaml.safe_load((ROOT / ".github" / "workflows" / "deliver.yml").read_text())
    deploy = found["jobs"]["deploy"]["strategy"]
    assert (deploy["fail-fast"], deploy["max-parallel"]) == (True, 1)
    assert found["concurrency"].startswith("deliver-")
    assert found["jobs"]["watch"]["if"] == "${{ !failure() && !cancelled() }}"
