"""List the keys that a view has rows of, in order, so that a page or an alert reads what it shows and not the table.

A key is an item in one of a few partitions, by hash, which readers merge. A writer checks the keys of rows after it has
written them, once for each row that it meets, and puts those that are missing. Whoever removes a key looks for rows
once more after the key is gone, and puts it back for one that has begun meanwhile. So a row that is there has its key
listed, too, once the write that brought it has returned; a key may be listed without a row. A removal that was killed
is called again.

Where rows are kept for a time, a key's item expires a day after the last of them at the earliest.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import takewhile
from typing import Any

from headwater.sinks.views import items as viewitems
from headwater.sinks.views.statements import MAX_STATEMENTS
from headwater.sinks.views.table import MAX_BATCH_GET, ConditionFailed, ViewTable, chunks

__all__ = ["ViewKeys"]

_FEW = 8
"""So many keys are put side by side rather than together."""
_LONGER = 86_400
"""Seconds that a key stays beyond its last row, and so need not be listed again for later rows."""


class ViewKeys:
    """List the keys, as text, of all views in one table."""

    def __init__(self, table: ViewTable, pool: Executor | None = None) -> None:
        self._table = table
        self._map: Callable[..., Iterable[Any]] = pool.map if pool else map

    def find(self, name: str, prefix: str = "", since: str = "", page: int | None = None) -> Iterator[str]:
        """Yield a view's keys that begin with `prefix`, from `since` on, in order.

        They are read as they are asked for, `page` items a request.
        """
        between = max(viewitems.key_sort_key(prefix), viewitems.key_sort_key(since)), viewitems.AFTER_KEYS
        lists = (viewitems.key_list(name, number) for number in range(viewitems.KEY_LISTS))
        items = (self._table.query(pk, between=between, page=page) for pk in lists)
        keys = heapq.merge(*(map(viewitems.key_of_item, one) for one in items))
        return takewhile(lambda key: key.startswith(prefix), keys)

    def add(self, name: str, wanted: Mapping[str, int | None]) -> int:
        """List keys, each with the expiry of its rows in epoch seconds (None: never); return how often that was
        throttled.
        """
        places = {viewitems.key_place(name, key): expires for key, expires in wanted.items()}
        short = dict(places)
        for items in self._map(self._existing, chunks(list(places), MAX_BATCH_GET)):
            for item in items:
                at = item["pk"]["S"], item["sk"]["S"]
                if _lasts(item, places[at]):
                    del short[at]
        return sum(self._map(self._put_all, chunks(list(short.items()), MAX_STATEMENTS if len(short) > _FEW else 1)))

    def remove(self, name: str, key: str) -> None:
        """Remove a key. Call it when the key's rows are gone, and look for rows again afterwards."""
        pk, sk = viewitems.key_place(name, key)
        self._table.delete({"pk": {"S": pk}, "sk": {"S": sk}})

    def _existing(self, places: Sequence[tuple[str, str]]) -> list[Mapping[str, Any]]:
        """Return the items of those keys that are listed."""
        return list(self._table.get_many(places))

    def _put_all(self, entries: Sequence[tuple[tuple[str, str], int | None]]) -> int:
        """List these keys, together where they are several; return how often that was throttled."""
        items = {at: (viewitems.key_item(at, _longer(expires)), 0) for at, expires in entries}
        put = set(self._table.put_together(items) if len(entries) > 1 else ())
        return sum(self._put(entry) for entry in entries if entry[0] not in put)

    def _put(self, entry: tuple[tuple[str, str], int | None]) -> int:
        """List one key unless it is listed for as long already; return how often that was throttled."""
        at, expires = entry[0], _longer(entry[1])
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk) OR attribute_exists(expires)"}
        if expires is not None:
            condition = {
                "ConditionExpression": "attribute_not_exists(pk) OR expires < :e",
                "ExpressionAttributeValues": {":e": {"N": str(expires)}},
            }
        try:
            return self._table.put(viewitems.key_item(at, expires), condition)
        except ConditionFailed:
            return 0  # another has put it, to stay as long


def _longer(expires: int | None) -> int | None:
    return None if expires is None else expires + _LONGER


def _lasts(item: Mapping[str, Any], expires: int | None) -> bool:
    """Return whether a key's item stays for as long as its rows do."""
    ends = viewitems.expires(item)
    return ends is None or (expires is not None and ends >= expires)
