"""Backpressure: bound the memory that all requests hold together.

A request reserves bytes before it uses them. Where there are none left it waits a little, in its turn, which slows its
client down, and is then answered 503 with Retry-After. What holds bytes never waits for more of them: it takes what is
free at once, or gives back what it holds and lines up again for all that it needs. So one that holds bytes always ends,
whoever waits. Everything here belongs to one event loop and never blocks it; what a body contains is no concern of this
module.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headwater.web.problems import Problem

__all__ = ["MINIMUM_BYTES", "MemoryBudget", "NeedsMore", "Reservation"]

MINIMUM_BYTES = 32 << 10
"""Memory that a request holds at least until it is answered: its connection, its headers and its task."""

T = TypeVar("T")


class NeedsMore(Exception):
    """Say that work needs `size` bytes in all, which are not free now: raised by `Reservation.grow`."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class MemoryBudget:
    """Hold a number of bytes that requests reserve from, first come, first served."""

    def __init__(self, limit: int, wait_seconds: float) -> None:
        self._limit, self._wait_seconds = limit, wait_seconds
        self.used = 0
        """Bytes reserved now."""
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def reserve(self, size: int) -> "Reservation":
        """Reserve bytes for a request, waiting up to `wait_seconds`; Problem 503 when there are none in time."""
        size = self.clamp(size)
        await self._take(size)
        return Reservation(self, size)

    async def reserved(self, size: int, work: "Callable[[Reservation], Awaitable[T]]") -> "tuple[T, Reservation]":
        """Return what `work` comes to within a reservation, and that reservation; Problem 503.

        `work` begins again, within all that it needs, where it would `grow` and there is no room: it lets go of
        everything and waits for its turn. It must need no less each time.
        """
        while True:
            held = await self.reserve(size)
            try:
                return await work(held), held
            except NeedsMore as more:
                size = more.size
                held.close()
            except BaseException:
                held.close()
                raise

    def clamp(self, size: int) -> int:
        """Return a size that can be reserved: what needs more than there is runs alone."""
        return min(max(size, MINIMUM_BYTES), self._limit)

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes are free."""
        return self.used + size <= self._limit

    async def _take(self, size: int) -> None:
        if not self._queue and self.has_room(size):
            self.used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (size, turn)
        self._queue.append(waiting)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():  # granted in the very step of the loop in which the wait ended
                self._release(size)
            else:
                self._queue.remove(waiting)
                self._grant()
            if isinstance(error, TimeoutError):
                raise self.exhausted() from None
            raise

    def _release(self, size: int) -> None:
        self.used -= size
        self._grant()

    def _grant(self) -> None:
        while self._queue:
            size, turn = self._queue[0]
            if not self.has_room(size):
                return
            if turn.done():  # cancelled: who waited for it takes it out
                return
            self._queue.popleft()
            self.used += size
            turn.set_result(None)

    def exhausted(self) -> Problem:
        """Return the answer to a request for which there is no memory."""
        detail = "the gateway has no memory for more requests now; nothing was accepted"
        return Problem.retryable(503, "overloaded", detail, self._wait_seconds)


class Reservation:
    """Hold one request's bytes of the budget until `close`."""

    def __init__(self, budget: MemoryBudget, size: int) -> None:
        self._budget, self._size = budget, size

    @property
    def size(self) -> int:
        """Return the bytes that are reserved now."""
        return self._size

    def covers(self, size: int) -> bool:
        """Tell whether so many bytes are reserved, or all that there are."""
        return self._size >= self._budget.clamp(size)

    def grow(self, size: int) -> None:
        """Reserve up to `size` bytes in all; NeedsMore when they are not free now: what holds bytes does not wait."""
        more = self._budget.clamp(size) - self._size
        if more > 0:
            if not self._budget.has_room(more):
                raise NeedsMore(size)
            self._budget.used += more
            self._size += more

    def settle(self, size: int) -> None:
        """Reserve `size` bytes in all, which are in memory by now, whether or not there was room for them."""
        size = max(size, MINIMUM_BYTES)
        self._budget._release(self._size - size)
        self._size = size

    def close(self) -> None:
        """Give back everything."""
        self._budget._release(self._size)
        self._size = 0
