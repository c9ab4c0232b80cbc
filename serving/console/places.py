"""Name the places of the console by what stands behind `#` in its URL, so that each has a link of its own. Pure."""

from dataclasses import dataclass
from urllib.parse import quote, unquote

__all__ = ["SECTIONS", "Place", "link_to", "place_of"]

SECTIONS = {
    "flow": "Flow",
    "shards": "Shards",
    "alerts": "Alerts",
    "audit": "Audit",
    "rates": "Rates",
    "table": "Table",
    "letters": "Dead letters",
    "jobs": "Jobs",
    "views": "Views",
}
"""Titles of the sections in the navigation, by name, in the order of the page."""
_LONGEST = 16_384
"""Characters of a link: a key has at most 1,023 bytes, of which each may be written as three."""


@dataclass(frozen=True)
class Place:
    """Hold a section, and what is open in it: a shard, an origin, a job; or a view, a key's beginning and a column."""

    section: str = ""
    names: tuple[str, ...] = ()


def place_of(fragment: object) -> Place:
    """Return the place that a link names, the page as a whole for whatever is no link of ours.

    >>> place_of("#shards/shardId-7%2F8")
    Place(section='shards', names=('shardId-7/8',))
    >>> place_of("#nonsense")
    Place(section='', names=())
    """
    if not isinstance(fragment, str) or len(fragment) > _LONGEST:
        return Place()
    section, *names = fragment.removeprefix("#").split("/")
    while names and not names[-1]:
        names.pop()
    return Place(section, tuple(map(unquote, names))) if section in SECTIONS else Place()


def link_to(section: str, *names: str) -> str:
    """Return the link of a place.

    >>> link_to("views", "fleet_1m", "a/b")
    '#views/fleet_1m/a%2Fb'
    """
    return "#" + "/".join([section, *(quote(name, safe="") for name in names)]).rstrip("/")
