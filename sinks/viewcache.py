"""What a writer of views saw of rows, kept to write without reading."""

import threading
from collections import OrderedDict
from dataclasses import replace

from sinks.viewitems import Item

__all__ = ["RowCache"]


class RowCache:
    """The rows last seen, bounded by size."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._items: OrderedDict[tuple[str, str], Item] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, at: tuple[str, str]) -> Item | None:
        with self._lock:
            if at in self._items:
                self._items.move_to_end(at)
            return self._items.get(at)

    def put(self, at: tuple[str, str], item: Item) -> None:
        with self._lock:
            self._bytes += _cost(item) - (_cost(self._items[at]) if at in self._items else 0)
            self._items[at] = item
            self._items.move_to_end(at)
            while self._bytes > self._limit:
                self._bytes -= _cost(self._items.popitem(last=False)[1])

    def listed(self, at: tuple[str, str], birth: int) -> None:
        """The key of a row that began so is among the view's keys."""
        with self._lock:
            item = self._items.get(at)
            if item is not None and item.birth == birth:
                self._items[at] = replace(item, is_listed=True)

    def drop(self, at: tuple[str, str]) -> None:
        with self._lock:
            if at in self._items:
                self._bytes -= _cost(self._items.pop(at))

    def clear(self) -> None:
        with self._lock:
            self._items.clear()
            self._bytes = 0


def _cost(item: Item) -> int:
    return item.size + 500
