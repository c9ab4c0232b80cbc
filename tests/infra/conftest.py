"""Both operating models, each synthesized once."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headwater.commands.local.embedded import EmbeddedAws
from infra.settings import Deployment, deployment
from tests.infra.emulated import create
from tests.infra.synthesis import GIVEN, Synthesis, synthesize


@pytest.fixture(scope="session", autouse=True)
def node() -> Iterator[None]:
    """jsii runs on Node, and says on stderr which it likes."""
    if shutil.which("node") is None:
        reason = "Node is not on PATH: nothing can be synthesized"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "1")
        yield


@pytest.fixture(scope="session")
def containers(node: None, tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """prod in containers, delivered by a workflow."""
    folder: Path = tmp_path_factory.mktemp("containers")
    wanted: Deployment = deployment("prod", repository="example/headwater", alarm_email="ops@example.org", **GIVEN)
    return synthesize(wanted, folder)


@pytest.fixture(scope="session")
def serverless(node: None, tmp_path_factory: pytest.TempPathFactory) -> Synthesis:
    """dev in functions."""
    return synthesize(deployment("dev", "serverless", **GIVEN), tmp_path_factory.mktemp("serverless"))


@pytest.fixture(scope="module")
def aws(containers: Synthesis) -> Iterator[Mapping[str, str]]:
    """What the templates make; the tests' own process looks at the same."""
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        region = {"AWS_REGION": containers.deployed.region, "AWS_DEFAULT_REGION": containers.deployed.region}
        found = dict(server.environment) | region
        for name, value in (found | containers.environment("kcl")).items():
            patch.setenv(name, value)
        create(containers)
        yield found
