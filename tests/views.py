"""A small view in memory: a slot's partial follows from its version, as it does from the prefix of a shard."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.aggregates import Aggregate, count, sum
from headwater.aggregates.columns import Columns
from headwater.clock import Clock, ManualClock
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.rows import ViewSettings
from headwater.sinks.views.slots import Upsert
from headwater.sinks.views.store import ViewStore
from headwater.stream import sequence
from headwater.testing.dynamodb import MemoryDynamoDB

__all__ = ["AGGREGATES", "SPREAD", "VIEW", "memory", "partial", "rows_of", "store", "upsert", "version"]

AGGREGATES: tuple[Aggregate, ...] = (count("n"), sum("value", "total"))
VIEW = ViewSpec("v", ("device",), AGGREGATES)
SPREAD = replace(VIEW, spread=3)
_KEYS = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]


def partial(n: int) -> bytes:
    columns = Columns(AGGREGATES)
    columns.grow(1)
    columns.fold(np.zeros(n, np.int64), pa.table({"value": np.arange(n) / 4}), np.arange(n))
    return columns.partial(0)


_PARTIALS = [partial(n) for n in range(1, 8)]


def version(number: int) -> str:
    return sequence.pad(str(number * 10**40))


def upsert(device: str, slot: str, number: int, start_ms: int = 60_000) -> Upsert:
    """A window of a minute; version `number` has (number % 7) + 1 rows."""
    return Upsert((device,), start_ms, start_ms + 60_000, slot, version(number), _PARTIALS[number % 7])


def rows_of(dynamodb: Any, table: str = "views") -> list[dict[str, Any]]:
    """The items of rows: without those that list the views' keys."""
    return [
        item
        for item in dynamodb.scan(TableName=table, ConsistentRead=True)["Items"]
        if "@@keys#" not in item["pk"]["S"]
    ]


def memory() -> MemoryDynamoDB:
    """The table `views`."""
    dynamodb = MemoryDynamoDB()
    dynamodb.create_table(TableName="views", KeySchema=_KEYS)
    return dynamodb


def store(
    client: Any, clock: Clock | None = None, chance: Callable[[], float] = lambda: 0.5, **bounds: int
) -> ViewStore:
    return ViewStore(client, "views", ViewSettings(**bounds), clock=clock or ManualClock(), chance=chance)
