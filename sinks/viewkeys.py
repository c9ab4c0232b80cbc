"""The keys that a view has rows of, in order: so that a list, a page or an alert reads what it shows, not the table.

A key is an item in one of a few partitions, by hash, which readers merge. A writer looks for the keys of rows after it
has written them, once for each row that it meets, and puts those that are missing. Whoever removes a key looks for rows
once more after the key is gone, and puts it back for one that has begun meanwhile. So a row that is there has its key
there, too, once the write that brought it has returned; a key may be there without a row. A removal that was killed is
called again.

Where rows are kept for a time, a key's item ends a day after the last of them at least.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import takewhile
from typing import Any

from sinks import viewitems
from sinks.viewtable import MOST_READ, Refused, ViewTable, batches

__all__ = ["ViewKeys"]

_LONGER = 86_400
"""Seconds that a key stays beyond its last row: as long as it need not be put anew."""


class ViewKeys:
    """The keys of all views in one table, as text."""

    def __init__(self, table: ViewTable, pool: Executor | None = None) -> None:
        self._table = table
        self._map: Callable[..., Iterable[Any]] = pool.map if pool else map

    def find(self, name: str, prefix: str = "", since: str = "", page: int | None = None) -> Iterator[str]:
        """Those of a view that begin so, from `since` on, in order. Read as they are asked for, so many a request."""
        between = max(viewitems.listed_sk(prefix), viewitems.listed_sk(since)), viewitems.AFTER_KEYS
        lists = (viewitems.key_list(name, number) for number in range(viewitems.KEY_LISTS))
        items = (self._table.query(pk, between=between, page=page) for pk in lists)
        keys = heapq.merge(*(map(viewitems.listed_key, one) for one in items))
        return takewhile(lambda key: key.startswith(prefix), keys)

    def add(self, name: str, wanted: Mapping[str, int | None]) -> int:
        """Make sure of keys whose rows end then, in epoch seconds, None is never; how often that was throttled."""
        places = {viewitems.listed(name, key): expires for key, expires in wanted.items()}
        short = dict(places)
        for items in self._map(self._there, batches(list(places), MOST_READ)):
            for item in items:
                at = item["pk"]["S"], item["sk"]["S"]
                if _lasts(item, places[at]):
                    del short[at]
        # some at a time: handing a key to a thread costs about as much as putting it
        return sum(self._map(self._put_all, batches(list(short.items()), min(MOST_READ, 1 + len(short) // 64))))

    def remove(self, name: str, key: str) -> None:
        """To be called when its rows are gone; then look whether there is one again."""
        pk, sk = viewitems.listed(name, key)
        self._table.delete({"pk": {"S": pk}, "sk": {"S": sk}})

    def _there(self, places: Sequence[tuple[str, str]]) -> list[Mapping[str, Any]]:
        return list(self._table.get_many(places))

    def _put_all(self, entries: Sequence[tuple[tuple[str, str], int | None]]) -> int:
        return sum(map(self._put, entries))

    def _put(self, entry: tuple[tuple[str, str], int | None]) -> int:
        at, expires = entry
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk) OR attribute_exists(expires)"}
        if expires is not None:
            expires += _LONGER
            condition = {
                "ConditionExpression": "attribute_not_exists(pk) OR expires < :e",
                "ExpressionAttributeValues": {":e": {"N": str(expires)}},
            }
        try:
            return self._table.put(viewitems.listing(at, expires), condition)
        except Refused:
            return 0  # another has put it, to stay as long


def _lasts(item: Mapping[str, Any], expires: int | None) -> bool:
    """Whether a key's item stays for as long as its rows."""
    ends = viewitems.expires(item)
    return ends is None or (expires is not None and ends >= expires)
