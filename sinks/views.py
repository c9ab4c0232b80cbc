"""Views in DynamoDB: a row an item, merged over slots, so that a plain reader finds final values in it.

Table: hash key `pk` = view#key, range key `sk` = start of the window (`-` without windows), both strings. Every write
replaces the item on condition that its revision is the one known, and a slot changes only for a newer version: writing
twice, late, or from two processes at once converges. A row whose slots outgrow an item keeps further slots in items of
their own, `sk`#slot, written first; whoever writes the row last has read all of them.

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
            for item in answer["Items"]:
                rows = list(self._rows(view, [item]))
                if rows and len(found) == limit:
                    return found, [place["pk"]["S"], place["sk"]["S"]] if place else None
                found += rows
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
        return self._rows(view, self._table.scan(viewitems.partition(view.name, prefix), between))

    def remove(self, view: ViewSpec, column: str, value: str) -> int:
        """Delete every row whose key column has this value, as text, with its slots; how many rows there were."""
        removed = 0
        for pk in self.partitions(view, column, value):
            for item in list(self._table.query(pk)):
                self._table.delete(item)
                removed += "slots" in item
        self._cache = _Cache(self._settings.cache_bytes)
        return removed

    def drop(self, name: str) -> Iterator[int]:
        """Delete every item of a view, whatever its definition; tells how many, some at a time. Stopped, call again."""
        run: list[Mapping[str, Any]] = []
        for item in self._table.scan(viewitems.partition(name, "")):
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
        """The partition keys of all items, the expired too, whose key column has this value, as text."""
        if column not in view.by:
            return set()
        head, at = viewitems.partition(view.name, ""), view.by.index(column)
        found = {item["pk"]["S"] for item in self._table.scan(head)}
        return {pk for pk in found if viewitems.key_parts(pk.removeprefix(head))[at] == value}

    def _rows(self, view: ViewSpec, items: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, object]]:
        now = self._table.clock.now_ms()
        for found in items:
            if "slots" in found and not viewitems.is_expired(found, now):
                more = Item.read(found).more
                overflow = self._overflow(found["pk"]["S"], found["sk"]["S"], more) if more else []
                yield viewitems.row(view, found, [slot.partial for slot in overflow])

    def _write_row(self, view: ViewSpec, at: tuple[str, str], wanted: Mapping[str, Upsert]) -> WriteReport:
        report = WriteReport()
        expires = view.expires(next(iter(wanted.values())).window_end_ms)
        if expires is not None and expires * 1000 <= self._table.clock.now_ms():
            return WriteReport(expired=1)
        item = self._cache.get(at)
        for race in range(self._settings.races):
            known = item or Item()
            newer = {name: one for name, one in wanted.items() if one.version > known.version(name)}
            if not newer:
                self._cache.put(at, known)
                # a first write whose answer was lost is found here as well: it is in, whoever wrote it
                return report + WriteReport(skipped=1)
            planned, outside = self._placed(known, newer)
            try:
                report += self._put_row(view, at, planned, newer, outside)
            except Refused as refused:
                report += WriteReport(conflicts=1)
                found = refused.found or self._table.get(*at)
                item = Item.read(found) if found else None
                if race > 2:
                    self._table.clock.sleep(self._table.chance() * 0.02 * min(race, 25))
                continue
            except TooLarge as error:
                row = {"view": view.name, "key": at[0][:200], "window": at[1], "reason": str(error)}
                log.warning("a row of a view is too large and stays as it was", extra=row)
                return report + WriteReport(refused=1)
            self._cache.put(at, planned)
            return report + WriteReport(written=1, overflowed=len(outside))
        raise Retryable(f"view {view.name!r}, key {at[0]!r}, window {at[1]}: others keep changing the row; try again")

    def _placed(self, known: Item, newer: Mapping[str, Upsert]) -> tuple[Item, Sequence[str]]:
        """The item with the new slots in it, and those that go into items of their own."""
        slots = dict(known.slots) | {n: Slot(u.version, u.partial) for n, u in newer.items() if n not in known.more}
        more = dict(known.more) | {n: u.version for n, u in newer.items() if n in known.more}
        planned = Item(known.rev + 1, slots, more)
        for name in sorted((n for n in newer if n in slots), key=lambda n: (-len(slots[n].partial), n)):
            if planned.size <= self._settings.max_item_bytes:
                break
            more[name] = slots.pop(name).version
        return planned, [name for name in newer if name in more]

    def _put_row(
        self, view: ViewSpec, at: tuple[str, str], item: Item, newer: Mapping[str, Upsert], outside: Sequence[str]
    ) -> WriteReport:
        throttled = sum(self._put_slot(view, newer[name]) for name in outside)
        # read after the revision is known and after our own slots are written: see the module's docstring
        overflow = [slot.partial for slot in self._overflow(*at, item.more)] if item.more else []
        stored = viewitems.stored(view, next(iter(newer.values())), item, overflow)
        if item.rev == 1:
            condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        else:
            condition = {
                "ConditionExpression": "rev = :r",
                "ExpressionAttributeValues": {":r": {"N": str(item.rev - 1)}},
            }
        return WriteReport(throttled=throttled + self._table.put(stored, condition))

    def _put_slot(self, view: ViewSpec, upsert: Upsert) -> int:
        condition = {
            "ConditionExpression": "attribute_not_exists(pk) OR v < :v",
            "ExpressionAttributeValues": {":v": {"S": upsert.version}},
        }
        try:
            return self._table.put(viewitems.stored_slot(view, upsert), condition)
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


def _cost(item: Item) -> int:
    return item.size + 500
