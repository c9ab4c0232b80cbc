"""Write many rows of a view with few requests: what several threads bring goes together, 25 rows a request.

A row that a request does not put is left to the caller, who puts it by itself and so learns why.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from operator import add
from threading import Lock

from headwater.sinks.views import items as viewitems
from headwater.sinks.views.cache import RowCache
from headwater.sinks.views.items import Item, ViewSpec
from headwater.sinks.views.slots import Slot, Upsert
from headwater.sinks.views.table import ViewTable

__all__ = ["Known", "Turns", "WriteReport", "behind", "place_slots", "write_together"]

_LARGE = 64_000
"""A row with more bytes of slots is put by itself: 25 of these stay far below the 16 MB of a request."""

Place = tuple[str, str]
Known = dict[Place, int]
"""Births of rows, by their place."""


@dataclass(frozen=True)
class WriteReport:
    """Count what a write did: rows written, rows skipped (nothing newer), lost races, slots in items of their own,
    throttled requests, rows not written because they have expired, rows that no item can hold, which stay as they
    were, and slots `behind` an earlier owner's, to be written again once this owner has taken in as many records.
    """

    written: int = 0
    skipped: int = 0
    conflicts: int = 0
    overflowed: int = 0
    throttled: int = 0
    expired: int = 0
    refused: int = 0
    behind: int = 0

    def __add__(self, other: "WriteReport") -> "WriteReport":
        return WriteReport(*map(add, astuple(self), astuple(other)))


def behind(known: Item, wanted: Mapping[str, Upsert]) -> int:
    """Return how many slots an earlier owner's stay in place of, for now."""
    return sum(one.is_behind(known.version(name)) for name, one in wanted.items())


def place_slots(known: Item, newer: Mapping[str, Upsert], most_bytes: int, chance: float) -> tuple[Item, Sequence[str]]:
    """Return the item with the new slots in it, and the names of those that go into items of their own."""
    slots = dict(known.slots) | {n: Slot(u.version, u.partial) for n, u in newer.items() if n not in known.more}
    more = dict(known.more) | {n: u.version for n, u in newer.items() if n in known.more}
    rev = known.rev + 1 if known.rev else viewitems.first_rev(chance)
    planned = Item(rev, slots, more, key_is_listed=known.key_is_listed)
    for name in sorted((n for n in newer if n in slots), key=lambda n: (-len(slots[n].partial), n)):
        if planned.size <= most_bytes:
            break
        more[name] = slots.pop(name).version
    return planned, [name for name in newer if name in more]


def write_together(
    view: ViewSpec, rows: Mapping[Place, Mapping[str, Upsert]], table: ViewTable, cache: RowCache, most_bytes: int
) -> tuple[WriteReport, Known]:
    """Write rows with one request, each on condition that it is as the cache has it, or is not there.

    Return the births of those that were written. Whether any other was, is unknown.
    """
    planned: dict[Place, tuple[Item, Item]] = {}
    puts = {}
    for at, wanted in rows.items():
        known = cache.get(at) or Item()
        newer = {name: one for name, one in wanted.items() if one.supersedes(known.version(name))}
        if not newer or known.spread or known.more or len(at[0].encode()) > viewitems.MAX_KEY_BYTES:
            continue
        item, outside = place_slots(known, newer, most_bytes, table.chance())
        if outside or item.size > _LARGE:
            continue
        planned[at] = known, item
        puts[at] = viewitems.row_item(view, next(iter(newer.values())), item, ()), known.rev
    births, left_behind = Known(), 0
    for at in table.put_together(puts):
        known, item = planned[at]
        if not known.rev:
            cache.drop(at)
        cache.put(at, item)
        births[at] = item.birth
        left_behind += behind(known, rows[at])
    return WriteReport(written=len(births), behind=left_behind), births


@dataclass(eq=False)
class _Brought:
    """Hold what a thread has brought, and what became of it."""

    view: ViewSpec
    upserts: Sequence[Upsert]
    slots: frozenset[str]
    report: WriteReport | None = None
    error: BaseException | None = field(default=None)


class Turns:
    """Let one thread write at a time, and take along what others have brought meanwhile.

    Shards share rows: written apart they would be in each other's way, and each row be written once for each.
    """

    def __init__(self, write: Callable[[ViewSpec, Sequence[Upsert]], WriteReport]) -> None:
        self._write = write
        self._waiting: list[_Brought] = []
        self._lock, self._turn = Lock(), Lock()

    def write(self, view: ViewSpec, upserts: Sequence[Upsert]) -> WriteReport:
        """Have the slots written, by this thread or another; return, or raise, what became of it."""
        mine = _Brought(view, upserts, frozenset(one.slot for one in upserts))
        with self._lock:
            self._waiting.append(mine)
        with self._turn:
            if mine.report is None and mine.error is None:
                self._write_with_others(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.report is not None
        return mine.report

    def _write_with_others(self, mine: _Brought) -> None:
        taken = self._take(mine)
        try:
            mine.report = self._write(mine.view, [upsert for one in taken for upsert in one.upserts])
        except BaseException as error:  # each raises it in its own thread
            for one in taken:
                one.error = error
            return
        for one in taken[1:]:
            one.report = WriteReport(behind=mine.report.behind)

    def _take(self, mine: _Brought) -> list[_Brought]:
        """Take ours, and others of the same view without a slot in common: which of two is newer is the store's
        business.
        """
        taken, slots = [mine], set(mine.slots)
        with self._lock:
            for one in self._waiting:
                if one is not mine and one.view == mine.view and slots.isdisjoint(one.slots):
                    taken.append(one)
                    slots |= one.slots
            self._waiting = [one for one in self._waiting if one not in taken]
        return taken
