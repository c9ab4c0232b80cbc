"""No window is final before every shard that can hold its events has been read: at a first start and over reshards."""

import pytest

from headwater.errors import UsageError
from headwater.ledger import ShardEntry
from headwater.processors.alerts import above, absent
from headwater.processors.alerts.service import Alerts
from headwater.processors.watermark import watermark_of
from headwater.stream.shards import list_shards
from tests.unit.test_alert_leading import ONE
from tests.unit.test_alert_service import MINUTE, START, Event, Plant, to

BOTH = ONE.alert("silent", on="device_1m", when=absent(), for_="3m")
A, B, C, D, E = (f"shardId-{number:012d}" for number in range(5))


def entry(shard_id: str, mark: int | None, *, closed: bool = False, updated: int = 1000) -> ShardEntry:
    return ShardEntry("p", shard_id, 1, "o", watermark_ms=mark, closed=closed, updated_ms=updated)


def test_children_hold_the_watermark_where_their_parents_left_it() -> None:
    """From the reshard on until they have committed, whatever of it is known: of a split, a merge, and one after it."""
    split = {A: (), B: (), C: (B,), D: (B,)}
    ended = entry(B, 3, closed=True)
    assert watermark_of([entry(A, 8), ended], None, {A: (), B: ()}) == 3  # not listed yet
    assert watermark_of([entry(A, 8), ended], None, split) == 3
    assert watermark_of([entry(A, 8), ended, entry(C, 7)], None, split) == 3
    assert watermark_of([entry(A, 8), ended, entry(C, 7), entry(D, None)], None, split) == 3
    assert watermark_of([entry(A, 8), ended, entry(C, 7), entry(D, 6)], None, split) == 6
    merged = {A: (), B: (), C: (A, B)}
    assert watermark_of([entry(A, 8, closed=True), ended], None, merged) == 3
    assert watermark_of([entry(A, 8, closed=True), ended, entry(C, 9)], None, merged) == 9
    again = {**split, E: (C, D)}
    assert watermark_of([entry(A, 8), ended, entry(C, 7, closed=True)], None, again) == 3
    assert watermark_of([entry(A, 8), ended, entry(C, 7, closed=True), entry(D, 6, closed=True)], None, again) == 6


def test_a_shard_that_nobody_has_read_yet_holds_it() -> None:
    assert watermark_of([entry(A, 8)], None, {A: (), B: ()}) is None
    assert watermark_of([], None, {A: ()}) is None
    assert watermark_of([entry(A, 8)], 2000, {A: (), B: ()}) is None  # unread is not idle
    assert watermark_of([entry(A, 8), entry(B, None)], 2000, {A: (), B: ()}) == 2000
    # a child is idle since its parent ended: on Lambda one without records is never claimed
    ended, listed = entry(B, 3, closed=True, updated=2500), {A: (), B: (), C: (B,), D: (B,)}
    assert watermark_of([entry(A, 2800, updated=3000), ended], 2000, listed) == 3
    assert watermark_of([entry(A, 2800, updated=3000), ended], 2600, listed) == 2600
    # the stream no longer holds the closed ones
    assert watermark_of([entry(A, 1, closed=True), entry(B, 5)], None, {B: ()}) == 5


def reshard(plant: Plant, shard_id: str) -> list[str]:
    """Split it; the ids of its children."""
    (info,) = [one for one in list_shards(plant.memory_stream, plant.settings.stream) if one.shard_id == shard_id]
    middle = str((info.start + info.end) // 2)
    plant.memory_stream.split_shard(StreamName=plant.settings.stream, ShardToSplit=shard_id, NewStartingHashKey=middle)
    return [one.shard_id for one in list_shards(plant.memory_stream, plant.settings.stream) if shard_id in one.parents]


def test_alerts_over_a_reshard() -> None:
    """A device whose events are in a child that is read late: no false silence, and its breach is told."""
    plant, told = Plant(BOTH), list[Event]()
    service = Alerts(plant.alert_ports, to(told), "a")
    low, high = reshard(plant, A)
    plant.commit(plant.entry, 0, closed=True)
    first, second = (plant.ledger.claim(name, "p", None, START) for name in (low, high))
    plant.lives({"x": [20.0] * 3, "y": [20.0] * 10})  # x comes through the second, y through the first
    plant.clock.sleep(20 * 60)
    first, second = plant.commit(first, 2), plant.commit(second, 2)
    service.turn()
    children = reshard(plant, high)
    second = plant.commit(second, 3, closed=True)
    first = plant.commit(first, 8)
    service.turn()
    assert told == []
    one = plant.ledger.claim(children[0], "p", None, START)
    one = plant.commit(one, 8)
    service.turn()
    assert told == []
    for minute in range(3, 8):
        plant.write("x", minute, 99.0)
    two = plant.commit(plant.ledger.claim(children[1], "p", None, START), 8)
    service.turn()
    assert [(event["data"]["rule"], event["subject"], event["data"]["since"]) for event in told] == [
        ("hot", "x", "2025-11-03T09:03:00.000Z")
    ]
    assert (second.closed, one.watermark_ms, two.watermark_ms) == (True, START + 8 * MINUTE, START + 8 * MINUTE)


def test_alerts_at_a_first_start() -> None:
    """Nothing is judged before every shard of the stream has been read."""
    plant, told = Plant(BOTH), list[Event]()
    plant.memory_stream.create_stream(StreamName="two", ShardCount=2)
    plant.settings.stream = "two"
    plant.lives({"x": [20.0], "y": [20.0] * 6})
    plant.read_to(6)
    service = Alerts(plant.alert_ports, to(told), "a")
    done = service.turn()
    assert done is not None
    assert (done.judged, told) == (0, [])
    for minute in range(1, 6):
        plant.write("x", minute, 20.0)
    second = next(
        one.shard_id for one in list_shards(plant.memory_stream, "two") if one.shard_id != plant.entry.shard_id
    )
    plant.commit(plant.ledger.claim(second, "p", None, START), 6)
    done = service.turn()
    assert done is not None
    assert (done.judged > 0, told) == (True, [])


def test_a_clock_that_is_ahead() -> None:
    """One event from the future brings the watermark to it: windows are final no sooner than the time has come."""
    plant, told = Plant(BOTH), list[Event]()
    service = Alerts(plant.alert_ports, to(told), "a")
    entry = plant.entry
    plant.clock.sleep(120)
    for minute in range(40):
        plant.write("dev-1", minute, 99.0 if minute >= 30 else 20.0)
        plant.clock.sleep(60)
        entry = plant.commit(entry, 50 if 10 <= minute < 50 else minute + 1)
        service.turn()
    assert [(event["data"]["rule"], event["data"]["since"]) for event in told] == [("hot", "2025-11-03T09:30:00.000Z")]


@pytest.mark.parametrize(
    ("keep", "for_", "needs"), [("2m", "3m", "960 s"), ("10m", "30m", "2580 s"), ("42m", "30m", "2580 s")]
)
def test_rows_that_are_gone_before_they_are_judged(keep: str, for_: str, needs: str) -> None:
    """Refused where it is defined, in either order, and with a later version of the view too."""
    one = {"by": ["device"], "window": ONE.views[0].window, "mean": ONE.views[0].aggregates[1]}
    short = {**one, "keep": keep}
    bare = ONE.having([])._with(alerts=())
    with pytest.raises(UsageError, match=f"alert silent: view v keeps rows for .* {needs}: give it a longer keep"):
        bare.view("v", **short).alert("silent", on="v", when=absent(), for_=for_)  # type: ignore[arg-type]  # options that are given
    with pytest.raises(UsageError, match=needs):
        bare.view("v", **one).alert("silent", on="v", when=absent(), for_=for_).view("v", version=2, **short)  # type: ignore[arg-type]  # the same
    with pytest.raises(UsageError, match="720 s"):
        bare.view("v", **{**one, "keep": "11m"}).alert("hot", on="v", when=above("mean", 1))  # type: ignore[arg-type]  # the same
    bare.view("v", **{**one, "keep": "43m"}).alert("silent", on="v", when=absent(), for_="30m")  # type: ignore[arg-type]  # the same
