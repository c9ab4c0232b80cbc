"""Event-time windows. All times in epoch milliseconds, UTC; a window is `[start, start + size)`."""

import re
from dataclasses import dataclass

from headwater.errors import UsageError

__all__ = ["Window", "duration_ms", "hopping", "tumbling"]

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(text: str) -> int:
    """`"90s"`, `"1m"`, `"2h"`, `"1d"`, `"250ms"` in milliseconds."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text)
    if not match or int(match[1]) == 0:
        raise UsageError(f"{text!r} is no duration: write a whole number and ms, s, m, h or d, as in '5m'")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Window:
    """Windows of `size_ms`, one beginning every `every_ms` (equal for tumbling), aligned to the epoch."""

    size_ms: int
    every_ms: int

    @property
    def overlap(self) -> int:
        """How many windows an event falls into."""
        return self.size_ms // self.every_ms


def tumbling(size: str) -> Window:
    """Windows that follow one another without overlap."""
    return Window(duration_ms(size), duration_ms(size))


def hopping(size: str, *, every: str) -> Window:
    """Overlapping windows; `size` must be a multiple of `every`."""
    window = Window(duration_ms(size), duration_ms(every))
    if window.size_ms % window.every_ms:
        raise UsageError(f"a hopping window of {size} every {every}: the size must be a multiple of the step")
    return window
