"""`headwater lake maintain` as a process: stopped and killed in the middle of its work."""

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from headwater.aws import Objects, client
from headwater.clock import ManualClock, SystemClock
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.ledger import Ledger
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.maintenance import LEAST_AGE_MS
from headwater.sinks.lake.partitioning import Partitioning
from headwater.sinks.lake.rewrite import data_files
from tests.integration.test_main_job import start
from tests.integration.test_maintenance import care
from tests.lake import CONTRACT, aws, commit, ensured, publisher, seqs, settings, uploads
from tests.waiting import until

__all__ = ["aws", "settings"]

BUCKETS = 16
BUCKETED = Partitioning("ts", "device", "day", BUCKETS)
PIPELINE = """
from headwater.contract import load_contract
from headwater.processors.definition.pipeline import Pipeline

pipeline = Pipeline("metric", load_contract({contract!r})).lake("metric", buckets={buckets})
"""
ROWS = 400


@pytest.fixture
def ledger(settings: Settings) -> Ledger:
    """After three commits that are in the table: three small files in each bucket."""
    provision(settings, shards=1)
    ensured(settings, partitioning=BUCKETED)
    made = Ledger(client("dynamodb", settings), settings.ledger_table, settings.database)
    for number in range(3):
        files = uploads(settings, f"c{number}", ROWS * number, ROWS, partitioning=BUCKETED, devices=ROWS)
        commit(made, "s", number + 1, files)
    publisher(settings, made, lease_seconds=0).drain()
    return made


@pytest.fixture
def environment(settings: Settings, aws: EmbeddedAws, tmp_path: Path) -> Mapping[str, str]:
    (tmp_path / "metric.yaml").write_text(CONTRACT.format(version=1, status="int", more=""))
    program = PIPELINE.format(contract=str(tmp_path / "metric.yaml"), buckets=BUCKETS)
    (tmp_path / "metric_pipeline.py").write_text(program)
    own = {"BUCKET": settings.bucket, "DATABASE": settings.database, "PIPELINE": str(tmp_path / "metric_pipeline.py")}
    own_names = {f"HEADWATER_{name}": value for name, value in own.items()}
    return dict(aws.environment) | own_names | {"TMPDIR": str(tmp_path)}  # a killed one leaves its files there


def maintaining(environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    return start(environment, log, "lake", "maintain", "--fewest", "2", "--every-seconds", "1", "--keep", "1")


def until_written(settings: Settings, files: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until there are so many joined files, in the table or not yet."""
    objects = Objects(client("s3", settings), settings.bucket)
    deadline = time.monotonic() + 120
    while len(list(objects.list("lake/metric/data/compacted/"))) < files:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


def joined(settings: Settings) -> int:
    return sum("/compacted/" in file.file_path for file in data_files(open_table(settings, "metric")))


def test_a_stop_is_heeded_between_two_groups(
    settings: Settings, ledger: Ledger, environment: Mapping[str, str], tmp_path: Path
) -> None:
    """SIGTERM ends it with 0 after the group at hand, the others are for the next; the table is whole."""
    log = tmp_path / "log"
    process = maintaining(environment, log)
    until_written(settings, 1, process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["message"] for line in lines] == ["maintained"]
    assert joined(settings) == lines[0]["into"] < BUCKETS
    assert seqs(settings) == Counter(range(3 * ROWS))


def test_killed_in_the_middle_the_table_is_whole(
    settings: Settings, ledger: Ledger, environment: Mapping[str, str], tmp_path: Path
) -> None:
    """kill -9 as soon as a joined file is written, twice; the next one ends the work, and orphans go."""
    log = tmp_path / "log"
    for killed in range(2):
        process = maintaining(environment, log)
        until_written(settings, 2 * killed + 1, process, log)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert seqs(settings) == Counter(range(3 * ROWS))
    process = maintaining(environment, log)
    until(lambda: joined(settings) >= BUCKETS, 120, lambda: log.read_text()[-2_000:])
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, log.read_text()
    assert joined(settings) == len(data_files(open_table(settings, "metric"))) == BUCKETS
    later = ManualClock(SystemClock().now_ms() + 2 * LEAST_AGE_MS)
    care(settings, ledger, later).orphans(later.now_ms() - LEAST_AGE_MS, remove=True)
    assert seqs(settings) == Counter(range(3 * ROWS))
