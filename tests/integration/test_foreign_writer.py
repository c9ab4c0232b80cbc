"""Our publisher and a foreign pyiceberg writer on one table through Glue on moto, where commits overtake each other.

Both are processes. What the catalog acknowledged and lost is counted and printed; of ours nothing may be missing or
double in the end, also when the publisher is killed between a commit and its mark in the ledger.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pyarrow as pa
import pytest

from headwater.aws import Objects, client
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.contract.iceberg import iceberg_schema
from headwater.ledger import Commit, Ledger, PendingFile
from headwater.processors.services import Services
from headwater.sinks.lake.buffer import LakeBuffer
from headwater.sinks.lake.catalog import ensure_table, open_table
from headwater.sinks.lake.catalogs import open_catalog
from headwater.stream import sequence
from tests.chaos.events import CONTRACT, events
from tests.kcl_pipeline import pipeline

SETTINGS = Settings(pipeline="tests.kcl_pipeline:pipeline", publish_seconds=0.5)
TABLE = "kcltest"
SHARDS, ROUNDS, ROWS = 2, 5, 5
ROOT = Path(__file__).parents[2]

FOREIGN = """
import sys, time
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, ValidationException
from headwater.config import Settings
from headwater.sinks.lake.catalog import open_table
from tests.chaos.events import events

table, acknowledged = open_table(Settings(), "kcltest"), 0
while True:
    row = events(9, acknowledged, acknowledged + 1).to_pylist()[0] | {"_origin": "foreign", "_seq": acknowledged}
    row["_arrived_at"] = row["ts"]
    rows = pa.Table.from_pylist([row], schema=table.schema().as_arrow())
    try:
        table.append(rows)
        acknowledged += 1
        print(acknowledged, flush=True)
    except (CommitFailedException, ValidationException):
        pass
    time.sleep(0.3)
    table.refresh()
"""
"""A plain pyiceberg program: appends a row, and tries again when the catalog says that another was faster, or when the
snapshot that it began with is gone, as this catalog loses commits that it has acknowledged. It pauses: one that never
does may win every race, as its commits take less time than a publisher's look at the history."""

MORTAL = """
import os, signal, sys
from headwater.config import Settings
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
import headwater.sinks.lake.catalog, headwater.ledger

def dying_after(owner, name):
    call = getattr(owner, name)
    def dies(self, *arguments):
        call(self, *arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, dies)

{"commit": lambda: dying_after(headwater.sinks.lake.catalog.IcebergTable, "add"),
 "mark": lambda: dying_after(headwater.ledger.Ledger, "take")}[sys.argv[1]]()
settings = Settings()
publisher = Services(settings, load(settings.pipeline)).publisher(f"mortal-{os.getpid()}")
publisher.drain()
"""
"""A publisher that is killed right after it has committed to the table, or right after it has marked that."""


@pytest.fixture
def environment() -> Iterator[Mapping[str, str]]:
    """A provisioned AWS of the test's own, known to this process; yields the environment for others."""
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=1)
        schema = iceberg_schema(CONTRACT, pipeline.added)
        ensure_table(open_catalog(SETTINGS), SETTINGS, TABLE, schema, pipeline.lake_partitioning)
        yield (
            os.environ
            | dict(server.environment)
            | {
                "HEADWATER_PUBLISH_SECONDS": "0.5",
                "HEADWATER_PIPELINE": SETTINGS.pipeline,
            }
        )


def upload(shard: int, round_: int) -> PendingFile:
    """A data file as a shard writes it."""
    first = (SHARDS * round_ + shard) * ROWS
    table = events(0, first, first + ROWS)
    known = {"_origin": ["ours"] * ROWS, "_seq": list(range(first, first + ROWS)), "_arrived_at": [0] * ROWS}
    for field in pipeline.lake_schema:
        if field.name not in table.column_names:
            table = table.append_column(field.name, pa.array(known.get(field.name, [None] * ROWS)).cast(field.type))
    buffer = LakeBuffer(pipeline.lake_schema, pipeline.lake_partitioning)
    buffer.append(table.select(pipeline.lake_schema.names))
    (file,) = buffer.seal()
    key = f"lake/{TABLE}/data/{shard}-{round_}.parquet"
    return PendingFile(TABLE, Objects(client("s3", SETTINGS), SETTINGS.bucket).put(key, file.body), ROWS, 1)


def commit(ledger: Ledger, shard: int, round_: int) -> None:
    name = f"shardId-{shard:012d}"
    entry = ledger.shard(name) or ledger.claim(name, "owner", b"", 0)
    position = sequence.pad(str(round_ + 1))
    ledger.commit(entry, Commit(position, b"", None, [upload(shard, round_)], {}, None, False, 0))


@contextmanager
def foreign_writer(environment: Mapping[str, str]) -> Iterator[list[int]]:
    """Appends throughout the block; afterwards the list holds how many commits it was told had succeeded."""
    acknowledged: list[int] = []
    command = [sys.executable, "-c", FOREIGN]
    with (
        TemporaryFile("w+") as said,
        subprocess.Popen(
            command, env=dict(environment), stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT
        ) as process,
    ):
        assert process.stdout is not None
        acknowledged.append(int(process.stdout.readline()))
        try:
            yield acknowledged
            if process.poll() is not None:
                said.seek(0)
                pytest.fail(f"the foreign writer has ended: {said.read()[-4000:]}")
        finally:
            process.kill()
            acknowledged[:] = [int(line) for line in process.stdout.read().split() or acknowledged][-1:]


def identities() -> Counter[tuple[str, int]]:
    """Every row of the table."""
    rows = open_table(SETTINGS, TABLE).scan(selected_fields=("_origin", "_seq")).to_arrow()
    return Counter(zip(rows["_origin"].to_pylist(), rows["_seq"].to_pylist(), strict=True))


def check(found: Counter[tuple[str, int]], files: int) -> None:
    ours = Counter({seq: number for (origin, seq), number in found.items() if origin == "ours"})
    assert ours == Counter(range(files * ROWS))


def test_nothing_of_ours_is_lost_or_doubled_beside_a_foreign_writer(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    """`headwater publish` while shards commit; stopped, it gives its lease back at once."""
    services = Services(SETTINGS, pipeline)
    log = tmp_path / "log"
    command = [sys.executable, "-c", "from headwater.commands import main; main()", "publish"]
    with foreign_writer(environment) as acknowledged, log.open("wb") as out:
        process = subprocess.Popen(command, env=dict(environment), stdout=out, stderr=out, cwd=ROOT)
        try:
            for round_ in range(ROUNDS):
                for shard in range(SHARDS):
                    commit(services.ledger, shard, round_)
                _until_published(services, process, log, leaving=SHARDS)
            _until_published(services, process, log, leaving=0)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    lease, _ = services.ledger.document("publisher")
    assert lease["until_ms"] == 0
    services.publisher("last").drain()
    found = identities()
    check(found, SHARDS * ROUNDS)
    kept = sum(origin == "foreign" for origin, _ in found)
    again = sum(json.loads(line).get("added_again", 0) for line in log.read_text().splitlines())
    print(f"foreign: {acknowledged[0]} acknowledged, {kept} kept; ours: {SHARDS * ROUNDS} files, {again} added again")


def _until_published(services: Services, process: "subprocess.Popen[bytes]", log: Path, leaving: int) -> None:
    for _ in range(600):
        if sum(len(entry.pending) for entry in services.ledger.shards()) <= leaving:
            return
        assert process.poll() is None, log.read_text()
        services.clock.sleep(0.1)
    raise AssertionError(f"files wait for ever: {log.read_text()[-2000:]}")


def test_a_publisher_killed_between_commit_and_mark_neither_loses_nor_doubles(environment: Mapping[str, str]) -> None:
    """Two in a row die, by a real kill -9, while the foreign writer goes on; the last one finds what they left."""
    ledger = Ledger(client("dynamodb", SETTINGS), SETTINGS.ledger_table, pipeline.name)
    with foreign_writer(environment):
        for round_, point in enumerate(["commit", "mark"]):
            for shard in range(SHARDS):
                commit(ledger, shard, round_)
            died = subprocess.run(
                [sys.executable, "-c", MORTAL, point], env=dict(environment), cwd=ROOT, timeout=90, check=False
            )
            assert died.returncode == -signal.SIGKILL
        Services(SETTINGS, pipeline).publisher("last").drain()
    check(identities(), SHARDS * 2)
    assert [entry.pending for entry in ledger.shards()] == [()] * SHARDS
