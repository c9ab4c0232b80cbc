"""Remember the rows that a writer of views saw last, so that it can write them without reading. In memory only."""

import threading
from collections import OrderedDict
from dataclasses import replace

from headwater.sinks.views.items import Item

__all__ = ["RowCache"]


class RowCache:
    """Hold the rows seen last, up to `limit` bytes; the one used longest ago goes first. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._items: OrderedDict[tuple[str, str], Item] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, at: tuple[str, str]) -> Item | None:
        """Return the row, or None when it is not known."""
        with self._lock:
            if at in self._items:
                self._items.move_to_end(at)
            return self._items.get(at)

    def put(self, at: tuple[str, str], item: Item) -> None:
        """Remember the row as it is stored now."""
        with self._lock:
            self._bytes += _cost(item) - (_cost(self._items[at]) if at in self._items else 0)
            self._items[at] = item
            self._items.move_to_end(at)
            while self._bytes > self._limit:
                self._bytes -= _cost(self._items.popitem(last=False)[1])

    def mark_listed(self, at: tuple[str, str], birth: int) -> None:
        """Remember that the key of this row is listed, if the row is still the one with this birth."""
        with self._lock:
            item = self._items.get(at)
            if item is not None and item.birth == birth:
                self._items[at] = replace(item, key_is_listed=True)

    def drop(self, at: tuple[str, str]) -> None:
        """Forget one row."""
        with self._lock:
            if at in self._items:
                self._bytes -= _cost(self._items.pop(at))

    def clear(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._items.clear()
            self._bytes = 0


def _cost(item: Item) -> int:
    return item.size + 500
