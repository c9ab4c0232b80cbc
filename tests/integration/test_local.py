"""The embedded AWS, and the commands that read results run against it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from threading import Event

import boto3
import numpy as np
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from headwater.aggregates.columns import Columns
from headwater.aws import Objects
from headwater.commands.local.embedded import EmbeddedAws, owns_listener
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.errors import Retryable
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from headwater.sinks.deadletter import DeadLetter
from headwater.sinks.views.slots import Upsert
from tests.cli import headwater
from tests.waiting import until

SETTINGS = Settings()
START = 1_762_160_400_000
EVENT = b'{"device": "dev-1", "metric": "m", "ts": "2026-03-01T12:00:00Z"}'


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Provisioned twice, since that must change nothing; the lake's table made as the publisher makes it."""
    with EmbeddedAws() as aws, pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=3)
        provision(SETTINGS, shards=3)
        found = Services(SETTINGS, load(SETTINGS.pipeline))
        found.publisher("test")
        yield found


@pytest.fixture
def environment(services: Services) -> Mapping[str, str]:
    return {
        "AWS_ENDPOINT_URL": services.kinesis.meta.endpoint_url,
        "AWS_ACCESS_KEY_ID": "embedded",
        "AWS_SECRET_ACCESS_KEY": "embedded",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def test_the_listener_is_our_own_child() -> None:
    """A port that somebody else listens on is not taken for ours; the server ends with the block."""
    with EmbeddedAws() as aws:
        port = aws.port
        assert aws._process is not None
        assert owns_listener(aws._process.pid, port)
        assert not owns_listener(1, port)
        with socket.create_server(("127.0.0.1", 0)) as other:
            assert not owns_listener(aws._process.pid, other.getsockname()[1])
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 2)


def test_a_killed_parent_leaves_no_server() -> None:
    """Nothing of it listens any more."""
    code = (
        "from headwater.commands.local.embedded import EmbeddedAws as A; a = A(); a.__enter__(); print(a.port); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        socket.create_connection(("127.0.0.1", port), 2).close()
        parent.kill()

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    until(refused, 30, "the end of the server")


def test_writers_on_one_condition_lose_no_write(services: Services) -> None:
    """Conditional writes are atomic, as AWS's are: the fence rests on it. Who reads meanwhile sees whole items."""
    done = Event()

    def add(_: int) -> None:
        for _ in range(8):
            for _ in range(100):
                with suppress(Retryable):
                    services.ledger.change("sum", lambda old: {"n": old.get("n", 0) + 1})
                    break

    def read() -> None:
        while not done.is_set():
            services.ledger.document("sum")

    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read)
        writers = [pool.submit(add, at) for at in range(4)]
        wait(writers, 120)
        done.set()
        for each in (*writers, reader):
            each.result(60)
    assert services.ledger.document("sum")[0] == {"n": 32}


def test_everything_is_provisioned(services: Services) -> None:
    """By the names in the settings, once."""
    assert len(services.kinesis.list_shards(StreamName=SETTINGS.stream)["Shards"]) == 3
    assert services.ledger.shards() == []
    assert list(services.objects.list("dlq/")) == []


def test_lake_query(services: Services, environment: Mapping[str, str]) -> None:
    """Table, JSON lines, CSV; and SQL that cannot be."""
    sql = "SELECT count(*) AS n, max(value) AS most FROM telemetry"
    assert json.loads(headwater("lake", "query", sql, "--json", environment=environment).out) == {"n": 0, "most": None}
    assert headwater("lake", "query", sql, "--csv", environment=environment).out.splitlines()[0] == '"n","most"'
    assert headwater("lake", "query", sql, environment=environment).out.split()[:2] == ["n", "most"]
    headwater("lake", "query", "SELECT * FROM nope", environment=environment).failed(2, "nope", "telemetry")
    headwater("lake", "query", "SELEKT 1", environment=environment).failed(2, "SELEKT")
    headwater("lake", "query", "SELECT nope FROM telemetry", environment=environment).failed(2, "nope")


def test_views_that_are_not_there(services: Services, environment: Mapping[str, str]) -> None:
    """An unknown view is wrong usage, a key without rows is not found, an empty list is empty."""
    headwater("view", "list", "nope", environment=environment).failed(2, "nope", "device_10m")
    headwater("view", "get", "device_10m", "a|b", environment=environment).failed(2, "device")
    headwater("view", "get", "device_10m", "dev-1", environment=environment).failed(1, "dev-1")
    ran = headwater("view", "list", "device_10m", "--json", environment=environment)
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_view_row_is_found(services: Services, environment: Mapping[str, str]) -> None:
    """By its key, and in a list by a prefix of it; numbers as numbers, times as text."""
    spec = services.view_specs["device_10m"]
    columns = Columns(spec.aggregates)
    columns.grow(1)
    table = pa.table({"device": ["dev-7", "dev-7"], "value": [1.0, 4.0]})
    columns.fold(np.zeros(2, np.int64), table, np.array([START, START + 1], np.int64))
    upsert = Upsert(("dev-7",), START, START + 600_000, "s0", "1".zfill(56), columns.partial(0))
    services.views.write(spec, [upsert])
    for arguments in (["get", "device_10m", "dev-7"], ["list", "device_10m", "--prefix", "dev-"]):
        found = json.loads(headwater("view", *arguments, "--json", environment=environment).out)
        assert {name: found[name] for name in ("device", "events", "least", "most", "mean")} == {
            "device": "dev-7",
            "events": 2,
            "least": 1.0,
            "most": 4.0,
            "mean": 2.5,
        }
        assert "dev-7" in headwater("view", *arguments, environment=environment).out
    assert headwater("view", "list", "device_10m", "--prefix", "x", "--json", environment=environment).out == ""


def test_dead_letters_go_back_onto_the_stream(services: Services, environment: Mapping[str, str]) -> None:
    """One by its id, then the rest; on the shard they came from; an unknown id is named and sends nothing."""
    shards = services.kinesis.list_shards(StreamName=SETTINGS.stream)["Shards"]
    shard = shards[1]["ShardId"]
    letters = [_letter(shard, "17", None, b"\xff\x00 not a batch"), _letter(shard, "18", 3, EVENT)]
    services.letters.write("telemetry", letters)
    listed = [json.loads(line) for line in headwater("dlq", "list", "--json", environment=environment).out.splitlines()]
    assert [one["id"] for one in listed] == [f"{shard}:17", f"{shard}:18:3"]
    assert listed[0]["reason"] == "a reason"
    assert "a reason" in headwater("dlq", "list", environment=environment).out
    headwater("dlq", "redrive", "--id", f"{shard}:99", environment=environment).failed(2, f"{shard}:99")
    assert len(list(services.letters.list("telemetry"))) == 2
    one = headwater("dlq", "redrive", "--id", f"{shard}:18:3", "--json", environment=environment)
    assert json.loads(one.out) == {"sent": 1}
    assert headwater("dlq", "redrive", "--all", environment=environment).code == 0
    assert list(services.letters.list("telemetry")) == []
    assert len(list(services.objects.list("redriven/telemetry/"))) == 2
    assert _records(services, shard) == [EVENT, b"\xff\x00 not a batch"]


def test_what_is_not_there_on_aws_is_one_line(services: Services, environment: Mapping[str, str]) -> None:
    """A missing bucket and a missing table say which call failed."""
    other = {**environment, "HEADWATER_BUCKET": "no-such-bucket", "HEADWATER_VIEWS_TABLE": "no-such-table"}
    headwater("dlq", "list", environment=other).failed(1, "NoSuchBucket")
    headwater("view", "list", "device_10m", environment=other).failed(2, "no-such-table")
    with pytest.raises(ClientError):
        Objects(boto3.client("s3"), "no-such-bucket").put("a", b"")


def _letter(shard: str, number: str, index: int | None, payload: bytes) -> DeadLetter:
    return DeadLetter(shard, number, index, "a reason", None, None, payload, "telemetry", START)


def _records(services: Services, shard: str) -> list[bytes]:
    iterator = services.kinesis.get_shard_iterator(
        StreamName=SETTINGS.stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    return [one["Data"] for one in services.kinesis.get_records(ShardIterator=iterator)["Records"]]


def test_up_says_that_its_aws_has_died() -> None:
    """In a line, with exit code 1, and soon: nothing waits for what is gone."""
    command = [sys.executable, "-c", "from headwater.commands import main; main()", "up", "--shards", "1", "--json"]
    environment = os.environ | {"HEADWATER_SERVE_PORT": "0", "HEADWATER_GATEWAY_PORT": "0"}
    with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["aws"].rpartition(":")[2])
        (server,) = (pid for pid in _children(process.pid) if owns_listener(pid, port))
        os.kill(server, signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    *lines, last = said.splitlines()
    assert last == "headwater: the embedded AWS has ended, and all that was in it is gone: signal 9"
    assert [one for one in lines if not one.endswith(" …") and not (one.startswith("warning: ") and ": " in one)] == []
    assert "Traceback" not in said


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
