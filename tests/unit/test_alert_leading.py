"""Several alerts services side by side: one judges and publishes at a time, whatever a turn of theirs takes."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from headwater.aggregates import count, mean
from headwater.clock import SystemClock
from headwater.errors import Fenced, Retryable
from headwater.processors.alerts import above, absent
from headwater.processors.alerts.publishers import Refused
from headwater.processors.alerts.service import Alerts, Turn
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.sinks.views.items import ViewSpec
from tests.unit.test_alert_service import HOT, PIPELINE, START, Event, Plant, expected, first_of_each, to

ONE = (
    Pipeline("plant", contract="telemetry")
    .view("device_1m", by=["device"], window=tumbling("1m"), events=count(), mean=mean("value"))
    .alert("hot", on="device_1m", when=above("mean", 30))
)


def judged_to(plant: Plant, rule: str = "hot") -> int:
    """The minute."""
    return int((plant.ledger.document("alerts")[0]["rules"][rule]["to"] - START) // 60_000)


@pytest.mark.parametrize("each_seconds", [1, 12, 25])
def test_two_services_and_a_turn_longer_than_the_lease(each_seconds: int) -> None:
    """A request takes seconds and there are a hundred of them; the other wakes up at each. No event comes twice."""
    plant, told = Plant(PIPELINE), list[Event]()
    services: list[Alerts] = []
    depth = 0

    def publish(events: Sequence[Event]) -> Refused:
        nonlocal depth
        plant.clock.sleep(each_seconds)
        told.extend(events)
        if depth == 0:
            depth += 1
            for service in services[1:]:
                assert service.turn() is None
            depth -= 1
        return {}

    services += [Alerts(plant.alert_ports, {"all": publish}, name) for name in "ab"]
    plant.lives({f"dev-{at:03}": [20.0] for at in range(200)})
    plant.read_to(0)
    services[0].turn()
    plant.read_to(30)
    done = services[0].turn()
    assert done is not None
    assert (done.raised, done.published, done.waiting) == (200, 200, 0)
    assert len(first_of_each(told)) == len(told) == 200
    assert judged_to(plant, "silent") == 30


def test_two_services_and_a_read_longer_than_the_lease() -> None:
    """The lease is renewed while the view is read: the other gets no chance, and the rule gets on."""
    plant, told = Plant(ONE, clock=SystemClock()), list[Event]()
    plant.read_to(0)
    first, second = Alerts(plant.alert_ports, to(told), "a"), Alerts(plant.alert_ports, to(told), "b")
    first.turn()
    real = plant.views.at

    def slow(view: ViewSpec, starts_ms: Sequence[int]) -> Iterator[dict[str, object]]:
        time.sleep(15)
        yield from real(view, starts_ms)

    plant.views.at = slow  # type: ignore[method-assign]  # a double
    plant.lives({"dev-1": [20.0, 99.0]})
    plant.read_to(2)
    turns: list[Turn | None] = []
    running = threading.Thread(target=lambda: turns.append(first.turn(lease_seconds=8)))
    running.start()
    time.sleep(0.5)
    others = []
    while running.is_alive():
        others.append(second.turn(lease_seconds=8))
        time.sleep(0.05)
    assert len(others) > 20
    assert set(others[:-1]) == {None}
    assert turns == [Turn(raised=1, published=1, judged=2)]
    assert (judged_to(plant), len(told)) == (2, 1)


def test_what_a_view_has_told_is_not_judged_again_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """How far rules are is stored view by view: one that cannot be read does not keep the others back."""
    pipeline = ONE.view("metric_1m", by=["metric"], window=tumbling("1m"), events=count()).alert(
        "quiet", on="metric_1m", when=absent(), for_="3m"
    )
    plant, told = Plant(pipeline), list[Event]()
    plant.lives({"dev-1": [99.0] * 6})
    real = plant.views.at

    def broken(view: Any, starts: Any) -> Any:
        if view.name == "metric_1m":
            raise Retryable("no")
        return real(view, starts)

    monkeypatch.setattr(plant.views, "at", broken)
    plant.read_to(3)
    with pytest.raises(Retryable):
        Alerts(plant.alert_ports, to(told), "a").turn()
    assert (judged_to(plant), [event["data"]["rule"] for event in told]) == (3, ["hot"])


def test_two_leaders_that_take_turns_at_any_moment() -> None:
    """One stalls for longer than its lease before each of its reads, saves and requests in turn, and the other leads
    meanwhile: every change is told, once in order, and again only what the one that stalled had in its hands."""
    for moment in range(40):
        plant, told = Plant(), list[Event]()
        plant.lives(HOT)
        plant.read_to(0)
        Alerts(plant.alert_ports, to(told), "start").turn()
        plant.read_to(6)
        plant.clock.sleep(31)
        left = moment
        busy = False

        def stall(call: Callable[..., Any], plant: Plant = plant, told: list[Event] = told) -> Callable[..., Any]:
            def stalling(*positional: Any, **request: Any) -> Any:
                nonlocal left, busy
                left -= 1
                if left == -1 and not busy:
                    busy = True
                    plant.clock.sleep(31)
                    Alerts(plant.alert_ports, to(told), "b").turn()
                    busy = False
                return call(*positional, **request)

            return stalling

        for name in ("update_item", "delete_item", "get_item", "query", "batch_get_item"):
            setattr(plant.memory, name, stall(getattr(plant.memory, name)))
        try:
            Alerts(plant.alert_ports, {"all": stall(to(told)["all"])}, "a").turn()
        except Fenced:
            assert left < 0
        busy = True
        plant.clock.sleep(31)
        done = Alerts(plant.alert_ports, to(told), "c").turn()
        assert done is not None
        assert done.waiting == 0
        assert first_of_each(told) == expected(HOT, 6), moment
        assert len(told) <= 3 + 2


def test_who_leads_again_knows_what_another_has_told() -> None:
    plant, told = Plant(ONE), list[Event]()
    is_down = True

    def publish(events: Sequence[Event]) -> Refused:
        if is_down:
            raise Retryable("no")
        return to(told)["all"](events)

    first, second = Alerts(plant.alert_ports, {"all": publish}, "a"), Alerts(plant.alert_ports, {"all": publish}, "b")
    plant.lives({"dev-1": [99.0, 99.0, 20.0]})
    plant.read_to(1)
    first.turn()
    is_down = False
    plant.clock.sleep(31)
    plant.read_to(3)
    second.turn()
    plant.clock.sleep(31)
    assert first.turn() == Turn()
    assert [event["type"].rpartition(".")[2] for event in told] == ["raised", "cleared"]


def test_a_call_that_fails_lets_the_next_one_lead() -> None:
    plant, told = Plant(ONE), list[Event]()
    plant.lives({"dev-1": [99.0]})
    plant.read_to(1)
    real = plant.views.at
    plant.views.at = lambda *_: (_ for _ in ()).throw(Retryable("no"))  # type: ignore[method-assign]  # a double
    with pytest.raises(Retryable):
        Alerts(plant.alert_ports, to(told), "first").once()
    plant.views.at = real  # type: ignore[method-assign]  # the real one again
    assert Alerts(plant.alert_ports, to(told), "second").once() == Turn(raised=1, published=1, judged=1)
