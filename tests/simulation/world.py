"""A world of one seed: time, chance, faults and who runs next. No thread, no clock, no randomness from outside.

Every process of the system is a greenlet. Whenever it does I/O or sleeps it hands control back, and the seed decides
who goes on: so a process can be paused between any two calls while others overtake it, and can die at each of them.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError
from greenlet import GreenletExit, getcurrent, greenlet

from headwater.testing.dynamodb import Pages

__all__ = ["FAULTS", "Actor", "Crash", "Proxy", "SimClock", "TrueClock", "World"]

FAULTS = (
    "throttled",
    "lost request",
    "lost answer",
    "sent twice",
    "crash before",
    "crash after",
    "pause",
    "partial put",
    "denied",
    "expired token",
    "expired iterator",
    "catalog loses",
    "catalog drops foreign",
    "clock skew",
    "crash before a put",
)
"""Every kind of fault that can be switched off when a failing seed is shrunk."""


_REFUSALS = {
    "kinesis": ("ProvisionedThroughputExceededException",),
    "s3": ("SlowDown",),
    "dynamodb": ("ThrottlingException", "ProvisionedThroughputExceededException", "TransactionConflictException"),
    "catalog": ("ThrottlingException",),
    "sns": ("Throttled",),
    "sqs": ("RequestThrottled",),
}


class Crash(BaseException):
    """The process dies here: nothing of the system may catch it."""


class Standstill(BaseException):
    """The process would run on for ever while no time goes by: a busy loop."""


MOST_LOOKS = 200_000
"""An actor looks at the clock so many times in one turn only when it spins."""


@dataclass
class Actor:
    """A process: it runs until it ends, crashes or is stopped."""

    name: str
    job: Callable[[], None]
    wake_ms: int = 0
    skew_ms: int = 0
    ended: bool = False
    error: BaseException | None = None
    process: str = ""
    calls: tuple[tuple[str, int], ...] = (("", 0),) * 3
    """Of its calls that have begun, place and time: the last to another place, the first to this one, the last."""
    on_end: Callable[["Actor"], None] | None = None
    let: Any = None
    crashed: bool = False

    def begin(self, place: str, now: int) -> None:
        """Note that a call to this place begins: a table, or a service."""
        _, first, last = self.calls
        self.calls = (last, (place, now), (place, now)) if place != last[0] else (self.calls[0], first, (place, now))


@dataclass
class World:
    """The scheduler. `rates` gives each fault its probability a call."""

    seed: int
    rates: Mapping[str, float]
    faults_until_ms: int = 0
    now: int = 1_762_160_400_000
    fired: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """What no process may end with."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.actors: list[Actor] = []
        self._hub = getcurrent()
        self._dead: list[Actor] = []
        self.current: Actor | None = None
        self._looks = 0
        self.doomed: set[str] = set()
        """Processes that are told to end: they die at their next call."""
        self._closers: dict[str, list[Callable[[], None]]] = {}

    def spawn(
        self,
        name: str,
        job: Callable[[], None],
        on_end: Callable[[Actor], None] | None = None,
        delay_ms: int = 0,
        thread_of: Actor | None = None,
    ) -> Actor:
        """A process, or a thread of one: these die together and share a clock."""
        process = name if thread_of is None else thread_of.process
        actor = Actor(name, job, self.now + delay_ms, process=process, on_end=on_end)
        if thread_of is not None:
            actor.skew_ms = thread_of.skew_ms
        elif self.chance("clock skew"):
            actor.skew_ms = self.random.choice([-90_000, -2_000, 2_000, 90_000])
        actor.let = greenlet(lambda: self._run(actor), self._hub)
        self.actors.append(actor)
        return actor

    def _run(self, actor: Actor) -> None:
        try:
            actor.job()
        except Crash:
            actor.crashed = True
        except Standstill:
            actor.crashed = True
            self.errors.append(f"{actor.name} runs on without waiting for anything")
        except Exception as error:  # what ends a process is looked at by whoever started it
            actor.error = error
        actor.ended = True

    def chance(self, fault: str) -> bool:
        """Whether this fault strikes now. Draws from the seed in any case, so that switching one off moves no other."""
        drawn = self.random.random()
        if self.now >= self.faults_until_ms or drawn >= self.rates.get(fault, 0.0):
            return False
        self.fired[fault] += 1
        self.note(f"! {fault}")
        return True

    def at_death(self, closer: Callable[[], None]) -> None:
        """Have this done when the running process is dead: what an operating system takes back."""
        assert self.current is not None
        self._closers.setdefault(self.current.process, []).append(closer)

    def note(self, what: str) -> None:
        who = self.current.name if self.current else "world"
        self.trace.append(f"{(self.now - 1_762_160_400_000) / 1000:9.3f} {who:28} {what}")

    def digest(self) -> str:
        """Of the whole trace: equal for two runs that did the same."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def run(self, finished: Callable[[], bool], until_ms: int) -> bool:
        """Let actors take turns until `finished` or the time is over; whether it finished."""
        turns = 0
        while self.now < until_ms:
            turns += 1
            if turns % 50 == 0 and finished():
                return True
            alive = [actor for actor in self.actors if not actor.ended]
            if not alive:
                return finished()
            earliest = min(actor.wake_ms for actor in alive)
            self.now = max(self.now, earliest)
            ready = [actor for actor in alive if actor.wake_ms <= self.now]
            self._turn(ready[self.random.randrange(len(ready))])
        return finished()

    def _turn(self, actor: Actor) -> None:
        self.current, self._looks = actor, 0
        actor.let.switch()
        self.current = None
        if not actor.ended:
            return
        gone = [actor]
        if actor.crashed or actor.process == actor.name:
            gone = [one for one in self.actors if one.process == actor.process]
        for one in gone:
            self.actors.remove(one)
            one.ended = True
            one.crashed |= actor.crashed
            self._dead.append(one)
            for closer in self._closers.pop(one.name, ()) if one.name == one.process else ():
                closer()
        for one in gone:
            if one.on_end is not None:
                one.on_end(one)

    def looked(self) -> None:
        """Count the running actor's looks at the clock: one that looks on and on while time stands spins."""
        self._looks += 1
        if self._looks > MOST_LOOKS and self.current is not None:
            raise Standstill

    def close(self) -> None:
        """Stop whoever still runs, so that nothing of this world goes on in the next."""
        for actor in [*self.actors, *self._dead]:
            if actor.let is not None and not actor.let.dead:
                actor.let.throw(GreenletExit)
        self.actors.clear()
        self._dead.clear()
        for closers in self._closers.values():
            for closer in closers:
                closer()
        self._closers.clear()

    def sleep(self, ms: float) -> None:
        """The running actor waits; others go on."""
        actor = self.current
        if actor is None:
            raise GreenletExit  # the world is closing, and some `finally` waits for what will never come
        actor.wake_ms = self.now + max(1, round(ms))
        self._hub.switch()

    def call(
        self, service: str, operation: str, target: Callable[..., Any], request: Mapping[str, Any], args: Any
    ) -> Any:
        """One I/O call of the running actor, with whatever goes wrong with it."""
        if self.current is None:
            return target(*args, **request)  # the auditors look without disturbing
        table = request.get("TableName") or next(iter(request.get("RequestItems", (service,))))
        self.current.begin(table, self.now)
        self._latency()
        if self.current.process in self.doomed or self.chance("crash before"):
            raise Crash
        if self.chance("throttled"):
            code = self.random.choice(_REFUSALS[service])
            raise ClientError({"Error": {"Code": code, "Message": "simulated"}}, operation)
        if self.chance("lost request"):
            raise ReadTimeoutError(endpoint_url=f"simulated {service}")
        if self.chance("sent twice"):  # as botocore does when it misses the first answer
            target(*args, **request)
        answer = target(*args, **request)
        self.note(f"{service}.{operation}")
        if self.chance("crash after"):
            raise Crash
        if self.chance("lost answer"):
            raise ReadTimeoutError(endpoint_url=f"simulated {service}")
        self._latency()
        return answer

    def _latency(self) -> None:
        pause = self.random.randint(1, 30)
        if self.chance("pause"):
            pause = self.random.choice([2_000, 20_000, 400_000])
        self.sleep(pause)


class SimClock:
    """The clock that every part is given: the world's, off by the running actor's skew."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        self._world.looked()
        actor = self._world.current
        return self._world.now + (actor.skew_ms if actor else 0)

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds * 1000)


class TrueClock(SimClock):
    """The services' own clock, never off."""

    def now_ms(self) -> int:
        return self._world.now


class Proxy:
    """Any client or store, each call of which goes through the world."""

    def __init__(self, world: World, service: str, target: Any) -> None:
        self._world = world
        self._service = service
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found) or name in ("uri", "get_paginator", "get_waiter") or name.startswith("_"):
            return self._pages if name == "get_paginator" else found

        def call(*args: Any, **request: Any) -> Any:
            return self._world.call(self._service, name, found, request, args)

        return call

    def _pages(self, operation: str) -> Pages:
        """A paginator each page of which is a call of its own."""
        return Pages(getattr(self, operation))
