"""Two services in a row: what one sends on is in the next one's lake once, and the next one's audit says so."""

import time
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.contract import parse_contract
from headwater.processors.audit.report import AuditReport
from headwater.processors.audit.run import run_audit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.services import Services, new_owner
from headwater.producers.producer import Producer
from headwater.stream.shards import open_shards
from tests.waiting import until

EVENTS, START_MS = 1_200, 1_790_000_000_000
WARM = parse_contract(
    "name: warm\nversion: 1\nkey: device\ntime: ts\nfields:\n  - {name: device, type: string}\n"
    "  - {name: ts, type: timestamp}\n  - {name: value_f, type: double}\n",
    "warm",
)


def fahrenheit(events: pa.Table) -> pa.Table:
    return pa.table({"value_f": pc.add(pc.multiply(events["value"], 1.8), 32)})


READINGS = (
    Pipeline("readings", contract="telemetry")
    .map(fahrenheit, adds={"value_f": "double"})
    .to_stream("warm", contract=WARM, where=lambda events: pc.greater_equal(events["value"], EVENTS / 2))
    .lake("readings")
)
WARMER = Pipeline("warmer", WARM).lake("warmer")


class Service:
    """A pipeline in a thread, which may end as when its process is stopped, and begin anew."""

    def __init__(self, pipeline: Pipeline, stream: str) -> None:
        self.settings = Settings(
            stream=stream, bucket="chain", database="chain", ledger_table="l", views_table="v", commit_seconds=0.5
        )
        provision(self.settings, shards=2, others=[step.stream for step in pipeline.streams])
        self.services = Services(self.settings, pipeline)
        self.services.prepare()

    def begin(self) -> None:
        services, self._stop = self.services, Event()
        runner = EmbeddedRunner(
            services.pipeline, services.kinesis, services.ports, self.settings, services.clock, new_owner()
        )
        self._thread = Thread(target=runner.run, args=(self._stop,))
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def count(self, name: str) -> int:
        return sum(entry.counts.get(name, 0) for entry in self.services.ledger.shards())

    def audit(self) -> AuditReport:
        publisher = self.services.publisher(new_owner())
        publisher.drain()
        publisher.release()
        return run_audit(self.services.reader)


@pytest.fixture
def chain() -> Iterator[tuple[Service, Service]]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        services = Service(READINGS, "readings"), Service(WARMER, "warm")
        for one in services:
            one.begin()
        yield services
        for one in services:
            one.end()


def test_services_in_a_row_are_exact_through_splits_and_restarts(chain: tuple[Service, Service]) -> None:
    first, second = chain
    kinesis = first.services.kinesis
    key = first.services.control_key("readings")
    with Producer("readings", READINGS.contract, client=kinesis, control_key=key) as producer:
        for at in range(EVENTS):
            producer.put({"device": f"d{at % 7}", "metric": "m", "ts": START_MS + at, "value": float(at)})
            if at % 300 == 299:
                producer.flush()
                _split(kinesis, "readings" if at % 600 == 299 else "warm")
                service = first if at == 599 else second
                service.end()
                service.begin()
    until(lambda: second.count("lake") == EVENTS // 2, 60, "what goes on")
    first.end()  # receipts follow after half a minute, or when somebody takes over
    first.begin()
    until(lambda: not _unannounced(first), 60, "the receipts")
    reports = first.audit(), second.audit()
    assert [report.exact for report in reports] == [True, True], reports
    assert first.count("to.warm") == EVENTS // 2
    rows = second.services.open_lake_table().scan().to_arrow()
    assert sorted(rows["value_f"].to_pylist()) == [at * 1.8 + 32 for at in range(EVENTS // 2, EVENTS)]
    assert sum(origin.accepted or 0 for origin in reports[1].origins) == EVENTS // 2


def _split(kinesis: Any, stream: str) -> None:
    widest = max(open_shards(kinesis, stream), key=lambda one: one.width)
    middle = str((widest.start + widest.end) // 2 + 1)
    kinesis.split_shard(StreamName=stream, ShardToSplit=widest.shard_id, NewStartingHashKey=middle)
    time.sleep(0.2)


def _unannounced(service: Service) -> list[object]:
    documents = service.services.ledger.documents().items()
    unannounced = [
        list(body.get("unannounced", {}).values()) for name, (body, _) in documents if name.startswith("outgoing.")
    ]
    return [one for some in unannounced for one in some if one]
