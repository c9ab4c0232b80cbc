"""The audit of a lake and of views that something has happened to: each is named, and what is accepted says by whom."""

import json
from collections.abc import Iterator, Mapping
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.expressions import EqualTo
from typer.testing import CliRunner

from headwater.aggregates import count, distinct, first, last, mean, quantile, variance
from headwater.aggregates import max as highest
from headwater.aggregates import min as lowest
from headwater.aggregates import sum as total
from headwater.commands import app
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.processors.audit.accepted import accept_missing
from headwater.processors.audit.report import AuditReport
from headwater.processors.audit.run import run_audit
from headwater.processors.audit.views import ViewAudit, audit_views
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import hopping, tumbling
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.services import Services, new_owner
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings
from headwater.sinks.lake.rewrite import data_files

START_MS = 1_790_000_000_000
EVENTS = 120


@pytest.fixture(scope="module")
def aws() -> Iterator[Mapping[str, str]]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server.environment


class Stack:
    """A pipeline with a stream, lake, ledger and views of its own."""

    def __init__(self, name: str) -> None:
        self.settings = Settings(
            stream=name,
            bucket=name,
            database=name.replace("-", "_"),
            ledger_table=f"{name}-ledger",
            views_table=f"{name}-views",
            commit_seconds=0.5,
            view_flush_seconds=0.2,
        )
        provision(self.settings, shards=2)
        self.pipeline = (
            Pipeline(name, contract="telemetry")
            .view(
                "device_1m",
                by=["device"],
                window=tumbling("1m"),
                n=count(),
                s=total("value"),
                least=lowest("value"),
                most=highest("value"),
                middle=mean("value"),
                spread_of=variance("value"),
                earliest=first("metric"),
                latest=last("metric"),
                kinds=distinct("metric"),
                half=quantile("value", 0.5),
            )
            .view("hops", by=["device", "metric"], window=hopping("2m", every="1m"), n=count(), most=highest("ts"))
            .view("all", by=[], n=count())
            .lake("telemetry", partition=None)  # so that pyiceberg can append and delete rows
        )
        self.services = Services(self.settings, self.pipeline)

    def produce(self, events: int = EVENTS, begin: int = 0) -> None:
        """Put events of three devices, ten seconds apart."""
        options = ProducerSettings(max_events=5, linger_ms=5)
        with Producer(
            self.settings.stream,
            self.pipeline.contract,
            client=self.services.kinesis,
            settings=options,
            control_key=self.services.control_key(self.settings.stream),
        ) as producer:
            for at in range(begin, begin + events):
                ts = START_MS + at * 10_000
                producer.put({"device": f"d{at % 3}", "metric": f"m{at % 7}", "ts": ts, "value": at / 8})

    def process(self, events: int) -> None:
        """Process until so many events are committed."""
        services, stop = self.services, Event()
        runner = EmbeddedRunner(
            self.pipeline, services.kinesis, services.ports, self.settings, services.clock, new_owner()
        )
        thread = Thread(target=runner.run, args=(stop,))
        thread.start()
        for _ in range(600):
            if sum(entry.counts.get("lake", 0) for entry in services.ledger.shards()) >= events:
                break
            services.clock.sleep(0.1)
        stop.set()
        thread.join()

    def publish(self) -> None:
        """Have all committed files in the table."""
        publisher = self.services.publisher(new_owner())
        publisher.drain()
        publisher.release()

    def filled(self) -> "Stack":
        """Produce, process, publish."""
        self.produce()
        self.process(EVENTS)
        self.publish()
        return self

    def audit(self) -> AuditReport:
        return run_audit(self.services.reader)

    def views(self, sample: int | None = None) -> dict[str, ViewAudit]:
        return {one.view: one for one in audit_views(self.services.reader, self.services.views, sample)}

    def delete(self, uri: str) -> None:
        self.services.objects.delete(uri.removeprefix(f"s3://{self.settings.bucket}/"))

    def accept(self, report: AuditReport, **more: Any) -> None:
        said = {"who": "ana", "why": "ticket 17", "now_ms": self.services.clock.now_ms(), **more}
        accept_missing(self.pipeline.name, self.services.ledger, self.services.objects, report, **said)


def test_a_live_file_that_is_gone_gives_the_intervals_it_held(aws: Mapping[str, str]) -> None:
    """Named with its rows, and accepted by name the audit is exact again."""
    stack = Stack("gone-live").filled()
    assert stack.audit().exact
    lost = data_files(stack.services.open_lake_table())[0]
    stack.delete(lost.file_path)
    report = stack.audit()
    assert [(one.uri, one.rows, one.state) for one in report.unreadable] == [
        (lost.file_path, lost.record_count, "live")
    ]
    assert report.missing == lost.record_count
    (origin,) = report.origins
    assert sum(stop - start for start, stop in origin.not_in_lake) == lost.record_count
    assert not report.exact
    stack.accept(report)
    again = stack.audit()
    assert again.exact
    assert (again.missing, again.acknowledged) == (0, lost.record_count)
    assert [(one.who, one.why, one.events) for one in again.accepted_by] == [("ana", "ticket 17", lost.record_count)]
    with pytest.raises(UsageError, match="nothing is missing"):
        stack.accept(again)
    stack.produce(20, begin=EVENTS)
    stack.process(EVENTS + 20)
    stack.publish()
    assert stack.audit().exact


def test_a_pending_file_that_is_gone_is_named_and_the_rest_goes_on(aws: Mapping[str, str]) -> None:
    """Its rows are missing by number; those of other files wait, or are in the lake."""
    stack = Stack("gone-pending")
    stack.produce()
    stack.process(EVENTS)
    stack.services.publisher(new_owner())  # makes the table
    gone = next(file for entry in stack.services.ledger.shards() for file in entry.pending)
    stack.delete(gone.uri)
    report = stack.audit()
    assert [(one.uri, one.rows, one.state) for one in report.unreadable] == [(gone.uri, gone.rows, "pending")]
    assert (report.missing, report.waiting, report.in_lake) == (gone.rows, EVENTS - gone.rows, 0)


def test_rows_that_no_processor_wrote_are_unexpected(aws: Mapping[str, str]) -> None:
    """Appended by hand: under a name of another, and without any identity."""
    stack = Stack("by-hand").filled()
    table = stack.services.open_lake_table()
    rows = table.scan().to_arrow().slice(0, 3)
    at = rows.column_names.index("_origin")
    table.append(rows.set_column(at, rows.schema.field(at), pa.array(["by-hand"] * 3, rows.schema.field(at).type)))
    report = stack.audit()
    assert (report.unexpected, report.missing, report.duplicates) == (3, 0, 0)
    assert not report.exact
    with pytest.raises(UsageError, match="nothing is missing"):
        stack.accept(report)


def test_a_delete_by_an_analyst_is_accepted_by_name(aws: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the commands: exit 1 until it is accepted, then exact, with who and why; a view still has what went."""
    stack = Stack("analyst").filled()
    monkeypatch.setattr("headwater.commands.audit.open_services", lambda: stack.services)
    monkeypatch.setenv("COLUMNS", "200")
    stack.services.open_lake_table().delete(EqualTo("device", "d1"))

    def headwater(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["audit", *arguments])
        return done.exit_code, done.output

    code, out = headwater("--json")
    assert (code, json.loads(out)["missing"]) == (1, EVENTS // 3)
    code, out = headwater("accept", "--who", "ana", "--why", "request 4711")
    assert code == 0, out
    assert "40 missing events" in out
    code, out = headwater()
    assert code == 0, out
    assert "exact but for 40 accepted as missing" in out
    assert "by ana: request 4711" in out
    code, out = headwater("--views", "--sample", "all", "--json")
    wrong = {one["view"]: len(one["wrong"]) for one in json.loads(out)["views"]}
    assert code == 1
    assert wrong["device_1m"] > 0
    assert wrong["all"] > 0


@pytest.mark.parametrize("sample", [None, 1_000])
def test_views_that_are_right_are_exact(aws: Mapping[str, str], sample: int | None) -> None:
    """Every aggregate, tumbling and hopping windows and none, before and after publishing."""
    stack = Stack(f"right-{sample or 'all'}")
    stack.produce()
    stack.process(EVENTS)
    stack.services.publisher(new_owner())
    for _ in range(2):
        found = stack.views(sample)
        assert {name: one.wrong for name, one in found.items()} == dict.fromkeys(found, ())
        assert found["all"].checked == 1
        assert found["device_1m"].checked >= 20 * 3
        assert all(not one.moving for one in found.values())
        stack.publish()


def test_an_edited_row_and_a_removed_slot_are_named(aws: Mapping[str, str]) -> None:
    """Each wrong value with view, key, window, what is stored and what is right."""
    stack = Stack("edited").filled()
    client, table = stack.services.client("dynamodb"), stack.settings.views_table
    items = [one for one in client.scan(TableName=table)["Items"] if one["pk"]["S"].startswith("device_1m#d0")]
    items = sorted((one for one in items if "slots" in one), key=lambda one: one["sk"]["S"])
    edited, cut, removed = items[:3]
    client.put_item(TableName=table, Item={**edited, "n": {"N": "999"}})
    slots = dict(cut["slots"]["M"])
    slots.pop(next(iter(slots)))
    client.put_item(TableName=table, Item={**cut, "slots": {"M": slots}})
    client.delete_item(TableName=table, Key={"pk": removed["pk"], "sk": removed["sk"]})
    for sample in (None, 1_000):
        found = stack.views(sample)["device_1m"]
        assert not found.exact
        windows = {one.window_start for one in found.wrong}
        assert windows == {one["sk"]["S"] for one in (edited, cut, removed)}
        (first_wrong,) = [one for one in found.wrong if one.window_start == edited["sk"]["S"]]
        assert (first_wrong.key, first_wrong.column, first_wrong.stored, first_wrong.where) == (
            "d0",
            "n",
            999,
            "attribute",
        )
        assert first_wrong.right == int(edited["n"]["N"])
        assert stack.views(sample)["all"].exact


def test_a_row_that_moves_meanwhile_is_not_judged(aws: Mapping[str, str]) -> None:
    """A slot beyond what the ledger has committed is ahead of the lake, as a flush is before its commit."""
    stack = Stack("moving").filled()
    client, table = stack.services.client("dynamodb"), stack.settings.views_table
    (item,) = [one for one in client.scan(TableName=table)["Items"] if one["pk"]["S"] == "all#" and "slots" in one]
    for slot in item["slots"]["M"].values():
        slot["M"]["v"]["S"] = "9" * len(slot["M"]["v"]["S"])
    client.put_item(TableName=table, Item=item)
    found = stack.views()["all"]
    assert (found.checked, found.moving, found.wrong) == (0, 1, ())
