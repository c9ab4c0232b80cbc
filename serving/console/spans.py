"""Choose the span of time that a chart shows, so that a few strays do not make all else a line at its edge. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime

__all__ = ["SPANS", "Span", "outside_text", "span_of"]

Span = tuple[int, int]
"""Epoch milliseconds, both ends included."""
_HOUR_MS = 3_600_000
SPANS = {
    "": "without strays",
    "1h": "last hour",
    "6h": "last 6 hours",
    "1d": "last day",
    "7d": "last 7 days",
    "all": "everything",
}
"""Name what may be chosen, by the name in a link; the last hour is that before the newest time that is no stray."""
_LENGTHS = {"1h": _HOUR_MS, "6h": 6 * _HOUR_MS, "1d": 24 * _HOUR_MS, "7d": 168 * _HOUR_MS}
_FENCE = 3
"""Times beyond the quarters by so many of their distance are strays, at most a twentieth at either end."""
_FAR = 100
"""Take one of three times for a stray if it is so many times farther away than the other two are from each other."""


def span_of(times: Sequence[int], choice: str = "") -> Span | None:
    """Return the span to show, None where there are no times.

    >>> span_of([0, 1_000_000, 1_000_060, 1_000_120])
    (1000000, 1000120)
    >>> span_of([0, 1_000_000, 1_000_060, 1_000_120], "all")
    (0, 1000120)
    """
    ordered = sorted(set(times))  # many keys have a window of the same time
    if not ordered:
        return None
    if choice == "all":
        return ordered[0], ordered[-1]
    few = max(1, len(ordered) // 20)
    start, stop = 0, len(ordered)
    if len(ordered) >= 4:
        first, last = ordered[len(ordered) // 4], ordered[len(ordered) * 3 // 4]
        fence = _FENCE * max(1, last - first)
        start = sum(one < first - fence for one in ordered[:few])
        stop -= sum(one > last + fence for one in ordered[-few:])
    elif len(ordered) == 3:
        early, late = ordered[1] - ordered[0], ordered[2] - ordered[1]
        start, stop = int(early > _FAR * late > 0), 3 - int(late > _FAR * early > 0)
    usual = ordered[start], ordered[stop - 1]
    return max(usual[0], usual[1] - _LENGTHS[choice]) if choice in _LENGTHS else usual[0], usual[1]


def outside_text(times: Sequence[int], span: Span | None) -> str:
    """Return the line that says how many times a span leaves out, empty when it leaves out none.

    >>> outside_text([0, 1_000_000, 1_000_060], (1_000_000, 1_000_060))
    '1 of 3 points lies outside, from 1970-01-01 00:00 to 1970-01-01 00:00 UTC'
    """
    left = [one for one in times if span and not span[0] <= one <= span[1]]
    if not left:
        return ""
    first, last = (f"{datetime.fromtimestamp(one / 1000, UTC):%Y-%m-%d %H:%M}" for one in (min(left), max(left)))
    verb = "lies" if len(left) == 1 else "lie"
    return f"{len(left):,} of {len(times):,} points {verb} outside, from {first} to {last} UTC"
