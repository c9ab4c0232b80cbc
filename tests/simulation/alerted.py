"""What the targets of alerts were told, against a plain state machine over what was read of the view."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from headwater.aggregates import merging
from headwater.processors.alerts.rules import Rule
from headwater.processors.alerts.store import AlertStore
from headwater.sinks.views.items import Item, row_key
from tests.simulation.alerting import Alerting, Reading, Told
from tests.simulation.ledgerguard import LEDGER, VIEWS
from tests.simulation.system import System
from tests.simulation.workload import WINDOW_MS

__all__ = ["alerts"]

Found = list[str]


def alerts(system: System) -> Found:
    """Each change that the windows call for was told to each target: in its key's order, and no other.

    A copy comes under the id that it had before. Of a forgotten key nothing is said.
    """
    alerting, found = system.alerting, list[str]()
    if alerting is None:
        return found
    gone = system.eraser.key if system.eraser else None
    for target, told in (("topic", alerting.topic.told), ("queue", alerting.queue.told)):
        first: dict[str, Told] = {}
        for event in told:
            if first.setdefault(event["id"], event) != event:
                found.append(f"{target}: {event} has the id of {first[event['id']]}")
        for rule in system.after.alerts:
            mine = [event for event in first.values() if event["data"]["rule"] == rule.name]
            reads = alerting.reads.get(rule.name, [])
            keys = {event["subject"] for event in mine} | {
                key for *_, rows in reads for one in rows.values() for key in one
            }
            for key in sorted(keys - {gone}):
                of_key = [event for event in mine if event["subject"] == key]
                found += [
                    f"{target}, {rule.name} of {key}: {line}" for line in _judged(system, rule, key, of_key, reads)
                ]
    return found + (_unfinished(system, alerting, gone) if not alerting.idle_seconds else [])


def _judged(system: System, rule: Rule, key: str, told: Sequence[Told], reads: Sequence[Reading]) -> Iterator[str]:
    kinds = [event["type"].rpartition(".")[2] for event in told]
    if kinds != ["raised", "cleared"] * (len(kinds) // 2) + ["raised"] * (len(kinds) % 2):
        yield f"told {kinds}"
    if any(one["data"]["episode"] != two["data"]["episode"] for one, two in zip(told[::2], told[1::2], strict=False)):
        yield "what was cleared is not what was raised"
    entry = AlertStore(system.dynamodb, LEDGER, system.after.name).entry(rule.name, key)
    if (entry is not None and entry.state.phase == "firing") != (len(kinds) % 2 == 1):
        yield f"told {kinds}, and the state is {entry}"
    values, alerting = _values(key, reads), system.alerting
    assert alerting is not None
    for end in values:
        if not alerting.is_judged(rule.name, end):  # who read it died: perhaps what it found is stored, perhaps not
            values[end].add(None)
    if rule.when.kind == "above" and not _follows(rule, told, values):
        short = [
            (kind, event["data"]["since"], event["time"], event["data"]["value"])
            for kind, event in zip(kinds, told, strict=True)
        ]
        yield f"told {short}, which nothing that was read calls for: {values}"


class _At(NamedTuple):
    """Where a rule may be for a key, and how much of what was told has been explained."""

    phase: str = "calm"
    since: int = 0
    through: int = 0
    told: int = 0


def _values(key: str, reads: Sequence[Reading]) -> dict[int, set[int | None]]:
    """By window, what any reading had of the key: of several one was judged by, nobody knows which."""
    ends = sorted({end for *_, rows in reads for end, one in rows.items() if key in one})
    return {end: {rows.get(end, {}).get(key) for after, until, rows in reads if after < end <= until} for end in ends}


def _follows(rule: Rule, told: Sequence[Told], read: Mapping[int, set[int | None]]) -> bool:
    """Whether some of the values that were read, a window each, make the rule say exactly this."""
    facts = [
        (event["type"].rpartition(".")[2], _ms(event["data"]["since"]), _ms(event["time"]), event["data"]["value"])
        for event in told
    ]
    states = {_At()}
    for end, values in read.items():
        moved = set[_At]()
        for state in states:
            for value in values:
                after, said = (state, None) if value is None else _step(rule, state, end, value)
                if said is None:
                    moved.add(after)
                elif state.told < len(facts) and facts[state.told] == said:
                    moved.add(after._replace(told=state.told + 1))
        states = moved
    return any(state.told == len(facts) for state in states)


def _step(rule: Rule, at: _At, end: int, value: int) -> tuple[_At, tuple[str, int, int, float] | None]:
    """The rule after one more window, and what it says."""
    if at.phase == "firing":
        if value > rule.when.clear:
            return at, None
        return _At(told=at.told), ("cleared", at.since, end, value)
    if value <= rule.when.limit:
        return _At(told=at.told), None
    since = at.since if at.phase == "pending" and at.through == end - WINDOW_MS else end - WINDOW_MS
    if end - since < rule.for_ms:
        return _At("pending", since, end, at.told), None
    return _At("firing", since, end, at.told), ("raised", since, end, value)


def _unfinished(system: System, alerting: Alerting, gone: str | None) -> Found:
    """Windows that were read to be judged before every event was in that a shard took for one in time."""
    spec, ready = system.after.definition("by_time", 1), dict[tuple[str, int], int]()
    assert spec is not None
    for item in system.dynamodb.scan(TableName=VIEWS)["Items"]:
        name, _, key = row_key(item).partition("#")
        if name != "by_time" or "slots" not in item or key == gone:
            continue
        in_time = [slot.partial for slot_name, slot in Item.read(item).slots.items() if slot_name.endswith("/0")]
        if in_time:
            found = merging.values(spec.aggregates, merging.merge(spec.aggregates, in_time))
            ready[key, _ms(item["window_end"]["S"])] = int(str(found["events"]))
    return [
        f"{rule}: {key} had {rows.get(end, {}).get(key, 0)} of {events} events at {end} when that was judged"
        for rule, reads in alerting.reads.items()
        for after, until, rows in reads
        for (key, end), events in ready.items()
        if after < end <= until and rows.get(end, {}).get(key, 0) < events
    ]


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
