"""A view built anew while processors go on: exact across the seam, whatever is killed, and switched in one write."""

from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest

from headwater.aggregates import count, mean, quantile
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.local.embedded import EmbeddedAws
from headwater.local.provision import provision
from headwater.serving.reading import ViewReader
from processors.jobs import Advance
from processors.pipeline import Pipeline
from processors.rebuilding import Rebuild, Rebuilt
from processors.rebuildlake import LakePast
from processors.recompute import batch_view, differences
from processors.runners.embedded import EmbeddedRunner
from processors.services import Services, new_owner
from processors.windows import tumbling
from producers import Producer, ProducerSettings
from producers.fleet import Fleet
from sinks.catalog import open_table

SETTINGS = Settings(commit_seconds=0.4, view_flush_seconds=0.2)
START_MS = 1_790_000_000_000
OLD = (
    Pipeline("rebuilt", contract="telemetry")
    .view("by_minute", by=["device"], window=tumbling("1m"), events=count())
    .view("by_device", by=["device"], events=count())
    .lake("rebuilt")
)
NEW = OLD.view(
    "by_minute", version=2, by=["device", "metric"], window=tumbling("5m"), n=count(), mean=mean("value")
).view("by_device", version=2, by=["metric"], events=count(), p90=quantile("value", 0.9))


class Killed(BaseException):
    """The process ends here; nothing of it may catch this."""


WRITES = ("put_item", "update_item", "delete_item", "put_object", "delete_object")


class Mortal:
    """A client of a process that is killed once a write has taken place, but not twice by one on the same object."""

    def __init__(self, inner: Any, deaths: list[str]) -> None:
        self._inner, self._deaths, self._before = inner, deaths, len(deaths)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in WRITES:
            return method

        def call(**request: Any) -> Any:
            if len(self._deaths) > self._before:
                raise Killed  # another thread was
            answer = method(**request)
            said = f"{name} {request['Key']}" if "object" in name else name
            if "object" in name and said in self._deaths:
                return answer
            self._deaths.append(said)
            raise Killed

        return call


class MortalServices(Services):
    """Services of a process that dies of its first write: dying before one is dying after the one before."""

    def __init__(self, pipeline: Pipeline, deaths: list[str]) -> None:
        super().__init__(SETTINGS, pipeline)
        object.__setattr__(self, "deaths", deaths)

    def client(self, service: str) -> Any:
        return Mortal(super().client(service), self.deaths)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def _aws() -> Iterator[None]:
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        yield


class Live:
    """Processors that go on while views are rebuilt."""

    def __init__(self, services: Services) -> None:
        self.services, self.stop = services, Event()
        runner = EmbeddedRunner(
            services.pipeline, services.kinesis, services.ports, services.settings, services.clock, new_owner()
        )
        self.thread = Thread(target=runner.run, args=(self.stop,))

    def __enter__(self) -> "Live":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def produce(services: Services, events: int, minutes: int) -> None:
    options = ProducerSettings(max_events=100)
    with Producer(SETTINGS.stream, services.pipeline.contract, client=services.kinesis, settings=options) as producer:
        for table in Fleet(devices=7, start_ms=START_MS + minutes * 60_000).batches(events, events):
            producer.put_batch(table)
        producer.flush()


def committed(services: Services, events: int) -> None:
    """Until so many events are committed altogether."""
    for _ in range(600):
        if sum(entry.counts.get("lake", 0) for entry in services.ledger.shards()) >= events:
            return
        services.clock.sleep(0.1)
    raise AssertionError(f"{events} events were not committed")


def untold(_events: int, _done: int) -> None:
    pass


def rebuild(services: Services, name: str, advance: Advance = untold) -> Rebuilt:
    past = LakePast(services, services.publisher("test").drain, advance)
    return Rebuild(services, name, past, advance).run()


def check(services: Services, name: str, version: int) -> None:
    """What a reader gets is what pandas makes of the whole lake."""
    services.publisher("test").drain()
    frame = open_table(SETTINGS, "rebuilt").scan().to_arrow().to_pandas()
    view = services.pipeline.definition(name, version)
    assert view is not None
    expected = batch_view(services.pipeline, view, frame)
    assert differences(view, expected, services.views.scan(services.view_specs[name])) == []
    assert expected


def stored(services: Services) -> dict[str, int]:
    """Items of each generation in the table."""
    found: dict[str, int] = {}
    for page in services.client("dynamodb").get_paginator("scan").paginate(TableName=SETTINGS.views_table):
        for item in page["Items"]:
            name = item["pk"]["S"].partition("#")[0]
            found[name] = found.get(name, 0) + 1
    return found


@pytest.fixture(scope="module")
def services(_aws: None) -> Services:
    """After a run with the old definitions."""
    services = Services(SETTINGS, OLD)
    produce(services, 2_000, 0)
    with Live(services):
        committed(services, 2_000)
    return services


def test_rebuilt_while_processors_go_on_and_the_old_one_serves(services: Services) -> None:
    """Changed keys, windows and values; events all the while; whoever reads finds the old or the new, never a part."""
    new, told = Services(SETTINGS, NEW), list[int]()
    reader = ViewReader(new)
    first_page = reader.prefix("by_minute", "", 1, "")
    assert "events" in first_page["rows"][0]

    def advance(_events: int, _done: int) -> None:
        told.append(len(reader.prefix("by_minute", "", 1000, "")["rows"][0]))
        produce(new, 40, len(told))

    with Live(new):
        done = rebuild(new, "by_minute", advance)
        assert (done.generation, done.version) == (2, 2)
        assert done.events >= 2_000
        assert set(told) == {len(first_page["rows"][0])} | {len(reader.prefix("by_minute", "", 1, "")["rows"][0])}
        produce(new, 500, 3)
        committed(new, 2_500 + 40 * len(told))
    check(new, "by_minute", 2)
    assert "by_minute" not in stored(new)
    assert done.dropped > 0
    with pytest.raises(UsageError, match="earlier generation"):
        reader.prefix("by_minute", "", 1, first_page["next"])
    with pytest.raises(UsageError, match="in version 2, and this pipeline has version 1"):
        services.kept()


def test_killed_after_every_write_and_called_again(services: Services) -> None:
    """One call after another, each killed by its first write, until one ends; then all is as if nothing had been."""
    new, deaths = Services(SETTINGS, NEW), list[str]()
    settle = services.publisher("test").drain
    with Live(new):
        for attempt in range(400):
            mortal = MortalServices(NEW, deaths)
            produce(new, 10, attempt)
            try:
                past = LakePast(mortal, settle, untold, most_slots=5)
                done = Rebuild(mortal, "by_device", past, untold).run()
                break
            except Killed:
                pass
        else:
            raise AssertionError("it never ends")
    assert {name.partition(" ")[0] for name in deaths} == set(WRITES)
    assert done.generation == 2
    check(new, "by_device", 2)
    assert "by_device" not in stored(new)
