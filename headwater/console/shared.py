"""What all open pages have in common: the questions with their last answers, and the sending of letters."""

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from headwater.clock import Clock
from headwater.console.collector import Collector
from headwater.console.questions import Question
from headwater.errors import UsageError

__all__ = ["AUDIT_SECONDS", "STALE_MS", "Shared"]

LOOK_SECONDS = 2.0
AUDIT_SECONDS = 60.0
_AUDIT_SHARE = 0.1
"""Of the time, at most: it reads the whole lake."""
STALE_MS = 10_000
"""What is older is not to be taken for what is."""
_THREADS = 12


class Shared:
    """Pages call `ask_what_is_due` as long as they are open: with none open nothing is asked."""

    def __init__(self, collector: Collector, clock: Clock) -> None:
        self.collector = collector
        self.clock = clock
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="console")
        question = partial(Question, clock=clock, pool=self._pool)
        self.overview: Question[Any] = question("flow", collector.look, LOOK_SECONDS)
        self.table: Question[Any] = question("table", collector.look_at_table, 10.0)
        self.letters: Question[Any] = question("dead letters", collector.letters, 6.0)
        self.alerts: Question[Any] = question("alerts", collector.alerts, 6.0)
        self.audit: Question[Any] = question("audit", collector.audit, AUDIT_SECONDS, share=_AUDIT_SHARE)
        self.redriving: tuple[int, int] | None = None
        """While letters are sent: how many were, of how many."""

    @property
    def questions(self) -> "tuple[Question[Any], ...]":
        return self.overview, self.table, self.letters, self.alerts, self.audit

    def ask_what_is_due(self) -> None:
        """Each in a task of its own, so that one without an answer keeps none of the others."""
        for question in self.questions:
            if self.redriving is None or question is not self.letters:
                question.ask_if_due()

    async def ask(self, question: Any, *args: Any) -> Any:
        """The answer to something that only one page wants to know; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(question, *args))

    async def redrive(self, names: Collection[str] | None) -> int:
        """Send letters again, those of these names or all that wait; how many. UsageError while others are sent.

        Which letters wait is read after it is settled that nobody else sends any, so each is sent once.
        """
        if self.redriving is not None:
            raise UsageError("letters are being sent already")
        self.redriving = (0, 0)
        try:
            return int(await self.ask(self.collector.redrive, names, self._told))
        finally:
            self.redriving = None
            await self.letters.ask()

    def _told(self, sent: int, of: int) -> None:
        self.redriving = (sent, of)
