"""The templates made on the embedded AWS, the pipeline run on exactly those resources, and every call it made."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.aws import client
from headwater.commands.local.embedded import EmbeddedAws
from headwater.config import Settings
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.queries import named_queries
from headwater.sinks.lake.query import lake_query
from headwater.testing.fleet import Fleet
from headwater.web.keys import KeyStore
from infra.permissions import ROLES, statements
from infra.stacks.watch import PATTERNS
from tests.cli import headwater
from tests.infra.calls import Call, allowed, recorded
from tests.infra.emulated import BY_CLOUDFORMATION, BY_HAND, NOT_EMULATED, STACKS, create
from tests.infra.synthesis import Synthesis
from tests.infra.test_watch import matches
from tests.named_queries import TRINO_ONLY, local_sql, parameters

EVENTS = 6_000
CALLERS = ("kcl", "publish", "maintain", "alerts", "audit", "gateway", "serve")
MAIN = "from headwater.commands import main; main()"
KEYS = """
from headwater.aws import client
from headwater.config import Settings
from headwater.web.keys import KeyStore
store = KeyStore(client("dynamodb", Settings()), "{table}")
assert store.get("{key}").name == "device-7"
store.add_usage("{key}", "2026-01-01", 5)
"""
MAINTAIN = "lake maintain --fewest 2 --keep 1 --snapshot-hours 0"
SAME_CODE = {"function": "kcl", "function-publish": "publish", "function-audit": "audit"}
"""The functions' code below the handler is the containers': their roles must suffice for the same calls."""


@dataclass(frozen=True)
class Run:
    """What one run of the pipeline left behind."""

    made: Synthesis
    settings: Settings
    events: pa.Table
    calls: list[Call]
    logs: Mapping[str, list[str]]


@contextmanager
def running(service: str, command: str, given: Mapping[str, str], folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """The command under the service's name as its access key, ended by SIGTERM."""
    with (folder / f"{service}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *command.split()],
            env=dict(os.environ) | dict(given) | {"AWS_ACCESS_KEY_ID": service},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, (folder / f"{service}.log").read_text()[-2000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def until(services: Services, events: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    done = 0
    while done < events and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
        counts = [entry.counts for entry in services.ledger.shards()]
        done = sum(count.get("events", 0) - count.get("duplicates", 0) for count in counts)
    assert done == events


@pytest.fixture(scope="module")
def run(containers: Synthesis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("run")
    recording = folder / "recording"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_ENABLE_RECORDING", "true")
        patch.setenv("MOTO_RECORDER_FILEPATH", str(recording))
        with EmbeddedAws() as server:
            region = {"AWS_DEFAULT_REGION": containers.deployed.region, "AWS_REGION": containers.deployed.region}
            for name, value in (dict(server.environment) | region).items():
                patch.setenv(name, value)
            create(containers)
            base = dict(server.environment) | region | containers.environment("kcl")
            base |= {"HEADWATER_COMMIT_SECONDS": "1", "HEADWATER_PUBLISH_SECONDS": "1"}
            for name, value in base.items():
                patch.setenv(name, value)
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            yield _run(containers, base, folder, recording)


def _run(made: Synthesis, base: dict[str, str], folder: Path, recording: Path) -> Run:
    settings = Settings()
    services = Services(settings, load(settings.pipeline))
    events = pa.concat_tables(Fleet(devices=20, start_ms=1_790_000_000_000).batches(EVENTS, 2_000))
    logs: dict[str, list[str]] = {}

    def as_service(service: str, *arguments: str) -> str:
        done = headwater(*arguments, environment=base | {"AWS_ACCESS_KEY_ID": service})
        assert done.code == 0, done
        return done.out

    with running("publish", "publish", base, folder), running("kcl", "process", base, folder) as process:
        for half in range(2):  # one after the other, so that maintenance has files of two commits to join
            part = folder / f"{half}.parquet"
            pq.write_table(events.slice(half * EVENTS // 2, EVENTS // 2), part)
            as_service("gateway", "produce", str(part), "--contract", "telemetry")
            until(services, (half + 1) * EVENTS // 2, process)
        device = events["device"][0].as_py()
        waited = time.monotonic()
        while any(entry.pending for entry in services.ledger.shards()):
            assert time.monotonic() < waited + 120, (folder / "publish.log").read_text()[-2_000:]
            time.sleep(0.5)
    with running("maintain", MAINTAIN, base, folder) as maintenance:
        while '"maintained"' not in (folder / "maintain.log").read_text() and maintenance.poll() is None:
            time.sleep(0.2)
    as_service("alerts", "alerts", "--once")
    logs["audit"] = as_service("audit", "audit", "--json").splitlines()
    as_service("serve", "view", "get", "device_10m", device)
    as_service("serve", "view", "list", "device_10m")
    as_service("serve", "lake", "query", "SELECT count(*) FROM telemetry")
    as_service("serve", "dlq", "list")
    as_service("serve", "shards", "heat")
    _keys(made, base)
    for service in ("kcl", "publish", "maintain"):
        logs[service] = (folder / f"{service}.log").read_text().splitlines()
    return Run(made, settings, events, list(recorded(recording, made.deployed, CALLERS)), logs)


def _keys(made: Synthesis, base: dict[str, str]) -> None:
    table = made.deployed.table("keys")
    key, _ = KeyStore(client("dynamodb", Settings()), table).create("device-7", frozenset({"telemetry"}))
    given = dict(os.environ) | base | {"AWS_ACCESS_KEY_ID": "gateway"}
    subprocess.run([sys.executable, "-c", KEYS.format(table=table, key=key.key_id)], env=given, check=True)


def test_every_resource_is_made_or_listed(containers: Synthesis) -> None:
    found = {one["Type"] for stack in STACKS for one in containers.templates[stack]["Resources"].values()}
    assert found == BY_CLOUDFORMATION | set(BY_HAND) | set(NOT_EMULATED)


def test_the_pipeline_runs_on_what_the_template_makes(run: Run) -> None:
    """On its names and nothing else: the audit is exact, and nothing was made beside."""
    report = json.loads(run.logs["audit"][-1])
    assert report["exact"] is True
    assert (report["processed"], report["in_lake"]) == (EVENTS, EVENTS)
    assert boto3.client("kinesis").list_streams()["StreamNames"] == [run.made.deployed.stream]
    tables = boto3.client("dynamodb").list_tables()["TableNames"]
    assert set(tables) == {run.made.deployed.table(name) for name in ("ledger", "views", "keys")}
    buckets = {bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]}
    assert buckets == {run.made.deployed.bucket, run.made.deployed.logs_bucket}


def test_the_audit_was_of_a_table_that_maintenance_had_changed(run: Run) -> None:
    (line,) = [json.loads(line) for line in run.logs["maintain"] if '"maintained"' in line]
    assert line["joined"] > line["into"] > 0
    assert line["expired"] > 0


def test_time_to_live_is_what_the_code_writes(run: Run) -> None:
    found = boto3.client("dynamodb").describe_time_to_live(TableName=run.made.deployed.table("keys"))
    assert found["TimeToLiveDescription"]["AttributeName"] == "expires"


def test_an_alert_event_reaches_the_queue(run: Run) -> None:
    deployed = run.made.deployed
    boto3.client("events").put_events(
        Entries=[{"Source": "headwater", "DetailType": "alert", "Detail": "{}", "EventBusName": deployed.name}]
    )
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName=f"{deployed.name}-alerts")["QueueUrl"]
    assert len(sqs.receive_message(QueueUrl=url)["Messages"]) == 1


def test_the_template_s_iceberg_table_is_the_publisher_s(run: Run) -> None:
    """Same fields with the same ids, same partition: whoever is first, the other finds it right."""
    table = open_table(run.settings, "telemetry")
    ((_, found),) = run.made.of("AWS::Glue::Table")
    wanted = found["Properties"]["OpenTableFormatInput"]["IcebergInput"]["IcebergTableInput"]
    fields = [(one["Id"], one["Name"], one["Type"], one["Required"]) for one in wanted["Schema"]["Fields"]]
    assert fields == [(one.field_id, one.name, str(one.field_type), one.required) for one in table.schema().fields]
    (partition,) = table.spec().fields
    (given,) = wanted["PartitionSpec"]["Fields"]
    assert (given["Name"], given["SourceId"], given["FieldId"], given["Transform"]) == (
        partition.name,
        partition.source_id,
        partition.field_id,
        str(partition.transform),
    )
    assert table.location() == wanted["Location"]


def test_named_queries_answer(run: Run) -> None:
    """In DuckDB, where it can."""
    pipeline = load(run.settings.pipeline)
    queries = named_queries(pipeline.lake_to.table, pipeline.contract)
    assert {one["Properties"]["Name"] for _, one in run.made.of("AWS::Athena::NamedQuery")} == set(queries)
    answers = {
        name: lake_query(run.settings, local_sql(query.sql, parameters(name, "x", "2026-01-01", "2027-01-01")))
        for name, query in queries.items()
        if name not in TRINO_ONLY
    }
    assert answers["events twice"].num_rows == 0
    assert sum(answers["events per day"]["events"].to_pylist()) == EVENTS
    assert answers["latest arrivals"].num_rows == 100


def test_the_logs_have_what_alarms_count(run: Run) -> None:
    assert any(matches(PATTERNS["PublisherSteps"], line) for line in run.logs["publish"] if line.startswith("{"))
    assert matches(PATTERNS["AuditRuns"], run.logs["audit"][-1])
    assert not matches(PATTERNS["AuditGaps"], run.logs["audit"][-1])


def test_roles_suffice(run: Run, serverless: Synthesis) -> None:
    """Every call of a service is allowed by its role, down to the resource."""
    assert {call.service for call in run.calls} == set(CALLERS)
    roles = {service: run.made.role(service) for service in CALLERS}
    refused = {call for call in run.calls if not allowed(call, roles[call.service])}
    assert refused == set()
    names = serverless.deployed
    for function, service in SAME_CODE.items():
        actions = {call.action for call in run.calls if call.service == service}
        granted = {action for one in serverless.role(function) for action in _list(one["Action"])}
        assert actions <= granted, names


def test_roles_are_no_wider(run: Run) -> None:
    """Every action that a role has on a resource was used on it, or the table says why it is needed."""
    for service in CALLERS:
        used = {(call.action, one) for call in run.calls if call.service == service for one in call.resources}
        for grant, resources in statements(service, run.made.deployed):
            for action in grant.actions:
                hit = any(name == action and any(fnmatchcase(at, one) for one in resources) for name, at in used)
                assert hit or action in grant.unseen, f"{service} never used {action} on {resources}"


def test_every_exception_is_of_a_granted_action() -> None:
    for service, grants in ROLES.items():
        for grant in grants:
            assert set(grant.unseen) <= set(grant.actions), service


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
