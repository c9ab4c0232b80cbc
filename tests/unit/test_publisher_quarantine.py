"""Any number of files that a table cannot take keeps no good one out, and what is remembered of them is bounded."""

import json

import pytest

from headwater.clock import ManualClock
from headwater.ledger import Ledger
from headwater.sinks.lake.publisher import Publisher
from headwater.sinks.lake.quarantine import DOCUMENT, quarantined_files, unnamed_files
from tests.unit.test_publisher import commit, new_ledger, pending
from tests.unit.test_publisher_strangers import Port, Table

ITEM_BYTES = 400_000
"""Of a DynamoDB item (service limit)."""


def many(ledger: Ledger, table: Table, bad: int, good: int) -> tuple[set[str], set[str]]:
    """Name bad files of several shards in front of the good ones; return both."""
    refused = set[str]()
    for shard in range(0, bad, 500):
        names = [f"bad-{at}" for at in range(shard, min(bad, shard + 500))]
        refused |= set(commit(ledger, f"a{shard:06}", 1, *names))
    table.bad = refused
    return refused, set(commit(ledger, "z", 1, *(f"good-{at}" for at in range(good))))


@pytest.mark.parametrize("anew", [False, True], ids=["one publisher", "anew for each step, as a function is"])
def test_three_thousand_bad_files_and_ten_good_ones(anew: bool) -> None:
    """The good ones are in the table after a few steps; the bad ones wait, some by name and the others counted."""
    ledger, clock, table = new_ledger(), ManualClock(), Table()
    bad, good = many(ledger, table, 3_000, 10)
    publisher = Publisher(ledger, lambda _: Port(table), clock, "me")
    for _ in range(8):
        if anew:
            publisher = Publisher(ledger, lambda _: Port(table), clock, "me")
        report = publisher.step()
        clock.advance(30_000)
    assert set(table.rows()) == good
    if not anew:
        assert set(pending(ledger)) == bad
        assert (report.waiting, report.quarantined, report.idle) == (3_000, 3_000, True)
    assert len(quarantined_files(ledger)) == 400
    for name in ("publisher", DOCUMENT):
        assert len(json.dumps(ledger.document(name)[0])) < ITEM_BYTES
    if not anew:
        assert unnamed_files(ledger) == 2_600


def test_files_that_can_be_read_again_leave_the_quarantine() -> None:
    """Named or not: all are tried again at intervals, and taken once they are good."""
    ledger, clock, table = new_ledger(), ManualClock(), Table()
    bad, good = many(ledger, table, 1_500, 3)
    publisher = Publisher(ledger, lambda _: Port(table), clock, "me")
    for _ in range(4):
        publisher.step()
        clock.advance(30_000)
    table.bad = set()
    for _ in range(30):
        publisher.step()
        clock.advance(120_000)
    assert set(table.rows()) == bad | good
    assert not pending(ledger)
    assert not quarantined_files(ledger)
    assert max(table.rows().values()) == 1


def test_a_million_notes_do_not_stay() -> None:
    """What was refused is in no snapshot, so nothing is kept of its attempts; of others it is."""
    ledger, clock, table = new_ledger(), ManualClock(), Table()
    many(ledger, table, 1_000, 1)
    port = Port(table)
    Publisher(ledger, lambda _: port, clock, "me").step()
    assert len(ledger.document("publisher")[0]["attempts"]) <= 1
