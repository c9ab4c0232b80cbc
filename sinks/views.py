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

Which keys a view has is listed: see `sinks/viewkeys.py`.

Where a view says how long its rows are kept, an item has `expires`, in epoch seconds. From then on readers pass it
over and writers leave it alone, whether DynamoDB has deleted it or not. Should a writer whose clock is behind put a
deleted row back, with its last events only, then with the same `expires`: no reader sees that.
"""

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from headwater.clock import Clock
from headwater.errors import Retryable
from sinks import viewitems
from sinks.viewcache import RowCache
from sinks.viewitems import Item, Slot, Upsert, ViewSpec
from sinks.viewrows import ViewRows, ViewSettings
from sinks.viewtable import Refused, TooLarge, batches

__all__ = ["Upsert", "ViewSettings", "ViewSpec", "ViewStore", "WriteReport"]

log = logging.getLogger("headwater.views")

Place = tuple[str, str]

_TOGETHER = 50
"""Rows at most that a thread writes one after the other."""
_DROPPED = 500
"""Items deleted before it is told how many."""


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


class ViewStore(ViewRows):
    """The rows of all views in one table, to write and to read. `pool`, where given, writes several at a time."""

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
        super().__init__(client, table, settings, pool=pool, clock=clock, chance=chance)
        self._cache = RowCache(self._settings.cache_bytes)

    def write(self, view: ViewSpec, upserts: Sequence[Upsert]) -> WriteReport:
        """Bring the slots up to these versions; those held in the same or a newer one stay.

        On Throttled, Retryable or any other error some rows may be written: write the same again.
        """
        rows: dict[Place, dict[str, Upsert]] = {}
        for upsert in upserts:
            at = (
                viewitems.partition(view.name, viewitems.key_text(upsert.key)),
                viewitems.sort_key(upsert.window_start_ms),
            )
            slots = rows.setdefault(at, {})
            if upsert.slot not in slots or slots[upsert.slot].version < upsert.version:
                slots[upsert.slot] = upsert

        births: dict[Place, int] = {}

        def write_rows(entries: Sequence[tuple[Place, dict[str, Upsert]]]) -> WriteReport:
            report = WriteReport()
            for at, slots in entries:
                one, birth = self._write_row(view, at, slots)
                if birth is not None:
                    births[at] = birth
                report += one
            return report

        # a few at a time: handing a row to a thread costs about as much as writing it
        runs = list(batches(list(rows.items()), min(_TOGETHER, 1 + len(rows) // 64)))
        report = sum(self._each(write_rows, runs), WriteReport())
        return report + self._list(view, rows, births)

    def _list(
        self, view: ViewSpec, rows: Mapping[Place, Mapping[str, Upsert]], births: Mapping[Place, int]
    ) -> WriteReport:
        """Make sure of the keys of rows that are there and not known to be listed. What the cache has may be of a row
        that another thread knew, before it was removed."""
        keys: dict[str, int | None] = {}
        for at, birth in births.items():
            item = self._cache.get(at)
            if item is None or not item.is_listed or item.birth != birth:
                one = next(iter(rows[at].values()))
                key = viewitems.key_text(one.key)
                keys[key] = viewitems.later(keys.get(key, 0), view.expires(one.window_end_ms))
        if not keys:
            return WriteReport()
        report = WriteReport(throttled=self._keys.add(view.name, keys))
        for at, birth in births.items():
            self._cache.listed(at, birth)
        return report

    def remove(self, view: ViewSpec, column: str, value: str) -> int:
        """Delete every row whose key column has this value, as text, with its slots; how many rows there were.

        Stopped, it is to be called again. Retryable when the key is written all the while.
        """
        removed = 0
        for pk, parts in self._having(view, column, value).items():
            removed += self._clear(pk, parts)
            self._unlist(view, pk)
        self._cache.clear()
        return removed

    def _clear(self, pk: str, parts: set[str]) -> int:
        """Delete what lies under a key, rows before their parts and slots, until a look finds nothing: of a row that
        began meanwhile, slots may have been deleted with those of the old one."""
        removed = 0
        for _ in range(self._settings.races):
            rows = list(self._table.query(pk))
            for item in rows:
                spread = Item.read(item).spread if "slots" in item else 0
                parts |= {viewitems.part_key(pk, part + 1) for part in range(spread)}
                self._table.delete(item)
            removed += sum("slots" in item for item in rows)
            more = [item for part in parts for item in self._table.query(part)]
            for item in more:
                self._table.delete(item)
            if not rows and not more:
                return removed
        raise Retryable(f"key {pk!r} is written while it is removed; stop what produces it, or try again")

    def _unlist(self, view: ViewSpec, pk: str) -> None:
        """Take a key from the view's keys, unless it has a row again, whose writer may have met the key before."""
        key = pk.removeprefix(viewitems.partition(view.name, ""))
        self._keys.remove(view.name, key)
        for item in self._table.query(pk):
            self._keys.add(view.name, {key: viewitems.expires(item)})

    def drop(self, name: str) -> Iterator[int]:
        """Delete every item of a view, whatever its definition; tells how many, some at a time. Stopped, call again."""
        run: list[Mapping[str, Any]] = []
        for item in self._table.scan(viewitems.partition(name, ""), viewitems.parts_head(name)):
            run.append({"pk": item["pk"], "sk": item["sk"]})
            if len(run) == _DROPPED:
                yield self._delete(run)
                run = []
        yield self._delete(run)
        self._cache.clear()

    def _delete(self, items: Sequence[Mapping[str, Any]]) -> int:
        return sum(1 for _ in self._each(self._table.delete, items))

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
            row = viewitems.row_key(item)
            if viewitems.key_parts(row.removeprefix(head))[at] == value:
                found.setdefault(row, set())
                if viewitems.is_part(item):
                    found[row].add(item["pk"]["S"])
        return found

    def _write_row(self, view: ViewSpec, at: Place, wanted: Mapping[str, Upsert]) -> tuple[WriteReport, int | None]:
        """With the birth of the row that was written, or found to have what is wanted."""
        one = next(iter(wanted.values()))
        expires = view.expires(one.window_end_ms)
        if expires is not None and expires * 1000 <= self._table.clock.now_ms():
            return WriteReport(expired=1), None
        report = WriteReport()
        for _ in range(self._settings.races):
            try:
                known = self._cache.get(at)
                if known is None:
                    _check_key(at[0].removeprefix(viewitems.partition(view.name, "")))
                if known is None and view.spread > 1:
                    known, begun = self._begin(view, at, one)
                    report += begun
                if known is None or not known.spread:
                    done, birth = self._write_item(view, at, wanted)
                    return report + done, birth
                parts: dict[Place, dict[str, Upsert]] = {}
                for name, upsert in wanted.items():
                    pk = viewitems.part_key(at[0], viewitems.part_of(name, known.spread))
                    parts.setdefault((pk, at[1]), {})[name] = upsert
                heads = [known]
                still = partial(self._still, view, at, heads, one)
                for part, some in parts.items():
                    report += self._write_item(view, part, some, still)[0]
                return report, heads[-1].birth
            except _Otherwise:
                report += WriteReport(conflicts=1)
            except TooLarge as error:
                row = {"view": view.name, "key": at[0][:200], "window": at[1], "reason": str(error)}
                log.warning("a row of a view is too large and stays as it was", extra=row)
                return report + WriteReport(refused=1), None
        raise _changing(view, at)

    def _begin(self, view: ViewSpec, at: Place, upsert: Upsert) -> tuple[Item, WriteReport]:
        """The row as it is stored, begun as one that is spread if it is not there; and what that took."""
        found, throttled = self._table.get(*at), 0
        if found is None:
            found = viewitems.begun(view, upsert, self._table.chance())
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

    def _still(self, view: ViewSpec, row: Place, heads: list[Item], upsert: Upsert) -> WriteReport:
        """Look for the row again; it goes to those seen, unless it is spread otherwise."""
        known, report = self._begin(view, row, upsert)
        if known.spread != heads[-1].spread:
            raise _Otherwise
        heads.append(known)
        return report

    def _write_item(
        self,
        view: ViewSpec,
        at: Place,
        wanted: Mapping[str, Upsert],
        met: Callable[[], WriteReport] | None = None,
    ) -> tuple[WriteReport, int]:
        """A row, or a part of one, with what is to be done after it was met for the first time since it has begun; and
        its birth."""
        report = WriteReport()
        cached = item = self._cache.get(at)
        for race in range(self._settings.races):
            if item is not None and item.spread:  # another thread has met it
                raise _Otherwise
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
                if race > 2:
                    self._table.clock.sleep(self._table.chance() * 0.02 * min(race, 25))
                continue
            seen = cached if cached and known.rev and cached.birth == planned.birth else None
            if seen is None:
                self._cache.drop(at)
                report += self._mend(view, at, planned, wanted)
                report += met() if met else WriteReport()
            self._cache.put(at, replace(planned, is_listed=seen is not None and seen.is_listed))
            # with nothing newer, a first write whose answer was lost is found as well: it is in, whoever wrote it
            done = WriteReport(written=1, overflowed=len(outside)) if newer else WriteReport(skipped=1)
            return report + done, planned.birth
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
        at: Place,
        known: Item,
        item: Item,
        newer: Mapping[str, Upsert],
        outside: Sequence[str],
        part: bool,
    ) -> WriteReport:
        throttled = sum(self._put_slot(view, newer[name], at[0]) for name in outside)
        one = next(iter(newer.values()))
        # read after the revision is known and after our own slots are written: see the module's docstring
        overflow = self._overflow(*at, item.more) if outside or (item.more and not part) else {}
        if not overflow.keys() >= set(outside):
            raise Refused(None)  # taken away meanwhile, with the row
        partials = [slot.partial for slot in overflow.values()]
        stored = viewitems.stored_part(view, one, item, at[0]) if part else viewitems.stored(view, one, item, partials)
        if not known.rev:
            condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        else:
            condition = {
                "ConditionExpression": "rev = :r",
                "ExpressionAttributeValues": {":r": {"N": str(known.rev)}},
            }
        return WriteReport(throttled=throttled + self._table.put(stored, condition))

    def _mend(self, view: ViewSpec, at: Place, item: Item, wanted: Mapping[str, Upsert]) -> WriteReport:
        """Put slots anew that the row says lie beside it: whoever removed a row of before may have taken them along."""
        own = [name for name in wanted if name in item.more]
        there = self._overflow(*at, item.more) if own else {}
        return WriteReport(throttled=sum(self._put_slot(view, wanted[n], at[0]) for n in own if n not in there))

    def _put_slot(self, view: ViewSpec, upsert: Upsert, pk: str) -> int:
        condition = {
            "ConditionExpression": "attribute_not_exists(pk) OR v < :v",
            "ExpressionAttributeValues": {":v": {"S": upsert.version}},
        }
        try:
            return self._table.put(viewitems.stored_slot(view, upsert, pk), condition)
        except Refused:
            return 0  # the same or a newer one is there: the row may still lack it


def _check_key(key: str) -> None:
    if len(key.encode()) > viewitems.LONGEST_KEY:
        raise TooLarge(f"a key is at most {viewitems.LONGEST_KEY:,} bytes long, this has {len(key.encode()):,}")


def _changing(view: ViewSpec, at: Place) -> Retryable:
    return Retryable(f"view {view.name!r}, key {at[0]!r}, window {at[1]}: others keep changing the row; try again")
