"""The images: what the Dockerfile says, and each service started from an environment with only its own dependencies."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from headwater.config import Settings
from headwater.local.embedded import EmbeddedAws
from headwater.local.provision import provision
from infra.settings import SERVICES
from infra.stacks.serverless import HANDLERS

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra" / "containers" / "Dockerfile"
UV = Path(sys.executable).with_name("uv")
NOT_DECLARED = ("moto", "pytest", "aws_cdk", "ruff")
MAIN = "from headwater.cli import main; main()"


def targets() -> dict[str, list[list[str]]]:
    """The instructions of each stage, in order."""
    found: dict[str, list[list[str]]] = {}
    for line in DOCKERFILE.read_text().replace("\\\n", " ").splitlines():
        words = line.split(None, 1)
        if line.startswith("FROM"):
            stage = found[line.split()[-1]] = [words]
        elif words and found and not line.startswith("#"):
            stage.append(words)
    return found


def command(target: str) -> list[str]:
    (found,) = [text for name, text in targets()[target] if name == "CMD"]
    return [str(word) for word in yaml.safe_load(found)]


def test_hadolint_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_deployable_has_a_target_with_its_command() -> None:
    for name, service in SERVICES.items():
        assert command(name) == list(service.command), name
    for name, handler in HANDLERS.items():
        assert command(name) == [handler], name


def test_no_image_ends_as_root_or_without_a_pinned_base() -> None:
    stages = targets()
    for name, stage in stages.items():
        users = [text for word, text in stage if word == "USER"]
        assert not users or users[-1] == "10001:10001", name
        parent = stage[0][1].split()[0]
        assert parent in stages or parent == "${PYTHON}", "a base is named by the argument, which takes a digest"


def test_compose_runs_the_same_images_read_only() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for name in ("process", "publish", "gateway", "serve"):
        assert services[name]["build"]["target"] == name
        assert services[name]["read_only"] is True
        assert all(port.startswith("127.0.0.1:") for port in services[name].get("ports", ()))


@pytest.fixture(scope="module")
def aws() -> Iterator[Mapping[str, str]]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(Settings(), shards=1)
        yield server.environment


def environment_of(extra: str, folder: Path) -> Path:
    """A new environment with the service's extra, from wheels that uv has; returns its Python."""
    place = folder / (extra or "plain")
    if not place.exists():
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, place], check=True)
        extras = ["--extra", extra] if extra else []
        locked = ["--constraint", str(ROOT / "requirements" / "dev.txt")]
        install: list[str | Path] = [
            UV,
            "pip",
            "install",
            "--quiet",
            "--python",
            place,
            "-r",
            "pyproject.toml",
            *extras,
            *locked,
        ]
        subprocess.run(install, cwd=ROOT, check=True)
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


def started(arguments: list[str], aws: Mapping[str, str], where: Path) -> "subprocess.Popen[bytes]":
    """In an empty folder, with nothing of this process's environment but what the image would have."""
    given = {"PATH": os.environ["PATH"], "HOME": str(where), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    given |= {"AWS_REGION": "us-east-1", "HEADWATER_PUBLISH_SECONDS": "0.5", "HEADWATER_GATEWAY_PORT": "0"}
    given |= {"HEADWATER_SERVE_PORT": "0", "HEADWATER_KCL_HTTP_PORT": "0", "HEADWATER_KCL_SHUTDOWN_SECONDS": "5"}
    with (where / "log").open("wb") as log:
        return subprocess.Popen(
            arguments, cwd=where, env=given | dict(aws), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_for(process: "subprocess.Popen[bytes]", where: Path, text: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = (where / "log").read_text()
        if re.search(text, said):
            return said
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"{text} not in: {(where / 'log').read_text()[-2000:]}")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("process", "shard claimed"),
        ("kcl", "worker started"),
        ("publish", '"message": "step"'),
        ("audit", '"exact"'),
        ("gateway", r"gateway at http://[\d.:]+"),
        ("serve", r"views at http://[\d.:]+"),
    ],
)
def test_service_starts_from_its_own_extra(
    target: str, says: str, aws: Mapping[str, str], folder: Path, tmp_path: Path
) -> None:
    """The image's command in an environment that has nothing but what the service declares; SIGTERM ends it."""
    if target == "kcl" and shutil.which("java") is None:
        reason = "java is not on PATH: the KCL's daemon needs it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    python = environment_of(SERVICES[target].extra if target in SERVICES else "", folder)
    process = started([str(python), "-c", MAIN, *command(target)], aws, tmp_path)
    try:
        said = wait_for(process, tmp_path, says)
        if target == "gateway":
            url = re.search(r"http://[\d.:]+", said)
            assert url
            with urllib.request.urlopen(f"{url[0]}/health/live", timeout=30) as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM), (tmp_path / "log").read_text()[-2000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("target", list(HANDLERS))
def test_handlers_load_from_their_own_extra(target: str, aws: Mapping[str, str], folder: Path, tmp_path: Path) -> None:
    module, name = command(target)[0].rsplit(".", 1)
    python = environment_of("lambda", folder)
    script = f"import awslambdaric, {module} as found; assert callable(found.{name})"
    process = started([str(python), "-c", script], aws, tmp_path)
    assert process.wait(60) == 0, (tmp_path / "log").read_text()


def test_what_is_not_declared_is_not_there(folder: Path) -> None:
    """Else the tests above would show nothing."""
    python = environment_of("", folder)
    for module in NOT_DECLARED:
        script = shlex.split(f"-c 'import {module}'")
        assert subprocess.run([python, *script], capture_output=True, check=False).returncode == 1, module
