"""Write and drop the rows of a view's generation some at a time, with a report of progress after each."""

from collections.abc import Callable, Sequence

from headwater.clock import Clock
from headwater.processors.jobs import Progress
from headwater.processors.operators.aggregate import Partial
from headwater.processors.shard.slots import upsert
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.store import ViewStore

__all__ = ["SLICE", "WatchedProgress", "drop", "write"]

SLICE = 500
"""Rows written between two reports of progress: less than a second's work, also where each row takes some ms."""
_CHECK_MS = 1_000


def write(
    views: ViewStore,
    spec: ViewSpec,
    partials: Sequence[Partial],
    slot: Callable[[Partial], str],
    report: Callable[[int], object],
) -> None:
    """Write the partials, each into the slot of this name; call `report` after each slice with how many are written."""
    for start in range(0, len(partials), SLICE):
        some = partials[start : start + SLICE]
        views.write(spec, [upsert(one, slot(one)) for one in some])
        report(start + len(some))


def drop(views: ViewStore, stored: str, report: Callable[[int], object]) -> int:
    """Delete the items of a generation and return how many; call `report` with the number as they go."""
    dropped = 0
    for count in views.drop(stored):
        dropped += count
        report(dropped)
    return dropped


class WatchedProgress:
    """Report progress, and check once a second and where a phase begins that the work is still wanted.

    `check` raises when it is not.
    """

    def __init__(self, clock: Clock, progress: Progress, check: Callable[[], object]) -> None:
        self._clock, self._progress, self._check = clock, progress, check
        self._checked_ms = clock.now_ms()

    def __call__(self, events: int, done: int) -> None:
        if self._clock.now_ms() - self._checked_ms >= _CHECK_MS:
            self._look()
        self._progress(events, done)

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        """Report that a phase begins, after a check that the work is still wanted."""
        self._look()
        self._progress.phase(name, total, final=final)

    def _look(self) -> None:
        self._checked_ms = self._clock.now_ms()
        self._check()
