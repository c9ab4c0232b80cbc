"""Run a state machine on a thread of its own: wait until it is due, take a step, and again."""

import logging
from collections.abc import Callable
from threading import Condition, RLock, Thread, current_thread
from typing import Protocol, TypeVar

from headwater.clock import Clock

__all__ = ["BackgroundLoop", "Machine"]

log = logging.getLogger("headwater.producer")


T = TypeVar("T")


class Machine(Protocol):
    """Do work in steps. `due_ms` and `finished` are asked under the lock, `step` and `broke` called without it."""

    def due_ms(self) -> int | None: ...

    def finished(self) -> bool: ...

    def step(self) -> None: ...

    def broke(self, cause: Exception) -> None: ...


class BackgroundLoop:
    """Take the machine's steps until it has finished. Whatever changes when it is due notifies `changed`."""

    def __init__(self, name: str, machine: Machine, changed: Condition, clock: Clock) -> None:
        self._machine, self._changed, self._clock = machine, changed, clock
        self.at_work = RLock()
        """For the machine to hold over its work. A fork waits for it: what a thread has locked in the middle of it (an
        import, an allocator, SQLite) stays locked in the child for ever."""
        self._has_called = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self.start: Callable[[], None] = self._thread.start
        self.join: Callable[[float | None], None] = self._thread.join

    @property
    def is_current(self) -> bool:
        """Tell whether the caller is this thread: then waiting for it would never end."""
        return current_thread() is self._thread

    def outside(self, call: Callable[[], T]) -> T:
        """Make a call over the network without `at_work`, so that a fork need not wait for the answer.

        All but the first: that one imports what the client needs.
        """
        if not self._has_called:
            answer, self._has_called = call(), True
            return answer
        self.at_work.release()
        try:
            return call()
        finally:
            self.at_work.acquire()

    def _run(self) -> None:
        try:
            while self._wait():
                self._machine.step()
        except Exception as error:
            log.exception("the producer's sender failed")
            self._machine.broke(error)

    def _wait(self) -> bool:
        """Sleep until there is something to do; return False when the machine has finished."""
        with self._changed:
            while True:
                due_ms, now_ms = self._machine.due_ms(), self._clock.now_ms()
                if due_ms is not None and due_ms <= now_ms:
                    return True
                if self._machine.finished():
                    return False
                self._changed.wait(None if due_ms is None else (due_ms - now_ms) / 1000)
