"""Replays as an operator runs them: onto other streams and the live one, killed and called again, for corrections."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headwater.aggregates import count
from headwater.errors import UsageError
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.loading import load
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.references import ensure_initial
from headwater.processors.replay.backfill import BackfillSource, BackfillTarget, backfill
from headwater.processors.replay.chunk import ArrivalSpan
from headwater.processors.replay.replay import Replay
from headwater.processors.services import Services
from headwater.producers.resending import Resender
from headwater.sinks.lake.compaction import CompactionSizes
from headwater.sinks.lake.query import lake_query
from headwater.testing.kinesis import MemoryKinesis
from tests.cli import headwater, started
from tests.integration.test_lake_users import FOREIGN, SETTINGS, aws, process, produce, read
from tests.waiting import until

__all__ = ["aws"]

EVENTS = 1_501
COLUMNS = "device, ts, metric, value"


def resender(services: Services, stream: str) -> Resender:
    return Resender(services.kinesis, stream, services.pipeline.contract, services.clock)


@pytest.fixture(scope="module")
def services(aws: Mapping[str, str]) -> Services:
    """After a run: in the lake are two commits of a producer's events and one of others', in the stream a bad one."""
    services = Services(SETTINGS, load(SETTINGS.pipeline))
    for name in ("from-lake", "from-stream", "again"):
        services.kinesis.create_stream(StreamName=name, ShardCount=2)
    fill(services, 2)
    services.kinesis.put_record(StreamName=SETTINGS.stream, PartitionKey="x", Data=b'{"device": "device-0001"}')
    process(services, 1)
    services.publisher("test").drain()
    return services


def fill(services: Services, commits: int) -> None:
    ensure_initial(services.pipeline, services.ledger, services.objects, services.client)
    services.kinesis.put_record(StreamName=SETTINGS.stream, PartitionKey="x", Data=FOREIGN)
    for part in range(commits):
        produce(services, (EVENTS - 1) // commits, start_ms=1_790_000_000_000 + part * 3_600_000)
        process(services, (EVENTS - 1) // commits + (part == 0))
    services.publisher("test").drain()


@pytest.fixture(scope="module")
def span(services: Services) -> ArrivalSpan:
    """All that has arrived so far."""
    now = services.clock.now_ms()
    return ArrivalSpan(now - 3_600_000, now)


def options(span: ArrivalSpan) -> list[str]:
    start, stop = (datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in (span.start_ms, span.stop_ms))
    return ["replay", "--into", "stream", "--from", start, "--to", stop]


def reading(stream: str, name: str) -> Services:
    """A pipeline of another stream."""
    pipeline = Pipeline(name, contract="telemetry").view(name, by=["device"], events=count()).lake(name)
    services = Services(SETTINGS.model_copy(update={"stream": stream}), pipeline)
    ensure_initial(pipeline, services.ledger, services.objects, services.client)
    return services


def rows(table: str) -> list[tuple[object, ...]]:
    found = lake_query(SETTINGS, f"SELECT {COLUMNS} FROM {table} ORDER BY ALL").to_pylist()
    return [tuple(row.values()) for row in found]


def views(services: Services) -> list[str]:
    """Every row of every view, as text."""
    found = (row for spec in services.view_specs.values() for row in services.views.rows(spec))
    return sorted(repr(row) for row in found)


def cancel(subject: str, aws: Mapping[str, str]) -> None:
    """The job as everybody sees it, ended by its id."""

    def job() -> Any:
        listed = headwater("jobs", "list", "--json", environment=aws).out
        return next(one for one in map(json.loads, listed.splitlines()) if one["subject"] == subject)

    running = job()
    assert running["state"] == "running"
    assert headwater("jobs", "cancel", running["id"], environment=aws).code == 0
    for _ in range(30):
        if job()["state"] == "cancelled":
            return
    raise AssertionError(job())


@pytest.mark.parametrize("source", ["lake", "stream"])
def test_killed_or_cancelled_and_called_again_another_stream_has_every_event_once(
    services: Services, span: ArrivalSpan, aws: Mapping[str, str], source: str
) -> None:
    """By the audit of a pipeline that reads it; the rows are the same, that of others among them."""
    stream = f"from-{source}"
    arguments = [*options(span), "--source", source, "--stream", stream, "--json"]
    document = f"replay-{Replay(services.reader, span, source, stream).id}"
    first = started(*arguments, "--rate", "40", environment=aws)
    try:
        until(lambda: services.ledger.document(document)[0].get("events"), 120, lambda: f"events put; {first.poll()}")
        if source == "stream":
            cancel(f"stream to stream {stream}", aws)
            assert first.wait(60) == 1
    finally:
        first.kill()
        first.wait()
    before = services.ledger.document(document)[0]["events"]
    assert 0 < before < EVENTS
    done = headwater(*arguments, environment=aws)
    assert done.code == 0, done
    report = json.loads(done.out)
    assert (report["events"], report["put"]) == (EVENTS, EVENTS - before)
    assert report["left_out"] == ({"invalid": 1} if source == "stream" else {})
    settle = services.publisher("test").drain
    assert Replay(services.reader, span, source, stream).run(resender(services, stream), settle).put == 0
    target = reading(stream, f"from_{source}")
    process(target, EVENTS)
    target.publisher("test").drain()
    audited = run_audit(target.reader)
    assert audited.exact, audited
    assert sum(origin.accepted or 0 for origin in audited.origins) == audited.in_lake == EVENTS
    assert rows(f"from_{source}") == rows("telemetry")
    assert sum(int(str(row["events"])) for row in target.views.rows(target.view_specs[f"from_{source}"])) == EVENTS


def test_onto_the_live_stream_nothing_changes(services: Services, span: ArrivalSpan, aws: Mapping[str, str]) -> None:
    """Every event comes once more from the lake, once more from the stream, and is dropped as a copy."""
    before = rows("telemetry"), views(services)
    for source in ("lake", "stream"):
        done = headwater(*options(span), "--source", source, "--json", environment=aws)
        assert done.code == 0, done
        report = json.loads(done.out)
        assert (report["events"], report["left_out"]["foreign"]) == (EVENTS - 1, 1)
    read(services, 2 * (EVENTS - 1), lambda counts: counts.get("duplicates", 0))
    services.publisher("test").drain()
    assert (rows("telemetry"), views(services)) == before
    assert run_audit(services.reader).exact


def test_copies_go_to_the_shards_that_know_the_events_also_after_a_reshard(aws: Mapping[str, str]) -> None:
    """One shard is split and another merged between the events and their replay; a stream with Kinesis' semantics."""
    services = Services(SETTINGS, Pipeline("resharded", contract="telemetry").lake("resharded"))
    stream, kinesis = SETTINGS.stream, MemoryKinesis(services.clock, limits=False)
    kinesis.create_stream(StreamName=stream, ShardCount=4)
    services.__dict__["kinesis"] = kinesis
    fill(services, 1)
    shards = [shard["ShardId"] for shard in kinesis.list_shards(StreamName=stream)["Shards"]]
    kinesis.split_shard(StreamName=stream, ShardToSplit=shards[0], NewStartingHashKey=str(1 << 125))
    kinesis.merge_shards(StreamName=stream, ShardToMerge=shards[1], AdjacentShardToMerge=shards[2])
    produce(services, 500, start_ms=1_790_300_000_000)
    process(services, 500)
    services.publisher("test").drain()
    span = ArrivalSpan(services.clock.now_ms() - 3_600_000, services.clock.now_ms())
    for source in ("lake", "stream"):
        found = Replay(services.reader, span, source, stream).run(
            resender(services, stream), services.publisher("test").drain
        )
        assert (found.put, found.left_out) == (EVENTS + 499, {"foreign": 1})
    read(services, 2 * (EVENTS + 499), lambda counts: counts.get("duplicates", 0))
    services.publisher("test").drain()
    report = run_audit(services.reader)
    assert report.exact, report
    assert report.in_lake == EVENTS + 500


def test_a_snapshot_that_has_expired_is_replaced_by_the_present_one(services: Services, span: ArrivalSpan) -> None:
    """Compaction and expiry between two calls: what comes twice is dropped."""
    killed = RuntimeError("killed")

    def die(done: int, _: int) -> None:
        if done > 750:
            raise killed

    with pytest.raises(RuntimeError, match="killed"):
        Replay(services.reader, span, "lake", "again").run(
            resender(services, "again"), services.publisher("test").drain, advance=die
        )
    services.maintenance(CompactionSizes(fewest=2)).compact()
    services.maintenance().expire(1, services.clock.now_ms())
    found = Replay(services.reader, span, "lake", "again").run(
        resender(services, "again"), services.publisher("test").drain
    )
    assert found.put == EVENTS
    assert found.events > EVENTS
    target = reading("again", "again")
    process(target, EVENTS)
    target.publisher("test").drain()
    report = run_audit(target.reader)
    assert report.exact, report
    assert report.in_lake == EVENTS


def test_a_pipeline_with_a_mistake_is_followed_by_one_without(
    services: Services, aws: Mapping[str, str], tmp_path: Path
) -> None:
    """The recipe for corrections: a version with name and table of its own, filled from the lake of the wrong one."""
    source = """
import pyarrow as pa
import pyarrow.compute as pc
from headwater.aggregates import count, max
from headwater.processors.definition.pipeline import Pipeline

def double(events):
    return pa.table({{"doubled": pc.multiply(events["value"], {factor}.0)}})

{name} = (
    Pipeline("{name}", contract="telemetry")
    .map(double, adds={{"doubled": "double"}})
    .view("{view}", by=["device"], events=count(), doubled=max("doubled"))
    .lake("{name}")
)
"""
    for name, view, factor in (("wrong", "highest", 3), ("shared", "highest", 2), ("right", "highest_right", 2)):
        (tmp_path / f"{name}.py").write_text(source.format(name=name, view=view, factor=factor))
    wrong, right = (Services(SETTINGS, load(f"{tmp_path}/{name}.py:{name}")) for name in ("wrong", "right"))
    ensure_initial(wrong.pipeline, wrong.ledger, wrong.objects, wrong.client)
    process(wrong, EVENTS + 1)  # and the bad one
    environment = {**aws, "HEADWATER_PIPELINE": f"{tmp_path}/wrong.py:wrong"}
    shared = Services(SETTINGS, load(f"{tmp_path}/shared.py:shared"))
    source_of = BackfillSource(wrong.stores, wrong.open_lake_table, wrong.publisher("test").drain)
    with pytest.raises(UsageError, match="needs views of its own: highest is wrong's"):
        backfill(source_of, BackfillTarget(shared.stores, shared.prepare, shared.claim_shard), "test")
    done = headwater("replay", "--into", f"{tmp_path}/right.py:right", "--json", environment=environment)
    assert done.code == 0, done
    assert json.loads(done.out)["rows"] == EVENTS
    produce(services, 100, start_ms=1_790_400_000_000)
    process(right, 100)
    right.publisher("test").drain()
    report = run_audit(right.reader)
    assert report.exact, report
    assert report.in_lake == EVENTS + 100
    sql = 'SELECT device, count(*) AS events, max(2 * value) AS doubled FROM "right" GROUP BY 1'
    wanted = lake_query(SETTINGS, sql).to_pylist()
    found = right.views.rows(right.view_specs["highest_right"])
    assert {row["device"]: row for row in wanted} == {
        row["device"]: {name: row[name] for name in ("device", "events", "doubled")} for row in found
    }
    assert lake_query(SETTINGS, 'SELECT count(*) AS n FROM "right" WHERE doubled != 2 * value')["n"][0].as_py() == 0
    process(services, 100)


def test_what_is_not_committed_is_not_replayed_in_silence(services: Services, aws: Mapping[str, str]) -> None:
    produce(services, 10, start_ms=1_790_500_000_000)
    now = services.clock.now_ms()
    refused = headwater(*options(ArrivalSpan(now - 3_600_000, now)), environment=aws)
    refused.failed(1, "has not committed", "shardId-", "earlier --to")
    process(services, 10)


def test_bad_input_is_one_line(services: Services, span: ArrivalSpan, aws: Mapping[str, str]) -> None:
    def refused(start_ms: int, stop_ms: int, source: str, stream: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            Replay(services.reader, ArrivalSpan(start_ms, stop_ms), source, stream).run(
                resender(services, stream), services.publisher("test").drain
            )

    now, hour, day, live = span.stop_ms, 3_600_000, 86_400_000, SETTINGS.stream
    refused(now, now, "lake", live, "--from is not before --to")
    refused(now, now + hour, "lake", live, "future")
    refused(now - hour, now, "lake", "nowhere", "no stream nowhere")
    refused(now - 2 * day, now, "stream", live, "for 24 h.* from the lake")
    refused(now - 26 * day, now, "lake", live, "new events; replay into another stream")
    for arguments, words in (
        (("stream", "--to", "2026-01-01"), "needs --from"),
        (("stream", "--from", "noon", "--to", "2026-01-01"), "no point in time"),
        (("a.py:b", "--source", "lake"), "filled as a whole"),
    ):
        headwater("replay", "--into", *arguments, environment=aws).failed(2, words)
