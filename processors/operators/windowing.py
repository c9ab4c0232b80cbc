"""Say which windows event times are in, many at once. Pure."""

import numpy as np

from headwater.arrays import Ints
from headwater.clock import DAY_MS
from headwater.processors.definition import calendars
from headwater.processors.definition.windows import Window

__all__ = ["ends", "newest"]


def newest(window: Window, ts_ms: Ints) -> Ints:
    """Return the start of the last window that each time is in."""
    if window.unit is None:
        found: Ints = ts_ms // window.every_ms * window.every_ms
        return found
    days = np.unique(ts_ms // DAY_MS)
    # a local date is at most two days from that of UTC
    near = {calendars.period(day + by, window.unit) for day in days.tolist() for by in (-2, -1, 0, 1, 2)}
    edges = np.array(sorted({calendars.start(one, window.unit, window.zone) for one in near}), np.int64)
    return edges[np.searchsorted(edges, ts_ms, "right") - 1]


def ends(window: Window, starts_ms: Ints) -> Ints:
    """Return the ends of the windows that begin at these times."""
    if window.unit is None:
        return starts_ms + window.size_ms
    begun, at = np.unique(starts_ms, return_inverse=True)
    found: Ints = np.array([window.end(one) for one in begun.tolist()], np.int64)[at]
    return found
