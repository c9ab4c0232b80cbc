"""What targets refuse: each gets every change once and a key's in order, whatever the others and other keys do."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import Retryable
from headwater.processors.alerts.publishers import BATCH, Refused
from headwater.processors.alerts.service import Alerts
from tests.unit.test_alert_leading import ONE
from tests.unit.test_alert_service import Event, Plant


class Target:
    """Takes what it is not told to refuse."""

    def __init__(self, refuse: Sequence[str] = ()) -> None:
        self.refuse, self.is_down = set(refuse), False
        self.took: list[Event] = []
        self.requests = 0

    def __call__(self, events: Sequence[Event]) -> Refused:
        self.requests += 1
        assert 1 <= len(events) <= BATCH
        assert len({event["data"]["episode"] for event in events}) == len({event["subject"] for event in events})
        if self.is_down:
            raise Retryable("no such queue")
        refused = {at: "InternalError" for at, event in enumerate(events) if event["subject"] in self.refuse}
        self.took += [event for at, event in enumerate(events) if at not in refused]
        return refused

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(event["type"].rpartition(".")[2], event["subject"]) for event in self.took]


def started(targets: dict[str, Target]) -> tuple[Plant, Alerts]:
    plant = Plant(ONE)
    plant.read_to(0)
    service = Alerts(plant.alert_ports, targets, "a")
    service.turn()
    return plant, service


def test_one_that_is_refused_holds_up_no_other() -> None:
    """Nor is what was accepted given again, in five minutes of turns and by the next leader."""
    target = Target(["dev-099"])
    plant, service = started({"bus": target})
    plant.lives({f"dev-{at:03}": [99.0] for at in range(100)})
    plant.read_to(1)
    for _ in range(30):
        service.turn()
        plant.clock.sleep(10)
    assert target.requests < 10 + 8  # the one is tried after 10, 20, 40 … seconds
    again = Target()
    done = Alerts(plant.alert_ports, {"bus": again}, "b")
    plant.clock.sleep(31)
    done.turn()
    assert len(target.took) == len({event["id"] for event in target.took}) == 99
    assert again.said == [("raised", "dev-099")]
    assert [entry.waiting for entry in plant.alerts.entries("hot").values()] == [()] * 100


def test_a_target_that_is_down_holds_up_no_other() -> None:
    """It gets what it has missed, in order, when it is back; the other gets each once."""
    pager, queue = Target(), Target()
    plant, service = started({"pager": pager, "queue": queue})
    queue.is_down = True
    plant.lives({"dev-1": [99.0, 20.0, 99.0], "dev-2": [20.0, 99.0, 99.0]})
    for minute in (1, 2, 3):
        plant.read_to(minute)
        for _ in range(6):
            service.turn()
            plant.clock.sleep(10)
    done = [("raised", "dev-1"), ("cleared", "dev-1"), ("raised", "dev-2"), ("raised", "dev-1")]
    assert sorted(pager.said) == sorted(done)
    assert queue.took == []
    assert queue.requests < 8
    queue.is_down = False
    plant.clock.sleep(300)
    turn = service.turn()
    assert turn is not None
    assert (turn.published, turn.waiting) == (4, 0)
    assert sorted(queue.said) == sorted(done)
    assert [kind for kind, key in queue.said if key == "dev-1"] == ["raised", "cleared", "raised"]
    assert len(pager.took) == 4


def test_changes_of_a_key_come_in_order() -> None:
    """A request holds one of each key, and the next is sent when that has been accepted."""
    target = Target()
    plant, service = started({"q.fifo": target})
    plant.lives({"dev-1": [99.0, 20.0, 99.0, 20.0], "dev-2": [99.0, 20.0, 20.0, 20.0]})
    target.refuse = {"dev-1"}
    plant.read_to(4)
    service.turn()
    assert target.said == [("raised", "dev-2"), ("cleared", "dev-2")]
    target.refuse = set()
    plant.clock.sleep(10)
    service.turn()
    assert target.said[2:] == [("raised", "dev-1"), ("cleared", "dev-1")] * 2


def test_a_target_that_is_named_no_more_is_not_waited_for() -> None:
    pager, queue = Target(), Target()
    plant, service = started({"pager": pager, "queue": queue})
    queue.is_down = True
    plant.lives({"dev-1": [99.0]})
    plant.read_to(1)
    service.turn()
    plant.clock.sleep(31)
    turn = Alerts(plant.alert_ports, {"pager": pager}, "b").turn()
    assert turn is not None
    assert (turn.published, turn.waiting, len(pager.took)) == (1, 0, 1)


def test_so_much_waits_of_a_key_and_no_more() -> None:
    """Its rule is judged no further then: what comes waits in the view."""
    target = Target()
    target.is_down = True
    plant, service = started({"bus": target})
    plant.lives({"dev-1": [99.0, 20.0] * 800})
    plant.read_to(1600)
    for _ in range(10):
        service.turn()
    (entry,) = plant.alerts.entries("hot").values()
    assert 1_000 <= len(entry.waiting) < 1_000 + 240
    target.is_down = False
    plant.clock.sleep(300)
    for _ in range(10):
        service.turn()
    assert len(target.took) == len({event["id"] for event in target.took}) == 1_600


@settings(max_examples=25)
@given(st.integers(0, 1 << 30), st.sampled_from([0.05, 0.3, 0.7]))
def test_refusals_by_chance(seed: int, share: float) -> None:
    """Of single events and whole requests, at two targets: once they are well, each has all, once, in order."""
    chance, ill = random.Random(seed), [True]

    class Busy(Target):
        def __call__(self, events: Sequence[Event]) -> Refused:
            self.is_down = ill[0] and chance.random() < share / 2
            self.refuse = {event["subject"] for event in events if ill[0] and chance.random() < share}
            return super().__call__(events)

    targets: dict[str, Target] = {"one": Busy(), "two": Busy()}
    plant, service = started(targets)
    lives = {f"dev-{at}": [99.0 if chance.random() < 0.5 else 20.0 for _ in range(6)] for at in range(13)}
    plant.lives(lives)
    for minute in range(1, 7):
        plant.read_to(minute)
        service.turn()
        plant.clock.sleep(10)
    for _ in range(20):
        plant.clock.sleep(60)
        service.turn()
    ill[0] = False
    for _ in range(20):
        plant.clock.sleep(300)
        turn = service.turn()
    assert turn is not None
    assert not turn.waiting
    for target in targets.values():
        assert max(Counter(event["id"] for event in target.took).values(), default=1) == 1
        for device, values in lives.items():
            hot = [value > 30 for value in [20.0, *values]]
            turns = [now for before, now in pairwise(hot) if before != now]
            assert [kind == "raised" for kind, key in target.said if key == device] == turns
