"""Define windows of event time. All times are epoch milliseconds, UTC; a window is `[start, end)`."""

from dataclasses import dataclass

from headwater.arguments import check_arguments, check_fields, duration_ms
from headwater.errors import UsageError
from headwater.processors.definition import calendars

__all__ = ["Window", "calendar", "hopping", "tumbling"]


@dataclass(frozen=True)
class Window:
    """Hold the shape of windows: `size_ms` long, one beginning every `every_ms`, aligned to the epoch.

    With a `unit` they are the days, weeks or months of the time zone `zone`, and `size_ms` is a bound of their length.
    """

    size_ms: int
    every_ms: int
    unit: calendars.Unit | None = None
    zone: str = "UTC"

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.every_ms <= self.size_ms or self.size_ms % self.every_ms:
            raise UsageError(
                f"a window of {self.size_ms} ms every {self.every_ms} ms: the size must be a multiple of it"
            )
        if self.unit is not None:
            calendars.check_zone(self.zone)

    @property
    def overlap(self) -> int:
        """Return the number of windows that an event falls into."""
        return self.size_ms // self.every_ms

    def end(self, start_ms: int) -> int:
        """Return the end of the window that begins at `start_ms`.

        >>> (calendar("day", zone="Europe/Berlin").end(1_774_738_800_000) - 1_774_738_800_000) / 3_600_000
        23.0
        """
        if self.unit is not None:
            return calendars.next_start(start_ms, self.unit, self.zone)
        return start_ms + self.size_ms

    def to_json(self) -> dict[str, int | str]:
        """Return the shape as JSON has it."""
        if self.unit is not None:
            return {"calendar": self.unit, "zone": self.zone}
        return {"size_ms": self.size_ms, "every_ms": self.every_ms}


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


def calendar(unit: calendars.Unit, *, zone: str) -> Window:
    """Return the days, weeks (from Monday on) or months of a time zone, whatever its clocks do; each event is in one.

    `unit` is day, week or month, `zone` a name of the tz database. Raises UsageError for another unit or zone.

    >>> calendar("day", zone="Europe/Berlin").to_json()
    {'calendar': 'day', 'zone': 'Europe/Berlin'}
    """
    check_arguments(calendar, locals())
    longest = calendars.LONGEST_MS[unit]
    return Window(longest, longest, unit, zone)
