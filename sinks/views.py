"""Views in DynamoDB: a row an item, merged over slots, so that a plain reader finds final values in it.

Table: hash key `pk` = view#key, range key `sk` = start of the window (`-` without windows), both strings. Every write
replaces the item on condition that its revision is the one known, and a slot changes only for a newer version: writing
twice, late, or from two processes at once converges. A row whose slots outgrow an item keeps further slots in items of
their own, `sk`#slot, written first; whoever writes the row last has read all of them.
"""

import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from headwater.clock import Clock, SystemClock
from headwater.errors import Retryable, Throttled, UsageError
from sinks import viewitems
from sinks.viewitems import Item, Slot, Upsert, ViewSpec

__all__ = ["Upsert", "ViewSettings", "ViewSpec", "ViewStore", "WriteReport", "create_table"]

_PAGES = 50
"""Of a scan, for one page of rows: a view that is a small part of the table takes many."""
_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TransactionConflictException",
        "InternalServerError",
    }
)


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
    """Rows written and skipped (nothing newer), lost races, slots in items of their own, throttled requests."""

    written: int = 0
    skipped: int = 0
    conflicts: int = 0
    overflowed: int = 0
    throttled: int = 0

    def __add__(self, other: "WriteReport") -> "WriteReport":
        return WriteReport(
            self.written + other.written,
            self.skipped + other.skipped,
            self.conflicts + other.conflicts,
            self.overflowed + other.overflowed,
            self.throttled + other.throttled,
        )


class _Refused(Exception):
    """The condition did not hold; what is stored instead."""

    def __init__(self, found: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.found = found


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
        self._client = client
        self._table = table
        self._settings = settings or ViewSettings()
        self._pool = pool
        self._clock = clock or SystemClock()
        self._chance = chance
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

        def write_row(entry: tuple[tuple[str, str], dict[str, Upsert]]) -> WriteReport:
            return self._write_row(view, *entry)

        done: Iterable[WriteReport] = (self._pool.map if self._pool else map)(write_row, rows.items())
        return sum(done, WriteReport())

    def get(self, view: ViewSpec, key: Sequence[object]) -> list[dict[str, object]]:
        """The rows of a key, by window: key columns, window_start, window_end and the values."""
        return list(self._rows(view, self._query(viewitems.partition(view.name, viewitems.key_text(key)))))

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
            return tuple(self._rows(view, self._query(pk)))
        low = viewitems.sort_key(0 if start_ms is None else start_ms)
        high = "~" if stop_ms is None else viewitems.sort_key(stop_ms - 1) + "~"
        return tuple(self._rows(view, self._query(pk, between=(low, high))))

    def page(
        self, view: ViewSpec, prefix: str, limit: int, after: Sequence[str] | None = None
    ) -> tuple[Sequence[dict[str, object]], Sequence[str] | None]:
        """Up to `limit` rows whose key, as text, starts with `prefix`, in no order; where to go on, None at the end."""
        place = None if after is None else {"pk": {"S": after[0]}, "sk": {"S": after[1]}}
        found: list[dict[str, object]] = []
        for _ in range(_PAGES):
            answer = self._client.scan(
                TableName=self._table,
                ConsistentRead=True,
                FilterExpression="begins_with(pk, :p)",
                ExpressionAttributeValues={":p": {"S": viewitems.partition(view.name, prefix)}},
                **({"ExclusiveStartKey": place} if place else {}),
            )
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

    def scan(self, view: ViewSpec, prefix: str = "") -> Iterator[dict[str, object]]:
        """Every row of the view, for audits."""
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="begins_with(pk, :p)",
            ExpressionAttributeValues={":p": {"S": viewitems.partition(view.name, prefix)}},
        )
        return self._rows(view, (item for page in self._reading(pages) for item in page["Items"]))

    def remove(self, view: ViewSpec, column: str, value: str) -> int:
        """Delete every row whose key column has this value, as text, with its slots; how many rows there were."""
        if column not in view.by:
            return 0
        keys = [[row[name] for name in view.by] for row in self.scan(view) if str(row[column]) == value]
        for pk in {viewitems.partition(view.name, viewitems.key_text(key)) for key in keys}:
            for item in list(self._query(pk)):
                self._client.delete_item(TableName=self._table, Key={"pk": item["pk"], "sk": item["sk"]})
        self._cache = _Cache(self._settings.cache_bytes)
        return len(keys)

    def _rows(self, view: ViewSpec, items: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, object]]:
        for found in items:
            if "slots" in found:
                more = Item.read(found).more
                overflow = self._overflow(found["pk"]["S"], found["sk"]["S"], more) if more else []
                yield viewitems.row(view, found, [slot.partial for slot in overflow])

    def _write_row(self, view: ViewSpec, at: tuple[str, str], wanted: Mapping[str, Upsert]) -> WriteReport:
        report = WriteReport()
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
            except _Refused as refused:
                report += WriteReport(conflicts=1)
                item = Item.read(refused.found) if refused.found else self._read(at)
                if race > 2:
                    self._clock.sleep(self._chance() * 0.02 * min(race, 25))
                continue
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
        throttled = sum(self._put_slot(at, newer[name]) for name in outside)
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
        return WriteReport(throttled=throttled + self._put(stored, condition))

    def _put_slot(self, at: tuple[str, str], upsert: Upsert) -> int:
        stored = {
            "pk": {"S": at[0]},
            "sk": {"S": f"{at[1]}#{upsert.slot}"},
            "v": {"S": upsert.version},
            "p": {"B": upsert.partial},
        }
        condition = {
            "ConditionExpression": "attribute_not_exists(pk) OR v < :v",
            "ExpressionAttributeValues": {":v": {"S": upsert.version}},
        }
        try:
            return self._put(stored, condition)
        except _Refused:
            return 0  # the same or a newer one is there: the row may still lack it

    def _put(self, item: Mapping[str, Any], condition: Mapping[str, Any]) -> int:
        """PutItem; returns how often it was throttled. Raises _Refused with the item found."""
        for attempt in range(self._settings.attempts):
            try:
                self._client.put_item(
                    TableName=self._table, Item=item, ReturnValuesOnConditionCheckFailure="ALL_OLD", **condition
                )
                return attempt
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "ConditionalCheckFailedException":
                    answer: Any = error.response
                    raise _Refused(answer.get("Item")) from None
                if code not in _THROTTLES:
                    raise self._clear(error) from error
                reason = code
            except (ConnectionError, HTTPClientError) as error:
                # the write may have taken place: sent again it is refused, and the item found tells
                reason = str(error)
            self._clock.sleep(self._chance() * min(2.0, 0.05 * 2**attempt))
        raise Throttled(f"views table {self._table!r} refused {self._settings.attempts} times: {reason}")

    def _read(self, at: tuple[str, str]) -> Item | None:
        key = {"pk": {"S": at[0]}, "sk": {"S": at[1]}}
        answer = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        return Item.read(answer["Item"]) if "Item" in answer else None

    def _overflow(self, pk: str, sk: str, more: Mapping[str, str]) -> Sequence[Slot]:
        """The slots in items of their own that the row names. One that it does not name is in the row itself, and was
        put there by a writer that did not know it."""
        head = f"{sk}#"
        return [
            Slot(item["v"]["S"], bytes(item["p"]["B"]))
            for item in self._query(pk, head)
            if item["sk"]["S"].removeprefix(head) in more
        ]

    def _query(
        self, pk: str, head: str | None = None, between: tuple[str, str] | None = None
    ) -> Iterator[Mapping[str, Any]]:
        condition, values = "pk = :p", {":p": {"S": pk}}
        if head is not None:
            condition, values = f"{condition} AND begins_with(sk, :s)", values | {":s": {"S": head}}
        if between is not None:
            condition += " AND sk BETWEEN :a AND :b"
            values |= {":a": {"S": between[0]}, ":b": {"S": between[1]}}
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
        )
        return (item for page in self._reading(pages) for item in page["Items"])

    def _reading(self, pages: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from pages
        except ClientError as error:
            raise self._clear(error) from error

    def _clear(self, error: ClientError) -> Exception:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return UsageError(f"there is no DynamoDB table {self._table!r} for the views")
        return error


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


def create_table(client: Any, table: str) -> None:
    """The table of the views, with capacity on demand."""
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=table)
