"""What somebody accepts as missing: written down with name and reason, bounded, and never more than was missing."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import UsageError
from headwater.ledger import Ledger, ShardEntry
from headwater.processors.audit.accepted import DOCUMENT, accept_missing, accepted_gaps, end_returned
from headwater.processors.audit.audit import AuditOptions, audit
from headwater.processors.audit.report import AuditReport
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState
from headwater.stream import sequence
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects

PIPELINE = Pipeline("p", "telemetry").lake("t")
WHO: dict[str, Any] = {"who": "ana", "why": "ticket 17", "now_ms": 5}


@pytest.fixture
def ledger() -> Ledger:
    memory = MemoryDynamoDB()
    keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
    memory.create_table(TableName="l", KeySchema=keys)
    return Ledger(memory, "l", "p")


def report(
    lake: int, ledger: Ledger, objects: MemoryObjects, *, foreign: int = 0, foreign_in_lake: int = 0, lost: int = 0
) -> AuditReport:
    """Ten events of `a` and ten of `b` were processed; the lake has the first `lake` of each."""
    state = ShardState(PIPELINE)
    for origin in "ab":
        state.seen.add_intervals(origin, [(0, 10)], 1)
    state.counts |= {"foreign": foreign, "lost_ranges": lost}
    state.max_arrived = 1
    others = [("shardId-000000000000:7", number) for number in range(foreign_in_lake)]
    rows = [*((origin, seq) for origin in "ab" for seq in range(lake)), *others]
    columns = {
        "_origin": pa.array([origin for origin, _ in rows], pa.string()),
        "_seq": pa.array([seq for _, seq in rows], pa.int64()),
    }
    options = AuditOptions(accepted=accepted_gaps(ledger, objects))
    return audit("p", [], [state], [pa.record_batch(columns)], options=options)


def test_an_acceptance_is_for_what_is_missing_and_nothing_else(ledger: Ledger) -> None:
    """Of one origin, then of all; what goes missing later is missing."""
    objects = MemoryObjects()
    before = report(7, ledger, objects)
    assert before.missing == 6
    accept_missing("p", ledger, objects, before, origins=["a"], **WHO)
    after = report(7, ledger, objects)
    assert (after.missing, after.acknowledged, after.exact) == (3, 3, False)
    accept_missing("p", ledger, objects, after, **WHO)
    assert report(7, ledger, objects).exact
    more = report(5, ledger, objects)
    assert (more.missing, more.acknowledged, more.exact) == (4, 6, False)
    assert report(10, ledger, objects).acknowledged == 0


def test_foreign_events_and_losses_are_accepted(ledger: Ledger) -> None:
    """As many as were missing or lost then, and not one more."""
    objects = MemoryObjects()
    before = report(10, ledger, objects, foreign=9, foreign_in_lake=4, lost=2)
    assert (before.missing, before.lost, before.exact) == (5, 2, False)
    accept_missing("p", ledger, objects, before, **WHO)
    assert report(10, ledger, objects, foreign=9, foreign_in_lake=4, lost=2).exact
    again = report(10, ledger, objects, foreign=9, foreign_in_lake=3, lost=3)
    assert (again.missing, again.lost, again.exact) == (1, 1, False)


Kind = str
EVENTS = 6
SHARD = "shardId-000000000000"


class Gaps:
    """Six events of each kind, of which the lake has some, and shards have processed some."""

    def __init__(self, kind: Kind) -> None:
        self.kind, self.objects = kind, MemoryObjects()
        memory = MemoryDynamoDB()
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        memory.create_table(TableName="l", KeySchema=keys)
        self.ledger = Ledger(memory, "l", "p")
        self.processed = self.lake = set(range(EVENTS))

    def name(self, number: int) -> tuple[str, int]:
        """Two events of a record or an origin each."""
        if self.kind == "foreign":
            return f"{SHARD}:{100 + number // 2}", number % 2
        return (f"o{number}", 0) if self.kind == "single" else (f"o{number // 2}", number % 2)

    def report(self) -> AuditReport:
        state = ShardState(PIPELINE)
        if self.kind == "foreign":
            state.counts["foreign"] = len(self.processed)
        for number in range(EVENTS) if self.kind != "foreign" else ():
            origin, seq = self.name(number)
            state.accepted.add_intervals(origin, [(seq, seq + 1)], 1)
            if number in self.processed:
                state.seen.add_intervals(origin, [(seq, seq + 1)], 1)
        state.max_arrived = 1
        rows = [self.name(number) for number in sorted(self.lake & self.processed)]
        columns = {
            "_origin": pa.array([origin for origin, _ in rows], pa.string()),
            "_seq": pa.array([seq for _, seq in rows], pa.int64()),
        }
        accepted = accepted_gaps(self.ledger, self.objects)
        options = AuditOptions(single_events=self.kind == "single", accepted=accepted)
        entry = ShardEntry("p", SHARD, 1, "o", sequence.pad("500"))
        listed = {SHARD: ()}
        found = audit("p", [entry], [state], [pa.record_batch(columns)], listed=listed, options=options)
        end_returned("p", self.ledger, self.objects, found.evidence)
        return found


sets = st.frozensets(st.integers(0, EVENTS - 1))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["named", "single", "foreign"]), st.lists(st.tuples(sets, sets, st.booleans()), max_size=6))
def test_an_acceptance_is_bound_to_what_was_missing(
    kind: Kind, moments: list[tuple[frozenset[int], frozenset[int], bool]]
) -> None:
    """Whatever goes, comes back, is read late and goes again: only what was accepted, and was not back since."""
    world = Gaps(kind)
    lost, unread = set[int](), set[int]()
    for gone, unprocessed, accepts in moments:
        world.processed = set(range(EVENTS)) - (set() if kind == "foreign" else unprocessed)
        world.lake = set(range(EVENTS)) - gone
        there = world.lake & world.processed
        found = world.report()
        lost -= there
        absent, untold = world.processed - there, set(range(EVENTS)) - world.processed
        untold = set() if kind == "foreign" else untold
        assert found.missing == len(absent - lost) + len(untold - unread)
        assert found.acknowledged == len(absent & lost) + len(untold & unread)
        assert found.exact == (not found.missing)
        if accepts and found.missing:
            accept_missing("p", world.ledger, world.objects, found, **WHO)
            lost |= absent
            unread |= untold
            assert world.report().exact


def test_acceptances_of_earlier_versions_are_read(ledger: Ledger) -> None:
    """They tell neither the hops apart nor which foreign events were there."""
    objects = MemoryObjects()
    accept_missing("p", ledger, objects, report(7, ledger, objects, foreign=9, foreign_in_lake=4), **WHO)

    def older(document: dict[str, Any]) -> dict[str, Any]:
        (one,) = document["accepted"]
        return {"accepted": [{name: one[name] for name in one if name not in ("unprocessed", "presence")}]}

    ledger.change(DOCUMENT, older)
    assert report(7, ledger, objects, foreign=9, foreign_in_lake=4).exact
    back = report(8, ledger, objects, foreign=9, foreign_in_lake=4)
    end_returned("p", ledger, objects, back.evidence)
    assert report(7, ledger, objects, foreign=9, foreign_in_lake=4).missing == 2


def test_who_why_and_something_missing_are_asked_for(ledger: Ledger) -> None:
    """Each refusal is one clear line, and nothing is written."""
    objects = MemoryObjects()
    for wrong, said in (({"who": " "}, "--who is empty"), ({"why": ""}, "--why is empty"), ({"why": "x" * 301}, "300")):
        with pytest.raises(UsageError, match=said):
            accept_missing("p", ledger, objects, report(7, ledger, objects), **(WHO | wrong))
    with pytest.raises(UsageError, match="nothing is missing"):
        accept_missing("p", ledger, objects, report(10, ledger, objects), **WHO)
    with pytest.raises(UsageError, match="nothing is missing of nobody"):
        accept_missing("p", ledger, objects, report(7, ledger, objects), origins=["nobody"], **WHO)
    assert ledger.document(DOCUMENT) == ({}, 0)


def test_the_ledger_item_is_bounded(ledger: Ledger) -> None:
    """However much is accepted, an item has at most 400 KB, with names and reasons at their longest."""
    objects = MemoryObjects()
    long: dict[str, Any] = {"who": "é" * 100, "why": "ü" * 300, "now_ms": 1 << 41}
    entry = {**{name: long[name] for name in ("who", "why")}, "at_ms": 1, "events": 1, "foreign": 0, "losses": {}}
    ledger.put_document(DOCUMENT, {"accepted": [{**entry, "key": ""}] * 120}, 0)
    missing = report(7, ledger, objects)

    def accept_for_ever() -> None:
        while True:
            accept_missing("p", ledger, objects, missing, **long)

    with pytest.raises(UsageError, match="no more are kept"):
        accept_for_ever()
