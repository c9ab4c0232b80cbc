"""An in-memory DynamoDB with the boto3 client's calls, as far as the ledger and the views use them.

Conditions are checked and the write takes place in one step, as the service promises; a read that does not ask for
ConsistentRead may see the item as it was before its last write. The limits are the service's: items of 400 KB, pages
of 1 MB, 100 keys and 16 MB in a BatchGetItem, 100 actions and 4 MB in a transaction, expressions of 4 KB. Values are in
the wire format (`{"S": "…"}`). Whatever is not supported raises NotImplementedError rather than doing something else.

Here belong the calls and their errors; the grammar of expressions is in `expressions`, sizes and pages are in `items`.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

from botocore.exceptions import ClientError

from headwater.clock import Clock
from headwater.testing.expressions import Invalid, check_expressions, copied, holds, projected, updated
from headwater.testing.faults import Exceptions, Faults, client_error, error_class
from headwater.testing.items import Item, ItemTable, Key, See, Stored, item_size, newest
from headwater.testing.pages import Pages, Waiter
from headwater.testing.partiql import execute

__all__ = ["MemoryDynamoDB", "Pages", "Staleness"]

MAX_BATCH_KEYS = 100
MAX_BATCH_BYTES = 16 << 20
MAX_ACTIONS = 100
MAX_TRANSACTION_BYTES = 4 << 20
"""From the API reference of BatchGetItem and TransactWriteItems."""

_WRITE = {"ConditionExpression", "ExpressionAttributeNames", "ExpressionAttributeValues"}
_ANSWER = {"ReturnValuesOnConditionCheckFailure", "ReturnValues"}
_READ = {"ConsistentRead", "ProjectionExpression", "ExpressionAttributeNames"}
_PAGE = {*_READ, "ExpressionAttributeValues", "FilterExpression", "Limit", "ExclusiveStartKey"}


@dataclass(frozen=True)
class Staleness:
    """Say how often reads are answered badly, as the service may. The same seed answers the same calls alike.

    `stale` is the probability with which an item in a read without ConsistentRead is the one before its last write.
    `unprocessed` is the probability with which a BatchGetItem leaves a key for the caller to ask for again; it always
    reads one. With a `clock` a write is seen by everybody `settles_ms` after it; without one, never for certain.
    """

    seed: int = 0
    stale: float = 0.5
    unprocessed: float = 0.0
    clock: Clock | None = None
    settles_ms: int = 1000


class MemoryDynamoDB:
    """Hold tables by name, each with a hash key and, maybe, a range key, both strings.

    Thread-safe. `faults` scripts what goes wrong next; ClientErrors are as boto3 raises them.

    >>> dynamodb = MemoryDynamoDB()
    >>> _ = dynamodb.create_table(TableName="t", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}])
    >>> _ = dynamodb.put_item(TableName="t", Item={"pk": {"S": "a"}, "n": {"N": "1"}})
    >>> dynamodb.get_item(TableName="t", Key={"pk": {"S": "a"}}, ConsistentRead=True)["Item"]
    {'pk': {'S': 'a'}, 'n': {'N': '1'}}
    >>> dynamodb.put_item(TableName="t", Item={"pk": {"S": "a"}}, ConditionExpression="attribute_not_exists(pk)")
    Traceback (most recent call last):
    headwater.testing.faults.ConditionalCheckFailedException: An error occurred (ConditionalCheckFailedException) \
when calling the PutItem operation: The conditional request failed
    """

    def __init__(self, staleness: Staleness | None = None) -> None:
        self.faults = Faults()
        self.exceptions = Exceptions()
        self._staleness = staleness or Staleness()
        self._random = random.Random(self._staleness.seed)
        self._tables: dict[str, ItemTable] = {}
        self._done: dict[str, Sequence[Any]] = {}
        """Transactions by their ClientRequestToken."""
        self._lock = Lock()

    def create_table(self, *, TableName: str, KeySchema: Sequence[Mapping[str, str]], **_: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Make an empty table, ready at once; the first name of the schema is the hash key."""
        with self._call("create_table"):
            if TableName in self._tables:
                raise client_error("create_table", "ResourceInUseException", f"Table already exists: {TableName}")
            forgets = self._staleness.stale == 0
            self._tables[TableName] = ItemTable([key["AttributeName"] for key in KeySchema], forgets)
        return {}

    def describe_table(self, *, TableName: str) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Describe a table: its name, keys and status."""
        with self._call("describe_table") as method:
            keys = zip(self._table(TableName, method).keys, ("HASH", "RANGE"), strict=False)
            schema = [{"AttributeName": name, "KeyType": kind} for name, kind in keys]
            return {"Table": {"TableName": TableName, "TableStatus": "ACTIVE", "KeySchema": schema}}

    def list_tables(self, **_: Any) -> dict[str, Any]:
        """Return all names, in one page."""
        with self._call("list_tables"):
            return {"TableNames": sorted(self._tables)}

    def update_time_to_live(self, *, TableName: str, TimeToLiveSpecification: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Name the attribute by which items end. None does: the service may take days over it."""
        with self._call("update_time_to_live") as method:
            self._table(TableName, method).expires_by = TimeToLiveSpecification["AttributeName"]
        return {"TimeToLiveSpecification": dict(TimeToLiveSpecification)}

    def describe_time_to_live(self, *, TableName: str) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Tell by which attribute items end."""
        with self._call("describe_time_to_live") as method:
            name = self._table(TableName, method).expires_by
        if name is None:
            return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": name}}

    def get_item(self, *, TableName: str, Key: Item, **options: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Read one item; the answer has no `Item` when there is none."""
        with self._call("get_item", options, _READ) as method:
            table = self._table(TableName, method)
            stored = table.stored(table.place(Key))
            item = self._see(options)(stored) if stored else None
        return {"Item": projected(item, options)} if item else {}

    def batch_get_item(self, *, RequestItems: Mapping[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Read up to 100 items; what does not fit into 16 MB, or is left by `unprocessed`, is in UnprocessedKeys."""
        found: dict[str, list[Item]] = {name: [] for name in RequestItems}
        left: dict[str, Any] = {}
        with self._call("batch_get_item") as method:
            self._check_batch(RequestItems, method)
            size = read = 0
            for name, request in RequestItems.items():
                table, see = self._table(name, method), self._see(request)
                for key in request["Keys"]:
                    stored = table.stored(table.place(key))
                    size += stored.size if stored else 0
                    # one key at least is read, or a caller who asks again might never come to an end
                    if read and (size > MAX_BATCH_BYTES or self._random.random() < self._staleness.unprocessed):
                        left.setdefault(name, {**request, "Keys": []})["Keys"].append(copied(key))
                        continue
                    read += 1
                    item = see(stored) if stored else None
                    found[name] += [projected(item, request)] if item else []
        return {"Responses": found, "UnprocessedKeys": left}

    def put_item(self, *, TableName: str, Item: Item, **options: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Write a whole item if the condition holds."""
        with self._call("put_item", options, _WRITE | _ANSWER) as method:
            return self._carry_out(method, "Put", {"TableName": TableName, "Item": Item, **options})

    def delete_item(self, *, TableName: str, Key: Item, **options: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Delete an item if the condition holds; one that is not there is deleted already."""
        with self._call("delete_item", options, _WRITE | _ANSWER) as method:
            return self._carry_out(method, "Delete", {"TableName": TableName, "Key": Key, **options})

    def update_item(self, *, TableName: str, Key: Item, **options: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Change attributes of an item, or of a new one with this key, if the condition holds."""
        with self._call("update_item", options, {*_WRITE, *_ANSWER, "UpdateExpression"}) as method:
            return self._carry_out(method, "Update", {"TableName": TableName, "Key": Key, **options})

    def transact_write_items(
        self,
        *,
        TransactItems: Sequence[Mapping[str, Any]],  # noqa: N803 (boto3's name)
        ClientRequestToken: str | None = None,  # noqa: N803 (boto3's name)
    ) -> dict[str, Any]:
        """Write all of up to 100 items, or none: TransactionCanceledException says why, action by action.

        A token that was used before makes the same transaction succeed again without a write.
        """
        with self._call("transact_write_items") as method:
            if ClientRequestToken is not None and ClientRequestToken in self._done:
                if self._done[ClientRequestToken] != TransactItems:
                    raise client_error(method, "IdempotentParameterMismatchException", "another request had this token")
                return {}
            actions = [next(iter(action.items())) for action in TransactItems]
            self._check_transaction(actions, method)
            writes, reasons = list[Callable[[], None]](), list[dict[str, Any]]()
            for kind, request in actions:
                try:
                    writes.append(self._write(method, kind, request))
                    reasons.append({"Code": "None"})
                except error_class("ConditionalCheckFailedException") as error:
                    reasons.append({"Code": "ConditionalCheckFailed", **_found(error)})
            if any(reason["Code"] != "None" for reason in reasons):
                codes = ", ".join(reason["Code"] for reason in reasons)
                canceled = client_error(
                    method,
                    "TransactionCanceledException",
                    f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]",
                )
                canceled.response["CancellationReasons"] = reasons  # type: ignore[typeddict-item]  # botocore's type lacks what the service adds
                raise canceled
            for write in writes:
                write()
            if ClientRequestToken is not None:
                self._done[ClientRequestToken] = copied(list(TransactItems))
        return {}

    def batch_execute_statement(self, *, Statements: Sequence[Mapping[str, Any]], **_: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Run up to 25 statements, each for itself: the answer has what became of each."""
        with self._call("batch_execute_statement") as method:
            return {"Responses": execute(Statements, partial(self._table, method=method), self._now_ms())}

    def query(self, *, TableName: str, KeyConditionExpression: str, **options: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Read a page of one partition in order; the condition begins with the hash key's, as in `pk = :p AND …`."""
        options["KeyConditionExpression"] = KeyConditionExpression
        with self._call("query", options, {*_PAGE, "KeyConditionExpression", "ScanIndexForward"}) as method:
            _, _, value = KeyConditionExpression.split()[:3]
            partition = options["ExpressionAttributeValues"][value]["S"]
            return self._page(TableName, options, method, partition)

    def scan(self, *, TableName: str, **options: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Read a page of the whole table."""
        with self._call("scan", options, _PAGE) as method:
            return self._page(TableName, options, method, None)

    def get_paginator(self, operation: str) -> Pages:
        """Return a paginator over `query` or `scan`."""
        return Pages(getattr(self, operation))

    def get_waiter(self, _: str) -> Waiter:
        """Return a waiter that has nothing to wait for: tables are there at once."""
        return Waiter()

    # For tests.

    def stored(self, table: str, *key: str) -> Item | None:
        """Return an item as it is now, with no fault and no call counted; None when there is none.

        >>> dynamodb = MemoryDynamoDB()
        >>> _ = dynamodb.create_table(TableName="t", KeySchema=[{"AttributeName": "pk"}])
        >>> print(dynamodb.stored("t", "a"))
        None
        """
        found: Item | None = copied(self._tables[table].get(key))
        return found

    def replace(self, table: str, item: Item) -> None:
        """Put an item past conditions and faults, as somebody with a console may."""
        at = self._tables[table].place(item)
        with self._lock:
            self._tables[table].staged(at, copied(item), self._now_ms(), "an item above 400 KB")()

    # Behind the calls.

    @contextmanager
    def _call(
        self, method: str, options: Mapping[str, Any] | None = None, known: set[str] | None = None
    ) -> Iterator[str]:
        with self._lock:
            self.faults.before(method)
            if options is not None and (unknown := options.keys() - (known or set())):
                raise NotImplementedError(f"{method} with {', '.join(sorted(unknown))}")
            try:
                check_expressions(options or {}, item_size((options or {}).get("ExpressionAttributeValues", {})))
                yield method
            except Invalid as error:
                raise client_error(method, "ValidationException", str(error)) from None
        self.faults.after(method)

    def _table(self, name: str, method: str) -> ItemTable:
        if name not in self._tables:
            raise client_error(method, "ResourceNotFoundException", f"Requested resource not found: Table: {name}")
        return self._tables[name]

    def _now_ms(self) -> int:
        return self._staleness.clock.now_ms() if self._staleness.clock else 0

    def _see(self, options: Mapping[str, Any]) -> See:
        if options.get("ConsistentRead"):
            return newest
        settled = self._now_ms() - self._staleness.settles_ms

        def see(stored: Stored) -> Item | None:
            if self._staleness.clock is not None and stored.at_ms <= settled:
                return newest(stored)
            found: Item | None = copied(stored.before if self._random.random() < self._staleness.stale else stored.item)
            return found

        return see

    def _carry_out(self, method: str, kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
        wanted = request.get("ReturnValues", "NONE")
        if wanted not in ("NONE", "ALL_OLD", "ALL_NEW"):
            raise NotImplementedError(f"{method} with ReturnValues {wanted}")
        write, table = self._write(method, kind, request), self._table(request["TableName"], method)
        at = table.place(request["Item"] if kind == "Put" else request["Key"])
        old = table.get(at)
        write()
        found = {"NONE": None, "ALL_OLD": old, "ALL_NEW": table.get(at)}[wanted]
        return {"Attributes": copied(found)} if found else {}

    def _write(self, method: str, kind: str, request: Mapping[str, Any]) -> Callable[[], None]:
        """Check everything about one write and return what carries it out: in a transaction all are checked first."""
        table = self._table(request["TableName"], method)
        at = table.place(request["Item"] if kind == "Put" else request["Key"])
        old = table.get(at)
        _check(old, request, method)
        now = self._now_ms()
        if kind == "Put":
            return table.staged(at, copied(request["Item"]), now, "Item size has exceeded the maximum allowed size")
        if kind == "Delete":
            return table.staged(at, None, now) if old is not None else _nothing
        if kind == "Update":
            new = updated(old or request["Key"], request)
            if table.place(new) != at:
                raise Invalid("One or more parameter values were invalid: Cannot update a part of the key")
            return table.staged(at, new, now, "Item size to update has exceeded the maximum allowed size")
        if kind == "ConditionCheck":
            return _nothing
        raise NotImplementedError(kind)

    def _check_batch(self, items: Mapping[str, Any], method: str) -> None:
        places = [(name, self._table(name, method).place(key)) for name, one in items.items() for key in one["Keys"]]
        if not 1 <= len(places) <= MAX_BATCH_KEYS:
            raise Invalid("Too many items requested for the BatchGetItem call")
        if len(set(places)) < len(places):
            raise Invalid("Provided list of item keys contains duplicates")
        for request in items.values():
            if unknown := request.keys() - _READ - {"Keys"}:
                raise NotImplementedError(f"{method} with {', '.join(sorted(unknown))}")

    def _check_transaction(self, actions: Sequence[tuple[str, Mapping[str, Any]]], method: str) -> None:
        if not 1 <= len(actions) <= MAX_ACTIONS:
            raise Invalid(f"Member must have length less than or equal to {MAX_ACTIONS}")
        places = []
        size = 0
        for kind, request in actions:
            item = request["Item"] if kind == "Put" else request["Key"]
            places.append((request["TableName"], self._table(request["TableName"], method).place(item)))
            values = item_size(request.get("ExpressionAttributeValues", {}))
            check_expressions(request, values)
            size += item_size(item) + values
        if len(set(places)) < len(places):
            raise Invalid("Transaction request cannot include multiple operations on one item")
        if size > MAX_TRANSACTION_BYTES:
            raise Invalid("Collection size of all the items in the transaction exceeded the limit of 4 MB")

    def _page(self, name: str, options: Mapping[str, Any], method: str, partition: str | None) -> dict[str, Any]:
        table = self._table(name, method)
        start: Key | None = table.place(options["ExclusiveStartKey"]) if options.get("ExclusiveStartKey") else None
        backward = not options.get("ScanIndexForward", True)
        limit = options.get("Limit")
        see = self._see(options)
        condition = options.get("KeyConditionExpression")

        def in_range(stored: Stored) -> Item | None:
            item = see(stored)
            return item if item is None or condition is None or holds(condition, options, item) else None

        read, end = table.page(partition, start, backward=backward, limit=limit, see=in_range)
        wanted = options.get("FilterExpression")
        found = [projected(item, options) for item in read if wanted is None or holds(wanted, options, item)]
        answer: dict[str, Any] = {"Items": found, "Count": len(found), "ScannedCount": len(read)}
        if end is not None:
            answer["LastEvaluatedKey"] = {key: {"S": part} for key, part in zip(table.keys, end, strict=True)}
        return answer


def _nothing() -> None:
    """Change nothing."""


def _check(item: Item | None, options: Mapping[str, Any], method: str) -> None:
    condition = options.get("ConditionExpression")
    if condition is None or holds(condition, options, item):
        return
    error = client_error(method, "ConditionalCheckFailedException", "The conditional request failed")
    if item is not None and options.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
        error.response["Item"] = copied(item)  # type: ignore[typeddict-unknown-key]  # the same
    raise error


def _found(error: ClientError) -> dict[str, Any]:
    response: Any = error.response
    return {"Item": response["Item"]} if "Item" in response else {}
