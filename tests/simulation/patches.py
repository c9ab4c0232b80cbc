"""What a simulated run replaces in the code: threads, conditions, the size of states, the stream's numbers."""

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from greenlet import GreenletExit
from pyiceberg.manifest import clear_manifest_cache
from pyiceberg.table import snapshots as iceberg_snapshots

from headwater.processors import references as references_module
from headwater.processors.alerts import service as alert_service
from headwater.processors.runners import embedded
from headwater.processors.shard import snapshots
from headwater.producers import background, direct, processes, producer, sender
from headwater.producers.outbox import Outbox
from headwater.sinks.views import rows as viewrows
from headwater.sinks.views import writing
from headwater.testing import streams as streams_module
from tests.simulation.alerting import InlinePool
from tests.simulation.quicker import quicker
from tests.simulation.world import Actor, SimClock, World

__all__ = ["simulated"]


class _Thread:
    """What the code takes for a thread: an actor of the same process."""

    world: World

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...] = (), name: str = "", daemon: bool = True):
        self._job, self._name = partial(target, *args), name
        self.actor: Actor | None = None

    def start(self) -> None:
        current = self.world.current
        assert current is not None
        self.actor = self.world.spawn(f"{current.process}/{self._name}", self._job, thread_of=current)

    def is_alive(self) -> bool:
        return self.actor is not None and not self.actor.ended

    def join(self, timeout: float | None = None) -> None:
        while self.is_alive():
            self.world.sleep(1000)


class _Condition:
    """What the code takes for a condition. Nobody runs between two calls of the world, so its lock is rarely met."""

    world: World

    def __init__(self) -> None:
        self._owner: Actor | None = None
        self._depth = 0
        self._waiting: list[Actor] = []

    def __enter__(self) -> "_Condition":
        actor = self.world.current
        while self._owner is not None and self._owner is not actor and not self._owner.ended:
            self.world.sleep(1)
        self._owner, self._depth = actor, self._depth + 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None

    def wait(self, timeout: float | None = None) -> bool:
        actor = self.world.current
        if actor is None:
            raise GreenletExit  # the world is closing
        depth, self._depth, self._owner = self._depth, 0, None
        self._waiting.append(actor)
        self.world.sleep(86_400_000 if timeout is None else max(timeout, 0.001) * 1000)
        notified = actor not in self._waiting
        if not notified:
            self._waiting.remove(actor)
        self.__enter__()
        self._depth = depth
        return notified

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        deadline = None if timeout is None else self.world.now + timeout * 1000
        while not (result := predicate()):
            if deadline is not None and self.world.now >= deadline:
                break
            self.wait(None if deadline is None else (deadline - self.world.now) / 1000)
        return result

    def notify_all(self) -> None:
        for actor in self._waiting:
            actor.wake_ms = min(actor.wake_ms, self.world.now)
        self._waiting.clear()


class _Outbox(Outbox):
    """Lets its file go when its process dies, as the operating system sees to."""

    world: World

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.world.at_death(self.close)


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Threads become actors; a third of the seeds keep their states on S3; nothing is logged."""
    log, level = logging.getLogger("headwater"), logging.getLogger("headwater").level
    thread = type("SimulatedThread", (_Thread,), {"world": world})
    condition = type("SimulatedCondition", (_Condition,), {"world": world})
    outbox = type("SimulatedOutbox", (_Outbox,), {"world": world})
    with quicker(), ExitStack() as patches:

        def replace(module: object, name: str, new: Any) -> None:
            patches.enter_context(mock.patch.object(module, name, new))

        replace(embedded, "Thread", thread)
        replace(background, "Thread", thread)
        replace(alert_service, "ThreadPoolExecutor", InlinePool)
        replace(sender, "Condition", condition)
        replace(writing, "Lock", condition)
        # a simulated process ends within the world: at the end of the real one its senders would wait for ever
        replace(sender, "uuid4", lambda: uuid.UUID(int=world.random.getrandbits(128), version=4))
        replace(processes, "_PROCESS", SimpleNamespace(add=lambda _holder, _sender: None))
        replace(producer, "Outbox", outbox)
        replace(direct, "Outbox", outbox)
        replace(references_module, "threading", SimpleNamespace(Lock=nullcontext))
        # names of files are drawn in threads, too: not from the seed that decides who goes on
        names, clock = Random(world.seed), SimClock(world)
        replace(uuid, "uuid4", lambda: uuid.UUID(int=names.getrandbits(128), version=4))
        replace(iceberg_snapshots, "time", SimpleNamespace(time=lambda: clock.now_ms() / 1000))
        if names.random() < 0.5:  # rows are few: else nearly all would be put one by one
            replace(viewrows, "ViewSettings", partial(viewrows.ViewSettings, few_slots=1))
        clear_manifest_cache()
        if world.random.random() < 0.33:
            replace(snapshots, "INLINE_STATE", 16)
        if world.random.random() < 0.5:
            # numbers of 55 digits at first, soon of 56
            replace(streams_module, "sequence_at", _growing)
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            log.setLevel(level)


def _growing(count: int) -> int:
    return 10**55 + (count - 14) * (1 << 40)
