"""An image really built: what it holds, and its entry point run in it on a read-only root."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from infra.image import Image, Store, absent, unable
from infra.sbom import components, sbom
from tests.infra.starting import ROOT, lacking, running, task_environment, wait_for
from tests.infra.synthesis import Synthesis


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """`publish`, below build/images: the base is made once."""
    reason = f"no image can be built here: {unable()}"
    if os.geteuid() == 0 and absent():
        lacking(reason)  # what can be installed is required
    if unable():
        pytest.skip(reason)  # also where CI is true: not everywhere may root mount, and not everyone is root
    store = Store(ROOT / "build" / "images")
    with store.opened(store.build("publish")) as found:
        yield found


def test_it_says_how_it_is_run(image: Image) -> None:
    assert image.digest.startswith("sha256:")
    assert image.config["User"] == "10001:10001"
    assert (image.config["Entrypoint"], image.config["Cmd"]) == (["headwater"], ["publish"])
    assert list(image.config["Volumes"]) == ["/tmp"]


def test_nothing_of_the_build_is_in_it(image: Image) -> None:
    """Neither the sources nor what installed them, and no cache; nothing of the service's can be written to."""
    names = {one.name for one in components(image.root) if one.type == "pypi"}
    assert not names & {"uv", "pip", "pytest", "moto", "aws-cdk-lib", "fastapi"}
    assert not any((image.root / name).exists() for name in ("src", "opt/uv"))
    assert [path for path in (image.root / "root/.cache").rglob("*") if path.is_file()] == []
    place = image.root / "opt/headwater"
    # uv's own lock, which is empty, is anyone's
    installed = [path for path in place.rglob("*") if not path.is_symlink() and path != place / ".lock"]
    assert len(installed) > 1_000
    assert [path for path in installed if path.stat().st_uid != 0 or path.stat().st_mode & 0o022] == []


def test_the_sbom_names_what_is_installed(image: Image) -> None:
    listed = json.loads(sbom(image.root))
    assert listed["bomFormat"] == "CycloneDX"
    purls = {one["purl"] for one in listed["components"]}
    ((place),) = image.root.glob("opt/headwater/lib/python*/site-packages")
    wanted = {
        f"pkg:pypi/{canonicalize_name(one.metadata['Name'])}@{one.version}" for one in distributions(path=[str(place)])
    }
    assert wanted == {one for one in purls if one.startswith("pkg:pypi/")}
    assert any(one.startswith("pkg:deb/debian/libc6@") for one in purls)


def test_the_publisher_runs_in_it_as_nobody_on_a_read_only_root(
    image: Image, aws: Mapping[str, str], containers: Synthesis, tmp_path: Path
) -> None:
    """The image's user, entry point, command and environment, and the task's; seen from outside in /proc."""
    given = task_environment(containers, "publish") | dict(aws)
    with running(image.command(given), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, tmp_path) as process:
        wait_for(process, tmp_path, '"message": "step"')
        proc = Path(f"/proc/{process.pid}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        assert int(status["CapEff"], 16) == 0
        mounts = [line.split() for line in (proc / "mountinfo").read_text().splitlines()]
        writable = {words[4] for words in mounts if "ro" not in words[5].split(",")}
        assert writable == {"/tmp", "/dev", "/proc"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "log").read_text()[-2000:]
