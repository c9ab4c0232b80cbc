"""Jobs: what others see of a long command, and how they end it."""

from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.commands import jobs as jobs_command
from headwater.errors import HeadwaterError, UsageError
from headwater.ledger import Ledger
from headwater.processors.jobs import DOCUMENT, LOST_MS, Cancelled, Jobs, NoSuchJob
from headwater.testing.dynamodb import MemoryDynamoDB

SECOND = 1_000


class World:
    """The jobs of two processes over one ledger."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.dynamodb = MemoryDynamoDB()
        keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
        self.dynamodb.create_table(TableName="ledger", KeySchema=keys)
        self.mine, self.yours = (Jobs(Ledger(self.dynamodb, "ledger", "p"), self.clock) for _ in range(2))

    def later(self, ms: int) -> None:
        self.clock.sleep(ms / 1000)


def test_progress_is_seen_by_others_and_the_end_too() -> None:
    world = World()
    with world.mine.run("compact", "telemetry", "me", total=10) as advance:
        world.later(SECOND)
        advance(500, 5)
        (seen,) = world.yours.shown()
        assert (seen["state"], seen["events"], seen["done"], seen["total"]) == ("running", 500, 5, 10)
    (seen,) = world.yours.shown()
    assert (seen["state"], seen["done"]) == ("done", 10)


def test_a_job_that_is_cancelled_ends_when_it_next_tells_its_progress() -> None:
    world = World()
    running = world.mine.run("replay", "x", "me")
    advance = running.__enter__()
    (job,) = world.yours.all()
    world.yours.cancel(job.id, "you")
    assert world.yours.shown()[0]["state"] == "cancelling"
    world.later(SECOND)
    with pytest.raises(Cancelled, match="cancelled by you") as cancelled:
        advance(1, 1)
    assert not running.__exit__(Cancelled, cancelled.value, None)
    assert world.yours.shown()[0]["state"] == "cancelled"
    with pytest.raises(UsageError, match="cancelled already"):
        world.yours.cancel(job.id, "you")


def test_a_job_that_fails_says_why() -> None:
    world = World()
    with pytest.raises(HeadwaterError, match="no room"), world.mine.run("replay", "x", "me"):
        raise HeadwaterError("no room")
    (job,) = world.yours.all()
    assert (job.state, job.message) == ("failed", "no room")


def test_a_job_whose_process_died_is_lost_and_can_be_put_away() -> None:
    world = World()
    dead = world.mine.run("replay", "x", "me")
    dead.__enter__()
    world.later(LOST_MS + 1)
    (seen,) = world.yours.shown()
    assert seen["state"] == "lost"
    assert world.yours.cancel(str(seen["id"]), "you").state == "cancelled"


def test_a_process_that_lives_is_not_lost_whatever_it_waits_for() -> None:
    world = World()
    with world.mine.run("replay", "x", "me") as advance:
        advance(3, 3)
        for _ in range(5):
            world.later(LOST_MS // 2)
            advance.beat()
        (seen,) = world.yours.shown()
        assert (seen["state"], seen["events"]) == ("running", 3)


def test_a_command_tells_that_it_lives_from_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an interrupt ends it with what is left to do."""
    world = World()
    monkeypatch.setattr(jobs_command, "_BEAT_SECONDS", 0.01)
    services: Any = SimpleNamespace(ledger=Ledger(world.dynamodb, "ledger", "p"), clock=world.clock)
    working = jobs_command.quiet_job(services, "replay", "x", left="call it again")
    with pytest.raises(jobs_command.Interrupted, match="call it again"), working:  # noqa: PT012 (a process interrupted)
        world.later(3 * LOST_MS)
        for _ in range(1_000):
            if world.yours.shown()[0]["state"] == "running":
                break
            Event().wait(0.01)
        assert world.yours.shown()[0]["state"] == "running"
        raise KeyboardInterrupt
    assert world.yours.shown()[0]["state"] == "interrupted"


def test_a_lost_rebuild_that_is_put_away_says_what_is_left_to_do() -> None:
    world = World()
    dead = world.mine.run("rebuild", "view x", "me")
    dead.__enter__()
    world.later(LOST_MS + 1)
    job = world.yours.cancel(world.yours.all()[0].id, "you")
    assert job.message == (
        "cancelled by you; its process had died: view rebuild goes on with the view, or ends it with --give-up"
    )


def test_lost_jobs_are_forgotten_as_ended_ones_are() -> None:
    """Else a ledger's document would fill with them, until no job could begin."""
    world, dead = World(), []
    for _ in range(60):
        dead.append(world.mine.run("replay", "x", "me"))
        dead[-1].__enter__()
        world.later(LOST_MS + 1)
    with world.mine.run("replay", "x", "me"):
        assert len(world.yours.all()) == 51
        assert [job["state"] for job in world.yours.shown()] == ["running", *["lost"] * 50]


def test_the_last_figures_are_told_with_the_end() -> None:
    """However short ago others were."""
    world = World()
    with world.mine.run("replay", "x", "me") as advance:
        advance(1, 1)
        advance(77, 770)
    (job,) = world.yours.all()
    assert (job.state, job.events, job.done) == ("done", 77, 770)
    running = world.mine.run("replay", "x", "me")
    running.__enter__()(5, 50)
    assert not running.__exit__(HeadwaterError, HeadwaterError("no room"), None)
    assert (world.yours.all()[0].events, world.yours.all()[0].done) == (5, 50)


def test_an_interrupt_is_no_failure() -> None:
    world = World()
    with pytest.raises(KeyboardInterrupt), world.mine.run("replay", "x", "me"):
        raise KeyboardInterrupt
    (job,) = world.yours.all()
    assert (job.state, job.message) == ("interrupted", "")
    with pytest.raises(UsageError, match="interrupted already"):
        world.yours.cancel(job.id, "you")


def test_phases_are_told_at_once_and_the_final_one_only_to_a_job_that_nobody_cancelled() -> None:
    world = World()
    with world.mine.run("rebuild", "x", "me") as progress:
        progress(5, 5)
        progress.phase("reading", 100)
        (seen,) = world.yours.shown()
        assert (seen["message"], seen["events"], seen["done"], seen["total"]) == ("reading", 5, 0, 100)
        progress.phase("switching", final=True)
        progress.phase("dropping")
        with pytest.raises(UsageError, match="cannot be cancelled any more: it is dropping"):
            world.yours.cancel(str(seen["id"]), "you")
    running = world.mine.run("rebuild", "x", "me")
    progress = running.__enter__()
    world.yours.cancel(world.yours.all()[0].id, "you")
    with pytest.raises(Cancelled):
        progress.phase("switching", final=True)
    assert not world.yours.all()[0].final


def test_what_a_later_version_has_noted_beside_is_passed_over() -> None:
    world = World()
    ledger = Ledger(world.dynamodb, "ledger", "p")
    with world.mine.run("replay", "x", "me"):
        document, revision = ledger.document(DOCUMENT)
        ledger.put_document(DOCUMENT, {"jobs": [document["jobs"][0] | {"colour": "red"}]}, revision)
        assert world.yours.all()[0].kind == "replay"


def test_a_ledger_that_refuses_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    with world.mine.run("replay", "x", "me") as advance:
        refused = ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow"}}, "UpdateItem")

        def refuse(**_: object) -> None:
            raise refused

        monkeypatch.setattr(world.dynamodb, "update_item", refuse)
        world.later(SECOND)
        advance(7, 7)
        monkeypatch.undo()
        world.later(SECOND)
        advance(9, 9)
        assert world.yours.all()[0].events == 9


def test_an_id_that_is_none() -> None:
    with pytest.raises(NoSuchJob, match="no job 'x'"):
        World().mine.cancel("x", "me")


@given(st.lists(st.booleans(), min_size=1, max_size=120))
def test_the_list_keeps_what_runs_and_the_last_that_ended(ends: list[bool]) -> None:
    """However many came and went: nothing that runs is forgotten, and the list does not grow."""
    world = World()
    running, open_ = set(), []
    for end in ends:
        job = world.mine.run("replay", "x", "me")
        job.__enter__()
        open_.append(job)
        started = world.mine.all()[0].id
        if end:
            job.__exit__(None, None, None)
        else:
            running.add(started)
    kept = world.yours.all()
    assert {one.id for one in kept if one.state == "running"} == running
    assert sum(one.state == "done" for one in kept) == min(50, sum(ends))
