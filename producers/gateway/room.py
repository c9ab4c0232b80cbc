"""Backpressure: a bound on the memory of all requests together.

A request takes room for its body before it reads it. Where there is none it waits a little, in its turn, which slows
its client down, and is then answered 503 with Retry-After. Belongs to one event loop.
"""

import asyncio
from collections import deque

from headwater.web.problems import Problem

__all__ = ["LEAST", "Lease", "Room"]

LEAST = 32 << 10
"""What a request takes at least, until it is answered: its connection, its headers and its task."""


class Room:
    """So many bytes for all."""

    def __init__(self, most: int, wait_seconds: float) -> None:
        self._most, self._wait = most, wait_seconds
        self.used = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int) -> "Lease":
        """Take room for a request; Problem 503 when there is none in time."""
        size = max(size, LEAST)
        await self._take(size)
        return Lease(self, size)

    async def _take(self, size: int) -> None:
        if not self._queue and self.used + size <= self._most:
            self.used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (size, turn)
        self._queue.append(waiting)
        try:
            await asyncio.wait_for(turn, self._wait)
        except TimeoutError:
            raise self.full() from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(size)
            raise
        finally:
            if waiting in self._queue:
                self._queue.remove(waiting)
                self._wake()

    def give(self, size: int) -> None:
        """Give room back."""
        self.used -= size
        self._wake()

    def _wake(self) -> None:
        while self._queue:
            size, turn = self._queue[0]
            if self.used + size > self._most:
                return
            self._queue.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)

    def full(self) -> Problem:
        """The answer when there is no room."""
        return Problem.later(503, "overloaded", "the gateway has no room for more; nothing was accepted", self._wait)


class Lease:
    """A request's room. `shrink` when its body is in the producer's buffer, which has a bound of its own."""

    def __init__(self, room: Room, size: int) -> None:
        self._room, self._size = room, size

    @property
    def size(self) -> int:
        return self._size

    async def grow(self, size: int) -> None:
        """Take more, up to `size` in all."""
        if size > self._size:
            await self._room._take(size - self._size)
            self._size = size

    def shrink(self) -> None:
        """Give back all but the least."""
        if self._size > LEAST:
            self._room.give(self._size - LEAST)
            self._size = LEAST

    def close(self) -> None:
        self._room.give(self._size)
        self._size = 0
