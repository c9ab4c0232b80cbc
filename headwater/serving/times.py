"""Points in time of a question, in epoch milliseconds: of the years 1 to 9999, which are what keys of rows sort by."""

from datetime import UTC, datetime, timedelta

__all__ = ["FIRST_MS", "LAST_MS", "bound_ms", "clamped"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
FIRST_MS = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MS + 1
"""A window that ends before has a key, too."""
LAST_MS = (datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC) - _EPOCH) // _MS


def bound_ms(at: datetime | None) -> int | None:
    """The first millisecond that is not before it: so a window begins in `[from, to)` as they were said. A time without
    a zone is in UTC."""
    if at is None:
        return None
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH  # exact, and beyond the years that UTC has
    return clamped(-(-since // _MS))


def clamped(ms: int) -> int:
    return min(max(ms, FIRST_MS), LAST_MS)
