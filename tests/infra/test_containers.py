"""The images: what the Dockerfile says, and each service started from an environment with only its own dependencies."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from headwater.codec import encode_batch
from headwater.config import Settings
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from headwater.testing.fleet import Fleet
from infra.lambda_bundle import BUNDLES
from infra.settings import SERVICES
from infra.stacks.serverless import HANDLERS
from tests.infra.starting import (
    DOCKERFILE,
    ROOT,
    command,
    image_environment,
    lacking,
    lineage,
    running,
    targets,
    task_environment,
    wait_for,
)
from tests.infra.synthesis import Synthesis
from tests.lambda_mapping import kinesis_event
from tests.lambda_runtime import Container

UV = Path(sys.executable).with_name("uv")


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
def installed(tmp_path_factory: pytest.TempPathFactory) -> "Installed":
    return Installed(tmp_path_factory.mktemp("images"))


class Installed:
    """What the Dockerfile's own commands install for a target, in a folder in place of the image's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, target: str) -> Path:
        """The folder that is the image's /opt/headwater or /opt/function. Made once per stage."""
        ((stage, place),) = [text.split()[0:2] for word, text in targets()[target] if word == "COPY"]
        stage = stage.removeprefix("--from=")
        here = self._folder / stage
        if not here.exists():
            source = self._copied(stage)
            if place == "/opt/headwater":
                subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, here], check=True)
            (run,) = [text for word, text in targets()[stage] if word == "RUN"]
            line = run.replace("/opt/uv/bin/python", sys.executable).replace(place, str(here))
            path = f"{UV.parent}{os.pathsep}{os.environ['PATH']}"
            subprocess.run(["sh", "-c", line], cwd=source, env=dict(os.environ) | {"PATH": path}, check=True)
        return here

    def _copied(self, stage: str) -> Path:
        """The stage's working directory with what is copied there, and nothing else of the repository."""
        source = self._folder / f"{stage}-source"
        for word, text in lineage(stage):
            *names, to = text.split()
            for name in names if word == "COPY" else ():
                at = source / to / Path(name).name if to.endswith("/") else source / to
                at.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, at, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, at)
        return source


def required(declared: Iterable[str], found: Mapping[str, Distribution]) -> set[str]:
    """The names of these requirements and of all that they require in turn."""
    names: set[str] = set()
    done: set[tuple[str, str]] = set()
    ready = [(Requirement(one), "") for one in declared]
    while ready:
        one, extra = ready.pop()
        name = canonicalize_name(one.name)
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        names.add(name)
        for wanted in {"", *one.extras}:
            if (name, wanted) not in done and name in found:
                done.add((name, wanted))
                ready += [(Requirement(text), wanted) for text in found[name].requires or ()]
    return names


@pytest.mark.parametrize("target", [*SERVICES, "process", *HANDLERS])
def test_only_what_is_declared_is_there(target: str, installed: Installed) -> None:
    """The service's extras of infra.settings, and what these require: no more, no less."""
    place = installed.place(target)
    packages = [place] if target in HANDLERS else list(place.glob("lib/python*/site-packages"))
    found: dict[str, Distribution] = {
        canonicalize_name(one.metadata["Name"]): one for one in distributions(path=list(map(str, packages)))
    }
    extra = SERVICES[target].extra if target in SERVICES else ""
    declared = BUNDLES[target] if target in HANDLERS else [f"headwater[{extra}]"]
    assert set(found) == required(declared, found)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("process", "shard claimed"),
        ("kcl", "worker started"),
        ("publish", '"message": "step"'),
        ("maintain", '"message": "maintained"'),
        ("alerts", '"message": "alerts judged"'),
        ("audit", '"exact"'),
        ("gateway", r"gateway at http://[\d.:]+"),
        ("serve", r"views at http://[\d.:]+"),
    ],
)
def test_service_starts_as_in_its_image(
    target: str, says: str, aws: Mapping[str, str], containers: Synthesis, installed: Installed, tmp_path: Path
) -> None:
    """Entry point, command and environment of image and task, in what the image would hold; SIGTERM ends it."""
    if target == "kcl" and shutil.which("java") is None:
        lacking("java is not on PATH: the KCL's daemon needs it")
    place = installed.place(target)
    image = {name: text.replace("/opt/headwater", str(place)) for name, text in image_environment(target).items()}
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    given = image | {"PATH": path, "HOME": str(tmp_path)} | task_environment(containers, target) | dict(aws)
    (entry,) = command(target, "ENTRYPOINT")
    with running([place / "bin" / entry, *command(target)], given, tmp_path) as process:
        said = wait_for(process, tmp_path, says)
        if target == "gateway":
            url = re.search(r"http://[\d.:]+", said)
            assert url
            with urllib.request.urlopen(f"{url[0]}/health/live", timeout=30) as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM), (tmp_path / "log").read_text()[-2000:]


@pytest.mark.parametrize("target", list(HANDLERS))
def test_functions_answer_from_their_bundle_alone(
    target: str,
    aws: Mapping[str, str],
    containers: Synthesis,
    serverless: Synthesis,
    installed: Installed,
    tmp_path: Path,
) -> None:
    """Amazon's runtime client, the image's handler, an event as Lambda sends it; names are those that were made."""
    given = {name: containers.environment("kcl")[name] for name in serverless.environment(target)}
    given |= dict(aws) | {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    container = Container(command(target)[0], given, tmp_path / "log", installed.place(target))
    try:
        answer = container.invoke(_event(target), 60)
    finally:
        container.kill()
    assert not answer.error, (tmp_path / "log").read_text()[-2000:]
    assert set(answer.result) >= {"function": {"batchItemFailures"}, "function-audit": {"exact"}}.get(
        target, {"leader"}
    )


def _event(target: str) -> dict[str, object]:
    if target != "function":
        return {}
    settings = Settings()
    services = Services(settings, load(settings.pipeline))
    events: pa.Table = next(Fleet(devices=5, start_ms=1_790_000_000_000).batches(100, 100))
    body = encode_batch(events, services.pipeline.contract, origin="first", first_seq=0)
    shard = services.kinesis.put_record(StreamName=settings.stream, Data=body, PartitionKey="k")["ShardId"]
    iterator = services.kinesis.get_shard_iterator(
        StreamName=settings.stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    return kinesis_event(settings.stream, shard, services.kinesis.get_records(ShardIterator=iterator)["Records"])


def test_what_an_image_lacks_is_named_with_its_extra(
    aws: Mapping[str, str], containers: Synthesis, installed: Installed, tmp_path: Path
) -> None:
    place = installed.place("process")
    given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | task_environment(containers, "process") | dict(aws)

    def said(*arguments: str | Path) -> str:
        done = subprocess.run(arguments, env=given, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    asked = said(place / "bin" / "headwater", "lake", "query", "SELECT 1")
    assert asked == "headwater: this needs duckdb: pip install 'headwater[lake]'"
    frames = (
        "from headwater.processors.definition.pipeline import Pipeline as P\n"
        "P('p', contract='telemetry').map(len, adds={}, pandas=True)"
    )
    assert said(place / "bin" / "python", "-c", frames).endswith("pip install 'headwater[pandas]'")
