"""What a simulated run replaces in the code: the runner's threads, the size of states, the stream's numbers."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

from headwater.testing import kinesis as kinesis_module
from processors import references as references_module
from processors import worker as worker_module
from processors.runners import embedded
from tests.simulation.world import World

__all__ = ["simulated"]


class _Thread:
    """What the runner takes for a thread."""

    world: World

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...] = (), name: str = "", daemon: bool = True):
        self._job, self._name = partial(target, *args), name

    def start(self) -> None:
        current = self.world.current
        assert current is not None
        self._actor = self.world.spawn(f"{current.process}/{self._name}", self._job, thread_of=current)

    def is_alive(self) -> bool:
        return not self._actor.ended

    def join(self) -> None:
        while self.is_alive():
            self.world.sleep(1000)


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Threads of the runner become actors; a third of the seeds keep their states on S3; nothing is logged."""
    log, level = logging.getLogger("headwater"), logging.getLogger("headwater").level
    _Thread.world = world
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(embedded, "Thread", _Thread))
        patches.enter_context(mock.patch.object(references_module, "threading", SimpleNamespace(Lock=nullcontext)))
        if world.random.random() < 0.33:
            patches.enter_context(mock.patch.object(worker_module, "INLINE_STATE", 16))
        if world.random.random() < 0.5:
            # numbers of 55 digits at first, soon of 56
            patches.enter_context(mock.patch.object(kinesis_module, "sequence_at", _growing))
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            log.setLevel(level)


def _growing(count: int) -> int:
    return 10**55 + (count - 14) * (1 << 40)
