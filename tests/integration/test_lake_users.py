"""The lake as its users see it: maintained, forgotten in, read by other engines; through the commands."""

import json
from collections.abc import Callable, Iterator, Mapping
from threading import Event, Thread

import awswrangler as wr
import pyarrow as pa
import pyarrow.parquet
import pytest

from headwater.aggregates import count
from headwater.aws import client
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.loading import load
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.generations import DOCUMENT, Generation, Generations, with_entry
from headwater.processors.references import ensure_initial
from headwater.processors.replay.backfill import BackfillSource, BackfillTarget, backfill
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.services import Services, new_owner
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.query import lake_query
from headwater.testing.fleet import Fleet
from tests.cli import headwater
from tests.waiting import until

SETTINGS = Settings(commit_seconds=0.5, view_flush_seconds=0.5)
EVENTS = 3_000
FOREIGN = json.dumps({"device": "other", "ts": 1_790_000_000_000, "metric": "m", "value": 1.0}).encode()


@pytest.fixture(scope="module")
def aws() -> Iterator[Mapping[str, str]]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        yield server.environment


@pytest.fixture(scope="module")
def services(aws: Mapping[str, str]) -> Services:
    """After a run: every event in the lake, in many small files."""
    services = Services(SETTINGS, load(SETTINGS.pipeline))
    ensure_initial(services.pipeline, services.ledger, services.objects, services.client)
    for part in range(3):
        produce(services, EVENTS // 3, start_ms=1_790_000_000_000 + part * 3_600_000)
        process(services, EVENTS // 3)
    services.kinesis.put_record(StreamName=SETTINGS.stream, PartitionKey="x", Data=b'{"device": "device-0001"}')
    services.kinesis.put_record(StreamName=SETTINGS.stream, PartitionKey="x", Data=FOREIGN)
    process(services, 2)
    services.publisher("test").drain()
    return services


def produce(services: Services, events: int, start_ms: int) -> None:
    options = ProducerSettings(max_events=200)
    contract = services.pipeline.contract
    with Producer(SETTINGS.stream, contract, client=services.kinesis, settings=options) as producer:
        for table in Fleet(devices=10, start_ms=start_ms).batches(events, events):
            producer.put_batch(table)
        producer.flush()


def process(services: Services, more: int) -> None:
    """Read the stream until so many more events are committed."""
    read(services, more, lambda counts: counts.get("events", 0) - counts.get("duplicates", 0))


def read(services: Services, more: int, counted: Callable[[Mapping[str, int]], int]) -> None:
    """Read the stream until what is counted of every shard's commits is so much more."""

    def done() -> int:
        return sum(counted(entry.counts) for entry in services.ledger.shards())

    stop, wanted = Event(), done() + more
    runner = EmbeddedRunner(
        services.pipeline, services.kinesis, services.ports, services.settings, services.clock, new_owner()
    )
    thread = Thread(target=runner.run, args=(stop,))
    thread.start()
    try:
        until(lambda: done() >= wanted, 120, lambda: f"{done()} of {wanted} are committed")
    finally:
        stop.set()
        thread.join()
    assert done() == wanted


def test_a_new_pipeline_is_filled_from_the_lake_and_follows_the_stream(services: Services) -> None:
    """Events before the seam, some committed after it was pinned, and events after it: each once, the audit exact."""
    pipeline = (
        Pipeline("version2", contract="telemetry").view("by_device", by=["device"], events=count()).lake("version2")
    )
    target = Services(SETTINGS, pipeline)
    before = run_audit(services.reader).in_lake
    settled = list[int]()

    def settle() -> None:
        settled.append(1)
        services.publisher("test").drain()

    source = BackfillSource(services.stores, services.open_lake_table, settle)
    filled = BackfillTarget(target.stores, target.prepare, target.claim_shard)
    killed = RuntimeError("killed")

    def die(done: int, _: int) -> None:
        if done > before // 2:
            raise killed

    with pytest.raises(RuntimeError, match="killed"):
        backfill(source, filled, "first", advance=die)
    produce(services, 300, start_ms=1_790_100_000_000)
    services.kinesis.put_record(StreamName=SETTINGS.stream, PartitionKey="x", Data=FOREIGN)
    process(services, 301)
    services.publisher("test").drain()
    done = backfill(source, filled, "second")
    assert done.rows == before
    produce(services, 200, start_ms=1_790_200_000_000)
    process(target, 501)
    process(services, 200)
    services.publisher("test").drain()
    target.publisher("test").drain()
    report = run_audit(target.reader)
    assert report.exact, report
    assert report.in_lake == before + 501
    views = {row["device"]: row["events"] for row in target.views.rows(target.view_specs["by_device"])}
    sql = "SELECT device, count(*) AS n FROM version2 GROUP BY 1"
    assert views == {row["device"]: row["n"] for row in lake_query(SETTINGS, sql).to_pylist()}
    with pytest.raises(UsageError, match="of its own"):
        backfill(source, BackfillTarget(services.stores, services.prepare, services.claim_shard), "third")


def names(services: Services) -> list[str]:
    sql = "SELECT DISTINCT device FROM telemetry ORDER BY 1"
    found: list[str] = lake_query(services.settings, sql)["device"].to_pylist()
    return found


def test_commands_look_after_the_table(services: Services, aws: Mapping[str, str]) -> None:
    """Health before and after compaction, freshness per shard; the audit stays exact."""
    before = json.loads(headwater("lake", "health", "--json", environment=aws).out)
    assert before["files"] > before["partitions"]
    shards = [json.loads(line) for line in headwater("lake", "freshness", "--json", environment=aws).out.splitlines()]
    assert len(shards) == 2
    assert all(shard["files"] and not shard["waiting_files"] for shard in shards)
    done = headwater("lake", "compact", "--json", "--fewest", "2", environment=aws)
    (job,) = headwater("jobs", "list", environment=aws).out.splitlines()[1:]
    assert [word in job for word in ("compact-", "done", "100%")] == [True] * 3, job
    assert done.code == 0, done
    assert json.loads(done.out)["files_before"] >= 2
    after = json.loads(headwater("lake", "health", "--json", environment=aws).out)
    assert (after["files"], after["rows"]) == (after["partitions"], before["rows"])
    assert json.loads(
        headwater("lake", "expire", "--keep", "1", "--older-than-hours", "0", "--json", environment=aws).out
    )["expired"]
    listed = json.loads(headwater("lake", "orphans", "--json", environment=aws).out)
    assert listed["looked_at"] > 5
    assert listed["objects"] == []
    audited = json.loads(headwater("audit", "--json", environment=aws).out)
    assert audited["exact"]
    assert {one["shard_id"] for one in audited["freshness"]} == {one["shard_id"] for one in shards}


def test_a_key_is_forgotten(services: Services, aws: Mapping[str, str]) -> None:
    """Rows, views, open windows, dead letters, and rows of a generation that was dropped; the others stay, the audit is
    exact. It is a job, and who was forgotten is not in it."""
    there = names(services)
    gone = there[1]
    services.kinesis.put_record(
        StreamName=SETTINGS.stream, PartitionKey="x", Data=json.dumps({"device": gone, "value": "no number"}).encode()
    )
    process(services, 1)
    rows, view = run_audit(services.reader).in_lake, services.pipeline.views[0]
    given_up = Generations(Generation(1, view.version)).begun(view.version).given_up(0).dropped([2])
    document, revision = services.ledger.document(DOCUMENT)
    services.ledger.put_document(DOCUMENT, with_entry(document, view.name, given_up), revision)
    late = {"pk": {"S": f"{view.name}@2#{gone}"}, "sk": {"S": "-"}}
    dynamodb = client("dynamodb", SETTINGS)
    dynamodb.put_item(TableName=SETTINGS.views_table, Item=late)
    done = headwater("lake", "forget", "--key", gone, "--json", environment=aws)
    assert done.code == 0, done
    report = json.loads(done.out)
    assert report["left"] == []
    assert report["rows"] > 0
    assert report["view_rows"] > 0
    assert report["slots"] > 0
    assert report["letters"] == 1
    job = json.loads(headwater("jobs", "list", "--json", environment=aws).out.splitlines()[0])
    assert (job["kind"], job["subject"], job["state"]) == ("forget", "telemetry", "done")
    assert gone not in json.dumps(job)
    assert "Item" not in dynamodb.get_item(TableName=SETTINGS.views_table, Key=late)
    assert names(services) == [name for name in there if name != gone]
    report_after = run_audit(services.reader)
    assert report_after.exact, report_after
    assert report_after.in_lake == rows - report["rows"]
    bucket = client("s3", SETTINGS)
    pages = bucket.get_paginator("list_objects_v2").paginate(Bucket=SETTINGS.bucket)
    for page in pages:
        for item in page["Contents"]:
            if item["Key"].endswith(".parquet") and item["Key"].startswith("lake/telemetry/"):
                assert gone not in str(
                    pa.parquet.read_table(_open(services, item["Key"]))["device"].unique().to_pylist()
                )


def _open(services: Services, key: str) -> pa.BufferReader:
    return pa.BufferReader(services.objects.get(key))


def test_other_readers_find_the_same_rows(services: Services, aws: Mapping[str, str]) -> None:
    """pyiceberg, DuckDB, polars, pandas; awswrangler reads the catalog."""
    table = open_table(SETTINGS, "telemetry")
    wanted = sorted(table.scan().to_arrow()["value"].to_pylist())
    assert sorted(table.scan().to_pandas()["value"].tolist()) == wanted
    assert sorted(table.to_polars().collect()["value"].to_list()) == wanted
    assert sorted(lake_query(SETTINGS, "SELECT value FROM telemetry")["value"].to_pylist()) == wanted
    wr.config.s3_endpoint_url = wr.config.glue_endpoint_url = aws["AWS_ENDPOINT_URL"]
    columns = wr.catalog.table(database=SETTINGS.database, table="telemetry")
    assert list(columns["Column Name"]) == table.schema().column_names
    assert "contract telemetry 1" in columns.set_index("Column Name")["Comment"]["value"]
