"""Define a rule of a pipeline: a condition on one column of a view, how long it must hold, and when it is over.

Pure values and their checks. Judging windows belongs in `machine`.
"""

from dataclasses import dataclass
from typing import Literal

from headwater.arguments import check_arguments, duration_ms
from headwater.errors import UsageError
from headwater.processors.definition.windows import Window

__all__ = ["Condition", "Kind", "Rule", "above", "absent", "below", "falling", "rising"]

LONGEST_SUMMARY = 1_000

Kind = Literal["above", "below", "rising", "falling", "absent"]


@dataclass(frozen=True)
class Condition:
    """Hold a condition on a measured value: breached beyond `limit`, clear once the value is back at `clear`.

    Between the two nothing changes: an alert that fires goes on, and a calm key stays calm. Make one with `above`,
    `below`, `rising`, `falling` or `absent`.
    """

    kind: Kind
    column: str = ""
    limit: float = 0.0
    clear: float = 0.0
    per_ms: int = 0
    """For a rate, the time in which the value may change by the limit."""

    def measure(self, value: float | None, before: float | None, every_ms: int) -> float | None:
        """Return the value to compare with the limit: a window's value, or for a rate its change in the time `per`.

        `before` is the value one window earlier and `every_ms` the distance between two windows. The result is None
        when there is not enough data to judge the window by.

        >>> rising("mean", 5, per="10m").measure(12.0, 10.0, every_ms=60_000)
        20.0
        """
        if value is None or not self.is_rate:
            return value
        if before is None:
            return None
        rate = (value - before) * self.per_ms / every_ms  # windows lie every_ms apart, the limit is per per_ms
        return rate if self.kind == "rising" else -rate

    def is_breached(self, measure: float) -> bool:
        """Return True when the measured value is beyond the limit."""
        return measure < self.limit if self.kind == "below" else measure > self.limit

    def is_clear(self, measure: float) -> bool:
        """Return True when the measured value ends an episode: it is at `clear` or on the good side of it."""
        return measure >= self.clear if self.kind == "below" else measure <= self.clear

    @property
    def is_rate(self) -> bool:
        """Return True for `rising` and `falling`, which compare a window with the one before it."""
        return self.kind in ("rising", "falling")

    def __str__(self) -> str:
        if self.kind == "absent":
            return "no data"
        per = f" per {self.per_ms / 1000:g} s" if self.is_rate else ""
        until = f" (until {self.clear:g})" if self.clear != self.limit else ""
        return f"{self.column} {self.kind} {self.limit:g}{per}{until}"


@dataclass(frozen=True)
class Rule:
    """Hold a condition that is judged for every key of a view.

    `for_ms` is how long, in milliseconds of event time, the condition must hold before an episode begins. Raises
    UsageError for a name that is empty or has '#' or '/', for `absent` without a duration, and for a summary that is
    too long.
    """

    name: str
    view: str
    window: Window
    when: Condition
    for_ms: int = 0
    summary: str = ""
    """A line for the people who get the alert; its length is bounded so that ten events fit into a request."""

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("#/"):
            raise UsageError(f"an alert cannot be named {self.name!r}: a name is not empty and has no '#' and no '/'")
        if self.when.kind == "absent" and not self.for_ms:
            raise UsageError(f"alert {self.name}: say how long no data may come, as in for_='5m'")
        if len(self.summary) > LONGEST_SUMMARY:
            raise UsageError(f"alert {self.name}: its summary is longer than {LONGEST_SUMMARY} characters")

    @property
    def lookback_ms(self) -> int:
        """Return how far before the first window to be judged (ms, by window ends) earlier windows are needed."""
        if self.when.kind == "absent":
            return self.for_ms + self.window.every_ms
        return self.window.every_ms if self.when.is_rate else 0

    def __str__(self) -> str:
        return f"{self.when} for {self.for_ms / 1000:g} s" if self.for_ms else str(self.when)


def above(column: str, limit: float, *, clear: float | None = None) -> Condition:
    """Return a condition that is breached while the column's value is above `limit`.

    The episode ends once the value is at or below `clear`, which is the limit unless given. Raises UsageError when
    `clear` is above the limit.

    >>> condition = above("mean", 30, clear=28)
    >>> str(condition)
    'mean above 30 (until 28)'
    >>> condition.is_breached(29), condition.is_clear(29)
    (False, False)
    >>> above("mean", 30, clear=31)
    Traceback (most recent call last):
    headwater.errors.UsageError: above('mean', 30): clear=31 is on the wrong side of the limit
    """
    check_arguments(above, locals())
    return _threshold("above", column, limit, clear)


def below(column: str, limit: float, *, clear: float | None = None) -> Condition:
    """Return a condition that is breached while the column's value is below `limit`.

    The episode ends once the value is at or above `clear`, which is the limit unless given. Raises UsageError when
    `clear` is below the limit.

    >>> str(below("level", 10, clear=12))
    'level below 10 (until 12)'
    """
    check_arguments(below, locals())
    return _threshold("below", column, limit, clear)


def rising(column: str, limit: float, *, per: str, clear: float | None = None) -> Condition:
    """Return a condition that is breached while the value grows by more than `limit` in the time `per`.

    The growth is measured from one window to the next and converted to `per`, a duration such as `"10m"`. A window
    without a window right before it is not judged. `clear` is a growth in the same unit, the limit unless given.

    >>> str(rising("mean", 5, per="10m"))
    'mean rising 5 per 600 s'
    """
    check_arguments(rising, locals())
    return _threshold("rising", column, limit, clear, duration_ms(per))


def falling(column: str, limit: float, *, per: str, clear: float | None = None) -> Condition:
    """Return a condition that is breached while the value shrinks by more than `limit` in the time `per`.

    It is `rising` for a value that shrinks: `limit` and `clear` say by how much, so `limit` is a positive number.

    >>> drop = falling("level", 5, per="1h")
    >>> drop.is_breached(drop.measure(90.0, 100.0, every_ms=3_600_000))
    True
    """
    check_arguments(falling, locals())
    return _threshold("falling", column, limit, clear, duration_ms(per))


def absent() -> Condition:
    """Return a condition that is breached while a key that had data before has none.

    The argument `for_` of `Pipeline.alert` says for how long there must be no data, and is required.

    >>> str(absent())
    'no data'
    """
    return Condition("absent")


def _threshold(kind: Kind, column: str, limit: float, clear: float | None, per_ms: int = 0) -> Condition:
    """Return the condition; raise UsageError when `clear` is on the wrong side of the limit."""
    back = limit if clear is None else clear
    if (back < limit) if kind == "below" else (back > limit):
        raise UsageError(f"{kind}({column!r}, {limit:g}): clear={back:g} is on the wrong side of the limit")
    return Condition(kind, column, limit, back, per_ms)
