"""Jobs: what others see of a long command, and how they end it."""

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.errors import HeadwaterError, UsageError
from headwater.ledger import Ledger
from headwater.testing.dynamodb import MemoryDynamoDB
from processors.jobs import LOST_MS, Cancelled, Jobs, NoSuchJob

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
