"""Jobs: progress, a cancellation that is never lost, and owners that fell silent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.errors import HeadwaterError
from headwater.jobs import LOST_MS, Cancelled, cancel, jobs, run
from headwater.ledger import Ledger
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.unit.test_ledger import TABLE


class Crossing(MemoryDynamoDB):
    """Once armed, carries out `first` just before the next update: the two cross."""

    first: Any = None

    def update_item(self, **request: Any) -> Any:
        first, self.first = self.first, None
        if first is not None:
            first()
        return super().update_item(**request)


def a_ledger() -> tuple[Ledger, Crossing]:
    client = Crossing()
    client.create_table(**TABLE)
    return Ledger(client, "ledger", "fleet"), client


@given(st.lists(st.one_of(st.integers(0, 5_000), st.just("cancel")), max_size=12), st.booleans())
def test_a_job_ends_as_it_was_ended_and_stops_at_the_first_note_after_a_cancel(steps: list[Any], fails: bool) -> None:
    ledger, _ = a_ledger()
    clock = ManualClock()
    asked, ended, done = False, "done", 0
    try:
        with run("compact", "me", 12, ledger, clock) as advance:
            for step in steps:
                if step == "cancel":
                    cancel(ledger, jobs(ledger, clock.now_ms())[0].id, clock.now_ms())
                    asked = True
                else:
                    clock.advance(step)
                    done += 1
                    advance(done)
            if fails:
                raise ValueError("no room")
    except Cancelled:
        ended = "cancelled"
        assert asked
    except ValueError:
        ended = "failed"
    (job,) = jobs(ledger, clock.now_ms())
    assert job.state == ("cancelled" if asked else ended)
    assert asked or (job.done, job.message) == (done, "no room" if fails else "")


def test_a_cancel_that_crosses_a_note_is_kept() -> None:
    ledger, client = a_ledger()
    clock = ManualClock()
    with run("compact", "me", None, ledger, clock) as advance:
        name = jobs(ledger, clock.now_ms())[0].id
        client.first = lambda: cancel(ledger, name, clock.now_ms())
        clock.advance(10_000)
        with pytest.raises(Cancelled):
            advance(1)
    assert jobs(ledger, clock.now_ms())[0].state == "cancelled"


def test_a_silent_owner_is_lost_and_an_unknown_job_is_named() -> None:
    ledger, _ = a_ledger()
    clock = ManualClock()
    with run("compact", "me", None, ledger, clock):
        assert jobs(ledger, clock.now_ms() + LOST_MS)[0].state == "running"
        assert jobs(ledger, clock.now_ms() + LOST_MS + 1)[0].state == "lost"
    with pytest.raises(HeadwaterError, match="no job 'x'"):
        cancel(ledger, "x", 0)
