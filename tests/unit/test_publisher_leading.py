"""One publisher leads; one that led before knows nothing of what happened meanwhile; and what a step's report says."""

from dataclasses import asdict

import pytest

from headwater.clock import ManualClock
from headwater.sinks.lake.publisher import PublishReport
from tests.unit.test_publisher import Catalog, commit, new_ledger, pending, publisher


def test_the_lease_has_one_holder_until_it_runs_out() -> None:
    """The other one does nothing, and takes over when the first has stopped."""
    ledger, catalog, clock = new_ledger(), Catalog(), ManualClock()
    commit(ledger, "s1", 1, "a")
    first, second = publisher(ledger, catalog, clock, "first"), publisher(ledger, catalog, clock, "second")
    assert first.step().leader
    clock.advance(59_999)
    assert not second.step().leader
    clock.advance(1)
    assert second.step().leader
    assert not first.step().leader


def test_a_lease_given_back_is_free_at_once() -> None:
    """And nobody gives back what another has taken since."""
    ledger, catalog, clock = new_ledger(), Catalog(), ManualClock()
    commit(ledger, "s1", 1, "a")
    first, second = publisher(ledger, catalog, clock, "first"), publisher(ledger, catalog, clock, "second")
    first.release()
    assert first.step().leader
    first.release()
    assert second.step().leader
    first.release()
    assert not first.step().leader


def test_a_publisher_that_leads_again_begins_to_look_anew() -> None:
    """Else a file that was lost and added again counts as found twice, a moment after it was added."""
    ledger, catalog, clock = new_ledger(), Catalog(), ManualClock()
    uris = commit(ledger, "s1", 1, "a")
    me, other = publisher(ledger, catalog, clock, "me"), publisher(ledger, catalog, clock, "other")
    me.step()
    clock.advance(61_000)
    other.step()
    assert not me.step().leader
    catalog.files.clear()
    catalog.added.clear()
    catalog.version += 1
    assert other.step().readded == 1
    other.release()
    clock.advance(100)
    report = me.step()
    assert (report.leader, report.taken) == (True, 0)
    assert pending(ledger) == uris


def test_a_step_without_the_lease_did_nothing() -> None:
    """All its numbers are 0, and it need not be repeated at once."""
    report = PublishReport(leader=False)
    assert {name: value for name, value in asdict(report).items() if value} == {}
    assert report.idle


@pytest.mark.parametrize(("waiting", "quarantined", "idle"), [(0, 0, True), (2, 2, True), (3, 2, False)])
def test_a_publisher_is_idle_when_only_quarantined_files_wait(waiting: int, quarantined: int, idle: bool) -> None:
    assert PublishReport(True, waiting=waiting, quarantined=quarantined).idle == idle
