"""The lake as its users see it: maintained, forgotten in, read by other engines; through the commands."""

import json
from collections.abc import Iterator, Mapping
from threading import Event, Thread

import pyarrow as pa
import pyarrow.parquet
import pytest

from headwater.aws import client
from headwater.config import Settings
from headwater.local.embedded import EmbeddedAws
from headwater.local.provision import provision
from processors.auditing import run_audit
from processors.pipeline import load
from processors.references import ensure_initial
from processors.runners.embedded import EmbeddedRunner
from processors.services import Services, new_owner
from producers import Producer, ProducerSettings
from producers.fleet import Fleet
from tests.cli import headwater

SETTINGS = Settings(commit_seconds=0.5, view_flush_seconds=0.5)
EVENTS = 4_000


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
    tables = list(Fleet(devices=10, start_ms=1_790_000_000_000).batches(EVENTS, EVENTS // 5))
    with Producer(
        SETTINGS.stream, services.pipeline.contract, client=services.kinesis, settings=ProducerSettings(max_events=200)
    ) as producer:
        for table in tables:
            producer.put_batch(table)
            producer.flush()
            process(services, EVENTS // 5)
    services.kinesis.put_record(StreamName=SETTINGS.stream, PartitionKey="x", Data=b'{"device": "device-0001"}')
    process(services, 1)
    services.publisher("test").drain()
    return services


def process(services: Services, more: int) -> None:
    """Read the stream until so many more events are committed."""

    def done() -> int:
        return sum(e.counts.get("events", 0) - e.counts.get("duplicates", 0) for e in services.ledger.shards())

    stop, wanted = Event(), done() + more
    runner = EmbeddedRunner(
        services.pipeline, services.kinesis, services.ports, services.settings, services.clock, new_owner()
    )
    thread = Thread(target=runner.run, args=(stop,))
    thread.start()
    try:
        for _ in range(600):
            if done() >= wanted:
                break
            services.clock.sleep(0.1)
    finally:
        stop.set()
        thread.join()
    assert done() == wanted


def names(services: Services) -> list[str]:
    sql = "SELECT DISTINCT device FROM telemetry ORDER BY 1"
    from sinks.query import lake_query

    found: list[str] = lake_query(services.settings, sql)["device"].to_pylist()
    return found


def test_commands_look_after_the_table(services: Services, aws: Mapping[str, str]) -> None:
    """Health before and after compaction, freshness per shard; the audit stays exact."""
    before = json.loads(headwater("lake", "health", "--json", environment=aws).out)
    assert before["files"] > 5
    shards = [json.loads(line) for line in headwater("lake", "freshness", "--json", environment=aws).out.splitlines()]
    assert len(shards) == 2
    assert all(shard["files"] and not shard["waiting_files"] for shard in shards)
    done = headwater("lake", "compact", "--json", "--fewest", "2", environment=aws)
    assert done.code == 0, done
    assert json.loads(done.out)["files_before"] == before["files"]
    after = json.loads(headwater("lake", "health", "--json", environment=aws).out)
    assert (after["files"], after["rows"]) == (after["partitions"], before["rows"])
    assert json.loads(
        headwater("lake", "expire", "--keep", "1", "--older-than-hours", "0", "--json", environment=aws).out
    )["expired"]
    listed = json.loads(headwater("lake", "orphans", "--json", environment=aws).out)
    assert listed["looked_at"] > 5
    assert listed["objects"] == []
    headwater("lake", "orphans", "--older-than-hours", "0", environment=aws).failed(2, "older-than-hours")
    audited = json.loads(headwater("audit", "--json", environment=aws).out)
    assert audited["exact"]
    assert {one["shard_id"] for one in audited["freshness"]} == {one["shard_id"] for one in shards}


def test_a_key_is_forgotten(services: Services, aws: Mapping[str, str]) -> None:
    """Rows, views, open windows, dead letters; the others stay, the audit is exact, and a second request finds none."""
    there = names(services)
    gone = there[1]
    services.kinesis.put_record(
        StreamName=SETTINGS.stream, PartitionKey="x", Data=json.dumps({"device": gone, "value": "no number"}).encode()
    )
    process(services, 1)
    rows = run_audit(services).in_lake
    done = headwater("lake", "forget", "--key", gone, "--json", environment=aws)
    assert done.code == 0, done
    report = json.loads(done.out)
    assert report["left"] == []
    assert report["rows"] > 0
    assert report["view_rows"] > 0
    assert report["slots"] > 0
    assert report["letters"] == 1
    assert names(services) == [name for name in there if name != gone]
    report_after = run_audit(services)
    assert report_after.exact, report_after
    assert report_after.in_lake == rows - report["rows"]
    bucket = client("s3", SETTINGS)
    pages = bucket.get_paginator("list_objects_v2").paginate(Bucket=SETTINGS.bucket)
    for page in pages:
        for item in page["Contents"]:
            if item["Key"].endswith(".parquet") and item["Key"].startswith("lake/"):
                assert gone not in str(
                    pa.parquet.read_table(_open(services, item["Key"]))["device"].unique().to_pylist()
                )
    again = json.loads(headwater("lake", "forget", "--key", gone, "--json", environment=aws).out)
    assert (again["rows"], again["view_rows"], again["left"]) == (0, 0, [])
    assert run_audit(services).exact


def _open(services: Services, key: str) -> pa.BufferReader:
    return pa.BufferReader(services.objects.get(key))
