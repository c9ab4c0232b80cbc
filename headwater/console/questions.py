"""Questions to the services: each is asked by itself, as often as it likes, while a page is open."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from headwater.clock import Clock

__all__ = ["Question"]

T = TypeVar("T")


class Question(Generic[T]):
    """One thing to ask, and what was found last: the answer, as of when, and what went wrong when it was asked since.

    To be used in one event loop; `ask` is called in a thread of the pool. It is never asked twice at a time, and may
    take up no more than `share` of the time.
    """

    def __init__(
        self, name: str, ask: Callable[[], T], seconds: float, clock: Clock, pool: Executor, share: float = 1.0
    ) -> None:
        self.name = name
        self._ask, self._ms, self._clock, self._pool = ask, round(seconds * 1000), clock, pool
        self.answer: T | None = None
        self.at_ms = 0
        """When the answer was asked for; 0 when there has been none."""
        self.error = ""
        """Of the last time; empty when it was answered."""
        self._share, self._due_ms = share, -(1 << 62)
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def age_ms(self) -> int | None:
        """Of the answer; None while there is none."""
        return self._clock.now_ms() - self.at_ms if self.at_ms else None

    def ask_if_due(self) -> None:
        """Begin to ask when the last time is long enough ago, and over."""
        if not self.running and self._clock.now_ms() >= self._due_ms:
            self.ask()

    def ask(self) -> "asyncio.Task[None]":
        """Ask now, or wait with who asks already. What goes wrong is in `error`, not raised."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._answered())
        return self._task

    async def _answered(self) -> None:
        asked_ms = self._clock.now_ms()
        self._due_ms = asked_ms + self._ms
        try:
            self.answer = await asyncio.get_running_loop().run_in_executor(self._pool, self._ask)
        except Exception as error:  # shown on the page, and asked again
            self.error = f"{type(error).__name__}: {error}"
            return
        self.at_ms, self.error = asked_ms, ""
        took_ms = self._clock.now_ms() - asked_ms
        self._due_ms = max(self._due_ms, asked_ms + round(took_ms / self._share))
