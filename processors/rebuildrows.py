"""The rows of a view's generation, written and dropped some at a time, so that who runs it is heard in between."""

from collections.abc import Callable, Sequence

from processors.jobs import Progress
from processors.operators.aggregate import Partial
from processors.services import Services
from processors.worker import upsert
from sinks.views import ViewSpec

__all__ = ["SLICE", "Watched", "drop", "write"]

SLICE = 500
"""Rows written before it is told: less than a second's, also where each takes some ms."""
_LOOKED_MS = 1_000


def write(
    services: Services,
    spec: ViewSpec,
    partials: Sequence[Partial],
    slot: Callable[[Partial], str],
    told: Callable[[int], object],
) -> None:
    """Write them into the slots of these names; `told` hears after each slice how many are written."""
    for start in range(0, len(partials), SLICE):
        some = partials[start : start + SLICE]
        services.views.write(spec, [upsert(one, slot(one)) for one in some])
        told(start + len(some))


def drop(services: Services, stored: str, told: Callable[[int], object]) -> int:
    """Delete what the table has of a generation; `told` hears how many items, as they go."""
    dropped = 0
    for count in services.views.drop(stored):
        dropped += count
        told(dropped)
    return dropped


class Watched:
    """Progress that looks once a second, and where a phase begins, whether the work is still wanted: `still` raises
    when it is not."""

    def __init__(self, services: Services, progress: Progress, still: Callable[[], object]) -> None:
        self._clock, self._progress, self._still = services.clock, progress, still
        self._looked_ms = services.clock.now_ms()

    def __call__(self, events: int, done: int) -> None:
        if self._clock.now_ms() - self._looked_ms >= _LOOKED_MS:
            self._look()
        self._progress(events, done)

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        self._look()
        self._progress.phase(name, total, final=final)

    def _look(self) -> None:
        self._looked_ms = self._clock.now_ms()
        self._still()
