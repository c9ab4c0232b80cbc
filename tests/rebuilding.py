"""A pipeline whose views are rebuilt while processors go on: what the tests of it share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from headwater.aggregates import count, mean, quantile
from headwater.config import Settings
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.generations import DOCUMENT, Generations, generations
from headwater.processors.jobs import Advance, NoProgress
from headwater.processors.rebuild.from_lake import LakePast
from headwater.processors.rebuild.rebuild import Rebuild, Rebuilt
from headwater.processors.rebuild.recompute import batch_view, differences
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.services import Services, new_owner
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings
from headwater.sinks.lake.catalog import open_table
from headwater.testing.fleet import Fleet
from tests.waiting import until

__all__ = [
    "NEW",
    "OLD",
    "SETTINGS",
    "WRITES",
    "Killed",
    "Live",
    "MortalServices",
    "Told",
    "check",
    "committed",
    "in_lake",
    "no_progress",
    "of",
    "produce",
    "rebuild",
    "reshard",
    "settle",
    "stored",
]

SETTINGS = Settings(commit_seconds=0.4, view_flush_seconds=0.2)
START_MS = 1_790_000_000_000
OLD = (
    Pipeline("rebuilt", contract="telemetry")
    .view("by_minute", by=["device"], window=tumbling("1m"), events=count())
    .view("by_device", by=["device"], events=count())
    .view("all", by=[], events=count())
    .lake("rebuilt")
)
NEW = OLD.view(
    "by_minute", version=2, by=["device", "metric"], window=tumbling("5m"), n=count(), mean=mean("value")
).view("by_device", version=2, by=["metric"], spread=2, events=count(), p90=quantile("value", 0.9))


class Told(NoProgress):
    """Progress that is told to a function."""

    def __init__(self, advance: Callable[[int, int], object]) -> None:
        self._advance = advance

    def __call__(self, events: int, done: int) -> None:
        self._advance(events, done)


no_progress = NoProgress()


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


def reshard(services: Services, *, split: bool) -> None:
    """Split the first of the open shards, or merge the first two; return when the stream is active again."""
    stream, kinesis = services.settings.stream, services.kinesis
    found = kinesis.list_shards(StreamName=stream)["Shards"]
    still = [one for one in found if "EndingSequenceNumber" not in one["SequenceNumberRange"]]
    one, *more = sorted(still, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
    if split:
        start, end = (int(one["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
        half = str((start + end) // 2)
        kinesis.split_shard(StreamName=stream, ShardToSplit=one["ShardId"], NewStartingHashKey=half)
    else:
        pair = one["ShardId"], more[0]["ShardId"]
        kinesis.merge_shards(StreamName=stream, ShardToMerge=pair[0], AdjacentShardToMerge=pair[1])

    def is_active() -> bool:
        summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        return bool(summary["StreamStatus"] == "ACTIVE")

    until(is_active, 60, "the stream is active")


def rebuild(services: Services, name: str, advance: Advance = no_progress) -> Rebuilt:
    """From the lake."""
    return Rebuild(
        services.rebuild_ports,
        name,
        LakePast(services.reader, services.views, settle(services)),
        Told(advance),
    ).run()


def check(services: Services, name: str) -> None:
    """What a reader gets is what pandas makes of the whole lake."""
    services.publisher("test").drain()
    frame = open_table(SETTINGS, "rebuilt").scan().to_arrow().to_pandas()
    view = services.pipeline.definition(name, of(services, name).serving.version)
    assert view is not None
    expected = batch_view(services.pipeline, view, frame)
    assert differences(view, expected, services.views.rows(services.view_specs[name])) == []
    assert expected


def settle(services: Services) -> Callable[[], object]:
    return services.publisher("test").drain


def in_lake(services: Services) -> int:
    rows: int = open_table(services.settings, "rebuilt").scan().count()
    return rows


def of(services: Services, name: str) -> Generations:
    return generations(services.ledger.document(DOCUMENT)[0], NEW)[name]


def stored(services: Services) -> dict[str, int]:
    """Items of each generation in the table."""
    found: dict[str, int] = {}
    for page in services.client("dynamodb").get_paginator("scan").paginate(TableName=SETTINGS.views_table):
        for item in page["Items"]:
            name = item["pk"]["S"].partition("#")[0].partition("@@")[0]
            found[name] = found.get(name, 0) + 1
    return found


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


@dataclass(frozen=True)
class MortalServices(Services):
    """Services of a process that dies of its first write: dying before one is dying after the one before."""

    deaths: list[str] = field(default_factory=list)

    def client(self, service: str) -> Any:
        return Mortal(super().client(service), self.deaths)
