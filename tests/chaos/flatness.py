"""Judge whether what a long run uses stays flat. Pure.

The rule: the first quarter of a series is warm-up. Of the rest, the median of the last third may lie above that of the
first third by the measure's share of it or by its floor, whichever is more. Series of fewer than `FEWEST` samples, such
as those of processes that were killed soon, are not judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["ALLOWED", "FEWEST", "Allowance", "Growth", "growth"]

FEWEST = 80


@dataclass(frozen=True)
class Allowance:
    """How far a measure may rise: a share of what it was, or so much."""

    share: float
    floor: float


ALLOWED = {
    "rss MB": Allowance(0.05, 12),
    "fds": Allowance(0, 6),
    "threads": Allowance(0, 3),
    "items in the ledger": Allowance(0, 12),
    "states that nothing names": Allowance(0, 8),
    "files of the lake now": Allowance(0.1, 40),
    "local files": Allowance(0, 4),
    "MB of outboxes": Allowance(0.1, 2),
}
"""Measures that are judged. Others are recorded alone: rows of views and objects of the lake come with the events.

Of states that nothing names, each shard has the one before its last, which an audit may read, and what is written now.
"""


@dataclass(frozen=True)
class Growth:
    """What a series was after its warm-up and in the end, and whether that counts as flat."""

    before: float
    after: float
    flat: bool


def growth(values: Sequence[float], allowed: Allowance) -> Growth | None:
    """Judge a series of samples at even times; None where there are too few.

    >>> growth([100.0] * 40, Allowance(0.05, 1))
    Growth(before=100.0, after=100.0, flat=True)
    """
    if len(values) < FEWEST:
        return None
    settled = values[len(values) // 4 :]
    third = len(settled) // 3
    before, after = median(settled[:third]), median(settled[-third:])
    return Growth(before, after, after - before <= max(allowed.share * before, allowed.floor))
