"""The DynamoDB table of the views: conditional puts and consistent reads, with throttling answered by waiting."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

from headwater.clock import Clock, SystemClock
from headwater.errors import Retryable, Throttled, UsageError
from sinks.viewitems import EXPIRES

__all__ = ["MOST_READ", "Refused", "TooLarge", "ViewTable", "batches", "create_table", "enable_expiry"]

_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TransactionConflictException",
        "InternalServerError",
    }
)


Place = TypeVar("Place")

MOST_READ = 100
"""Items that one BatchGetItem reads."""


class Refused(Exception):
    """The condition did not hold; what is stored instead."""

    def __init__(self, found: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.found = found


class TooLarge(Exception):
    """DynamoDB takes no item above 400 KB and no `pk` above 2 KB."""


class ViewTable:
    """Items by `pk` and `sk`. `attempts` is the tries of a put that is throttled or whose answer is lost."""

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
        self.clock = clock or SystemClock()
        self.chance = chance

    def put(self, item: Mapping[str, Any], condition: Mapping[str, Any]) -> int:
        """PutItem; returns how often it was throttled. Raises Refused with the item found, and TooLarge."""
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
                    raise Refused(answer.get("Item")) from None
                if code == "ValidationException" and "exceeded" in error.response["Error"]["Message"]:
                    raise TooLarge(error.response["Error"]["Message"]) from None
                if code not in _THROTTLES:
                    raise self._clear(error) from error
                reason = code
            except (ConnectionError, HTTPClientError) as error:
                # the write may have taken place: sent again it is refused, and the item found tells
                reason = str(error)
            self.clock.sleep(self.chance() * min(2.0, 0.05 * 2**attempt))
        raise Throttled(f"views table {self._table!r} refused {self._attempts} times: {reason}")

    def get(self, pk: str, sk: str) -> Mapping[str, Any] | None:
        with self._clearly():
            answer = self._client.get_item(
                TableName=self._table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True
            )
        found: Mapping[str, Any] | None = answer.get("Item")
        return found

    def get_many(self, places: Sequence[tuple[str, str]]) -> Iterator[Mapping[str, Any]]:
        """Up to MOST_READ items by `pk` and `sk`, in no order; those that there are. Throttled when some are left."""
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
                self.clock.sleep(self.chance() * min(2.0, 0.05 * 2**in_vain))
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
        """The items of a partition in order: all, those whose `sk` begins so, or those between two, both included.

        They are read as they are asked for, so many a request as `page` says, else up to 1 MB.
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
        """Every item whose `pk` begins in one of these ways, in no order. Reads the whole table."""
        named = {f":p{at}": {"S": prefix} for at, prefix in enumerate(prefixes)}
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression=" OR ".join(f"begins_with(pk, {name})" for name in named),
            ExpressionAttributeValues=named,
        )
        return self._items(pages)

    def delete(self, item: Mapping[str, Any]) -> None:
        """Of what is throttled or not answered, again with growing pauses; then Throttled or Retryable."""
        for attempt in range(self._attempts):
            try:
                with self._clearly():
                    self._client.delete_item(TableName=self._table, Key={"pk": item["pk"], "sk": item["sk"]})
                return
            except Retryable:
                if attempt + 1 == self._attempts:
                    raise
                self.clock.sleep(self.chance() * min(2.0, 0.05 * 2**attempt))

    def _items(self, pages: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
        with self._clearly():
            for page in pages:
                yield from page["Items"]

    @contextmanager
    def _clearly(self) -> Iterator[None]:
        """Errors by what the caller does next. botocore has tried a throttled read again already."""
        try:
            yield
        except ClientError as error:
            raise self._clear(error) from error
        except (ConnectionError, HTTPClientError) as error:
            raise Retryable(f"views table {self._table!r} does not answer: {error}") from error

    def _clear(self, error: ClientError) -> Exception:
        code = error.response["Error"]["Code"]
        if code == "ResourceNotFoundException":
            return UsageError(f"there is no DynamoDB table {self._table!r} for the views")
        return Throttled(f"views table {self._table!r}: {code}") if code in _THROTTLES else error


def batches(places: Sequence[Place], size: int) -> Iterator[Sequence[Place]]:
    """So many at a time."""
    return (places[at : at + size] for at in range(0, len(places), size))


def create_table(client: Any, table: str) -> None:
    """The table of the views, with capacity on demand."""
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=table)


def enable_expiry(client: Any, table: str) -> None:
    """Have DynamoDB delete items after the time they say. Doing it again changes nothing."""
    found = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    if found["TimeToLiveStatus"] == "DISABLED":
        client.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES})
