"""Read rows of views: merged over their slots, by key, by window, in pages.

Reads what it shows and writes nothing. The layout of the table is described in `sinks/views/store.py`.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

from headwater.aggregates import merging
from headwater.clock import Clock
from headwater.sinks.views import items as viewitems
from headwater.sinks.views.items import Item, ViewSpec
from headwater.sinks.views.keys import ViewKeys
from headwater.sinks.views.slots import Slot
from headwater.sinks.views.table import MAX_BATCH_GET, ViewTable, chunks

__all__ = ["InspectedRow", "Place", "Row", "ViewRows", "ViewSettings"]

Row = dict[str, object]
Place = tuple[str, str]
One = TypeVar("One")
Done = TypeVar("Done")

_FEW_WINDOWS = 8
"""Up to so many windows of all keys are read by name; more are read as ranges."""
_KEYS_AT_ONCE = 16
_MOST_KEYS = 1_000
"""Most keys looked at for one page."""


@dataclass(frozen=True)
class ViewSettings:
    """Bound what a ViewStore holds and how often it tries."""

    max_item_bytes: int = 350_000
    """Bytes of slots in an item. DynamoDB takes 400 KB, and the values need some of that."""
    cache_bytes: int = 32_000_000
    """Bytes of rows seen last, kept to write them without reading."""
    attempts: int = 10
    """Times a request is sent that is throttled or whose answer is lost."""
    few_slots: int = 16
    """Slots, or rows, from which on those of several threads are written together, 25 rows a request."""
    races: int = 200
    """Times a row is tried that others keep changing."""


@dataclass(frozen=True)
class InspectedRow:
    """Hold a row with what it is made of: its key as text, its values merged from its slots, and the slots' versions.

    `stored` has the values as they lie beside the slots, for readers that do not merge; None for a row that is spread,
    which has none.
    """

    key: str
    row: Row
    stored: Row | None
    versions: Mapping[str, str]


class ViewRows:
    """Read the rows of all views in one table. Thread-safe.

    `client` is boto3's for DynamoDB. `pool`, where given, asks for several keys at a time. A row is a dict with its key
    columns, `window_start` and `window_end` (ISO text) where the view has windows, and the values. Requests raise
    UsageError when there is no such table, Throttled and Retryable when DynamoDB did not answer: read again.

    >>> (row,) = ViewRows(dynamodb, "views").windows(view, ("d1",))
    >>> row["device"], row["window_start"], row["n"], row["total"]
    ('d1', '1970-01-01T00:01:00.000Z', 3, 0.75)
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
        """Yield the keys, as text, that begin with `prefix`, in order. A key may have no row any more.

        >>> list(ViewRows(dynamodb, "views").keys(view))
        ['d1', 'd2']
        """
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
        """Return the rows of a key whose windows begin in `[start_ms, stop_ms)`, in order of time.

        A row without a window is returned only when neither bound is given. `limit` rows at most, the newest when
        `newest_first` is set.

        >>> [row["n"] for row in ViewRows(dynamodb, "views").windows(view, ("d1",), 0, 120_000, limit=1)]
        [3]
        """
        text, between = viewitems.key_text(key), _between(start_ms, stop_ms)
        return [row for _, row in islice(self._of(view, text, between, limit, newest_first), limit)]

    def inspect(
        self, view: ViewSpec, key: str, start_ms: int | None = None, stop_ms: int | None = None
    ) -> Iterator[InspectedRow]:
        """Yield the rows of a key, given as text, whose windows begin in `[start_ms, stop_ms)`, as they are stored."""
        items = self._table.query(viewitems.partition(view.name, key), between=_between(start_ms, stop_ms))
        for found, slots in self._with_slots(items):
            row = viewitems.merged_row(view, found, [slot.partial for slot in slots.values()])
            stored = None
            if "N" not in found["slots"]:
                named = (one.name for one in view.aggregates)
                stored = {name: viewitems.value_of(found[name]) if name in found else None for name in named}
            yield InspectedRow(key, row, stored, {name: slot.version for name, slot in slots.items()})

    def rows(
        self,
        view: ViewSpec,
        prefix: str = "",
        start_ms: int | None = None,
        stop_ms: int | None = None,
        *,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """Yield the rows whose key, as text, begins with `prefix`, in order of key and window; `limit` rows at most.

        `start_ms` and `stop_ms` restrict them to windows that begin in `[start_ms, stop_ms)`.

        >>> [(row["device"], row["n"]) for row in ViewRows(dynamodb, "views").rows(view)]
        [('d1', 3), ('d2', 2)]
        >>> list(ViewRows(dynamodb, "views").rows(view, "", 60_001))
        []
        """
        between = _between(start_ms, stop_ms)
        return islice((row for key in self.keys(view, prefix) for _, row in self._of(view, key, between)), limit)

    def every(self, view: ViewSpec) -> Iterator[Row]:
        """Yield all rows, in no order: the whole table is read, 1 MB a request, not one key after another.

        >>> sorted(row["device"] for row in ViewRows(dynamodb, "views").every(view))
        ['d1', 'd2']
        """
        return (row for _, row in self._read(view, self._table.scan(viewitems.partition(view.name, ""))))

    def at(self, view: ViewSpec, starts_ms: Sequence[int]) -> Iterator[Row]:
        """Yield the rows of every key in the windows that begin at these times (epoch ms), in no order.

        >>> sorted(row["device"] for row in ViewRows(dynamodb, "views").at(view, [60_000]))
        ['d1', 'd2']
        """
        sks = sorted(map(viewitems.sort_key, starts_ms))

        def of(keys: Sequence[str]) -> list[Row]:
            pks = [viewitems.partition(view.name, key) for key in keys]
            if len(sks) <= _FEW_WINDOWS:
                places = [(pk, sk) for pk in pks for sk in sks]
                items = chain.from_iterable(map(self._table.get_many, chunks(places, MAX_BATCH_GET)))
            else:
                items = chain.from_iterable(self._table.query(pk, between=(sks[0], sks[-1])) for pk in pks)
            return [row for item, row in self._read(view, items) if item["sk"]["S"] in wanted]

        wanted, keys = set(sks), self.keys(view)
        while some := list(islice(keys, _KEYS_AT_ONCE * MAX_BATCH_GET)):
            for rows in self._each(of, list(chunks(some, MAX_BATCH_GET))):
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
        """Return up to `limit` rows of keys that begin with `prefix`, and the place where the next page begins (None at
        the end).

        `start_ms` and `stop_ms` restrict the page to windows that begin in `[start_ms, stop_ms)`. A page may be short
        and yet not the last. The place is a key and, unless all of the key is to come, the `sk` of the last row shown.

        >>> rows, after = ViewRows(dynamodb, "views").page(view, "", limit=1)
        >>> [row["device"] for row in rows], after
        (['d1'], ('d1', '1970-01-01T00:01:00.000Z'))
        >>> rows, after = ViewRows(dynamodb, "views").page(view, "", limit=1, after=after)
        >>> [row["device"] for row in rows], after
        (['d2'], None)
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
        """Apply `work` to each, in the pool where there is one."""
        return self._pool.map(work, of) if self._pool else map(work, of)

    def _of(
        self,
        view: ViewSpec,
        key: str,
        between: Place | None,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[tuple[Mapping[str, Any], Row]]:
        """Yield items and rows of a key, read as they are asked for."""
        if between and between[0] > between[1]:
            return iter(())
        pk = viewitems.partition(view.name, key)
        return self._read(view, self._table.query(pk, between=between, newest_first=newest_first, page=limit))

    def _read(self, view: ViewSpec, items: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Row]]:
        """Yield each row's item with the row; none for a row that has expired or has no slots yet."""
        for found, slots in self._with_slots(items):
            yield found, viewitems.merged_row(view, found, [slot.partial for slot in slots.values()])

    def _with_slots(self, items: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], dict[str, Slot]]]:
        """Yield each row's item with its slots; none for a row that has expired or has no slots yet."""
        run: list[tuple[Mapping[str, Any], Item]] = []
        parts: list[Place] = []
        now = self._table.clock.now_ms()
        for found in items:
            if "slots" not in found or viewitems.is_expired(found, now):
                continue
            item = Item.read(found)
            more = _parts(found["pk"]["S"], found["sk"]["S"], item.spread)
            if len(parts) + len(more) > MAX_BATCH_GET:
                yield from self._joined(run, parts)
                run, parts = [], []
            run.append((found, item))
            parts += more
            if not parts:
                yield from self._joined(run, parts)
                run = []
        yield from self._joined(run, parts)

    def _joined(
        self, run: Sequence[tuple[Mapping[str, Any], Item]], parts: Sequence[Place]
    ) -> Iterator[tuple[Mapping[str, Any], dict[str, Slot]]]:
        """Yield the items of the run, each with the slots of itself and of its parts."""
        stored = {(one["pk"]["S"], one["sk"]["S"]): one for one in self._table.get_many(parts)}
        now = self._table.clock.now_ms()
        for found, item in run:
            at = found["pk"]["S"], found["sk"]["S"]
            slots = dict[str, Slot]()
            parts_of_it = [(part, place, stored.get(place)) for part, place in enumerate(_parts(*at, item.spread), 1)]
            for part, place, one in [(0, at, found), *parts_of_it]:
                if one is not None and viewitems.is_expired(one, now):
                    slots = {}
                    break
                if one is not None:
                    slots |= self._held(place, Item.read(one), part, item.spread)
            # a row whose slots have all been emptied holds no event: it is there for writers alone
            if not all(merging.is_nothing(slot.partial) for slot in slots.values()):
                yield found, slots

    def _held(self, at: Place, item: Item, part: int, spread: int) -> dict[str, Slot]:
        """Return the slots of a row, or of a part of one.

        Leaves out slots that a writer left there that took the row for one with another spread.
        """
        held = {**item.slots, **(self._overflow(*at, item.more) if item.more else {})}
        return {name: one for name, one in held.items() if not part or viewitems.part_of(name, spread) == part}

    def _overflow(self, pk: str, sk: str, more: Mapping[str, str]) -> dict[str, Slot]:
        """Return the slots in items of their own that the row names.

        A slot that the row does not name is in the row itself, and was put there by a writer that did not know it.
        """
        head = f"{sk}#"
        found = {item["sk"]["S"].removeprefix(head): item for item in self._table.query(pk, head)}
        return {name: Slot(one["v"]["S"], bytes(one["p"]["B"])) for name, one in found.items() if name in more}


def _between(start_ms: int | None, stop_ms: int | None, shown: str = "") -> Place | None:
    """Return the range keys of windows that begin in `[start_ms, stop_ms)` and come after the one shown, and of their
    slots.
    """
    after = f"{shown}~" if shown else ""
    if start_ms is None and stop_ms is None:
        return (after, "~") if after else None
    low = max(after, viewitems.sort_key(start_ms or 0))
    return low, "~" if stop_ms is None else f"{viewitems.sort_key(stop_ms - 1)}~"


def _parts(pk: str, sk: str, spread: int) -> list[Place]:
    """Return where the parts of a row lie."""
    return [(viewitems.part_key(pk, part), sk) for part in range(1, spread + 1)]
