"""The alerts service over tables in memory: killed at any write, paused while another leads, refused by its target."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates import count, first, mean
from headwater.aggregates.columns import Columns
from headwater.clock import Clock, ManualClock
from headwater.config import Settings
from headwater.errors import Fenced, Retryable, UsageError
from headwater.ledger import Commit, ShardEntry
from headwater.processors.alerts import above, absent
from headwater.processors.alerts.events import About, event_of
from headwater.processors.alerts.machine import CALM, Reading, advance
from headwater.processors.alerts.publishers import Publish, Refused
from headwater.processors.alerts.service import Alerts, Turn
from headwater.processors.alerts.store import alert_rows
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.services import Services
from headwater.processors.watermark import watermark_of
from headwater.sinks.views.slots import Upsert
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.kinesis import MemoryKinesis

START = 1_762_160_400_000
MINUTE = 60_000
PIPELINE = (
    Pipeline("plant", contract="telemetry")
    .view("device_1m", by=["device"], window=tumbling("1m"), events=count(), mean=mean("value"), said=first("status"))
    .alert("hot", on="device_1m", when=above("mean", 30, clear=28), for_="2m", summary="too hot")
    .alert("silent", on="device_1m", when=absent(), for_="3m")
)
Event = Mapping[str, Any]


class Killed(BaseException):
    """As kill -9: nothing of the service's own runs after it."""


class Memory:
    """DynamoDB in memory; dies at the write that `dies` counts down to, before it (even) or after it (odd)."""

    def __init__(self) -> None:
        self._inner = MemoryDynamoDB()
        for table, keys in (("headwater-ledger", ("pipeline", "item")), ("headwater-views", ("pk", "sk"))):
            schema = [
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(keys, ("HASH", "RANGE"), strict=True)
            ]
            self._inner.create_table(TableName=table, KeySchema=schema)
        self.dies: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def update_item(self, **request: Any) -> Any:
        return self._mortal(self._inner.update_item, request)

    def delete_item(self, **request: Any) -> Any:
        return self._mortal(self._inner.delete_item, request)

    def _mortal(self, write: Callable[..., Any], request: Mapping[str, Any]) -> Any:
        if self.dies is None:
            return write(**request)
        self.dies -= 1
        if self.dies == 0:
            raise Killed
        answer = write(**request)
        self.dies -= 1
        if self.dies == 0:
            raise Killed
        return answer


class Plant(Services):
    """One shard whose watermark the test moves, and rows that it writes."""

    memory: Memory
    memory_stream: MemoryKinesis
    entry: ShardEntry

    def __init__(
        self, pipeline: Pipeline = PIPELINE, settings: Settings | None = None, clock: Clock | None = None
    ) -> None:
        clock = clock or ManualClock(START)
        super().__init__(settings or Settings(view_writers=1), pipeline, clock)
        object.__setattr__(self, "memory", Memory())
        object.__setattr__(self, "memory_stream", MemoryKinesis(clock, limits=False))
        self.memory_stream.create_stream(StreamName=self.settings.stream, ShardCount=1)
        object.__setattr__(self, "entry", self.ledger.claim("shardId-000000000000", "p", None, START))

    def having(self, pipeline: Pipeline) -> "Plant":
        """The same, under another definition."""
        other = Plant(pipeline, self.settings, self.clock)
        for name in ("memory", "memory_stream", "entry"):
            object.__setattr__(other, name, getattr(self, name))
        for name in ("ledger", "views", "alerts", "serving", "stores", "stream_client", "kinesis"):
            other.__dict__.pop(name, None)
        return other

    def client(self, service: str) -> Any:
        return {"dynamodb": self.memory, "kinesis": self.memory_stream, "s3": None}[service]

    def write(self, device: str, minute: int, value: float, version: int = 1) -> None:
        spec = self.view_specs["device_1m"]
        columns = Columns(spec.aggregates)
        columns.grow(1)
        begin = START + minute * MINUTE
        table = pa.table({"device": [device], "value": [value], "status": ["ok"]})
        columns.fold(np.zeros(1, np.int64), table, np.array([begin], np.int64))
        upsert = Upsert((device,), begin, begin + MINUTE, "s0", str(version).zfill(56), columns.partial(0))
        self.views.write(spec, [upsert])

    def read_to(self, minute: int) -> None:
        """Not before the time when that is read."""
        at = START + minute * MINUTE + self.pipeline.lateness_ms
        self.clock.sleep(max(0, at - self.clock.now_ms()) / 1000)
        object.__setattr__(self, "entry", self.commit(self.entry, minute))

    def commit(self, entry: ShardEntry, minute: int, *, closed: bool = False) -> ShardEntry:
        mark = START + minute * MINUTE
        change = Commit(str(minute).zfill(56), b"", None, (), {}, mark, closed=closed, now_ms=self.clock.now_ms())
        return self.ledger.commit(entry, change)

    def lives(self, values: Mapping[str, Sequence[float | None]]) -> None:
        for device, each in values.items():
            for minute, value in enumerate(each):
                if value is not None:
                    self.write(device, minute, value)


def expected(values: Mapping[str, Sequence[float | None]], until: int) -> dict[str, Event]:
    """What the state machine says of all windows at once, by id."""
    found: dict[str, Event] = {}
    for rule in PIPELINE.alerts:
        for device, each in values.items():
            rows = [Reading(START + (at + 1) * MINUTE, value) for at, value in enumerate(each) if value is not None]
            for change in advance(rule, CALM, rows, START - 9 * MINUTE, START + until * MINUTE)[1]:
                event = event_of("plant", About.of(rule), device, {"device": device}, change)
                found[event["id"]] = event
    return found


def to(told: list[Event]) -> dict[str, Publish]:
    """A target that takes everything."""

    def publish(events: Sequence[Event]) -> Refused:
        told.extend(events)
        return {}

    return {"all": publish}


def first_of_each(events: Sequence[Event]) -> dict[str, Event]:
    """By id, in the order of their first coming; all of an id are the same."""
    found: dict[str, Event] = {}
    for event in events:
        assert found.setdefault(event["id"], event) == event
    return found


@pytest.fixture
def plant() -> Plant:
    return Plant()


@pytest.fixture
def told() -> list[Event]:
    return []


HOT: dict[str, Sequence[float | None]] = {
    "dev-1": [20, 31, 31, 29, 27, 20],
    "dev-2": [20, 20, None, None, None, None],
    "shard#3": [20] * 6,
}


def test_a_change_is_told_once(plant: Plant, told: list[Event]) -> None:
    """As a CloudEvents event; not again in later turns, nor by who leads later."""
    plant.lives(HOT)
    service = Alerts(plant.alert_ports, to(told), "a")
    for minute in (0, 1, 3, 3, 4, 6):
        plant.read_to(minute)
        service.turn()
    assert Alerts(plant.alert_ports, to(told), "b").turn() is None
    plant.clock.sleep(31)
    done = Alerts(plant.alert_ports, to(told), "c").turn()
    assert done is not None
    assert (done.raised, done.cleared, done.published) == (0, 0, 0)
    assert [(event["type"].rpartition(".")[2], event["subject"]) for event in told] == [
        ("raised", "dev-1"),
        ("cleared", "dev-1"),
        ("raised", "dev-2"),
    ]
    assert first_of_each(told) == expected(HOT, 6)
    assert {one["specversion"] for one in told} == {"1.0"}
    raised = told[0]
    assert raised["source"] == "/headwater/plant/alerts/hot"
    assert raised["time"] == "2025-11-03T09:03:00.000Z"
    assert raised["data"]["since"] == "2025-11-03T09:01:00.000Z"
    assert (raised["data"]["value"], raised["data"]["summary"]) == (31.0, "too hot")


def test_what_is_kept_of_it(plant: Plant, told: list[Event]) -> None:
    plant.lives(HOT)
    plant.read_to(4)
    Alerts(plant.alert_ports, to(told), "a").turn()
    plant.read_to(6)
    Alerts(plant.alert_ports, to(told), "a").turn()
    rows = alert_rows("plant", PIPELINE.alerts, plant.alerts)
    assert [(row["alert"], row["key"], row["state"], row["unpublished"]) for row in rows] == [
        ("silent", "dev-2", "firing", 0),
        ("hot", "dev-1", "cleared", 0),
    ]
    assert rows[1]["cleared"] == "2025-11-03T09:05:00.000Z"
    assert {row["episode"] for row in rows} == {event["data"]["episode"] for event in told}


def test_late_data_and_a_rule_that_is_new(plant: Plant, told: list[Event]) -> None:
    """Amended windows are not judged again. A new rule looks back as far as it takes to fire, and no further."""
    plant.lives({"dev-1": [99, 99, 20, 20, 20, 20, 31, 31], "dev-2": [20] * 8})
    plant.read_to(8)
    service = Alerts(plant.alert_ports, to(told), "a")
    service.turn()
    assert [event["data"]["since"] for event in told] == ["2025-11-03T09:06:00.000Z"]
    for minute in range(8):
        plant.write("dev-2", minute, 500.0, version=2)
    plant.write("dev-2", 8, 20.0)
    plant.write("dev-1", 8, 31.0)
    plant.read_to(9)
    service.turn()
    assert len(told) == 1


def test_what_a_target_refuses_waits(plant: Plant, told: list[Event]) -> None:
    """In the table, while the judging goes on; whoever leads next tells it first."""

    def refuse(_: Sequence[Event]) -> Refused:
        raise Retryable("no")

    plant.lives(HOT)
    service = Alerts(plant.alert_ports, {"all": refuse}, "a")
    turns = []
    for minute in (0, 3, 4, 6):
        plant.read_to(minute)
        turns.append(service.turn())
    assert [(turn.raised, turn.cleared, turn.published, turn.waiting) for turn in turns if turn] == [
        (0, 0, 0, 0),
        (1, 0, 0, 1),
        (0, 0, 0, 1),
        (1, 1, 0, 3),
    ]
    plant.clock.sleep(31)
    done = Alerts(plant.alert_ports, to(told), "b").turn()
    assert done is not None
    assert (done.published, done.waiting) == (3, 0)
    assert first_of_each(told) == expected(HOT, 6)
    assert len(told) == 3


def test_paused_while_another_leads(plant: Plant, told: list[Event]) -> None:
    """One stalls in the middle of publishing, longer than its lease: the other tells the same under the same ids."""
    plant.lives(HOT)
    plant.read_to(0)
    Alerts(plant.alert_ports, to(told), "a").turn()
    plant.read_to(6)

    def stall(events: Sequence[Event]) -> Refused:
        plant.clock.sleep(31)
        assert Alerts(plant.alert_ports, to(told), "b").turn() is not None
        return to(told)["all"](events)

    with pytest.raises(Fenced):
        Alerts(plant.alert_ports, {"all": stall}, "a").turn()
    assert len(told) == 3 + 2  # and the first request of the one that stalled
    assert first_of_each(told) == expected(HOT, 6)


def test_much_to_catch_up_with(plant: Plant, told: list[Event]) -> None:
    """A jump of the watermark is judged in turns that hold a part of the rows each."""
    lives: dict[str, Sequence[float | None]] = {"dev-1": [31.0, 31.0, 20.0] * 200}
    plant.lives(lives)
    plant.read_to(0)
    service = Alerts(plant.alert_ports, to(told), "a")
    service.turn()
    plant.read_to(600)
    turns = [service.turn() for _ in range(4)]
    assert [turn.behind for turn in turns if turn] == [2, 2, 0, 0]
    assert [turn.judged for turn in turns if turn] == [480, 480, 240, 0]
    assert first_of_each(told) == expected(lives, 600)
    assert len(told) == 400


def test_a_stream_that_falls_silent(told: list[Event]) -> None:
    """Its watermark stands still; where idle shards count as read, the silence is seen."""
    for idle, found in ((0.0, []), (120.0, ["dev-1"])):
        told.clear()
        plant = Plant(settings=Settings(view_writers=1, idle_seconds=idle))
        plant.lives({"dev-1": [20.0] * 3})
        plant.read_to(3)
        for _ in range(6):
            plant.clock.sleep(120)
            Alerts(plant.alert_ports, to(told), f"at {plant.clock.now_ms()}").turn()
        assert [event["subject"] for event in told] == found


def test_a_device_whose_data_come_later_than_allowed(plant: Plant, told: list[Event]) -> None:
    """Its silence ends when they are seen, and is not told anew while they come."""
    service = Alerts(plant.alert_ports, to(told), "a")
    plant.lives({"dev-1": [20.0] * 2, "dev-2": [20.0] * 40})
    for minute in range(40):
        plant.read_to(minute)
        service.turn()
        if minute > 10:
            plant.write("dev-1", minute - 4, 20.0)
    assert [(event["type"].rpartition(".")[2], event["data"]["at"][11:16]) for event in told] == [
        ("raised", "09:05"),
        ("cleared", "09:11"),
    ]


values = st.lists(st.one_of(st.none(), st.sampled_from([20.0, 27.0, 29.0, 31.0])), min_size=1, max_size=14)


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), values, min_size=1),
    st.sets(st.integers(1, 17), max_size=5),
    st.lists(st.integers(1, 24), max_size=6),
)
def test_killed_at_any_write(lives: dict[str, Sequence[float | None]], looks: set[int], deaths: list[int]) -> None:
    """Whatever the service dies of, the ones after it tell every change, under one id, each key's in order."""
    plant = Plant()
    told: list[Event] = []
    plant.lives(lives)
    crashes: Iterator[int] = iter(deaths)
    plant.read_to(0)
    Alerts(plant.alert_ports, to(told), "start").turn()
    for minute in sorted({*looks, 18}):
        plant.read_to(minute)
        for attempt in range(len(deaths) + 1):
            plant.clock.sleep(31)
            plant.memory.dies = next(crashes, None)
            try:
                Alerts(plant.alert_ports, to(told), f"{minute}-{attempt}").turn()
                break
            except Killed:
                continue
            finally:
                plant.memory.dies = None
    wanted = expected(lives, 18)
    found = first_of_each(told)
    assert found == wanted
    for device in lives:
        for rule in ("hot", "silent"):
            mine = [one for one in found.values() if (one["subject"], one["data"]["rule"]) == (device, rule)]
            assert [one["time"] for one in mine] == sorted(one["time"] for one in mine)


def test_refused_definitions() -> None:
    for wrong in (
        lambda: PIPELINE.alert("hot", on="device_1m", when=above("mean", 1)),
        lambda: PIPELINE.alert("x", on="nowhere", when=above("mean", 1)),
        lambda: PIPELINE.alert("x", on="device_1m", when=above("said", 1)),
        lambda: PIPELINE.view("ever", by=["device"], n=count()).alert("x", on="ever", when=above("n", 1)),
        lambda: Alerts(Plant(PIPELINE.map(lambda t: t, adds={"v": "double"}, pure=False)).alert_ports, {}, "a"),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_a_pipeline_without_alerts() -> None:
    """The service waits: it may be deployed before the first rule."""
    plant = Plant(Pipeline("none", contract="telemetry"))
    plant.read_to(9)
    assert Alerts(plant.alert_ports, {}, "a").turn() == Turn()


def test_a_shard_that_is_idle() -> None:
    """It holds the watermark back, unless it may be taken for read."""
    busy = ShardEntry("p", "a", 1, "o", watermark_ms=900, updated_ms=1000)
    idle = ShardEntry("p", "b", 1, "o", watermark_ms=100, updated_ms=200)
    empty = ShardEntry("p", "c", 1, "o", updated_ms=200)
    assert watermark_of([busy, idle]) == 100
    assert watermark_of([busy, empty]) is None
    assert watermark_of([busy, idle, empty], 600) == 600
    assert watermark_of([busy, idle], 150) == 100
    assert watermark_of([]) is None
