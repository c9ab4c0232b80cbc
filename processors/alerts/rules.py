"""What a rule of a pipeline is: a condition on one column of a view, for how long it holds, and when it has passed."""

from dataclasses import dataclass
from typing import Literal

from headwater.errors import UsageError
from processors.windows import Window, duration_ms

__all__ = ["Condition", "Kind", "Rule", "above", "absent", "below", "falling", "rising"]

LONGEST_SUMMARY = 1_000

Kind = Literal["above", "below", "rising", "falling", "absent"]


@dataclass(frozen=True)
class Condition:
    """Breached beyond `limit`; passed once the value is back at `clear`. In between, things stay as they are."""

    kind: Kind
    column: str = ""
    limit: float = 0.0
    clear: float = 0.0
    per_ms: int = 0
    """Of a rate: the limit is a change in so much time."""

    def measure(self, value: float | None, before: float | None, every_ms: int) -> float | None:
        """What is held against the limit; `before` is the value one window earlier. None says nothing."""
        if value is None or not self.is_rate:
            return value
        if before is None:
            return None
        rate = (value - before) * self.per_ms / every_ms
        return rate if self.kind == "rising" else -rate

    def is_breached(self, measure: float) -> bool:
        return measure < self.limit if self.kind == "below" else measure > self.limit

    def is_clear(self, measure: float) -> bool:
        return measure >= self.clear if self.kind == "below" else measure <= self.clear

    @property
    def is_rate(self) -> bool:
        return self.kind in ("rising", "falling")

    def __str__(self) -> str:
        if self.kind == "absent":
            return "no data"
        per = f" per {self.per_ms / 1000:g} s" if self.is_rate else ""
        until = f" (until {self.clear:g})" if self.clear != self.limit else ""
        return f"{self.column} {self.kind} {self.limit:g}{per}{until}"


@dataclass(frozen=True)
class Rule:
    """A condition on every key of a view. `for_ms` is how long it holds, in event time, before an episode begins."""

    name: str
    view: str
    window: Window
    when: Condition
    for_ms: int = 0
    summary: str = ""
    """One line for whoever gets the alert: up to LONGEST_SUMMARY characters, so that ten events fit into a request."""

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("#/"):
            raise UsageError(f"an alert cannot be named {self.name!r}: a name is not empty and has no '#' and no '/'")
        if self.when.kind == "absent" and not self.for_ms:
            raise UsageError(f"alert {self.name}: say how long no data may come, as in for_='5m'")
        if len(self.summary) > LONGEST_SUMMARY:
            raise UsageError(f"alert {self.name}: its summary is longer than {LONGEST_SUMMARY} characters")

    @property
    def lookback_ms(self) -> int:
        """Windows that end so shortly before the first to be judged are needed to judge it."""
        if self.when.kind == "absent":
            return self.for_ms + self.window.every_ms
        return self.window.every_ms if self.when.is_rate else 0

    def __str__(self) -> str:
        return f"{self.when} for {self.for_ms / 1000:g} s" if self.for_ms else str(self.when)


def above(column: str, limit: float, *, clear: float | None = None) -> Condition:
    """The value is above `limit`, until it is at or below `clear` (the limit itself unless given)."""
    return _threshold("above", column, limit, clear)


def below(column: str, limit: float, *, clear: float | None = None) -> Condition:
    """The value is below `limit`, until it is at or above `clear`."""
    return _threshold("below", column, limit, clear)


def rising(column: str, limit: float, *, per: str, clear: float | None = None) -> Condition:
    """From one window to the next the value grows by more than `limit` in the time `per`; nothing is said of a
    window without one right before it."""
    return _threshold("rising", column, limit, clear, duration_ms(per))


def falling(column: str, limit: float, *, per: str, clear: float | None = None) -> Condition:
    """As `rising`, of a value that shrinks; `limit` is how much it shrinks, so a positive number."""
    return _threshold("falling", column, limit, clear, duration_ms(per))


def absent() -> Condition:
    """A key that had data has none; `for_` says for how long."""
    return Condition("absent")


def _threshold(kind: Kind, column: str, limit: float, clear: float | None, per_ms: int = 0) -> Condition:
    back = limit if clear is None else clear
    if (back < limit) if kind == "below" else (back > limit):
        raise UsageError(f"{kind}({column!r}, {limit:g}): clear={back:g} is on the wrong side of the limit")
    return Condition(kind, column, limit, back, per_ms)
