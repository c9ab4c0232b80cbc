"""Define windows of event time. All times are epoch milliseconds, UTC; a window is `[start, start + size)`."""

from dataclasses import dataclass

from headwater.arguments import check_fields, duration_ms
from headwater.errors import UsageError

__all__ = ["Window", "hopping", "tumbling"]


@dataclass(frozen=True)
class Window:
    """Hold the shape of windows: `size_ms` long, one beginning every `every_ms`, aligned to the epoch."""

    size_ms: int
    every_ms: int

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.every_ms <= self.size_ms or self.size_ms % self.every_ms:
            raise UsageError(
                f"a window of {self.size_ms} ms every {self.every_ms} ms: the size must be a multiple of it"
            )

    @property
    def overlap(self) -> int:
        """Return the number of windows that an event falls into."""
        return self.size_ms // self.every_ms


def tumbling(size: str) -> Window:
    """Return windows that follow one another without overlap; each event is in one.

    >>> tumbling("1m").size_ms
    60000
    """
    return Window(duration_ms(size), duration_ms(size))


def hopping(size: str, *, every: str) -> Window:
    """Return overlapping windows, one beginning every `every`; each event is in size / every of them.

    Raises UsageError when `size` is not a multiple of `every`.

    >>> hopping("10m", every="2m").overlap
    5
    """
    window = Window(duration_ms(size), duration_ms(every))
    if window.size_ms % window.every_ms:
        raise UsageError(f"a hopping window of {size} every {every}: the size must be a multiple of the step")
    return window
