"""Rows of views as readers see them: merged over their slots, by key, by window, in pages. Reads what it shows.

The layout of the table is in `sinks/views.py`.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

from headwater.clock import Clock
from sinks import viewitems
from sinks.viewitems import Item, Slot, ViewSpec
from sinks.viewkeys import ViewKeys
from sinks.viewtable import MOST_READ, ViewTable, batches

__all__ = ["Row", "ViewRows", "ViewSettings"]

Row = dict[str, object]
Place = tuple[str, str]
One = TypeVar("One")
Done = TypeVar("Done")

_FEW_WINDOWS = 8
"""Of all keys, up to so many are read by name, more as ranges."""
_KEYS_AT_ONCE = 16
_MOST_KEYS = 1_000
"""Looked at for one page."""


@dataclass(frozen=True)
class ViewSettings:
    """Bounds of a ViewStore."""

    max_item_bytes: int = 350_000
    """Of slots in an item; DynamoDB takes 400 KB, and the values need room as well."""
    cache_bytes: int = 32_000_000
    """Rows last seen, kept to write without reading."""
    attempts: int = 10
    """Tries of a request that is throttled or whose answer is lost."""
    races: int = 200
    """Tries of a row that others keep changing."""


class ViewRows:
    """The rows of all views in one table. Thread-safe. `pool`, where given, asks for several keys at a time.

    A row is its key columns, window_start and window_end where the view has windows, and the values.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        settings: ViewSettings | None = None,
        *,
        pool: Executor | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings or ViewSettings()
        self._table = ViewTable(client, table, self._settings.attempts, clock, chance)
        self._pool = pool
        self._keys = ViewKeys(self._table, pool)

    def keys(self, view: ViewSpec, prefix: str = "") -> Iterator[str]:
        """The keys, as text, that begin so, in order. One may have no row any more."""
        return self._keys.find(view.name, prefix)

    def windows(
        self,
        view: ViewSpec,
        key: Sequence[object],
        start_ms: int | None = None,
        stop_ms: int | None = None,
        *,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Sequence[Row]:
        """The rows of a key whose windows begin in `[start, stop)`, in order; an unwindowed one only without bounds."""
        text, between = viewitems.key_text(key), _between(start_ms, stop_ms)
        return [row for _, row in islice(self._of(view, text, between, limit, newest_first), limit)]

    def rows(self, view: ViewSpec, prefix: str = "", *, limit: int | None = None) -> Iterator[Row]:
        """Rows whose key, as text, begins so, in order of key and window."""
        return islice((row for key in self.keys(view, prefix) for _, row in self._of(view, key, None)), limit)

    def at(self, view: ViewSpec, starts_ms: Sequence[int]) -> Iterator[Row]:
        """The rows of every key in the windows that begin then, in no order."""
        sks = sorted(map(viewitems.sort_key, starts_ms))

        def of(keys: Sequence[str]) -> list[Row]:
            pks = [viewitems.partition(view.name, key) for key in keys]
            if len(sks) <= _FEW_WINDOWS:
                places = [(pk, sk) for pk in pks for sk in sks]
                items = chain.from_iterable(map(self._table.get_many, batches(places, MOST_READ)))
            else:
                items = chain.from_iterable(self._table.query(pk, between=(sks[0], sks[-1])) for pk in pks)
            return [row for item, row in self._read(view, items) if item["sk"]["S"] in wanted]

        wanted, keys = set(sks), self.keys(view)
        while some := list(islice(keys, _KEYS_AT_ONCE * MOST_READ)):
            for rows in self._each(of, list(batches(some, MOST_READ))):
                yield from rows

    def page(
        self,
        view: ViewSpec,
        prefix: str,
        limit: int,
        after: Place | None = None,
        start_ms: int | None = None,
        stop_ms: int | None = None,
    ) -> tuple[Sequence[Row], Place | None]:
        """Up to `limit` of such rows, maybe only of windows that begin in `[start, stop)`; where to go on, None at the
        end. A page may be short and not the last.

        The place is a key and, unless all of it is to come, the `sk` of the last row shown.
        """
        since, shown = after or ("", "")

        def of(key: str) -> list[tuple[Place, Row]]:
            between = _between(start_ms, stop_ms, shown if key == since else "")
            found = islice(self._of(view, key, between, limit + 1), limit + 1)
            return [((key, item["sk"]["S"]), row) for item, row in found]

        found: list[tuple[Place, Row]] = []
        keys = self._keys.find(view.name, prefix, since, limit + 1)
        for _ in range(_MOST_KEYS // _KEYS_AT_ONCE):
            some = list(islice(keys, _KEYS_AT_ONCE))
            found += chain.from_iterable(self._each(of, some))
            if len(found) > limit:
                return [row for _, row in found[:limit]], found[limit - 1][0]
            if len(some) < _KEYS_AT_ONCE:
                return [row for _, row in found], None
        going_on = next(keys, None)
        return [row for _, row in found], None if going_on is None else (going_on, "")

    def _each(self, work: Callable[[One], Done], of: Iterable[One]) -> Iterable[Done]:
        return self._pool.map(work, of) if self._pool else map(work, of)

    def _of(
        self,
        view: ViewSpec,
        key: str,
        between: Place | None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[tuple[Mapping[str, Any], Row]]:
        """Items and rows of a key, read as they are asked for."""
        if between and between[0] > between[1]:
            return iter(())
        pk = viewitems.partition(view.name, key)
        return self._read(view, self._table.query(pk, between=between, newest_first=newest_first, page=limit))

    def _read(self, view: ViewSpec, items: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Row]]:
        """Each row's item, with the row; none for one that has ended, or has no slots yet."""
        run: list[tuple[Mapping[str, Any], Item]] = []
        parts: list[Place] = []
        now = self._table.clock.now_ms()
        for found in items:
            if "slots" not in found or viewitems.is_expired(found, now):
                continue
            item = Item.read(found)
            more = _parts(found["pk"]["S"], found["sk"]["S"], item.spread)
            if len(parts) + len(more) > MOST_READ:
                yield from self._merged(view, run, parts)
                run, parts = [], []
            run.append((found, item))
            parts += more
            if not parts:
                yield from self._merged(view, run, parts)
                run = []
        yield from self._merged(view, run, parts)

    def _merged(
        self, view: ViewSpec, run: Sequence[tuple[Mapping[str, Any], Item]], parts: Sequence[Place]
    ) -> Iterator[tuple[Mapping[str, Any], Row]]:
        stored = {(one["pk"]["S"], one["sk"]["S"]): one for one in self._table.get_many(parts)}
        now = self._table.clock.now_ms()
        for found, item in run:
            at = found["pk"]["S"], found["sk"]["S"]
            slots: list[Slot] = []
            parts_of_it = [(part, place, stored.get(place)) for part, place in enumerate(_parts(*at, item.spread), 1)]
            for part, place, one in [(0, at, found), *parts_of_it]:
                if one is not None and viewitems.is_expired(one, now):
                    slots = []
                    break
                if one is not None:
                    slots += self._held(place, Item.read(one), part, item.spread).values()
            if slots:
                yield found, viewitems.row(view, found, [slot.partial for slot in slots])

    def _held(self, at: Place, item: Item, part: int, spread: int) -> dict[str, Slot]:
        """The slots of a row, or of a part of one: without those that a writer left there that took the row for one
        that is spread otherwise."""
        held = {**item.slots, **(self._overflow(*at, item.more) if item.more else {})}
        return {name: one for name, one in held.items() if not part or viewitems.part_of(name, spread) == part}

    def _overflow(self, pk: str, sk: str, more: Mapping[str, str]) -> dict[str, Slot]:
        """The slots in items of their own that the row names. One that it does not name is in the row itself, and was
        put there by a writer that did not know it."""
        head = f"{sk}#"
        found = {item["sk"]["S"].removeprefix(head): item for item in self._table.query(pk, head)}
        return {name: Slot(one["v"]["S"], bytes(one["p"]["B"])) for name, one in found.items() if name in more}


def _between(start_ms: int | None, stop_ms: int | None, shown: str = "") -> Place | None:
    """The range keys of windows that begin in `[start, stop)` and come after the one shown, and of their slots."""
    after = f"{shown}~" if shown else ""
    if start_ms is None and stop_ms is None:
        return (after, "~") if after else None
    low = max(after, viewitems.sort_key(start_ms or 0))
    return low, "~" if stop_ms is None else f"{viewitems.sort_key(stop_ms - 1)}~"


def _parts(pk: str, sk: str, spread: int) -> list[Place]:
    """Where the parts of a row are."""
    return [(viewitems.part_key(pk, part), sk) for part in range(1, spread + 1)]
