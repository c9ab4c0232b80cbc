"""Limit how fast something may go: a token bucket, and a pace that waits for its tokens."""

from dataclasses import dataclass

from headwater.clock import Clock

__all__ = ["Bucket", "Pace"]


@dataclass
class Bucket:
    """Hold `level` tokens of at most `burst`, refilled at `rate` a second. The time is the caller's.

    >>> bucket = Bucket(rate=2.0, burst=4.0, level=1.0, at_ms=0)
    >>> bucket.take(3)
    >>> bucket.wait_seconds(now_ms=0)
    1.5
    """

    rate: float
    burst: float
    level: float
    at_ms: int

    def wait_seconds(self, now_ms: int) -> float:
        """Return how long until something may be taken; 0 for now."""
        self.level = min(self.burst, self.level + max(0, now_ms - self.at_ms) / 1000 * self.rate)
        self.at_ms = max(now_ms, self.at_ms)
        return 0 if self.level > 0 else (1 - self.level) / self.rate

    def take(self, count: int) -> None:
        """Take tokens; the level may become negative."""
        self.level -= count


class Pace:
    """Let at most `rate` a second go in the long run, a second's worth at once; None lets everything go."""

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._clock = clock
        self._bucket = Bucket(rate, max(1.0, rate), 0, clock.now_ms()) if rate else None

    @property
    def is_due(self) -> bool:
        """Tell whether something may go now."""
        return self._bucket is None or not self._bucket.wait_seconds(self._clock.now_ms())

    def take(self, count: int) -> None:
        """Wait until something may go, then let `count` go: what is more than there is, those behind wait for."""
        if self._bucket is None:
            return
        while pause := self._bucket.wait_seconds(self._clock.now_ms()):
            self._clock.sleep(max(0.001, pause))
        self._bucket.take(count)
