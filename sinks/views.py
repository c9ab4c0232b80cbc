"""Views in DynamoDB: a row an item, merged over slots, so that a plain reader finds final values in it.

Table: hash key `pk` = view#key, range key `sk` = start of the window (`-` without windows), both strings. Every write
replaces the item on condition that its revision is the one known, and a slot changes only for a newer version: writing
twice, late, or from two processes at once converges. A row whose slots outgrow an item keeps further slots in items of
their own, `sk`#slot, written first; whoever writes the row last has read all of them.

A row of a view with `spread` is an item that says over how many partitions it is spread, and one in each of them with
the slots that belong there, which readers merge. How a row is spread is settled when it begins and found in it: views
may change their `spread`, and rows stay as they are. A writer looks for the row after its first write into a part, and
again when the part turns out to have begun anew; if the row is not there, or is another, it begins it or writes again
where that one says. So no slot stays where no reader looks, whoever removes the row meanwhile.

Where a view says how long its rows are kept, an item has `expires`, in epoch seconds. From then on readers pass it
over and writers leave it alone, whether DynamoDB has deleted it or not. Should a writer whose clock is behind put a
deleted row back, with its last events only, then with the same `expires`: no reader sees that.
"""

import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

from headwater.clock import Clock
from headwater.errors import Retryable
from sinks import viewitems
from sinks.viewitems import Item, Slot, Upsert, ViewSpec
from sinks.viewtable import Refused, TooLarge, ViewTable

__all__ = ["Upsert", "ViewSettings", "ViewSpec", "ViewStore", "WriteReport"]

log = logging.getLogger("headwater.views")

_TOGETHER = 50
"""Rows at most that a thread writes one after the other."""
_DROPPED = 500
"""Items deleted before it is told how many."""
_BATCH = 100
"""Items that one BatchGetItem reads."""
_PAGES = 50
"""Of a scan, for one page of rows: a view that is a small part of the table takes many."""


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


@dataclass(frozen=True)
class WriteReport:
    """Rows written and skipped (nothing newer), lost races, slots in items of their own, throttled requests, rows
    not written because they have expired, and rows that no item can hold: they stay as they were."""

    written: int = 0
    skipped: int = 0
    conflicts: int = 0
    overflowed: int = 0
    throttled: int = 0
    expired: int = 0
    refused: int = 0

    def __add__(self, other: "WriteReport") -> "WriteReport":
        return WriteReport(
            self.written + other.written,
            self.skipped + other.skipped,
            self.conflicts + other.conflicts,
            self.overflowed + other.overflowed,
            self.throttled + other.throttled,
            self.expired + other.expired,
            self.refused + other.refused,
        )


class _Otherwise(Exception):
    """The row is not spread as the cache had it, which has been put right."""


class ViewStore:
    """The rows of all views in one table. Thread-safe. `pool`, where given, writes several rows at a time."""

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
        self._cache = _Cache(self._settings.cache_bytes)

    def write(self, view: ViewSpec, upserts: Sequence[Upsert]) -> WriteReport:
        """Bring the slots up to these versions; those held in the same or a newer one stay.

        On Throttled, Retryable or any other error some rows may be written: write the same again.
        """
        rows: dict[tuple[str, str], dict[str, Upsert]] = {}
        for upsert in upserts:
            at = (
                viewitems.partition(view.name, viewitems.key_text(upsert.key)),
                viewitems.sort_key(upsert.window_start_ms),
            )
            slots = rows.setdefault(at, {})
            if upsert.slot not in slots or slots[upsert.slot].version < upsert.version:
                slots[upsert.slot] = upsert

        def write_rows(entries: Sequence[tuple[tuple[str, str], dict[str, Upsert]]]) -> WriteReport:
            return sum((self._write_row(view, *entry) for entry in entries), WriteReport())

        # a few at a time: handing a row to a thread costs about as much as writing it
        entries, few = list(rows.items()), min(_TOGETHER, 1 + len(rows) // 64)
        runs = [entries[at : at + few] for at in range(0, len(entries), few)]
        done: Iterable[WriteReport] = (self._pool.map if self._pool else map)(write_rows, runs)
        return sum(done, WriteReport())

    def get(self, view: ViewSpec, key: Sequence[object]) -> list[dict[str, object]]:
        """The rows of a key, by window: key columns, window_start, window_end and the values."""
        return list(self._rows(view, self._table.query(viewitems.partition(view.name, viewitems.key_text(key)))))

    def list(self, view: ViewSpec, prefix: str = "", limit: int | None = None) -> "list[dict[str, object]]":
        """Up to `limit` rows whose key, as text, starts with `prefix`, in no order. Reads the whole table."""
        found: list[dict[str, object]] = []
        if limit is None or limit > 0:
            for row in self.scan(view, prefix):
                found.append(row)
                if limit is not None and len(found) >= limit:
                    break
        return found

    def windows(
        self, view: ViewSpec, key: Sequence[object], start_ms: int | None = None, stop_ms: int | None = None
    ) -> Sequence[dict[str, object]]:
        """The rows of a key whose windows begin in `[start, stop)`, in order; an unwindowed one only without bounds."""
        pk = viewitems.partition(view.name, viewitems.key_text(key))
        if start_ms is None and stop_ms is None:
            return tuple(self._rows(view, self._table.query(pk)))
        return tuple(self._rows(view, self._table.query(pk, between=_between(start_ms, stop_ms))))

    def page(
        self, view: ViewSpec, prefix: str, limit: int, after: Sequence[str] | None = None
    ) -> tuple[Sequence[dict[str, object]], Sequence[str] | None]:
        """Up to `limit` rows whose key, as text, starts with `prefix`, in no order; where to go on, None at the end."""
        place = None if after is None else {"pk": {"S": after[0]}, "sk": {"S": after[1]}}
        found: list[dict[str, object]] = []
        for _ in range(_PAGES):
            answer = self._table.scan_page(viewitems.partition(view.name, prefix), place)
            for item, row in self._read(view, answer["Items"]):
                if row is not None and len(found) == limit:
                    return found, [place["pk"]["S"], place["sk"]["S"]] if place else None
                found += [] if row is None else [row]
                place = {"pk": item["pk"], "sk": item["sk"]}
            place = answer.get("LastEvaluatedKey")
            if place is None:
                return found, None
        return found, [place["pk"]["S"], place["sk"]["S"]] if place else None

    def scan(
        self, view: ViewSpec, prefix: str = "", start_ms: int | None = None, stop_ms: int | None = None
    ) -> Iterator[dict[str, object]]:
        """Rows of the view, all or those of windows that begin in `[start, stop)`, unordered; reads the whole table."""
        between = None if start_ms is None and stop_ms is None else _between(start_ms, stop_ms)
        return self._rows(view, self._table.scan(viewitems.partition(view.name, prefix), between=between))

    def remove(self, view: ViewSpec, column: str, value: str) -> int:
        """Delete every row whose key column has this value, as text, with its slots; how many rows there were."""
        removed = 0
        for pk, parts in self._having(view, column, value).items():
            for item in list(self._table.query(pk)):
                self._table.delete(item)
                removed += "slots" in item
                spread = Item.read(item).spread if "slots" in item else 0
                parts |= {viewitems.part_key(pk, part + 1) for part in range(spread)}
            # after their rows: a part that begins meanwhile finds its row gone, or is found here
            for part in parts:
                for item in list(self._table.query(part)):
                    self._table.delete(item)
        self._cache = _Cache(self._settings.cache_bytes)
        return removed

    def drop(self, name: str) -> Iterator[int]:
        """Delete every item of a view, whatever its definition; tells how many, some at a time. Stopped, call again."""
        run: list[Mapping[str, Any]] = []
        for item in self._table.scan(viewitems.partition(name, ""), viewitems.parts_head(name)):
            run.append({"pk": item["pk"], "sk": item["sk"]})
            if len(run) == _DROPPED:
                yield self._delete(run)
                run = []
        yield self._delete(run)
        self._cache = _Cache(self._settings.cache_bytes)

    def _delete(self, items: Sequence[Mapping[str, Any]]) -> int:
        for _ in (self._pool.map if self._pool else map)(self._table.delete, items):
            pass
        return len(items)

    def partitions(self, view: ViewSpec, column: str, value: str) -> set[str]:
        """The `pk` of all rows, the expired too, whose key column has this value, as text."""
        return set(self._having(view, column, value))

    def _having(self, view: ViewSpec, column: str, value: str) -> dict[str, set[str]]:
        """Such rows, each with those of its parts that were met."""
        if column not in view.by:
            return {}
        head, at = viewitems.partition(view.name, ""), view.by.index(column)
        found: dict[str, set[str]] = {}
        for item in self._table.scan(head, viewitems.parts_head(view.name)):
            pk = item["pk"]["S"]
            row = viewitems.row_key(pk)
            if viewitems.key_parts(row.removeprefix(head))[at] == value:
                found.setdefault(row, set()).update({pk} - {row})
        return found

    def _rows(self, view: ViewSpec, items: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, object]]:
        return (row for _, row in self._read(view, items) if row is not None)

    def _read(
        self, view: ViewSpec, items: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[Mapping[str, Any], dict[str, object] | None]]:
        """Each item with its row; None for one that is not a row's, has ended, or has no slots yet."""
        run: list[tuple[Mapping[str, Any], Item | None]] = []
        parts: list[tuple[str, str]] = []
        now = self._table.clock.now_ms()
        for found in items:
            item = Item.read(found) if "slots" in found and not viewitems.is_expired(found, now) else None
            more = _parts(found["pk"]["S"], found["sk"]["S"], item.spread) if item else []
            if len(parts) + len(more) > _BATCH:
                yield from self._merged(view, run, parts)
                run, parts = [], []
            run.append((found, item))
            parts += more
            if not parts:
                yield from self._merged(view, run, parts)
                run = []
        yield from self._merged(view, run, parts)

    def _merged(
        self,
        view: ViewSpec,
        run: Sequence[tuple[Mapping[str, Any], Item | None]],
        parts: Sequence[tuple[str, str]],
    ) -> Iterator[tuple[Mapping[str, Any], dict[str, object] | None]]:
        stored = {(one["pk"]["S"], one["sk"]["S"]): one for one in self._table.get_many(parts)}
        now = self._table.clock.now_ms()
        for found, item in run:
            if item is None:
                yield found, None
                continue
            at = found["pk"]["S"], found["sk"]["S"]
            slots: list[Slot] = []
            for place, one in [(at, found), *((place, stored.get(place)) for place in _parts(*at, item.spread))]:
                if one is not None and viewitems.is_expired(one, now):
                    slots = []
                    break
                if one is not None:
                    held = Item.read(one)
                    slots += held.slots.values()
                    slots += self._overflow(*place, held.more) if held.more else []
            yield found, viewitems.row(view, found, [slot.partial for slot in slots]) if slots else None

    def _write_row(self, view: ViewSpec, at: tuple[str, str], wanted: Mapping[str, Upsert]) -> WriteReport:
        one = next(iter(wanted.values()))
        expires = view.expires(one.window_end_ms)
        if expires is not None and expires * 1000 <= self._table.clock.now_ms():
            return WriteReport(expired=1)
        report = WriteReport()
        for _ in range(self._settings.races):
            try:
                known = self._cache.get(at)
                if known is None and view.spread > 1:
                    known, begun = self._begin(view, at, one)
                    report += begun
                if known is None or not known.spread:
                    return report + self._write_item(view, at, wanted)
                parts: dict[tuple[str, str], dict[str, Upsert]] = {}
                for name, upsert in wanted.items():
                    pk = viewitems.part_key(at[0], viewitems.part_of(name, known.spread))
                    parts.setdefault((pk, at[1]), {})[name] = upsert
                still = partial(self._still, view, at, known.spread, one)
                for part, some in parts.items():
                    report += self._write_item(view, part, some, still)
                return report
            except _Otherwise:
                report += WriteReport(conflicts=1)
            except TooLarge as error:
                row = {"view": view.name, "key": at[0][:200], "window": at[1], "reason": str(error)}
                log.warning("a row of a view is too large and stays as it was", extra=row)
                return report + WriteReport(refused=1)
        raise _changing(view, at)

    def _begin(self, view: ViewSpec, at: tuple[str, str], upsert: Upsert) -> tuple[Item, WriteReport]:
        """The row as it is stored, begun as one that is spread if it is not there; and what that took."""
        found, throttled = self._table.get(*at), 0
        if found is None:
            found = viewitems.begun(view, upsert)
            try:
                throttled = self._table.put(found, {"ConditionExpression": "attribute_not_exists(pk)"})
            except Refused as refused:
                found = refused.found or self._table.get(*at)
        if found is None:
            self._cache.drop(at)
            raise _Otherwise
        item = Item.read(found)
        self._cache.put(at, item)
        return item, WriteReport(throttled=throttled)

    def _still(self, view: ViewSpec, row: tuple[str, str], spread: int, upsert: Upsert) -> WriteReport:
        known, report = self._begin(view, row, upsert)
        if known.spread != spread:
            raise _Otherwise
        return report

    def _write_item(
        self,
        view: ViewSpec,
        at: tuple[str, str],
        wanted: Mapping[str, Upsert],
        met: Callable[[], WriteReport] | None = None,
    ) -> WriteReport:
        """A row, or a part of one, with what is to be done after it was met for the first time since it has begun."""
        report = WriteReport()
        cached = item = self._cache.get(at)
        for race in range(self._settings.races):
            known = item or Item()
            newer = {name: one for name, one in wanted.items() if one.version > known.version(name)}
            planned, outside = self._placed(known, newer) if newer else (known, [])
            try:
                if newer:
                    report += self._put_item(view, at, known, planned, newer, outside, met is not None)
            except Refused as refused:
                report += WriteReport(conflicts=1)
                found = refused.found or self._table.get(*at)
                item = Item.read(found) if found else None
                if item is not None and item.spread:
                    self._cache.put(at, item)
                    raise _Otherwise from None
                if race > 2:
                    self._table.clock.sleep(self._table.chance() * 0.02 * min(race, 25))
                continue
            if met is not None and (cached is None or cached.birth != planned.birth):
                self._cache.drop(at)
                report += met()
            self._cache.put(at, planned)
            # with nothing newer, a first write whose answer was lost is found as well: it is in, whoever wrote it
            return report + (WriteReport(written=1, overflowed=len(outside)) if newer else WriteReport(skipped=1))
        raise _changing(view, at)

    def _placed(self, known: Item, newer: Mapping[str, Upsert]) -> tuple[Item, Sequence[str]]:
        """The item with the new slots in it, and those that go into items of their own."""
        slots = dict(known.slots) | {n: Slot(u.version, u.partial) for n, u in newer.items() if n not in known.more}
        more = dict(known.more) | {n: u.version for n, u in newer.items() if n in known.more}
        planned = Item(known.rev + 1 if known.rev else viewitems.first_rev(self._table.chance()), slots, more)
        for name in sorted((n for n in newer if n in slots), key=lambda n: (-len(slots[n].partial), n)):
            if planned.size <= self._settings.max_item_bytes:
                break
            more[name] = slots.pop(name).version
        return planned, [name for name in newer if name in more]

    def _put_item(
        self,
        view: ViewSpec,
        at: tuple[str, str],
        known: Item,
        item: Item,
        newer: Mapping[str, Upsert],
        outside: Sequence[str],
        part: bool,
    ) -> WriteReport:
        throttled = sum(self._put_slot(view, newer[name], at[0]) for name in outside)
        one = next(iter(newer.values()))
        # read after the revision is known and after our own slots are written: see the module's docstring
        overflow = [slot.partial for slot in self._overflow(*at, item.more)] if item.more and not part else []
        stored = viewitems.stored_part(view, one, item, at[0]) if part else viewitems.stored(view, one, item, overflow)
        if not known.rev:
            condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        else:
            condition = {
                "ConditionExpression": "rev = :r",
                "ExpressionAttributeValues": {":r": {"N": str(known.rev)}},
            }
        return WriteReport(throttled=throttled + self._table.put(stored, condition))

    def _put_slot(self, view: ViewSpec, upsert: Upsert, pk: str) -> int:
        condition = {
            "ConditionExpression": "attribute_not_exists(pk) OR v < :v",
            "ExpressionAttributeValues": {":v": {"S": upsert.version}},
        }
        try:
            return self._table.put(viewitems.stored_slot(view, upsert, pk), condition)
        except Refused:
            return 0  # the same or a newer one is there: the row may still lack it

    def _overflow(self, pk: str, sk: str, more: Mapping[str, str]) -> Sequence[Slot]:
        """The slots in items of their own that the row names. One that it does not name is in the row itself, and was
        put there by a writer that did not know it."""
        head = f"{sk}#"
        return [
            Slot(item["v"]["S"], bytes(item["p"]["B"]))
            for item in self._table.query(pk, head)
            if item["sk"]["S"].removeprefix(head) in more
        ]


def _between(start_ms: int | None, stop_ms: int | None) -> tuple[str, str]:
    """The range keys of windows that begin in `[start, stop)`, and of their slots."""
    low = viewitems.sort_key(0 if start_ms is None else start_ms)
    return low, "~" if stop_ms is None else viewitems.sort_key(stop_ms - 1) + "~"


def _parts(pk: str, sk: str, spread: int) -> list[tuple[str, str]]:
    """Where the parts of a row are."""
    return [(viewitems.part_key(pk, part), sk) for part in range(1, spread + 1)]


def _changing(view: ViewSpec, at: tuple[str, str]) -> Retryable:
    return Retryable(f"view {view.name!r}, key {at[0]!r}, window {at[1]}: others keep changing the row; try again")


class _Cache:
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

    def drop(self, at: tuple[str, str]) -> None:
        with self._lock:
            if at in self._items:
                self._bytes -= _cost(self._items.pop(at))


def _cost(item: Item) -> int:
    return item.size + 500
