"""What alerts keep: of any key, of little size, and no longer than there is something to remember."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from headwater.aggregates import count, mean
from headwater.aggregates.merging import iso_ms
from headwater.errors import Fenced, UsageError
from headwater.processors.alerts import Rule, above, absent
from headwater.processors.alerts.events import About, event_of
from headwater.processors.alerts.machine import Change, State
from headwater.processors.alerts.readings import seen, starts
from headwater.processors.alerts.service import Alerts
from headwater.processors.alerts.store import Entry, alert_rows
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.sinks.views.items import key_text
from tests.typed import a_key
from tests.unit.test_alert_leading import ONE
from tests.unit.test_alert_service import MINUTE, START, Event, Memory, Plant, to

TWO = (
    Pipeline("plant", contract="telemetry")
    .view("device_1m", by=["device"], window=tumbling("1m"), events=count(), mean=mean("value"))
    .alert("hot", on="device_1m", when=above("mean", 30), for_="2m")
)


class Strict(Memory):
    """Refuses what DynamoDB refuses, and says how large the largest document was."""

    largest = 0

    def update_item(self, **request: Any) -> Any:
        key = request["Key"].get("item", {"S": ""})["S"]
        size = sum(len(one["S"].encode()) for one in request["ExpressionAttributeValues"].values() if "S" in one)
        self.largest = max(self.largest, size)
        if len(key.encode()) > 1024 or size > 400_000:
            # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "too large"}}, "UpdateItem")
        return super().update_item(**request)


def strict(pipeline: Pipeline) -> Plant:
    plant = Plant(pipeline)
    object.__setattr__(plant, "memory", Strict())
    for name in ("ledger", "views", "alerts", "serving"):
        plant.__dict__.pop(name, None)
    object.__setattr__(plant, "entry", plant.ledger.claim("shardId-000000000000", "p", None, START))
    return plant


def documents(plant: Plant) -> int:
    items = plant.memory.scan(TableName="headwater-ledger", ConsistentRead=True)["Items"]
    return sum("/alerts/" in item["pipeline"]["S"] for item in items)


def listed(plant: Plant) -> list[tuple[object, ...]]:
    rows = alert_rows("plant", plant.pipeline.alerts, plant.alerts)
    return [
        (row["key"], row["state"], str(row["since"])[11:16], row["cleared"] and str(row["cleared"])[11:16])
        for row in rows
    ]


@pytest.mark.parametrize("key", ["d" * 1023, "é" * 511, "a#b/c|d", ""])
def test_any_key_that_a_view_can_have(key: str) -> None:
    plant, told = strict(ONE), list[Event]()
    plant.lives({key: [99.0, 20.0], "dev-1": [20.0, 99.0]})
    plant.read_to(0)
    service = Alerts(plant.alert_ports, to(told), "a")
    service.turn()
    plant.read_to(2)
    service.turn()
    assert sorted((event["type"][16:], event["data"]["key"]["device"]) for event in told) == sorted(
        [("raised", key), ("cleared", key), ("raised", "dev-1")]
    )
    assert {event.get("subject") for event in told} == {key_text([key]) or None, "dev-1"}
    assert plant.alerts.entries("hot").keys() == {key_text([key]), "dev-1"}


def test_what_no_item_can_hold_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plant, told = strict(ONE), list[Event]()
    plant.lives({"big": [99.0] * 3, "dev-1": [20.0, 99.0, 99.0]})
    real = plant.alerts.save

    def save(entry: Entry) -> Entry:
        return real(Entry(entry.rule, entry.key, {"big": "x" * 500_000}, entry.state) if entry.key == "big" else entry)

    monkeypatch.setattr(plant.alerts, "save", save)
    service = Alerts(plant.alert_ports, to(told), "a")
    for minute in range(4):
        plant.read_to(minute)
        service.turn()
    assert [event["subject"] for event in told] == ["dev-1"]


def test_many_changes_of_a_key_are_small() -> None:
    plant, told = (
        strict(
            Pipeline("plant", "telemetry")
            .view("device_1m", by=["device"], window=tumbling("1m"), mean=mean("value"), events=count())
            .alert("hot", on="device_1m", when=above("mean", 30), summary="s" * 1000)
        ),
        list[Event](),
    )
    plant.read_to(0)
    service = Alerts(plant.alert_ports, to(told), "a")
    service.turn()
    plant.lives({"k" * 900: [99.0, 20.0] * 120})
    plant.read_to(240)
    service.turn()
    assert isinstance(plant.memory, Strict)
    assert (len(told), plant.memory.largest < 30_000) == (240, True)
    with pytest.raises(UsageError, match="summary"):
        Rule("hot", "v", tumbling("1m"), above("mean", 1), summary="s" * 1001)


def test_what_never_fired_is_not_kept() -> None:
    """Sessions: new keys in each minute, each with one breach."""
    plant, told = Plant(TWO), list[Event]()
    service = Alerts(plant.alert_ports, to(told), "a")
    plant.read_to(0)
    service.turn()
    for minute in range(1, 30):
        for number in range(5):
            plant.write(f"{minute}-{number}", minute, 99.0)
            plant.write(f"{minute}-{number}", minute + 1, 20.0)
        plant.read_to(minute + 1)
        service.turn()
        assert documents(plant) == 5
    plant.read_to(31)
    service.turn()
    assert (told, documents(plant), service._entries["hot"]) == ([], 0, {})


def test_what_has_been_cleared_is_kept_for_a_week() -> None:
    plant, told = Plant(ONE), list[Event]()
    plant.lives({"dev-1": [99.0, 20.0], "dev-2": [99.0, 99.0]})
    plant.read_to(0)
    service = Alerts(plant.alert_ports, to(told), "a")
    service.turn()
    plant.read_to(2)
    service.turn()
    assert service._entries["hot"].keys() == {"dev-2"}  # what is calm is not in memory
    for minute, keys in ((7 * 1440, {"dev-1", "dev-2"}), (7 * 1440 + 3, {"dev-2"})):
        plant.read_to(minute)
        while (turn := service.turn()) and turn.behind:
            pass
        plant.clock.sleep(3600)  # it looks through them once an hour
        service.turn()
        assert plant.alerts.entries("hot").keys() == keys
    assert len(told) == 3


def test_the_list_after_a_brief_breach() -> None:
    """The last episode stays; what is about to fire has none yet; a run that has ended is no longer listed."""
    plant, told = Plant(TWO), list[Event]()
    plant.lives({"dev-1": [99.0, 99.0, 20.0, 99.0, 20.0, 20.0], "dev-2": [20.0, 20.0, 20.0, 99.0]})
    service = Alerts(plant.alert_ports, to(told), "a")
    found = {}
    for minute in (0, 3, 4, 5, 6):
        plant.read_to(minute)
        service.turn()
        found[minute] = listed(plant)
    over = ("dev-1", "cleared", "09:00", "09:03")
    assert found[3] == [over]
    assert found[4] == [("dev-1", "pending", "09:03", None), ("dev-2", "pending", "09:03", None)]
    assert found[5] == found[6] == [over]
    plant.read_to(3)
    assert {row["episode"] for row in alert_rows("plant", TWO.alerts, plant.alerts)} == {
        event["data"]["episode"] for event in told
    }


def test_a_pending_one_has_no_episode() -> None:
    plant = Plant(TWO)
    plant.alerts.save(Entry("hot", "dev-1", {"device": "dev-1"}, State("pending", START, START + MINUTE, 99.0)))
    (row,) = alert_rows("plant", TWO.alerts, plant.alerts)
    assert (row["state"], row["episode"]) == ("pending", "")


def test_a_silence_needs_one_reading_of_what_was() -> None:
    """Long ones too: of the windows that were judged, only the last with data is held, in whatever order they come."""
    rule = Rule("silent", "v", tumbling("1m"), absent(), for_ms=1440 * MINUTE)
    span = {rule: (START + 299 * MINUTE, START + 301 * MINUTE)}
    assert (len(starts(span)), starts(span)[-1]) == (1440 + 2 + 2, START + 300 * MINUTE)
    rows = [{"device": "dev-1", "window_end": iso_ms(START + end * MINUTE)} for end in range(302) if end != 299]
    for order in (rows, rows[::-1], rows[150:] + rows[:150]):
        found = seen(order, ["device"], span)["dev-1"].readings["silent"]
        assert sorted((one.end_ms - START) // MINUTE for one in found) == [298, 300, 301]


def test_a_removed_entry_is_written_by_nobody_who_knew_it() -> None:
    """As of a key that is forgotten."""
    plant = Plant(ONE)
    entry = plant.alerts.save(Entry("hot", "jane", {"device": "jane"}, State("firing", START, START)))
    (found,) = plant.alerts.having(["hot", "gone"], a_key("device", "jane"))
    assert found == entry
    for another in (a_key("device", "joe"), a_key("metric", "jane")):
        assert plant.alerts.having(["hot"], another) == []
    later = plant.alerts.save(entry)
    with pytest.raises(Fenced):
        plant.alerts.remove(entry)
    plant.alerts.remove(later)
    plant.alerts.remove(later)
    with pytest.raises(Fenced):
        plant.alerts.save(later)
    assert plant.alerts.entries("hot") == {}


def test_an_event_of_an_empty_key_has_no_subject() -> None:
    """CloudEvents: a subject is not empty."""
    rule = Rule("hot", "v", tumbling("1m"), above("mean", 30))
    event = event_of("plant", About.of(rule), "", {"device": ""}, Change("raised", 0, 1, 31.0))
    assert "subject" not in event
    assert json.dumps(event["data"]["key"]) == '{"device": ""}'
