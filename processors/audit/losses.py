"""Name what shards count as lost or in conflict, so that an audit with any of it is never exact.

A count belongs here when the event it stands for is in no interval set: nothing else would show it.
"""

from collections.abc import Mapping

__all__ = ["LOSSES", "losses_of"]

LOSSES: Mapping[str, str] = {
    "lost_ranges": "times a position was past the retention: what followed it was not read",
    "conflicts": "events came under identities that other events have: they are in the dead letters",
    "lost_parents": "parents that the stream no longer holds were not read to their ends",
}
"""Words by the name of the count: what an operator is told after its number."""


def losses_of(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts that stand for something lost or in conflict, those above zero.

    >>> losses_of({"events": 10, "lost_ranges": 1, "lost_parents": 0})
    {'lost_ranges': 1}
    """
    return {name: counts[name] for name in LOSSES if counts.get(name, 0) > 0}
