"""The function under Amazon's runtime client, behind an event source mapping that behaves as the service's does."""

import json
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.local.embedded import EmbeddedAws
from tests.kcl_world import World, until
from tests.lambda_mapping import MappingSettings, SourceMapping
from tests.lambda_pipeline import DEADLY
from tests.lambda_runtime import Function

HANDLER = "processors.runners.lambda_.handler"
pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def aws() -> Iterator[None]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield


def function(world: World, folder: Path, **options: object) -> Function:
    trigger = str(folder / "hang")
    environment = world.environment(HEADWATER_PIPELINE="tests.lambda_pipeline:pipeline", LAMBDA_TEST_HANG=trigger)
    return Function(HANDLER, environment, folder / "function.log", **options)  # type: ignore[arg-type]


def put(world: World, data: bytes) -> None:
    world.kinesis.put_record(StreamName=world.settings.stream, Data=data, PartitionKey=uuid.uuid4().hex)


def lines(folder: Path, message: str) -> list[dict[str, object]]:
    """What the function logged."""
    found = [line for line in (folder / "function.log").read_text().splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, found) if message in line["message"]]


def test_killed_timed_out_bisected_given_up_and_exact(aws: None, tmp_path: Path) -> None:
    """Containers die at random, one hangs, one record is no record and one kills whoever touches it; retries are few,
    so that batches are given up. Every event is in the lake once and in the view once, the two records in the dead
    letters."""
    world = World(f"lambda-{uuid.uuid4().hex[:8]}", tmp_path, 2)
    chance = random.Random(11)

    def kill_after() -> float | None:
        return chance.uniform(0.01, 0.6) if chance.random() < 0.25 else None

    world.feed("a", 10)
    world.feed("b", 4, copies=2)
    put(world, b"\x00no record")
    put(world, json.dumps({"device": "d", "metric": "m0", "ts": 0, "value": DEADLY}).encode())
    (tmp_path / "hang").touch()
    options = MappingSettings(batch_size=8, retries=1)
    with (
        function(world, tmp_path, containers=3, seconds=6.0, kill_after=kill_after) as deployed,
        SourceMapping(world.kinesis, world.settings.stream, deployed.invoke, options) as mapping,
    ):
        until(lambda: world.processed() > 0, 60, "a first commit")
        world.feed("c", 8)
        world.wait_processed(150)
    assert deployed.died > 3
    assert any("timed out" in error for error in mapping.errors)
    assert mapping.bisected
    assert mapping.given_up
    report = world.audit()
    assert report.counts["poison_records"] == 2
    letters = sorted(letter.reason for letter in world.services.letters.list("kcltest"))
    assert len(letters) == 2
    assert "the function died 3 times on this record" in letters
