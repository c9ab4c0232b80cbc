"""The real KCL: MultiLangDaemon of amazon_kclpy over kinesis-local and DynamoDB Local, workers as processes.

Skipped with the reason where Java, node or Maven is missing; a failure in CI.
"""

import json
import signal
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.codec import encode_kpl
from headwater.processors.runners.kcl.tables import seed_leases
from headwater.stream import sequence
from tests.kcl_servers import KclServers, servers_for_tests
from tests.kcl_world import Fleet, World
from tests.waiting import until


@pytest.fixture(scope="module")
def running() -> Iterator[KclServers]:
    with servers_for_tests() as found:
        yield found


@pytest.fixture
def name(running: KclServers) -> str:
    return f"kcl-{uuid.uuid4().hex[:8]}"


def test_four_shards_one_machine_exact_and_stopped_gracefully(name: str, tmp_path: Path) -> None:
    """Copies are dropped, a stop leaves nothing uncommitted, the log is JSON only, health and lag are served."""
    world = World(name, tmp_path, 4)
    world.settings.commit_seconds = 3600.0  # nothing is committed but by the stop
    world.feed("a", 12)
    world.feed("b", 4, copies=2)
    with world.fleet() as fleet:
        until(lambda: _events(fleet) >= world.events() + 200, 180, "all records read")
        _check_http(fleet)
        assert world.processed() == 0
        assert fleet.stop() == 0
    assert world.processed() == world.events()
    report = world.audit()
    assert report.counts["duplicates"] == 200
    _check_log(fleet)
    leases = _leases(world)
    committed = {entry.shard_id: entry.position for entry in world.services.ledger.shards()}
    for shard, position in committed.items():
        if position != sequence.NONE:
            assert sequence.pad(leases[shard]["checkpoint"]["S"]) == position


def test_kill_of_one_machine_and_the_other_takes_over(name: str, tmp_path: Path) -> None:
    """kill -9 of a daemon and all its children under load: nothing lost, nothing twice."""
    world = World(name, tmp_path, 4)
    world.feed("before", 8)
    with _feeding(world, "during"), world.fleet(HEADWATER_KCL_WORKER="one") as one:
        until(lambda: len(one.shards()) == 4, 180, "all shards at the first")
        with world.fleet(HEADWATER_KCL_WORKER="two") as two:
            until(lambda: len(two.shards()) >= 1, 180, "a shard at the second")
            one.kill()
            killed = time.monotonic()
            until(lambda: len(two.shards()) == 4, 90, "all shards at the second")
            print(f"takeover after {time.monotonic() - killed:.1f} s")
            world.feed("after", 8)
    # the feeder has stopped; a third machine finishes what both left behind
    with world.fleet(HEADWATER_KCL_WORKER="three") as three:
        world.wait_processed()
        assert three.stop() == 0
    world.audit()


def test_a_supervisor_killed_alone_leaves_nobody_at_work(name: str, tmp_path: Path) -> None:
    """kill -9 of the command under load: its daemons end with it, and what they had begun is taken up by others."""
    world = World(name, tmp_path, 3)
    with _feeding(world, "load"), world.fleet(workers=2) as fleet:
        until(lambda: len(fleet.shards()) == 3, 180, "all shards")
        until(lambda: world.processed() > 0, 90, "a commit")
        # a shard that moves between the daemons has no process for a moment
        until(lambda: len(fleet.descendants()) >= 5, 60, "two daemons and the processes of three shards")
        family = fleet.descendants()
        fleet.process.kill()
        until(lambda: not any(_runs(pid) for pid in family), 30, "the end of all daemons and shards")
    with world.fleet() as fleet:
        world.wait_processed()
        assert fleet.stop() == 0
    world.audit()


def test_a_zombie_is_fenced(name: str, tmp_path: Path) -> None:
    """A machine stands still, its leases go to another, and it wakes up with work in its hands: none of it counts."""
    world = World(name, tmp_path, 2)
    with world.fleet(HEADWATER_KCL_WORKER="one") as one:
        until(lambda: len(one.shards()) == 2, 180, "both shards at the first")
        world.feed("before", 6)
        one.send(signal.SIGSTOP)
        world.feed("during", 6)
        with world.fleet(HEADWATER_KCL_WORKER="two") as two:
            until(lambda: len(two.shards()) == 2, 180, "both shards at the second")
            world.wait_processed()
            one.send(signal.SIGCONT)
            world.feed("after", 6)
            world.wait_processed()
            time.sleep(3)
            assert two.stop() == 0
            one.stop()
    world.audit()
    owners = [entry.epoch for entry in world.services.ledger.shards()]
    assert all(epoch >= 2 for epoch in owners)


def test_split_and_merge_under_load(name: str, tmp_path: Path) -> None:
    """Two workers on one machine; children start from their parents' closed ledger items."""
    world = World(name, tmp_path, 2)
    with _feeding(world, "load"), world.fleet(workers=2) as fleet:
        until(lambda: len(fleet.shards()) == 2, 180, "both shards")
        first, second = world.open_shards()
        world.split(first)
        until(lambda: len(world.services.ledger.shards()) >= 4, 180, "the children of the split")
        left = world.open_shards()
        world.merge(left[0], left[1])
        until(lambda: len(world.services.ledger.shards()) >= 5, 180, "the child of the merge")
        world.split(second)
        until(lambda: len(world.services.ledger.shards()) >= 7, 180, "the children of the second split")
        world.feed("late", 10, copies=2)
    with world.fleet() as fleet:
        world.wait_processed()
        assert fleet.stop() == 0
    world.audit()
    closed = {entry.shard_id for entry in world.services.ledger.shards() if entry.closed}
    still = {shard["ShardId"] for shard in world.open_shards()}
    assert closed == {entry.shard_id for entry in world.services.ledger.shards()} - still


def test_poison_and_kpl_aggregates(name: str, tmp_path: Path) -> None:
    """Records that are nothing go to the dead letters; an aggregate that the KCL took apart keeps its rows' places."""
    world = World(name, tmp_path, 1)
    row = {"device": "k", "metric": "m0", "ts": 1_762_160_400_000, "value": 1.0}
    rows = [json.dumps(row | {"value": float(i)}).encode() for i in range(20)]
    for data in (b"\x00garbage", encode_kpl(rows, "k", None), b"\xf3\x89\x9a\xc2short", b"\x1f\x8b" + bytes(20)):
        world.kinesis.put_record(StreamName=name, Data=data, PartitionKey="k")
    world.feed("good", 5)
    with world.fleet() as fleet:
        until(lambda: world.processed() >= world.events() + 20, 180, "good records and the aggregate")
        assert fleet.stop() == 0
    letters = list(world.services.letters.list("kcltest"))
    assert len(letters) == 3
    world.services.publisher("test").drain()
    from headwater.processors.audit.run import run_audit

    report = run_audit(world.services.reader)
    assert report.exact
    assert report.foreign.in_lake == 20
    assert report.counts["poison_records"] == 3


def test_checkpoint_ahead_of_the_ledger(name: str, tmp_path: Path) -> None:
    """Somebody moved the lease's checkpoint on: the records in between come from the stream itself."""
    world = World(name, tmp_path, 1)
    world.feed("a", 4)
    with world.fleet() as fleet:
        world.wait_processed()
        assert fleet.stop() == 0
    world.feed("a", 6)
    last = world.kinesis.put_record(StreamName=name, Data=b"{not json", PartitionKey="x")["SequenceNumber"]
    _set_checkpoint(world, "shardId-000000000000", last)
    world.feed("a", 3)
    with world.fleet() as fleet:
        world.wait_processed()
        assert fleet.said("the checkpoint is ahead of the ledger")
        assert fleet.stop() == 0
    world.audit()


def test_crash_loop_is_reported(name: str, tmp_path: Path) -> None:
    """A shard that kills its process again and again ends the command with one line; mended, nothing is missing."""
    world = World(name, tmp_path, 1, crashes=2)
    trigger = tmp_path / "crash"
    trigger.touch()
    world.feed("a", 3)
    with world.fleet(KCL_TEST_CRASH=str(trigger)) as fleet:
        assert fleet.process.wait(120) == 1
    lines = fleet.errors.read_text().splitlines()
    assert len(lines) == 1
    assert "failed 2 times without a commit in between" in lines[0]
    trigger.unlink()
    with world.fleet() as fleet:
        world.wait_processed()
        assert fleet.stop() == 0
    world.audit()


def test_fan_out_from_a_point_in_time(name: str, tmp_path: Path) -> None:
    """Enhanced fan-out, AT_TIMESTAMP and provisioned tables, by settings alone."""
    options = {"retrieval": "FANOUT", "start": "AT_TIMESTAMP", "start_at": "2020-01-01T00:00:00Z"}
    world = World(name, tmp_path, 1, billing="PROVISIONED", **options)
    world.feed("a", 4)
    with world.fleet() as fleet:
        world.wait_processed()
        assert fleet.stop() == 0
    world.audit()
    assert len(world.kinesis.list_stream_consumers(StreamARN=_arn(world))["Consumers"]) == 1
    table = world.services.client("dynamodb").describe_table(TableName=f"{name}-kcltest")["Table"]
    assert table["ProvisionedThroughput"]["WriteCapacityUnits"] == 10


def test_leases_are_seeded_once(name: str, tmp_path: Path) -> None:
    """A lease table with any lease in it is the KCL's."""
    world = World(name, tmp_path, 2)
    with world.fleet() as fleet:
        until(lambda: len(fleet.shards()) == 2, 180, "both shards")
        dynamodb = world.services.client("dynamodb")
        assert seed_leases(world.kinesis, dynamodb, name, f"{name}-kcltest") == 0
        assert fleet.stop() == 0


class _Feeding:
    """Batches until the block ends."""

    def __init__(self, world: World, origin: str) -> None:
        self._world, self._origin, self._stop = world, origin, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        copies = 0
        while not self._stop.wait(0.1):
            copies += 1
            self._world.feed(self._origin, 1, copies=1 + copies % 2)


def _runs(pid: int) -> bool:
    """A process that has ended and that nobody has asked about runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _feeding(world: World, origin: str) -> _Feeding:
    return _Feeding(world, origin)


def _events(fleet: Fleet) -> int:
    last = {line["shard"]: line["counts"].get("events", 0) for line in fleet.said("status") if "counts" in line}
    return sum(last.values())


def _check_http(fleet: Fleet) -> None:
    base = f"http://127.0.0.1:{fleet.port()}"
    for path in ("/health/live", "/health/ready"):
        with urllib.request.urlopen(base + path) as answer:
            assert json.load(answer)["ok"]
    with urllib.request.urlopen(base + "/metrics") as answer:
        text = answer.read().decode()
    assert text.count("headwater_shard_millis_behind_latest{") == 4
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(base + "/else")


def _check_log(fleet: Fleet) -> None:
    lines = fleet.lines()
    assert fleet.errors.read_text() == ""
    for line in lines:
        assert {"time", "level", "logger", "message", "shard", "worker", "lease"} <= line.keys(), line
    printed = [line for line in lines if line["message"] == "a user's function that prints"]
    assert {line["shard"] for line in printed} == fleet.shards() | {line["shard"] for line in printed}
    assert all(line["shard"] and line["worker"] and line["epoch"] for line in printed)
    assert any(line["logger"].startswith("kinesis.") for line in lines)


def _arn(world: World) -> str:
    answer = world.kinesis.describe_stream_summary(StreamName=world.settings.stream)
    arn: str = answer["StreamDescriptionSummary"]["StreamARN"]
    return arn


def _leases(world: World) -> dict[str, dict[str, dict[str, str]]]:
    items = world.services.client("dynamodb").scan(TableName=f"{world.settings.stream}-kcltest")["Items"]
    return {item["leaseKey"]["S"]: item for item in items}


def _set_checkpoint(world: World, shard: str, checkpoint: str) -> None:
    world.services.client("dynamodb").update_item(
        TableName=f"{world.settings.stream}-kcltest",
        Key={"leaseKey": {"S": shard}},
        UpdateExpression="SET checkpoint = :c",
        ExpressionAttributeValues={":c": {"S": checkpoint}},
    )
