"""The function under Amazon's runtime client, behind an event source mapping that behaves as the service's does."""

import json
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headwater.commands.local.embedded import EmbeddedAws
from infra.lambda_bundle import NEEDS
from tests.kcl_servers import servers_for_tests
from tests.kcl_world import World
from tests.lambda_function import bundled
from tests.lambda_mapping import MappingSettings, SourceMapping
from tests.lambda_pipeline import DEADLY
from tests.lambda_runtime import Answer, Function
from tests.waiting import until


@pytest.fixture(scope="module")
def modules() -> dict[str, str]:
    return bundled(NEEDS)


@pytest.fixture
def aws() -> Iterator[None]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def resharding() -> Iterator[None]:
    """kinesis-local, which splits and merges as the service does, and DynamoDB Local."""
    with servers_for_tests():
        yield


class Deployment:
    """The function of a world, with containers that die at random."""

    def __init__(self, world: World, folder: Path, modules: dict[str, str], seed: int = 11, kills: float = 0.0) -> None:
        self._world = world
        self._log = folder / "function.log"
        self.hang = folder / "hang"
        self._modules = modules
        self._random = random.Random(seed)
        self._kills = kills
        self._left = 4
        """Deaths by chance: each costs a cold start."""

    def _kill_after(self) -> float | None:
        if not self._left or self._random.random() >= self._kills:
            return None
        self._left -= 1
        return self._random.uniform(0.01, 0.6)

    def function(self, containers: int = 3, seconds: float = 5.0) -> Function:
        environment = self._world.environment(
            HEADWATER_PIPELINE="tests.lambda_pipeline:pipeline", LAMBDA_TEST_HANG=str(self.hang), **self._modules
        )
        handler = "tests.lambda_function.handler"
        return Function(handler, environment, self._log, containers, seconds, self._kill_after)

    def job(self, name: str, **expected: object) -> None:
        """A function on a schedule: its answer, and the line that alarms look at."""
        log = self._log.with_name(f"{name}.log")
        with Function(
            f"headwater.processors.runners.serverless.jobs.{name}", self._world.environment(), log, seconds=60
        ) as function:
            answer = function.invoke({"source": "aws.events"})
        assert not answer.error
        line = json.loads(log.read_text().splitlines()[-1])
        for one in (answer.result, line):
            assert expected.items() <= one.items(), one


def put(world: World, data: bytes) -> None:
    world.kinesis.put_record(StreamName=world.settings.stream, Data=data, PartitionKey=uuid.uuid4().hex)


def mapped(world: World, invoke: Callable[..., object], **settings: object) -> SourceMapping:
    return SourceMapping(world.kinesis, world.settings.stream, invoke, MappingSettings(**settings))  # type: ignore[arg-type]  # whoever calls it gives what fits


def new_world(folder: Path, shards: int) -> World:
    return World(f"lambda-{uuid.uuid4().hex[:8]}", folder, shards)


def test_killed_timed_out_bisected_and_exact(aws: None, tmp_path: Path, modules: dict[str, str]) -> None:
    """Containers die at random, one hangs, one record is no record and one kills whoever touches it; batches are not
    tried again but halved, and then given up. Every event is in the lake once and in the view once, the two records in
    the dead letters."""
    world = new_world(tmp_path, 2)
    deployed = Deployment(world, tmp_path, modules, kills=0.3)
    world.feed("a", 10)
    world.feed("b", 4, copies=2)
    put(world, b"\x00no record")
    put(world, json.dumps({"device": "d", "metric": "m0", "ts": 1_762_160_400_000, "value": DEADLY}).encode())
    deployed.hang.touch()
    with deployed.function() as function, mapped(world, function.invoke, batch_size=8, retries=0) as mapping:
        until(lambda: world.processed() > 0, 60, "a first commit")
        world.feed("c", 8)
        world.wait_processed(150)
    assert function.died > 3
    assert any("timed out" in error for error in mapping.errors)
    assert mapping.bisected
    report = world.audit()
    assert report.counts["poison_records"] == 2
    letters = sorted(letter.reason for letter in world.services.letters.list("kcltest"))
    assert len(letters) == 2
    assert "the function died 3 times on this record" in letters


def test_split_and_merge_while_containers_die(resharding: None, tmp_path: Path, modules: dict[str, str]) -> None:
    """A child starts only when its parents are read to their end, and takes over what they had seen."""
    world = new_world(tmp_path, 2)
    deployed = Deployment(world, tmp_path, modules, kills=0.3)
    world.feed("a", 8)
    with deployed.function() as function, mapped(world, function.invoke, batch_size=5):
        until(lambda: world.processed() > 0, 60, "a first commit")
        world.split(world.open_shards()[0])
        world.feed("b", 8, copies=2)
        world.merge(*world.open_shards()[1:3])
        world.feed("c", 8)
        world.wait_processed(120)
    world.audit()
    assert len(world.services.ledger.shards()) == 5
    assert sum(entry.closed for entry in world.services.ledger.shards()) == 3


def test_two_batches_of_a_shard_at_once_are_refused(aws: None, tmp_path: Path, modules: dict[str, str]) -> None:
    """A parallelization factor of 2 is named in the error, nothing is lost by it, and with 1 again all is well."""
    world = new_world(tmp_path, 1)
    deployed = Deployment(world, tmp_path, modules)
    for number in range(12):
        world.feed(f"origin{number}", 1)
    with deployed.function(containers=2) as function:
        with mapped(world, function.invoke, batch_size=12, parallelization=2, bisect=False) as mapping:
            until(lambda: any("ParallelizationFactor" in error for error in mapping.errors), 60, "a refusal")
        with mapped(world, function.invoke, batch_size=12):
            world.wait_processed(60)
    world.audit()


def test_an_outage_of_the_function_loses_nothing(aws: None, tmp_path: Path, modules: dict[str, str]) -> None:
    """Every batch is given up while the function is throttled: the next one brings them all, or the destination's
    message does; and the publisher's function puts them into the table."""
    world = new_world(tmp_path, 1)
    deployed = Deployment(world, tmp_path, modules)
    world.feed("a", 6)

    def throttled(_event: object) -> Answer:
        return Answer(error="TooManyRequestsException: Rate Exceeded.")

    with mapped(world, throttled, batch_size=3, retries=0, bisect=False, to_queue=False) as mapping:
        until(lambda: mapping.given_up == 6, 60, "all batches given up")
    assert world.processed() == 0
    with deployed.function(containers=1) as function:
        world.feed("b", 1)
        with mapped(world, _only_the_last(function.invoke), batch_size=100):
            world.wait_processed(60)
        world.feed("c", 3)
        with mapped(world, _only_messages(function.invoke, throttled), batch_size=4, retries=0, bisect=False):
            world.wait_processed(60)
    deployed.job("publish", waiting=0)
    assert not any(entry.pending for entry in world.services.ledger.shards())
    deployed.job("audit", exact=True, missing=0, in_lake=world.events())
    world.audit()


def _only_the_last(invoke: Callable[..., object]) -> Callable[..., object]:
    """As after batches that were given up: of each batch only its last record comes."""
    return lambda event: invoke({"Records": event["Records"][-1:]})


def _only_messages(invoke: Callable[..., Answer], throttled: Callable[..., Answer]) -> Callable[..., Answer]:
    """No batch gets through, what the on-failure destination says does."""
    return lambda event: (invoke if event["Records"][0]["eventSource"] == "aws:sqs" else throttled)(event)
