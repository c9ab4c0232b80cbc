"""Compute where days, weeks and months of a time zone begin, in epoch ms. Pure, but for reading the tz database once.

A day begins at the first moment whose local time is 00:00 or later: where a change of clocks skips midnight, at the
change; where midnight comes twice, at the first. So days have 23, 24 or 25 hours, or others where a zone has changed
by more, and every moment is in one. Weeks begin on Monday.
"""

import difflib
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from headwater.clock import DAY_MS
from headwater.errors import UsageError

__all__ = ["LONGEST_MS", "Unit", "check_zone", "next_start", "period", "start"]

Unit = Literal["day", "week", "month"]
LONGEST_MS = {"day": 3 * DAY_MS, "week": 9 * DAY_MS, "month": 33 * DAY_MS}
"""Bounds of the length of each: a zone that crossed the date line had a day of 48 hours."""
_EPOCH = date(1970, 1, 1).toordinal()
_FIRST, _LAST = date(1, 1, 3).toordinal() - _EPOCH, date(9999, 12, 29).toordinal() - _EPOCH
"""The days whose midnights Python's calendar has in every zone; those beyond have the offset of the nearest."""
_YEAR_1, _YEAR_10000 = 1 - _EPOCH, date.max.toordinal() + 1 - _EPOCH
_ZERO = datetime(1970, 1, 1, tzinfo=UTC)


def check_zone(zone: str) -> None:
    """Raise UsageError when the tz database has no such zone, with the nearest name."""
    try:
        _zone(zone)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a folder's name an OSError
        near = difflib.get_close_matches(zone, available_timezones(), 1, 0.6)
        more = f"did you mean {near[0]!r}?" if near else "a zone is named as in 'Europe/Berlin'"
        raise UsageError(f"there is no time zone {zone!r}: {more}") from None


def period(day: int, unit: str) -> int:
    """Return the number of the day, week or month that a day, counted from 1970-01-01, is in."""
    if unit == "day":
        return day
    if unit == "week":
        return (day + 3) // 7  # the 1st of January 1970 was a Thursday
    if day < _YEAR_1:  # a moment of year 1 by UTC may be in the December before
        return 11
    if day >= _YEAR_10000:
        return 120_000
    on = date.fromordinal(day + _EPOCH)
    return 12 * on.year + on.month - 1


@lru_cache(maxsize=16_384)
def start(number: int, unit: str, zone: str) -> int:
    """Return the start of the day, week or month of this number."""
    if unit != "month":
        return _midnight(7 * number - 3 if unit == "week" else number, zone)
    year, month = divmod(number, 12)
    if year < 1:
        return _midnight(_YEAR_1 - 31, zone)
    if year > 9999:
        return _midnight(_YEAR_10000 + 31 * month, zone)
    return _midnight(date(year, month + 1, 1).toordinal() - _EPOCH, zone)


@lru_cache(maxsize=16_384)
def next_start(start_ms: int, unit: str, zone: str) -> int:
    """Return where the day, week or month ends that begins at `start_ms`."""
    number = period(start_ms // DAY_MS - 2, unit)
    while (found := start(number, unit, zone)) <= start_ms:
        number += 1
    return found


def _midnight(day: int, zone: str) -> int:
    """Return the first moment of a local day; days are counted from 1970-01-01."""
    within = min(max(day, _FIRST), _LAST)
    naive = datetime.combine(date.fromordinal(within + _EPOCH), datetime.min.time())
    first, second = (_ms(naive.replace(tzinfo=_zone(zone), fold=fold)) for fold in (0, 1))
    if second < first:  # the midnight is skipped: the change of clocks is between the two
        first = _change(second, first, naive, zone)
    return first + (day - within) * DAY_MS


def _change(low: int, high: int, naive: datetime, zone: str) -> int:
    """Return the first moment in `[low, high]` whose local time is not before `naive`."""
    while low < high:
        middle = (low + high) // 2
        local = (_ZERO + timedelta(milliseconds=middle)).astimezone(_zone(zone)).replace(tzinfo=None)
        low, high = (low, middle) if local >= naive else (middle + 1, high)
    return low


def _ms(moment: datetime) -> int:
    return (moment - _ZERO) // timedelta(milliseconds=1)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
