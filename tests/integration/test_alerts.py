"""From an event to a ticket on an embedded AWS: processor, view, alert, EventBridge, SNS, SQS, and a subscriber; with
kills on the way and every message several times."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from headwater.aws import client
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.commands.serving import open_reader
from headwater.config import ServeSettings, Settings
from headwater.processors.alerts.publishers import publish_to
from headwater.processors.alerts.service import Alerts, Turn
from headwater.processors.definition.loading import load
from headwater.processors.examples.tickets import Tickets, alert_in
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.services import Services, new_owner
from headwater.producers.producer import Producer
from headwater.serving.api.app import create_app
from headwater.web.http_server import serve_in_thread
from tests.cli import headwater, up
from tests.integration.test_console import browser, section, shot
from tests.integration.test_main_job import wait_for
from tests.typed import a_key
from tests.waiting import until

__all__ = ["browser"]
"""A fixture."""

SETTINGS = Settings(commit_seconds=0.5, view_flush_seconds=0.5)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PIPELINE = """
from headwater.aggregates import mean
from headwater.processors.alerts import above, absent
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling

pipeline = (
    Pipeline("plant", contract="telemetry", allowed_lateness="1m")
    .view("device_1m", by=["device"], window=tumbling("1m"), spread=2, mean=mean("value"))
    .alert("hot", on="device_1m", when=above("mean", 30, clear=28), for_="2m")
    .alert("silent", on="device_1m", when=absent(), for_="5m")
    .lake("plant")
)
"""
DIES = """
import os, signal
from headwater.commands.services import open_services
from headwater.processors.alerts.publishers import publish_to
from tests.typed import a_key
from headwater.processors.alerts.service import Alerts

services = open_services()
targets = publish_to(services.settings.alerts_to, services.client)

def publish(events):
    for target in targets.values():
        target(events)
    os.kill(os.getpid(), signal.SIGKILL)

Alerts(services.alert_ports, {"all": publish}, "dies").turn(lease_seconds=0)
"""
TICKETS = [sys.executable, "-m", "headwater.processors.examples.tickets"]


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """A pipeline with alerts, provisioned; a queue that a topic and a bus lead to as well. Yields the environment."""
    definition = tmp_path / "plant.py"
    definition.write_text(PIPELINE)
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=1)
        yield {
            **os.environ,
            "HEADWATER_PIPELINE": str(definition),
            "HEADWATER_ALERTS_TO": ", ".join(targets()),
        }


def targets() -> list[str]:
    """A bus, a topic and a queue, all of which end in the queue `alerts`."""
    sqs, sns, events = (client(service, SETTINGS) for service in ("sqs", "sns", "events"))
    url = sqs.create_queue(QueueName="alerts", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    bus = events.create_event_bus(Name="alerts")["EventBusArn"]
    pattern = json.dumps({"source": ["headwater"], "detail-type": [{"prefix": "headwater.alert."}]})
    events.put_rule(Name="tickets", EventBusName="alerts", EventPattern=pattern)
    events.put_targets(Rule="tickets", EventBusName="alerts", Targets=[{"Id": "tickets", "Arn": arn}])
    client("dynamodb", SETTINGS).create_table(
        TableName="tickets",
        KeySchema=[{"AttributeName": "ticket", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "ticket", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return [bus, topic, url]


def put(services: Services, values: Mapping[str, Mapping[int, float]]) -> int:
    """One event a minute and device; how many."""
    rows = sorted((minute, device, value) for device, each in values.items() for minute, value in each.items())
    with Producer(SETTINGS.stream, services.pipeline.contract, client=services.kinesis) as producer:
        for minute, device, value in rows:
            ts = (START + timedelta(minutes=minute, seconds=30)).isoformat()
            producer.put({"device": device, "metric": "temperature", "ts": ts, "value": value})
    return len(rows)


def process(services: Services, events: int) -> None:
    """Run the processor until it has committed so many events."""
    stop = threading.Event()
    runner = EmbeddedRunner(
        services.pipeline, services.kinesis, services.ports, services.settings, services.clock, new_owner()
    )
    running = threading.Thread(target=runner.run, args=[stop])
    running.start()
    try:
        wait_for(services, events)
    finally:
        stop.set()
        running.join(60)
        assert not running.is_alive()


def judge(services: Services, aws: Mapping[str, str]) -> Turn:
    """As `headwater alerts --once`."""
    done = Alerts(services.alert_ports, publish_to(aws["HEADWATER_ALERTS_TO"], services.client), new_owner()).once()
    assert done is not None
    return done


def messages(sqs: Any, url: str) -> int:
    asked = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(asked["Attributes"]["ApproximateNumberOfMessages"])


def tickets() -> list[tuple[str, ...]]:
    """Alert, key, status, minute of opening and of closing."""
    found = client("dynamodb", SETTINGS).scan(TableName="tickets")["Items"]
    plain = [{name: value["S"] for name, value in item.items()} for item in found]
    return sorted(
        (one["alert"], one["alert_key"], one["status"], one["opened_at"][11:16], one.get("closed_at", "")[11:16])
        for one in plain
    )


def test_from_an_event_to_a_ticket(aws: Mapping[str, str], tmp_path: Path) -> None:
    """One ticket an episode, although the service is killed between publishing and marking, every message comes by
    three ways, and the subscriber dies between its write and the deletion. A replay and late data open none."""
    services = Services(SETTINGS, load(str(tmp_path / "plant.py")))
    sqs, dynamodb, url = (
        client("sqs", SETTINGS),
        client("dynamodb", SETTINGS),
        aws["HEADWATER_ALERTS_TO"].split(", ")[2],
    )
    first = {"dev-1": {0: 20.0, 1: 31.0}, "dev-2": {0: 20.0, 1: 20.0, 3: 20.0}, "dev-3": {0: 20.0, 1: 20.0}}
    sent = put(services, first)
    process(services, sent)
    assert judge(services, aws).raised == 0
    values = [31.0, 31.0, 29.0, 31.0, 29.0, 27.0, 20.0, 29.0]
    sent += put(services, {"dev-1": dict(enumerate(values, 2)), "dev-2": {7: 20.0, 11: 20.0, 12: 20.0}})
    process(services, sent)

    died = subprocess.run([sys.executable, "-c", DIES], env=aws, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    assert messages(sqs, url) == 2 * 3  # a request has one of each key
    listed = [json.loads(line) for line in headwater("alerts", "list", "--json", environment=aws).out.splitlines()]
    assert [(row["alert"], row["key"], row["state"], row["unpublished"]) for row in listed] == [
        ("silent", "dev-3", "firing", 1),
        ("hot", "dev-1", "cleared", 2),
    ]
    said = headwater("alerts", "--once", environment=aws)
    assert json.loads(said.out)["published"] == 3, said
    assert messages(sqs, url) == (2 + 3) * 3

    (message,) = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1)["Messages"]
    assert Tickets(sqs, dynamodb, url, "tickets").handle(alert_in(message["Body"]))  # and dies before it deletes
    sqs.send_message(QueueUrl=url, MessageBody="what is this")
    subscriber = [*TICKETS, "--queue", url, "--table", "tickets"]
    ran = subprocess.run([*subscriber, "--once"], env=aws, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    opened = [("hot", "dev-1", "closed", "12:01", "12:08"), ("silent", "dev-3", "open", "12:02", "")]
    assert tickets() == opened
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert sum(line["message"] == "known already" for line in lines) == 15 - 2
    assert [line["level"] for line in lines if line["message"] == "left in the queue"][:1] == ["warning"]
    assert messages(sqs, url) == 1

    sent += put(services, first) + put(services, {"dev-2": {5: 900.0, 6: 900.0, 7: 900.0, 13: 20.0}})
    process(services, sent)
    done = judge(services, aws)
    assert (done.judged > 0, done.raised, done.cleared, done.published) == (True, 0, 0, 0)
    assert messages(sqs, url) == 1
    with serve_in_thread(create_app(open_reader(services), ServeSettings(cache_seconds=0), None), 0) as api:
        answer = httpx.get(f"{api}/v1/alerts").json()
    assert [(row["alert"], row["key"], row["state"], row["unpublished"]) for row in answer["alerts"]] == [
        ("silent", "dev-3", "firing", 0),
        ("hot", "dev-1", "cleared", 0),
    ]


def test_the_service_runs_until_sigterm(aws: Mapping[str, str], tmp_path: Path) -> None:
    """JSON logs; the lease is let go, so that the next one leads at once. Wrong targets are one line."""
    services = Services(SETTINGS, load(str(tmp_path / "plant.py")))
    command = [sys.executable, "-c", "from headwater.commands import main; main()", "alerts"]
    environment = {**aws, "HEADWATER_ALERTS_SECONDS": "0.2"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        running = subprocess.Popen(command, env=environment, stdout=out)
    try:
        process(services, put(services, {"dev-1": dict.fromkeys(range(9), 31.0)}))
        until(lambda: '"alert hot raised' in log.read_text(), 120, lambda: log.read_text()[-2_000:])
        line = next(one for one in map(json.loads, log.read_text().splitlines()) if "rule" in one)
        assert (line["type"], line["rule"], line["key"]) == ("headwater.alert.raised", "hot", {"device": "dev-1"})
        headwater("alerts", "--once", environment=aws).failed(1, "another alerts service leads")
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 0
    assert headwater("alerts", "--once", environment=aws).code == 0
    headwater("alerts", environment={**aws, "HEADWATER_ALERTS_TO": "arn:aws:s3:::b"}).failed(2, "arn:aws:s3:::b")


def test_a_key_that_is_forgotten(aws: Mapping[str, str], tmp_path: Path) -> None:
    """Alerts keep nothing of it, and tell nothing more of it."""
    services = Services(SETTINGS, load(str(tmp_path / "plant.py")))
    values = dict.fromkeys(range(9), 31.0)
    process(services, put(services, {"jane@example.org": values, "dev-2": values}))
    said = headwater("alerts", "--once", environment=aws)
    assert json.loads(said.out)["raised"] == 2
    assert "alert hot raised for 'jane@example.org' at 2026-03-01T12:06:00.000Z: mean above 30" in said.err
    assert len(services.alerts.having(["hot"], a_key("device", "jane@example.org"))) == 1
    done = headwater("lake", "forget", "--key", "jane@example.org", "--json", environment=aws)
    assert json.loads(done.out)["left"] == [], done
    assert services.alerts.entries("hot").keys() == {"dev-2"}
    process(services, put(services, {"dev-2": dict.fromkeys(range(9, 20), 20.0)}) + 18)
    done = headwater("alerts", "--once", environment=aws)
    assert {name: json.loads(done.out)[name] for name in ("raised", "cleared")} == {"raised": 0, "cleared": 1}
    assert services.alerts.entries("silent") == {}


def test_up_judges_too(tmp_path: Path) -> None:
    """`headwater up` has every service, so what fires is in the API without another command."""
    (tmp_path / "plant.py").write_text(PIPELINE)
    settings = {"PIPELINE": str(tmp_path / "plant.py"), "COMMIT_SECONDS": "0.5", "ALERTS_SECONDS": "0.2"}
    with up("--shards", "1", **{f"HEADWATER_{name}": value for name, value in settings.items()}) as found:
        events = [
            {"device": "dev-1", "metric": "m", "ts": (START + timedelta(minutes=minute)).isoformat(), "value": 31.0}
            for minute in range(9)
        ]
        answer = httpx.post(f"{found['gateway']}/v1/events/telemetry", json=events, timeout=30)
        assert answer.is_success, answer.text

        def listed() -> list[Any]:
            rows = httpx.get(found["api"].removesuffix("views") + "alerts", timeout=30).json()["alerts"]
            return [(row["alert"], row["key"], row["state"], row["unpublished"]) for row in rows]

        # it is raised first, and a moment later there is nothing left to publish
        until(lambda: listed() == [("hot", "dev-1", "firing", 0)], 120, listed)


def test_the_console_shows_what_fires(aws: Mapping[str, str], browser: Browser, tmp_path: Path) -> None:
    """In a section of its own, the key as text whatever it holds."""
    services = Services(SETTINGS, load(str(tmp_path / "plant.py")))
    hostile = "<img src=x onerror=document.title='taken'>"
    process(services, put(services, {hostile: dict.fromkeys(range(9), 31.0)}))
    assert judge(services, aws).raised == 1
    environment = {**aws, "HEADWATER_SERVE_PORT": "0", "HEADWATER_SERVE_AUTH": "none"}
    command = [sys.executable, "-c", "from headwater.commands import main; main()", "serve"]
    serve = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert serve.stdout is not None
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(serve.stdout.readline().split()[-1].removesuffix("/v1/views"))
        alerts = section(page, "Alerts")
        expect(alerts).to_contain_text("1 firing")
        expect(alerts.get_by_role("row").nth(1)).to_contain_text(f"hot: {hostile}")
        expect(alerts.get_by_role("row").nth(1)).to_contain_text("mean above 30 (until 28) for 120 s")
        assert page.title() == "headwater"
        shot(page, "alerts")
    finally:
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(timeout=60) == 0
