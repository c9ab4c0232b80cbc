"""Answers for a moment: of many who ask the same at once, one asks the table."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Cache"]

T = TypeVar("T")
_REMEMBERED = 10_000
_RENEWED = 0.75
"""At this part of its life an answer is asked for anew, while it is still given: who polls does not wait."""


class Cache(Generic[T]):
    """By name; none is older than `seconds`. `now` is the loop's time. To be used in one event loop."""

    def __init__(self, seconds: float, now: Callable[[], float] | None = None) -> None:
        self._seconds = seconds
        self._now = now
        self._kept: OrderedDict[str, tuple[float, asyncio.Task[T]]] = OrderedDict()
        self._renewing: dict[str, asyncio.Task[T]] = {}

    async def get(self, name: str, answer: Callable[[], T]) -> T:
        """What `answer`, called in a thread, gave a moment ago or gives now; raises what it raises."""
        now = (self._now or asyncio.get_running_loop().time)()
        asked, found = self._kept.get(name, (now, None))
        if found is None or now - asked >= self._seconds or (found.done() and found.exception()):
            found = self._ask(answer)
            self._keep(name, now, found)
        elif now - asked >= self._seconds * _RENEWED and found.done() and name not in self._renewing:
            self._renewing[name] = self._ask(answer)
            self._renewing[name].add_done_callback(lambda task: self._renewed(name, now, task))
        return await asyncio.shield(found)

    def _ask(self, answer: Callable[[], T]) -> "asyncio.Task[T]":
        return asyncio.get_running_loop().create_task(asyncio.to_thread(answer))

    def _keep(self, name: str, asked: float, task: "asyncio.Task[T]") -> None:
        self._kept[name] = (asked, task)
        self._kept.move_to_end(name)
        while len(self._kept) > _REMEMBERED:
            self._kept.popitem(last=False)

    def _renewed(self, name: str, asked: float, task: "asyncio.Task[T]") -> None:
        """One that failed is not kept: the answer given meanwhile grows old, and whoever asks then is told."""
        del self._renewing[name]
        if not task.cancelled() and task.exception() is None and asked > self._kept.get(name, (asked - 1, task))[0]:
            self._keep(name, asked, task)
