"""Backpressure: bound the memory that all requests hold together.

A request reserves bytes for its body before it reads it. Where there are none left it waits a little, in its turn,
which slows its client down, and is then answered 503 with Retry-After. Everything here belongs to one event loop and
never blocks it; what a body contains is no concern of this module.
"""

import asyncio
import ctypes
from collections import deque
from contextlib import suppress

import pyarrow as pa

from headwater.web.problems import Problem

__all__ = ["MINIMUM_BYTES", "MemoryBudget", "Reservation", "return_memory"]

MINIMUM_BYTES = 32 << 10
"""Memory that a request holds at least until it is answered: its connection, its headers and its task."""


def return_memory() -> None:
    """Give the operating system back what allocators keep of freed memory, where they can. Takes milliseconds."""
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


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

    def clamp(self, size: int) -> int:
        """Return a size that can be reserved: what needs more than there is runs alone."""
        return min(max(size, MINIMUM_BYTES), self._limit)

    async def _take(self, size: int) -> None:
        if not self._queue and self.used + size <= self._limit:
            self.used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (size, turn)
        self._queue.append(waiting)
        try:
            await asyncio.wait_for(turn, self._wait_seconds)
        except TimeoutError:
            raise self.exhausted() from None
        except asyncio.CancelledError:
            # the bytes may have been granted in the same step of the loop in which the request was cancelled
            if turn.done() and not turn.cancelled():
                self._release(size)
            raise
        finally:
            if waiting in self._queue:
                self._queue.remove(waiting)
                self._grant()

    def _release(self, size: int) -> None:
        self.used -= size
        self._grant()

    def _grant(self) -> None:
        while self._queue:
            size, turn = self._queue[0]
            if self.used + size > self._limit:
                return
            self._queue.popleft()
            if not turn.done():
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

    async def grow(self, size: int) -> None:
        """Reserve more, up to `size` bytes in all; Problem 503 when there are none in time."""
        size = self._budget.clamp(size)
        if size > self._size:
            await self._budget._take(size - self._size)
            self._size = size

    def shrink(self, size: int) -> None:
        """Give back all but `size` bytes, or but the minimum of a request."""
        size = max(size, MINIMUM_BYTES)
        if self._size > size:
            self._budget._release(self._size - size)
            self._size = size

    def close(self) -> None:
        """Give back everything."""
        self._budget._release(self._size)
        self._size = 0
