"""Read dead letters for the page: the listing often, each letter once."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from headwater.sinks.deadletter import DeadLetter, letters_in
from headwater.stores import ObjectStore

__all__ = ["MOST_COUNTED", "CachedLetterStore", "Letters"]

MOST_COUNTED = 1_000
"""Objects that one request to S3 lists; more are not counted."""
_LONGEST = 65_536
"""Bytes of a letter; longer ones are not kept in memory."""


@dataclass(frozen=True)
class Letters:
    """Hold the first letters that wait, and how many wait; `more` when there are others beyond those counted."""

    shown: tuple[DeadLetter, ...] = ()
    waiting: int = 0
    more: bool = False


class CachedLetterStore:
    """Keep the objects of letters in memory for as long as they are listed; an ObjectStore over another one.

    A listing is taken whole, or up to `most` keys, before the first object is read, so letters that come later are not
    in it. An object never changes, so it is read once. Nothing is kept without `most`.
    """

    def __init__(self, objects: ObjectStore, most: int | None = None) -> None:
        self._objects, self._most = objects, most
        self._known: dict[str, bytes] = {}
        self.keys: list[str] = []

    def list(self, prefix: str) -> Iterator[str]:
        """List the keys as of now."""
        self.keys = [*islice(self._objects.list(prefix), self._most)]
        listed = set(self.keys)
        self._known = {key: body for key, body in self._known.items() if key in listed}
        return iter(self.keys)

    @property
    def waiting(self) -> int:
        """Return the number of letters in the objects that were listed."""
        return sum(map(letters_in, self.keys))

    def get(self, key: str) -> bytes:
        """Return an object, from memory when it was read before."""
        body = self._known.get(key) or self._objects.get(key)
        if self._most is not None and len(body) <= _LONGEST:
            self._known[key] = body
        return body

    def put(self, key: str, body: bytes) -> str:
        """Write through to the other store."""
        return self._objects.put(key, body)

    def delete(self, key: str) -> None:
        """Delete in the other store."""
        self._objects.delete(key)
