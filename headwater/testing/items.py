"""Hold the items of an in-memory DynamoDB table: their sizes, their order, and what a read saw a moment ago.

Here belong the rules on one item and on one page. Requests and their errors belong in `dynamodb`.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.testing.expressions import Invalid, copied

__all__ = ["MAX_ITEM_BYTES", "MAX_PAGE_BYTES", "ItemTable", "Key", "Stored", "item_size"]

Item = dict[str, Any]
Key = tuple[str, ...]

MAX_ITEM_BYTES = 400 << 10
MAX_PAGE_BYTES = 1 << 20
MAX_HASH_KEY_BYTES, MAX_RANGE_KEY_BYTES = 2048, 1024
_MAX_DEPTH = 32


def item_size(item: Mapping[str, Any]) -> int:
    """Return the bytes of an item as DynamoDB counts them, names and values, by "Item sizes and formats"
    (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html).

    >>> item_size({"pk": {"S": "ab"}, "rev": {"N": "100"}, "slots": {"L": [{"NULL": True}]}})
    19
    """
    return sum(len(name.encode()) + _value_size(value, 0) for name, value in item.items())


def _value_size(value: Mapping[str, Any], depth: int) -> int:
    if depth > _MAX_DEPTH:
        raise Invalid("Nesting Levels have exceeded supported limits")
    ((kind, held),) = value.items()
    if kind == "S":
        return len(held.encode())
    if kind == "B":
        return len(held)
    if kind == "N":
        return _number_size(held)
    if kind in ("BOOL", "NULL"):
        return 1
    if kind == "L":
        return 3 + sum(1 + _value_size(one, depth + 1) for one in held)
    if kind == "M":
        return 3 + sum(1 + len(name.encode()) + _value_size(one, depth + 1) for name, one in held.items())
    if kind in ("SS", "BS"):
        return sum(len(one) for one in held)
    raise NotImplementedError(f"a value of type {kind}")


def _number_size(text: str) -> int:
    mantissa = text.lower().partition("e")[0]
    digits = mantissa.lstrip("-+").replace(".", "").lstrip("0")
    if len(digits.rstrip("0")) > 38:
        raise Invalid("Attempting to store more than 38 significant digits in a Number")
    return (len(digits.rstrip("0")) + 1) // 2 + 1 + text.startswith("-")


@dataclass
class Stored:
    """Hold an item, its size, and what an eventually consistent read may still see. None is an item that is gone."""

    item: Item | None
    size: int = 0
    before: Item | None = None
    at_ms: int = 0


@dataclass
class ItemTable:
    """Hold the items of one table, in order of their hash key and then of their range key.

    A table that `forgets` holds items as they are now alone; else what they were before, and those that are gone.
    """

    keys: Sequence[str]
    forgets: bool = False
    expires_by: str | None = None
    partitions: dict[str, dict[Key, Stored]] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _places: dict[str, list[Key]] = field(default_factory=dict)
    """The partitions' names in order, and the keys in each."""

    def place(self, item: Mapping[str, Any]) -> Key:
        """Return the key of an item; raise Invalid when a part is missing, no string, empty or too long."""
        found = []
        for name, most in zip(self.keys, (MAX_HASH_KEY_BYTES, MAX_RANGE_KEY_BYTES), strict=False):
            if "S" not in item.get(name, {}):
                raise Invalid(f"One or more parameter values were invalid: Missing the key {name} in the item")
            part = str(item[name]["S"])
            if not part:
                raise Invalid(
                    "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain "
                    f"an empty string value. Key: {name}"
                )
            if len(part.encode()) > most:
                what = "Size of hashkey" if name == self.keys[0] else "Aggregated size of all range keys"
                raise Invalid(
                    f"One or more parameter values were invalid: {what} has exceeded the maximum size limit of {most} "
                    "bytes"
                )
            found.append(part)
        return tuple(found)

    def get(self, at: Key) -> Item | None:
        """Return the item itself, not a copy; None when there is none."""
        stored = self.stored(at)
        return stored.item if stored else None

    def stored(self, at: Key) -> Stored | None:
        """Return what is stored at a key; one that was deleted has no item."""
        return self.partitions.get(at[0], {}).get(at)

    def staged(self, at: Key, item: Item | None, now_ms: int, refusal: str = "") -> Callable[[], None]:
        """Return what replaces, or with None deletes, the item at a key; raise Invalid with `refusal` above 400 KB.

        Checking apart from writing lets a transaction check every action before it writes the first.
        """
        size = item_size(item) if item is not None else 0
        if size > MAX_ITEM_BYTES:
            raise Invalid(refusal)
        stored = Stored(item, size, None if self.forgets else self.get(at), now_ms)

        def write() -> None:
            if self.forgets and item is None:
                self._forget(at)
                return
            if at[0] not in self.partitions:
                self.partitions[at[0]], self._places[at[0]] = {}, []
                insort(self._names, at[0])
            if at not in self.partitions[at[0]]:
                insort(self._places[at[0]], at)
            self.partitions[at[0]][at] = stored

        return write

    def _forget(self, at: Key) -> None:
        if self.partitions.get(at[0], {}).pop(at, None) is None:
            return
        places = self._places[at[0]]
        del places[bisect_left(places, at)]
        if not places:
            del self.partitions[at[0]], self._places[at[0]], self._names[bisect_left(self._names, at[0])]

    def page(
        self, partition: str | None, start: Key | None, *, backward: bool, limit: int | None, see: "See"
    ) -> tuple[list[Item], Key | None]:
        """Return the items that one Query or Scan reads, and where the next one starts; None at the end.

        A page ends with the item that brings it to 1 MB, or to `limit` items; both count what is read, before any
        filter. `see` returns what this read sees of a stored item.
        """
        found: list[Item] = []
        size = 0
        places = self._after(partition, start, backward)
        for at in places:
            stored = self.partitions[at[0]][at]
            item = see(stored)
            if item is None:
                continue
            found.append(item)
            size += stored.size
            if len(found) == limit or size >= MAX_PAGE_BYTES:
                return found, at if next(places, None) else None
        return found, None

    def _after(self, partition: str | None, start: Key | None, backward: bool) -> Iterator[Key]:
        """Iterate over the keys of a partition, or of all, behind `start`."""
        for name in self._names_after(start, backward) if partition is None else [partition]:
            places = self._places.get(name, [])
            first, end = 0, len(places)
            if start is not None and name == start[0]:
                first, end = (0, bisect_left(places, start)) if backward else (bisect_right(places, start), end)
            yield from (places[at] for at in (range(end - 1, first - 1, -1) if backward else range(first, end)))

    def _names_after(self, start: Key | None, backward: bool) -> Iterator[str]:
        names = self._names
        first, end = 0, len(names)
        if start is not None:
            first, end = (0, bisect_right(names, start[0])) if backward else (bisect_left(names, start[0]), end)
        return (names[at] for at in (range(end - 1, first - 1, -1) if backward else range(first, end)))


See = Callable[[Stored], Item | None]


def newest(stored: Stored) -> Item | None:
    """Return a copy of the item as it is now."""
    found: Item | None = copied(stored.item)
    return found
