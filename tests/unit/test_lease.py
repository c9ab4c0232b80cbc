"""Leadership: one owner works at a time, a passing AWS error ends no service, and a stopped one frees its lease."""

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.config import Settings
from headwater.errors import Fenced, Retryable, UsageError
from headwater.lease import Lease, run_service
from headwater.ledger import Ledger
from headwater.processors.alerts.service import Alerts
from headwater.processors.publishing import PublishLoop
from headwater.sinks.lake.publisher import Publisher
from tests.unit.test_alert_service import HOT, PIPELINE, Event, Plant, to
from tests.unit.test_publisher import Catalog, Port, commit, new_ledger, pending
from tests.unit.test_shards_apply import Setup, autoscaler

log = logging.getLogger("test")


def failed(code: str = "InternalServerError", status: int = 500) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "UpdateItem")


@dataclass
class Faulty:
    """A DynamoDB whose calls of these numbers fail: before they are carried out, or with their answer lost."""

    real: Any
    at: frozenset[int] = frozenset()
    after: bool = False
    calls: int = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.real, name)
        if name not in ("get_item", "put_item", "update_item", "query", "delete_item", "batch_get_item"):
            return real

        def call(**request: Any) -> Any:
            self.calls += 1
            fails = self.calls in self.at
            if fails and not self.after:
                raise failed()
            answer = real(**request)
            if fails:
                raise failed()
            return answer

        return call


@dataclass
class Turns:
    """Stops a service after so many waits; time passes as it waits."""

    clock: ManualClock
    left: int
    waited: list[float] = field(default_factory=list)

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        self.clock.sleep(timeout or 0.0)
        self.left -= 1
        return self.left < 0


def lease_of(ledger: Ledger, clock: ManualClock, owner: str, name: str = "x") -> Lease:
    return Lease(ledger, clock, name, owner)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["acquire", "renew", "release", "wait"]))))
def test_one_owner_leads_at_a_time(steps: list[tuple[str, str]]) -> None:
    """Whatever the owners do in whatever order, who acquired or renewed last is alone until that has run out."""
    ledger, clock = new_ledger(), ManualClock()
    leases = {owner: lease_of(ledger, clock, owner) for owner in "abc"}
    last, until = "", 0  # who led last, and up to when; 0 once it has released
    for owner, what in steps:
        now = clock.now_ms()
        if what == "acquire":
            free = last in ("", owner) or now >= until
            assert leases[owner].acquire(10) is free
            if free:
                assert leases[owner].took_over is (last != owner)
                last, until = owner, now + 10_000
        elif what == "renew" and last == owner and until:
            leases[owner].renew()
            until = ledger.document("x")[0]["until_ms"]
        elif what == "release":
            leases[owner].release()
            until = 0 if last == owner else until
        elif what == "wait":
            clock.sleep(4)
        if last:
            document = ledger.document("x")[0]
            assert (document["owner"], document["until_ms"]) == (last, until)


def test_who_was_overtaken_is_fenced_and_keeps_nothing() -> None:
    """Its next write is refused, its release leaves the other's lease alone, and what both kept stays."""
    ledger, clock = new_ledger(), ManualClock()
    one, other = lease_of(ledger, clock, "one"), lease_of(ledger, clock, "other")
    assert one.acquire(10)
    one.update(kept=1)
    clock.sleep(11)
    assert other.acquire(10)
    assert other.document["kept"] == 1
    with pytest.raises(Fenced):
        one.renew()
    with pytest.raises(Fenced):
        one.update(kept=2)
    one.release()
    assert not one.acquire(10)
    held = {"owner": "other", "until_ms": clock.now_ms() + 10_000, "held_ms": 10_000}
    assert ledger.document("x")[0] == held | {"kept": 1}


YEAR_MS = 365 * 86_400_000


@pytest.mark.parametrize("anew", [False, True], ids=["one process", "a new process for each look"])
@pytest.mark.parametrize("former", [False, True], ids=["", "of a former version"])
def test_a_lease_of_a_clock_a_year_ahead_ends(anew: bool, former: bool) -> None:
    """It counts for as long as it lasts, from when it was first seen."""
    ledger, clock = new_ledger(), ManualClock()
    ahead = lease_of(ledger, ManualClock(clock.now_ms() + YEAR_MS), "ahead")
    assert ahead.acquire(60)
    if former:
        document, rev = ledger.document("x")
        del document["held_ms"]
        ledger.put_document("x", document, rev)
    other, turns = lease_of(ledger, clock, "other"), 0
    while turns < 100 and not other.acquire(60):
        clock.sleep(10)
        turns += 1
        other = lease_of(ledger, clock, f"other-{turns}") if anew else other
    assert turns == 6
    with pytest.raises(Fenced):
        ahead.update()


def test_a_leader_with_a_clock_a_year_ahead_leads_while_it_renews() -> None:
    """Its clock is wrong and its work is right: nobody takes the lease from it."""
    ledger, clock, fast = new_ledger(), ManualClock(), ManualClock()
    fast.advance(YEAR_MS)
    leader, other = lease_of(ledger, fast, "ahead"), lease_of(ledger, clock, "other")
    for _ in range(60):
        assert leader.acquire(60)
        assert not other.acquire(60)
        clock.sleep(20)
        fast.sleep(20)
    clock.sleep(61)
    assert other.acquire(60)


def test_an_observer_whose_clock_was_wrong_gives_no_lease_away() -> None:
    """A first sight of a year ago, or of the future, is looked at anew."""
    ledger, clock = new_ledger(), ManualClock()
    assert lease_of(ledger, ManualClock(clock.now_ms() + 2 * YEAR_MS), "ahead").acquire(60)
    for wrong in (-YEAR_MS, YEAR_MS):
        assert not lease_of(ledger, ManualClock(clock.now_ms() + wrong), "wrong").acquire(60)
        assert not lease_of(ledger, clock, "right").acquire(60)


def taken_ahead(ledger: Ledger, clock: ManualClock, name: str) -> None:
    """Let an owner with a clock a year ahead have the lease, and die."""
    assert lease_of(ledger, ManualClock(clock.now_ms() + YEAR_MS), "ahead", name).acquire(60)


def test_the_publisher_takes_over_from_a_clock_a_year_ahead() -> None:
    """Every file is in the table in the end."""
    ledger, clock, catalog = new_ledger(), ManualClock(), Catalog()
    uris = commit(ledger, "s0", 1, "a", "b")
    taken_ahead(ledger, clock, "publisher")
    steps = Publisher(ledger, lambda _: Port(catalog), clock, "me", 60)
    assert not steps.step().leader
    PublishLoop(lambda: steps, lambda: None, Settings(publish_seconds=10.0), clock).run(Turns(clock, 12))
    assert sorted(Port(catalog).read().files) == sorted(uris)
    assert pending(ledger) == []


def test_the_alerts_take_over_from_a_clock_a_year_ahead() -> None:
    """What fired meanwhile is published."""
    plant, told = Plant(), list[Event]()
    assert isinstance(plant.clock, ManualClock)
    plant.lives({"dev-1": HOT["dev-1"]})
    plant.read_to(0)
    Alerts(plant.alert_ports, to(told), "first").once()
    plant.read_to(6)
    taken_ahead(plant.ledger, plant.clock, "alerts")
    Alerts(plant.alert_ports, to(told), "a").run(Turns(plant.clock, 3), 10.0)
    assert not told
    Alerts(plant.alert_ports, to(told), "a").run(Turns(plant.clock, 12), 10.0)
    assert len({event["id"] for event in told}) == 2


def test_the_autoscaler_takes_over_from_a_clock_a_year_ahead() -> None:
    """The stream is as wide as the load asks."""
    setup = Setup(2)
    taken_ahead(setup.ledger, setup.clock, "autoscaler.s")
    autoscaler(setup, "a", [6e6]).run(Turns(setup.clock, 40))
    assert len(setup.stream.layout("s")) > 2


def test_a_lease_of_a_clock_a_little_ahead_is_waited_for() -> None:
    """Machines differ by seconds; that is no doubt, and costs no write."""
    ledger, clock = new_ledger(), ManualClock()
    assert lease_of(ledger, ManualClock(clock.now_ms() + 5_000), "ahead").acquire(60)
    other = lease_of(ledger, clock, "other")
    for _ in range(65):
        assert not other.acquire(60)
        clock.sleep(1)
    assert other.acquire(60)
    assert ledger.document("x.seen") == ({}, 0)


def test_renewing_writes_when_a_third_has_passed() -> None:
    """More often costs a write and gains nothing."""
    ledger, clock = new_ledger(), ManualClock()
    lease = lease_of(ledger, clock, "a")
    assert lease.acquire(30)
    revisions = []
    for _ in range(4):
        clock.sleep(5)
        lease.renew()
        revisions.append(ledger.document("x")[1])
    assert revisions == [1, 2, 2, 3]


@pytest.mark.parametrize("error", [failed(), Retryable("no"), OSError("cut"), Fenced("another")])
def test_a_passing_error_ends_a_turn_and_not_the_service(error: Exception) -> None:
    """The next turn comes after the pause for failures, and the lease is free at the end."""
    ledger, clock, made = new_ledger(), ManualClock(), list[int]()
    lease = lease_of(ledger, clock, "a")

    def turn() -> float:
        assert lease.acquire(600)
        made.append(clock.now_ms())
        if len(made) == 2:
            raise error
        return 1.0

    stop = Turns(clock, 4)
    run_service(stop, turn, lease, log, pause=7, retry=30)
    assert (len(made), stop.waited) == (4, [7, 1, 30, 1, 1])
    assert lease_of(ledger, clock, "b").acquire(10)


@pytest.mark.parametrize(("turns", "error"), [(1, UsageError("no stream")), (3, ValueError("a fault"))])
def test_what_cannot_pass_ends_the_service_and_frees_the_lease(turns: int, error: Exception) -> None:
    """A service set up wrongly says so at once; a fault of the program is never hidden."""
    ledger, clock, left = new_ledger(), ManualClock(), [turns]
    lease = lease_of(ledger, clock, "a")

    def turn() -> float:
        assert lease.acquire(600)
        left[0] -= 1
        if not left[0]:
            raise error
        return 1.0

    with pytest.raises(type(error)):
        run_service(Turns(clock, 9), turn, lease, log, retry=30)
    assert lease_of(ledger, clock, "b").acquire(10)


def test_a_usage_error_of_a_later_turn_passes() -> None:
    """A stream or table that is gone for a while ends no service that has worked."""
    clock, made = ManualClock(), list[int]()

    def turn() -> float:
        made.append(1)
        if len(made) == 2:
            raise UsageError("no stream")
        return 1.0

    run_service(Turns(clock, 3), turn, lease_of(new_ledger(), clock, "a"), log, retry=30)
    assert len(made) == 3


def test_one_more_turn_after_the_stop() -> None:
    """What came in while a service waited is not left to its successor."""
    clock, made = ManualClock(), list[int]()

    def turn() -> float:
        made.append(1)
        return 1.0

    run_service(Turns(clock, 2), turn, lease_of(new_ledger(), clock, "a"), log, retry=30, last_turn=True)
    assert len(made) == 3


def check_passing_errors(run: Callable[[Faulty], tuple[Ledger, str]], turns: str) -> None:
    """Fail each DynamoDB call of a service in turn, before or after it is carried out: see `run`.

    `run` makes a new world over the client, runs the service until its stop and checks its work.
    """
    counting = Faulty(None)
    run(counting)
    assert counting.calls > 4
    for after in (False, True):
        for at in range(1, counting.calls + 1):
            ledger, name = run(Faulty(None, frozenset({at}), after))
            assert Lease(ledger, ManualClock(), name, "next").acquire(1), (turns, at, after)


@pytest.mark.parametrize("error", [zlib.error("invalid block type"), pa.ArrowInvalid("size is 0"), EOFError()])
def test_an_answer_that_was_cut_does_not_end_the_publisher(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A part of the table's metadata was read: it is told of, and read again."""
    ledger, clock, catalog = new_ledger(), ManualClock(), Catalog()
    uris = commit(ledger, "s0", 1, "a")

    class Cut(Port):
        failures = (error for _ in range(2))

        def read(self, *given: Any, **named: Any) -> Any:
            failure = next(self.failures, None)
            if failure is not None:
                raise failure
            return super().read(*given, **named)

    port = Cut(catalog)
    steps = Publisher(ledger, lambda _: port, clock, "me", 60)
    PublishLoop(lambda: steps, lambda: None, Settings(publish_seconds=2.0), clock).run(Turns(clock, 8))
    assert sorted(Port(catalog).read().files) == sorted(uris)
    assert pending(ledger) == []
    assert [one.message for one in caplog.records].count("will try again") == 2


def test_passing_errors_do_not_end_the_publisher() -> None:
    """Every file is in the table and out of the ledger, and the lease is free."""

    def run(client: Faulty) -> tuple[Ledger, str]:
        clock, catalog, real = ManualClock(), Catalog(), new_ledger()
        client.real = real._client
        uris = commit(real, "s0", 1, "a", "b")
        ledger = Ledger(client, real._table, real.pipeline)
        steps = Publisher(ledger, lambda _: Port(catalog), clock, "me", 60)
        PublishLoop(lambda: steps, lambda: None, Settings(publish_seconds=2.0), clock).run(Turns(clock, 6))
        assert sorted(Port(catalog).read().files) == sorted(uris)
        assert pending(real) == []
        return real, "publisher"

    check_passing_errors(run, "publisher")


def test_passing_errors_do_not_end_the_alerts() -> None:
    """Every change is published, and the lease is free."""
    seen = []

    def run(client: Faulty) -> tuple[Ledger, str]:
        plant, told = Plant(), list[Event]()
        plant.lives({"dev-1": HOT["dev-1"]})
        plant.read_to(0)
        Alerts(plant.alert_ports, to(told), "first").once()
        plant.read_to(6)
        real = plant.ledger
        client.real = plant.memory
        faulty = plant.having(PIPELINE)
        object.__setattr__(faulty, "memory", client)
        assert isinstance(faulty.clock, ManualClock)
        Alerts(faulty.alert_ports, to(told), "a").run(Turns(faulty.clock, 5), 10.0)
        seen.append(dict.fromkeys(event["id"] for event in told))
        assert list(seen[-1]) == list(seen[0])
        assert len(seen[0]) == 2
        return real, "alerts"

    check_passing_errors(run, "alerts")


def test_passing_errors_do_not_end_the_autoscaler() -> None:
    """The stream is as wide as the load asks, and the lease is free."""

    def run(client: Faulty) -> tuple[Ledger, str]:
        setup = Setup(2)
        real = setup.ledger
        client.real = real._client
        setup.ledger = Ledger(client, real._table, real.pipeline)
        autoscaler(setup, "a", [6e6]).run(Turns(setup.clock, 14))
        assert len(setup.stream.layout("s")) > 2
        return real, "autoscaler.s"

    check_passing_errors(run, "autoscaler")
