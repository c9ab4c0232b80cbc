"""Rules that are taken out of the pipeline, put back, or moved to another view: nothing is lost or fires for ever."""

from collections.abc import Sequence

import pytest

from headwater.aggregates import count, mean
from headwater.errors import Retryable
from headwater.processors.alerts import above
from headwater.processors.alerts.machine import State
from headwater.processors.alerts.progress import known_rules
from headwater.processors.alerts.publishers import Refused
from headwater.processors.alerts.service import Alerts
from headwater.processors.alerts.store import Entry, alert_rows
from headwater.processors.definition.windows import tumbling
from tests.unit.test_alert_leading import ONE
from tests.unit.test_alert_service import START, Event, Killed, Plant, to

NONE = ONE._with(alerts=())
BOTH = NONE.view("metric_1m", by=["metric"], window=tumbling("1m"), events=count(), mean=mean("value"))


def refuse(_: Sequence[Event]) -> Refused:
    raise Retryable("no")


def said(told: Sequence[Event]) -> list[tuple[str, str, str, str]]:
    return [
        (event["data"]["rule"], event["type"].rpartition(".")[2], event["data"]["view"], event["data"]["at"][11:16])
        for event in told
    ]


def test_a_rule_that_is_taken_out() -> None:
    """What was not yet published is, what fires is cleared, and then nothing is kept."""
    plant, told = Plant(ONE), list[Event]()
    plant.lives({"dev-1": [99.0], "dev-2": [99.0, 20.0]})
    plant.read_to(0)
    service = Alerts(plant.alert_ports, {"all": refuse}, "a")
    service.turn()
    plant.read_to(2)
    service.turn()
    plant.clock.sleep(31)
    without = plant.having(NONE)
    turn = Alerts(without.alert_ports, {"all": refuse}, "b").turn()
    assert turn is not None
    assert (turn.cleared, turn.waiting) == (1, 4)
    plant.clock.sleep(31)
    service = Alerts(without.alert_ports, to(told), "c")
    turn = service.turn()
    assert turn is not None
    assert (turn.published, turn.waiting) == (4, 0)
    assert sorted(said(told)) == sorted(
        [("hot", "raised", "device_1m", "09:01"), ("hot", "cleared", "device_1m", "09:02")] * 2
    )
    assert told[0]["data"]["condition"] == "mean above 30"
    assert {event["id"].partition(".")[0] for event in told} == {event["data"]["episode"] for event in told}
    assert (plant.alerts.entries("hot"), known_rules(plant.ledger)) == ({}, [])
    service.turn()
    assert len(told) == 4


def test_a_new_rule_that_is_taken_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its service died in its first turn, between what it found and how far it was."""
    plant, told = Plant(ONE), list[Event]()
    plant.lives({"dev-1": [99.0]})
    plant.read_to(1)
    save = plant.alerts.save

    def dies(entry: Entry) -> Entry:
        save(entry)
        raise Killed

    monkeypatch.setattr(plant.alerts, "save", dies)
    with pytest.raises(Killed):
        Alerts(plant.alert_ports, to(told), "a").turn()
    plant.clock.sleep(31)
    Alerts(plant.having(NONE).alert_ports, to(told), "b").turn()
    assert [kind for _, kind, _, _ in said(told)] == ["raised", "cleared"]
    assert (plant.alerts.entries("hot"), known_rules(plant.ledger)) == ({}, [])


def test_a_rule_that_is_put_back_is_new() -> None:
    """It does not judge what was in between."""
    plant, told = Plant(ONE), list[Event]()
    plant.lives({"dev-1": [99.0, 20.0]})
    plant.read_to(2)
    Alerts(plant.alert_ports, to(told), "a").turn()
    plant.clock.sleep(31)
    Alerts(plant.having(NONE).alert_ports, to(told), "b").turn()
    told.clear()
    plant.write("dev-1", 1000, 99.0)
    plant.write("dev-1", 5000, 99.0)
    plant.write("dev-1", 5001, 20.0)
    plant.read_to(5002)
    turn = Alerts(plant.alert_ports, to(told), "c").turn()
    assert turn is not None
    assert (turn.behind, said(told)) == (0, [])


def test_a_view_whose_next_version_has_other_keys() -> None:
    """What fires of the old keys is cleared when the new version serves; the others go on."""
    plant, told = Plant(ONE), list[Event]()
    plant.lives({"dev-1": [99.0, 99.0]})
    plant.alerts.save(Entry("hot", "dev-1|t", {"device": "dev-1", "metric": "t"}, State("firing", START, START, 99.0)))
    plant.alerts.save(Entry("hot", "dev-2|t", {"device": "dev-2", "metric": "t"}, State("pending", START, START, 99.0)))
    service = Alerts(plant.alert_ports, to(told), "a")
    for minute in (0, 1, 2):
        plant.read_to(minute)
        service.turn()
    assert sorted((event["subject"], event["type"].rpartition(".")[2]) for event in told) == [
        ("dev-1", "raised"),
        ("dev-1|t", "cleared"),
    ]
    assert plant.alerts.entries("hot").keys() == {"dev-1", "dev-1|t"}


@pytest.mark.parametrize("is_down", [False, True])
def test_a_rule_that_is_moved_to_another_view(is_down: bool) -> None:
    """The old view's keys are cleared first, the new one's are judged then."""
    plant, told = Plant(BOTH.alert("hot", on="device_1m", when=above("mean", 30))), list[Event]()
    plant.lives({"dev-1": [99.0, 99.0]})
    plant.read_to(1)
    Alerts(plant.alert_ports, to(told), "a").turn()
    plant.clock.sleep(31)
    moved = plant.having(BOTH.alert("hot", on="metric_1m", when=above("mean", 30)))
    plant.read_to(2)
    if is_down:
        Alerts(moved.alert_ports, {"all": refuse}, "b").turn()
        assert said(told) == [("hot", "raised", "device_1m", "09:01")]
        plant.clock.sleep(31)
    Alerts(moved.alert_ports, to(told), "c").turn()
    assert said(told) == [("hot", "raised", "device_1m", "09:01"), ("hot", "cleared", "device_1m", "09:01")]
    assert alert_rows("plant", moved.pipeline.alerts, moved.alerts) == []
    assert known_rules(plant.ledger) == ["hot"]
