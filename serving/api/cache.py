"""Keep answers for a moment, so that of many equal requests at once one reads the table."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

__all__ = ["Cache"]

T = TypeVar("T")
_REMEMBERED = 10_000
_RENEWED = 0.75
"""Share of its life after which an answer is renewed while it is still given, so that who polls never waits."""


@dataclass(frozen=True)
class _Kept(Generic[T]):
    asked: float
    task: "asyncio.Task[T]"
    size: int = 0
    """Bytes; 0 until the answer is there."""


class Cache(Generic[T]):
    """Keep answers by name, none older than `seconds`, all together no more than `most_bytes` as `size` counts them.

    `now` is the loop's time by default, `threads` are asyncio's own. Belongs to one event loop.
    """

    def __init__(
        self,
        seconds: float,
        now: Callable[[], float] | None = None,
        *,
        size: Callable[[T], int] | None = None,
        most_bytes: int = 64 << 20,
        threads: Executor | None = None,
    ) -> None:
        self._seconds = seconds
        self._now = now
        self._size = size or (lambda _: 0)
        self._most_bytes = most_bytes
        self._threads = threads
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._renewing: dict[str, asyncio.Task[T]] = {}
        self.bytes = 0
        """Bytes of the answers that are kept."""

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, name: str, answer: Callable[[], T]) -> T:
        """Return what `answer`, called in a thread, returned a moment ago or returns now; raise what it raises."""
        now = (self._now or asyncio.get_running_loop().time)()
        kept = self._kept.get(name)
        if kept is None or now - kept.asked >= self._seconds or (kept.task.done() and kept.task.exception()):
            task = self._ask(answer)
            self._keep(name, now, task)
            task.add_done_callback(lambda done: self._counted(name, done))
            return await asyncio.shield(task)
        if now - kept.asked >= self._seconds * _RENEWED and kept.task.done() and name not in self._renewing:
            self._renewing[name] = self._ask(answer)
            self._renewing[name].add_done_callback(lambda task: self._renewed(name, now, task))
        return await asyncio.shield(kept.task)

    def _ask(self, answer: Callable[[], T]) -> "asyncio.Task[T]":
        loop = asyncio.get_running_loop()

        async def asked() -> T:
            return await loop.run_in_executor(self._threads, answer)

        return loop.create_task(asked())

    def _keep(self, name: str, asked: float, task: "asyncio.Task[T]") -> None:
        self._drop(name)
        self._kept[name] = _Kept(asked, task)
        while (oldest := next(iter(self._kept))) != name and (
            self._kept[oldest].asked <= asked - self._seconds or len(self._kept) > _REMEMBERED
        ):
            self._drop(oldest)

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name, None)
        self.bytes -= kept.size if kept else 0

    def _counted(self, name: str, task: "asyncio.Task[T]") -> None:
        """Count the size of an answer that has come; drop the oldest answers when all are too large together."""
        kept = self._kept.get(name)
        if kept is None or kept.task is not task or task.cancelled() or task.exception() is not None:
            return
        self._kept[name] = replace(kept, size=self._size(task.result()))
        self.bytes += self._kept[name].size
        while self.bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def _renewed(self, name: str, asked: float, task: "asyncio.Task[T]") -> None:
        """Keep a renewed answer; drop one that failed, so that the next request after the old one sees it."""
        del self._renewing[name]
        if task.cancelled() or task.exception() is not None:
            return
        kept = self._kept.get(name)
        if kept is None or asked > kept.asked:
            self._keep(name, asked, task)
            self._counted(name, task)
