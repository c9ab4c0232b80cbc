"""Time as an argument. The only module that reads the machine's clock or sleeps; everything else takes a Clock."""

import time
from typing import Protocol

__all__ = ["DAY_MS", "HOUR_MS", "Clock", "ManualClock", "SystemClock"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Clock(Protocol):
    """Tell the time and sleep. Milliseconds since the epoch, UTC."""

    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        ...


class SystemClock:
    """Tell the machine's time."""

    def now_ms(self) -> int:
        """Return the machine's time in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return milliseconds that only this process's running time moves: no setting of the clock, no sleep."""
        return time.monotonic_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        time.sleep(seconds)


class ManualClock:
    """Tell a time that moves only on demand: sleeping advances it at once. For tests and simulations.

    >>> clock = ManualClock(now_ms=0)
    >>> clock.sleep(1.5)
    >>> clock.now_ms()
    1500
    """

    def __init__(self, now_ms: int = 1_762_160_400_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Return the time as it was set and advanced."""
        return self._now_ms

    def sleep(self, seconds: float) -> None:
        """Advance the time by so many seconds."""
        self.advance(round(seconds * 1000))

    def advance(self, ms: int) -> None:
        """Advance the time by so many milliseconds."""
        self._now_ms += ms
