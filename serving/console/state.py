"""Hold what all open pages share: polls with their last values, and the redrive that is under way.

Belongs to one event loop. How a value is read is in `collector`, how it is shown in the panels.
"""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from headwater.clock import Clock
from headwater.errors import UsageError
from headwater.serving.console.collector import Collector
from headwater.serving.console.controls import Controls
from headwater.serving.console.polling import Poll

__all__ = ["AUDIT_SECONDS", "STALE_MS", "ConsoleState"]

T = TypeVar("T")
OVERVIEW_SECONDS = 2.0
AUDIT_SECONDS = 60.0
_AUDIT_SHARE = 0.1
"""Share of the time that audits may take: each reads the whole lake."""
STALE_MS = 10_000
"""Age from which an overview is marked as stale."""
_THREADS = 12
"""One for each poll, and some for acts and for what only one page reads."""


class ConsoleState:
    """Share polls between pages. Pages call `refresh_due` while they are open: with none open nothing is read."""

    def __init__(self, collector: Collector, controls: Controls, clock: Clock) -> None:
        self.collector = collector
        self.controls = controls
        self.clock = clock
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="console")
        poll = partial(Poll, clock=clock, pool=self._pool)
        self.overview: Poll[Any] = poll("flow", collector.overview, OVERVIEW_SECONDS)
        self.table: Poll[Any] = poll("table", collector.table_state, 10.0)
        self.letters: Poll[Any] = poll("dead letters", collector.letters, 6.0)
        self.alerts: Poll[Any] = poll("alerts", collector.alerts, 6.0)
        self.audit: Poll[Any] = poll("audit", collector.audit, AUDIT_SECONDS, max_share=_AUDIT_SHARE)
        self.redriving: tuple[int, int] | None = None
        """Letters sent and letters to send while a redrive is under way; None otherwise."""

    @property
    def polls(self) -> "tuple[Poll[Any], ...]":
        """Return all polls."""
        return self.overview, self.table, self.letters, self.alerts, self.audit

    def refresh_due(self) -> None:
        """Refresh every poll that is due, each in a task of its own, so that one that hangs holds up no other."""
        for poll in self.polls:
            # a redrive refreshes the letters when it ends; the list would flicker meanwhile
            if self.redriving is None or poll is not self.letters:
                poll.refresh_if_due()

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call in a thread what only one page needs; raises what the function raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args))

    async def redrive(self, names: Collection[str] | None) -> int:
        """Send letters again, those with these names or all that wait; return how many.

        UsageError while another redrive is under way. The letters are listed only after that check, so each is sent
        once however often the button is pressed.
        """
        if self.redriving is not None:
            raise UsageError("letters are being sent already")
        self.redriving = (0, 0)
        try:
            return await self.call(self.controls.redrive, names, self._on_progress)
        finally:
            self.redriving = None
            await self.letters.refresh()

    def _on_progress(self, sent: int, total: int) -> None:
        self.redriving = (sent, total)
