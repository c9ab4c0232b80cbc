"""Write views to DynamoDB: a row an item, merged over slots, so that a plain reader finds final values in it.

Table: hash key `pk` = view#key, range key `sk` = start of the window (`-` without windows), both strings. Every write
replaces the item on condition that its revision is the one known, and a slot changes only for a newer version, as
`sinks/views/slots.py` orders them: writing twice, late, or from two processes at once converges. A row whose slots
outgrow an item keeps further slots in items of their own, `sk`#slot, written first; whoever writes the row last has
read all of them.

A row of a view with `spread` is an item that says over how many partitions it is spread, and one in each of them with
the slots that belong there, which readers merge. The spread of a row is fixed when the row begins and read from it:
views may change their `spread`, and rows stay as they are. A writer looks for the row after its first write into a
part, and again when the part turns out to have begun anew; if the row is not there, or is another, it begins it or
writes again where that one says. So no slot stays where no reader looks, whoever removes the row meanwhile.

The keys of a view are listed: see `sinks/views/keys.py`.

Where a view says how long its rows are kept, an item has `expires`, in epoch seconds. From then on readers pass it
over and writers leave it alone, whether DynamoDB has deleted it or not. Should a writer whose clock is behind put a
deleted row back, with its last events only, then with the same `expires`: no reader sees that.
"""

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any

from headwater.clock import Clock
from headwater.contract.keyvalues import KeyValue
from headwater.errors import Retryable
from headwater.sinks.views import items as viewitems
from headwater.sinks.views.cache import RowCache
from headwater.sinks.views.items import Item, ViewSpec
from headwater.sinks.views.rows import Place, ViewRows, ViewSettings
from headwater.sinks.views.slots import Upsert, slot_condition
from headwater.sinks.views.statements import MAX_STATEMENTS
from headwater.sinks.views.table import ConditionFailed, ItemTooLarge, chunks
from headwater.sinks.views.writing import Known, Turns, WriteReport, behind, place_slots, write_together

__all__ = ["ViewStore"]

log = logging.getLogger("headwater.views")

_TOGETHER = 50
"""Most rows that a thread writes one after the other."""
_DROPPED = 500
"""Items deleted before `drop` reports how many."""


class _SpreadChanged(Exception):
    """Say that the row is not spread as the cache had it, which has been corrected."""


class ViewStore(ViewRows):
    """Write and read the rows of all views in one table.

    Thread-safe, and any number of processes may write at once. `pool`, where given, writes several rows at a time.

    >>> store = ViewStore(dynamodb, "views")
    >>> store.write(view, [Upsert(("d3",), 60_000, 120_000, "shard-0/0", "7", partial)]).written
    1
    >>> [row["n"] for row in store.windows(view, ("d3",))]
    [1]
    >>> store.write(view, [Upsert(("d3",), 60_000, 120_000, "shard-0/0", "7", partial)]).skipped
    1
    >>> from headwater.contract import Field
    >>> store.remove(view, KeyValue(Field("device", "string"), "d3"))
    1
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
        super().__init__(client, table, settings, pool=pool, clock=clock, chance=chance)
        self._cache = RowCache(self._settings.cache_bytes)
        self._turns = Turns(self._write)

    def write(self, view: ViewSpec, upserts: Sequence[Upsert]) -> WriteReport:
        """Bring the slots up to these versions; those held in the same or a newer version stay.


        On Throttled, Retryable or any other error some rows may be written: write the same again.
        """
        if len(upserts) < self._settings.few_slots:
            return self._write(view, upserts)
        return self._turns.write(view, upserts)

    def _write(self, view: ViewSpec, upserts: Sequence[Upsert]) -> WriteReport:
        rows: dict[Place, dict[str, Upsert]] = {}
        for upsert in upserts:
            at = (
                viewitems.partition(view.name, viewitems.key_text(upsert.key)),
                viewitems.sort_key(upsert.window_start_ms),
            )
            slots = rows.setdefault(at, {})
            if upsert.slot not in slots or slots[upsert.slot].version < upsert.version:
                slots[upsert.slot] = upsert
        births, report = Known(), WriteReport()
        left = rows
        if len(rows) >= self._settings.few_slots and view.spread == 1:
            report += self._write_together(view, rows, births)
            left = {at: slots for at, slots in rows.items() if at not in births}

        def write_rows(entries: Sequence[tuple[Place, dict[str, Upsert]]]) -> WriteReport:
            report = WriteReport()
            for at, slots in entries:
                one, birth = self._write_row(view, at, slots)
                if birth is not None:
                    births[at] = birth
                report += one
            return report

        # a few at a time: handing a row to a thread costs about as much as writing it
        runs = list(chunks(list(left.items()), min(_TOGETHER, 1 + len(left) // 64)))
        report += sum(self._each(write_rows, runs), WriteReport())
        return report + self._list(view, rows, births)

    def _write_together(self, view: ViewSpec, rows: Mapping[Place, Mapping[str, Upsert]], births: Known) -> WriteReport:
        """Write what can be written with many rows a request, and note the births of those that were."""
        now = self._table.clock.now_ms()
        lasting = [(at, slots) for at, slots in rows.items() if not _has_expired(view, slots, now)]

        def write_some(some: Sequence[tuple[Place, Mapping[str, Upsert]]]) -> tuple[WriteReport, Known]:
            return write_together(view, dict(some), self._table, self._cache, self._settings.max_item_bytes)

        report = WriteReport()
        for one, born in self._each(write_some, list(chunks(lasting, MAX_STATEMENTS))):
            report += one
            births.update(born)
        return report

    def _list(
        self, view: ViewSpec, rows: Mapping[Place, Mapping[str, Upsert]], births: Mapping[Place, int]
    ) -> WriteReport:
        """List the keys of rows that were met and are not known to be listed.

        What the cache has may be of a row that another thread knew, before the row was removed.
        """
        keys: dict[str, int | None] = {}
        for at, birth in births.items():
            item = self._cache.get(at)
            if item is None or not item.key_is_listed or item.birth != birth:
                one = next(iter(rows[at].values()))
                key = viewitems.key_text(one.key)
                keys[key] = viewitems.latest_expiry(keys.get(key, 0), view.expires(one.window_end_ms))
        if not keys:
            return WriteReport()
        report = WriteReport(throttled=self._keys.add(view.name, keys))
        for at, birth in births.items():
            self._cache.mark_listed(at, birth)
        return report

    def remove(self, view: ViewSpec, key: KeyValue) -> int:
        """Delete every row whose key column has this value, with its slots; return how many rows there were.

        After a crash, call it again. Raise Retryable when the key is written all the while.
        """
        removed = 0
        for pk, parts in self._find_by_column(view, key).items():
            removed += self._clear(pk, parts)
            self._unlist(view, pk)
        self._cache.clear()
        return removed

    def _clear(self, pk: str, parts: set[str]) -> int:
        """Delete what lies under a key, rows before their parts and slots, until a look finds nothing.

        One pass is not enough: of a row that began meanwhile, slots may have been deleted with those of the old one.
        """
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
        """Remove a key from the view's keys, unless it has a row again, whose writer may have found the key still
        listed.
        """
        key = pk.removeprefix(viewitems.partition(view.name, ""))
        self._keys.remove(view.name, key)
        for item in self._table.query(pk):
            self._keys.add(view.name, {key: viewitems.expires(item)})

    def drop(self, name: str) -> Iterator[int]:
        """Delete every item of a view, whatever its definition; yield how many went, some at a time. After a crash,
        call again.
        """
        run: list[Mapping[str, Any]] = []
        for item in self._table.scan(viewitems.partition(name, ""), viewitems.parts_head(name)):
            run.append({"pk": item["pk"], "sk": item["sk"]})
            if len(run) == _DROPPED:
                yield self._delete(run)
                run = []
        yield self._delete(run)
        self._cache.clear()

    def _delete(self, items: Sequence[Mapping[str, Any]]) -> int:
        """Delete the items and return how many they were."""
        return sum(1 for _ in self._each(self._table.delete, items))

    def partitions(self, view: ViewSpec, key: KeyValue) -> set[str]:
        """Return the `pk` of all rows, the expired too, whose key column has this value."""
        return set(self._find_by_column(view, key))

    def _find_by_column(self, view: ViewSpec, key: KeyValue) -> dict[str, set[str]]:
        """Return such rows, each with those of its parts that were found."""
        if key.column not in view.by:
            return {}
        head, at = viewitems.partition(view.name, ""), view.by.index(key.column)
        found: dict[str, set[str]] = {}
        for item in self._table.scan(head, viewitems.parts_head(view.name)):
            row = viewitems.row_key(item)
            if key.matches(viewitems.key_parts(row.removeprefix(head))[at]):
                found.setdefault(row, set())
                if viewitems.is_part(item):
                    found[row].add(item["pk"]["S"])
        return found

    def _write_row(self, view: ViewSpec, at: Place, wanted: Mapping[str, Upsert]) -> tuple[WriteReport, int | None]:
        """Write one row; return also the birth of the row that was written, or found to have what is wanted."""
        one = next(iter(wanted.values()))
        if _has_expired(view, wanted, self._table.clock.now_ms()):
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
                seen = [known]
                still = partial(self._recheck_spread, view, at, seen, one)
                for part, some in parts.items():
                    report += self._write_item(view, part, some, still)[0]
                return report, seen[-1].birth
            except _SpreadChanged:
                report += WriteReport(conflicts=1)
            except ItemTooLarge as error:
                row = {"view": view.name, "key": at[0][:200], "window": at[1], "reason": str(error)}
                log.warning("a row of a view is too large and stays as it was", extra=row)
                return report + WriteReport(refused=1), None
        raise _keeps_changing(view, at)

    def _begin(self, view: ViewSpec, at: Place, upsert: Upsert) -> tuple[Item, WriteReport]:
        """Return the row as it is stored, begun as one that is spread if it is not there; and what that took."""
        found, throttled = self._table.get(*at), 0
        if found is None:
            found = viewitems.spread_row_item(view, upsert, self._table.chance())
            try:
                throttled = self._table.put(found, {"ConditionExpression": "attribute_not_exists(pk)"})
            except ConditionFailed as refused:
                found = refused.found or self._table.get(*at)
        if found is None:
            self._cache.drop(at)
            raise _SpreadChanged
        item = Item.read(found)
        self._cache.put(at, item)
        return item, WriteReport(throttled=throttled)

    def _recheck_spread(self, view: ViewSpec, row: Place, seen: list[Item], upsert: Upsert) -> WriteReport:
        """Look for the row again and add it to those seen; raise _SpreadChanged if it is spread otherwise."""
        known, report = self._begin(view, row, upsert)
        if known.spread != seen[-1].spread:
            raise _SpreadChanged
        seen.append(known)
        return report

    def _write_item(
        self,
        view: ViewSpec,
        at: Place,
        wanted: Mapping[str, Upsert],
        first_met: Callable[[], WriteReport] | None = None,
    ) -> tuple[WriteReport, int]:
        """Write a row, or a part of one, and return its birth; `first_met` runs after the first write to it since it
        began.
        """
        report = WriteReport()
        cached = item = self._cache.get(at)
        for race in range(self._settings.races):
            if item is not None and item.spread:  # another thread has met it
                raise _SpreadChanged
            known = item or Item()
            newer = {name: one for name, one in wanted.items() if one.supersedes(known.version(name))}
            planned: Item = known
            outside: Sequence[str] = ()
            if newer:
                planned, outside = place_slots(known, newer, self._settings.max_item_bytes, self._table.chance())
            try:
                if newer:
                    report += self._put_item(view, at, known, planned, newer, outside, first_met is not None)
            except ConditionFailed as refused:
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
                report += self._restore_slots(view, at, planned, wanted)
                report += first_met() if first_met else WriteReport()
            self._cache.put(at, replace(planned, key_is_listed=seen is not None and seen.key_is_listed))
            # with nothing newer, a first write whose answer was lost is found as well: it is in, whoever wrote it
            done = WriteReport(written=1, overflowed=len(outside)) if newer else WriteReport(skipped=1)
            return report + replace(done, behind=behind(known, wanted)), planned.birth
        raise _keeps_changing(view, at)

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
        """Put the item, and first the slots that lie beside it, if the stored revision is the known one."""
        throttled = sum(self._put_slot(view, newer[name], at[0]) for name in outside)
        one = next(iter(newer.values()))
        # read after the revision is known and after our own slots are written: see the module's docstring
        overflow = self._overflow(*at, item.more) if outside or (item.more and not part) else {}
        if not overflow.keys() >= set(outside):
            raise ConditionFailed(None)  # taken away meanwhile, with the row
        partials = [slot.partial for slot in overflow.values()]
        stored = viewitems.part_item(view, one, item, at[0]) if part else viewitems.row_item(view, one, item, partials)
        if not known.rev:
            condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        else:
            condition = {
                "ConditionExpression": "rev = :r",
                "ExpressionAttributeValues": {":r": {"N": str(known.rev)}},
            }
        return WriteReport(throttled=throttled + self._table.put(stored, condition))

    def _restore_slots(self, view: ViewSpec, at: Place, item: Item, wanted: Mapping[str, Upsert]) -> WriteReport:
        """Put slots again that the row says lie beside it: whoever removed an earlier row may have taken them along."""
        own = [name for name in wanted if name in item.more]
        there = self._overflow(*at, item.more) if own else {}
        return WriteReport(throttled=sum(self._put_slot(view, wanted[n], at[0]) for n in own if n not in there))

    def _put_slot(self, view: ViewSpec, upsert: Upsert, pk: str) -> int:
        """Put a slot into an item of its own unless a newer version is there; return how often that was throttled."""
        try:
            return self._table.put(viewitems.slot_item(view, upsert, pk), slot_condition(upsert))
        except ConditionFailed:
            return 0  # the same or a newer one is there: the row may still lack it


def _has_expired(view: ViewSpec, slots: Mapping[str, Upsert], now_ms: int) -> bool:
    expires = view.expires(next(iter(slots.values())).window_end_ms)
    return expires is not None and expires * 1000 <= now_ms


def _check_key(key: str) -> None:
    """Raise ItemTooLarge for a key beyond MAX_KEY_BYTES."""
    if len(key.encode()) > viewitems.MAX_KEY_BYTES:
        raise ItemTooLarge(f"a key is at most {viewitems.MAX_KEY_BYTES:,} bytes long, this has {len(key.encode()):,}")


def _keeps_changing(view: ViewSpec, at: Place) -> Retryable:
    """Return the error for a row that others keep changing."""
    return Retryable(f"view {view.name!r}, key {at[0]!r}, window {at[1]}: others keep changing the row; try again")
