"""Access the views' DynamoDB table: conditional puts and consistent reads; throttled requests wait and are sent again.

Knows `pk`, `sk` and errors; what the items mean belongs in `items`.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from headwater.awscodes import SERVICE_FAILED, THROTTLED
from headwater.clock import Clock, SystemClock
from headwater.errors import Retryable, Throttled, UsageError
from headwater.sinks.views.items import EXPIRES
from headwater.sinks.views.statements import MAX_STATEMENTS, insertion, replacement

__all__ = [
    "MAX_BATCH_GET",
    "MAX_STATEMENTS",
    "ConditionFailed",
    "ItemTooLarge",
    "ViewTable",
    "chunks",
    "create_table",
    "enable_expiry",
]

_PASSING = THROTTLED | SERVICE_FAILED | {"TransactionConflictException"}

_NO_STATEMENTS = frozenset({"AccessDeniedException", "UnknownOperationException", "ValidationException"})
"""Errors of a role without the permission, and of a service that has no such call or reads statements otherwise."""
_OPTIONAL = frozenset({"more", EXPIRES})
"""Attributes that a row may have at one time and not at another."""

One = TypeVar("One")
Name = TypeVar("Name")

log = logging.getLogger("headwater.views")

MAX_BATCH_GET = 100
"""Items that one BatchGetItem reads."""


class ConditionFailed(Exception):
    """Say that a put's condition did not hold; `found` is the item stored instead, where DynamoDB returned it."""

    def __init__(self, found: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.found = found


class ItemTooLarge(Exception):
    """Say that DynamoDB takes no such item: above 400 KB, or a `pk` above 2 KB."""


class ViewTable:
    """Read and write items by `pk` and `sk`.

    `attempts` is how often a put is tried that is throttled or whose answer is lost; `chance` returns a random number
    in [0, 1) for the pauses between.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        attempts: int,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._table = table
        self._attempts = attempts
        self._takes_statements = True
        self.clock = clock or SystemClock()
        self.chance = chance

    def put(self, item: Mapping[str, Any], condition: Mapping[str, Any]) -> int:
        """Put the item on a condition and return how often that was throttled.

        Raise ConditionFailed, ItemTooLarge, or Throttled after the last attempt.
        """
        for attempt in range(self._attempts):
            try:
                self._client.put_item(
                    TableName=self._table, Item=item, ReturnValuesOnConditionCheckFailure="ALL_OLD", **condition
                )
                return attempt
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "ConditionalCheckFailedException":
                    answer: Any = error.response
                    raise ConditionFailed(answer.get("Item")) from None
                if code == "ValidationException" and "exceeded" in error.response["Error"]["Message"]:
                    raise ItemTooLarge(error.response["Error"]["Message"]) from None
                if code not in _PASSING:
                    raise self._clear(error) from error
                reason = code
            except (ConnectionError, HTTPClientError) as error:
                # the write may have taken place: sent again it is refused, and the item found tells
                reason = str(error)
            self._pause(attempt)
        raise Throttled(f"views table {self._table!r} refused {self._attempts} times: {reason}")

    def put_together(self, puts: Mapping[Name, tuple[Mapping[str, Any], int]]) -> list[Name]:
        """Put up to MAX_STATEMENTS items with one request, each in the place of the one with the given revision, or,
        where that is 0, if there is none; return the names of those that were put.

        Of the others it is unknown, as their answer may have been lost. Nothing is raised: put by themselves they tell
        what is wrong.
        """
        said = {
            name: replacement(self._table, item, rev, _OPTIONAL) if rev else insertion(self._table, item)
            for name, (item, rev) in puts.items()
        }
        asked = {name: one for name, one in said.items() if one is not None}
        if not asked or not self._takes_statements:
            return []
        try:
            answer = self._client.batch_execute_statement(Statements=list(asked.values()))
        except ClientError as error:
            if error.response["Error"]["Code"] in _NO_STATEMENTS:
                self._takes_statements = False
                log.info("rows of views are put one by one", extra={"table": self._table, "reason": str(error)})
            return []
        except (ConnectionError, HTTPClientError):
            return []
        return [name for name, one in zip(asked, answer["Responses"], strict=True) if "Error" not in one]

    def get(self, pk: str, sk: str) -> Mapping[str, Any] | None:
        """Return the item as it is now, or None."""
        with self._clearly():
            answer = self._client.get_item(
                TableName=self._table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True
            )
        found: Mapping[str, Any] | None = answer.get("Item")
        return found

    def get_many(self, places: Sequence[tuple[str, str]]) -> Iterator[Mapping[str, Any]]:
        """Yield up to MAX_BATCH_GET items by `pk` and `sk`, in no order; those that exist. Raise Throttled when some
        stay unread.
        """
        asked: Any = [{"pk": {"S": pk}, "sk": {"S": sk}} for pk, sk in places]
        in_vain = 0
        while asked:
            with self._clearly():
                answer = self._client.batch_get_item(
                    RequestItems={self._table: {"Keys": asked, "ConsistentRead": True}}
                )
            yield from answer["Responses"].get(self._table, [])
            # what is left was throttled, or is beyond the 16 MB of an answer
            left = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", [])
            in_vain = in_vain + 1 if len(left) == len(asked) else 0
            if in_vain == self._attempts:
                raise Throttled(f"views table {self._table!r} left {len(left)} items unread {in_vain} times")
            if left:
                self._pause(in_vain)
            asked = left

    def query(
        self,
        pk: str,
        head: str | None = None,
        between: tuple[str, str] | None = None,
        *,
        newest_first: bool = False,
        page: int | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the items of a partition in order: all, those whose `sk` begins with `head`, or those `between` two,
        both included.

        They are read as they are asked for, `page` items a request, else up to 1 MB.
        """
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
            ScanIndexForward=not newest_first,
            PaginationConfig={"PageSize": page},
        )
        return self._items(pages)

    def scan(self, *prefixes: str) -> Iterator[Mapping[str, Any]]:
        """Yield every item whose `pk` begins with one of the prefixes, in no order. Reads the whole table."""
        named = {f":p{at}": {"S": prefix} for at, prefix in enumerate(prefixes)}
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression=" OR ".join(f"begins_with(pk, {name})" for name in named),
            ExpressionAttributeValues=named,
        )
        return self._items(pages)

    def delete(self, item: Mapping[str, Any]) -> None:
        """Delete the item; raise Throttled or Retryable after the last attempt."""
        for attempt in range(self._attempts):
            try:
                with self._clearly():
                    self._client.delete_item(TableName=self._table, Key={"pk": item["pk"], "sk": item["sk"]})
                return
            except Retryable:
                if attempt + 1 == self._attempts:
                    raise
                self._pause(attempt)

    def _pause(self, attempt: int) -> None:
        """Wait before the next attempt: at random up to 50 ms, doubled each time up to 2 s, so that writers part."""
        self.clock.sleep(self.chance() * min(2.0, 0.05 * 2**attempt))

    def _items(self, pages: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the items of all pages."""
        with self._clearly():
            for page in pages:
                yield from page["Items"]

    @contextmanager
    def _clearly(self) -> Iterator[None]:
        """Raise errors by what the caller does next. botocore has tried a throttled read again already."""
        try:
            yield
        except ClientError as error:
            raise self._clear(error) from error
        except (ConnectionError, HTTPClientError) as error:
            raise Retryable(f"views table {self._table!r} does not answer: {error}") from error

    def _clear(self, error: ClientError) -> Exception:
        """Return our error for botocore's."""
        code = error.response["Error"]["Code"]
        if code == "ResourceNotFoundException":
            return UsageError(f"there is no DynamoDB table {self._table!r} for the views")
        return Throttled(f"views table {self._table!r}: {code}") if code in _PASSING else error


def chunks(places: Sequence[One], size: int) -> Iterator[Sequence[One]]:
    """Yield runs of at most `size` items."""
    return (places[at : at + size] for at in range(0, len(places), size))


def create_table(client: Any, table: str) -> None:
    """Create the table of the views, with capacity on demand, and wait until it is active."""
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=table)


def enable_expiry(client: Any, table: str) -> None:
    """Have DynamoDB delete items after their expiry. Doing it again changes nothing."""
    found = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    if found["TimeToLiveStatus"] == "DISABLED":
        client.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES})
