"""Turn points in time of a question into epoch milliseconds of the years 1 to 9999, by which the keys of rows sort."""

from datetime import UTC, datetime, timedelta

__all__ = ["FIRST_MS", "LAST_MS", "bound_ms", "clamp_ms"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
FIRST_MS = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MS + 1
"""One millisecond after the first that a key has, so that a window that ends before it has a key, too."""
LAST_MS = (datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC) - _EPOCH) // _MS


def bound_ms(at: datetime | None) -> int | None:
    """Return the first millisecond that is not before a time, which is in UTC unless it has a zone; None for None.

    Rounding up makes `[from, to)` hold exactly the windows that begin in it.
    """
    if at is None:
        return None
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH  # exact, and beyond the years that UTC has
    return clamp_ms(-(-since // _MS))


def clamp_ms(ms: int) -> int:
    """Return the nearest time that a key can have."""
    return min(max(ms, FIRST_MS), LAST_MS)
