"""Reading dead letters for the page: the list often, each letter once."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from sinks.deadletter import DeadLetter, ObjectStore

__all__ = ["MOST_COUNTED", "LetterBox", "Letters"]

MOST_COUNTED = 1_000
"""Keys that one request lists."""
_LONGEST = 65_536
"""Bytes of a letter that is remembered."""


@dataclass(frozen=True)
class Letters:
    """The first that wait, and how many do; `more` when there are others beyond those counted."""

    shown: tuple[DeadLetter, ...] = ()
    waiting: int = 0
    more: bool = False


class LetterBox:
    """An ObjectStore to read letters from. A listing is taken whole, or up to `most` keys, before the first is read:
    what comes later is not in it. A letter's object never changes, so it is read once for as long as it is listed.
    """

    def __init__(self, objects: ObjectStore, most: int | None = None) -> None:
        self._objects, self._most = objects, most
        self._known: dict[str, bytes] = {}
        self.keys: list[str] = []

    def list(self, prefix: str) -> Iterator[str]:
        self.keys = [*islice(self._objects.list(prefix), self._most)]
        listed = set(self.keys)
        self._known = {key: body for key, body in self._known.items() if key in listed}
        return iter(self.keys)

    def get(self, key: str) -> bytes:
        body = self._known.get(key) or self._objects.get(key)
        if self._most is not None and len(body) <= _LONGEST:
            self._known[key] = body
        return body

    def put(self, key: str, body: bytes) -> str:
        return self._objects.put(key, body)

    def delete(self, key: str) -> None:
        self._objects.delete(key)
