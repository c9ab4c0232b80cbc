"""Read values in the background, each by itself and at its own pace, while a page is open."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from headwater.clock import Clock
from headwater.serving.console.formatting import failure

__all__ = ["Poll"]

T = TypeVar("T")


class Poll(Generic[T]):
    """Hold the last value of something that is read again and again, its age, and the error of the last attempt.

    Belongs to one event loop; `read` is called in a thread of the pool, never twice at a time. `seconds` is the pause
    between two readings; reading takes up no more than `max_share` of the time.
    """

    def __init__(
        self, name: str, read: Callable[[], T], seconds: float, clock: Clock, pool: Executor, max_share: float = 1.0
    ) -> None:
        self.name = name
        self._read, self._ms, self._clock, self._pool = read, round(seconds * 1000), clock, pool
        self.value: T | None = None
        self.at_ms = 0
        """When the reading of the value began; 0 when there has been none."""
        self.error = ""
        """Error of the last attempt; empty when it succeeded."""
        self._max_share, self._due_ms = max_share, -(1 << 62)
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Say whether a reading is under way."""
        return self._task is not None and not self._task.done()

    def age_ms(self) -> int | None:
        """Return the age of the value; None while there is none."""
        return self._clock.now_ms() - self.at_ms if self.at_ms else None

    def refresh_if_due(self) -> None:
        """Begin a reading when the last one is over and long enough ago."""
        if not self.is_running and self._clock.now_ms() >= self._due_ms:
            self.refresh()

    def refresh(self) -> "asyncio.Task[None]":
        """Begin a reading, or return the one under way. Its error is in `error`, it is not raised."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._refresh())
        return self._task

    async def _refresh(self) -> None:
        began_ms = self._clock.now_ms()
        self._due_ms = began_ms + self._ms
        try:
            self.value = await asyncio.get_running_loop().run_in_executor(self._pool, self._read)
        except Exception as error:  # shown on the page, and tried again
            self.error = failure(error)
            return
        self.at_ms, self.error = began_ms, ""
        took_ms = self._clock.now_ms() - began_ms
        self._due_ms = max(self._due_ms, began_ms + round(took_ms / self._max_share))
