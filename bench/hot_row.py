"""Measure how many shards one row of a view bears. `python -m bench.hot_row`

Every shard of a fleet writes its slot of one row once a second, each from a process of its own, into tables in memory
whose partitions take what DynamoDB's do: 1,000 write units a second, one a started KB of the larger of the old and the
new item, also for a put that its condition refuses, and 3,000 read units, one a started 4 KB. Counted is the largest
fleet of which no request is throttled, in simulated time: the figures are the same on every machine.
"""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from botocore.exceptions import ClientError

from headwater.aggregates import Aggregate, count, distinct, quantile
from headwater.aggregates.columns import Columns
from headwater.clock import ManualClock
from headwater.errors import Throttled
from headwater.sinks.views.items import ViewSpec
from headwater.sinks.views.rows import ViewSettings
from headwater.sinks.views.slots import Upsert
from headwater.sinks.views.store import ViewStore
from headwater.testing.dynamodb import MemoryDynamoDB

__all__ = ["main"]

UNITS, READ_UNITS = 1_000, 3_000
"""https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html"""
SECONDS, MOST = 3, 4_000
KINDS: dict[str, tuple[Aggregate, ...]] = {
    "a count": (count("n"),),
    "a quantile and a distinct count": (quantile("value", 0.95, "p95"), distinct("device", "devices")),
}


class Partitions:
    """Throttle puts and reads as DynamoDB's partitions do."""

    def __init__(self, clock: ManualClock) -> None:
        self._tables, self._clock = MemoryDynamoDB(), clock
        self._used: Counter[tuple[str, str, int]] = Counter()
        self._sizes: dict[tuple[str, str], int] = {}
        self._tables.create_table(TableName="views", KeySchema=[{"AttributeName": one} for one in ("pk", "sk")])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tables, name)

    def put_item(self, *, Item: dict[str, Any], **options: Any) -> Any:  # noqa: N803 (boto3's name)
        place = Item["pk"]["S"], Item["sk"]["S"]
        size = sum(len(name) + _size(value) for name, value in Item.items())
        self._use("PutItem", place[0], -(-max(size, self._sizes.get(place, 0)) // 1024), UNITS)
        answer = self._tables.put_item(Item=Item, **options)
        self._sizes[place] = size
        return answer

    def get_item(self, *, Key: dict[str, Any], **options: Any) -> Any:  # noqa: N803 (boto3's name)
        place = Key["pk"]["S"], Key["sk"]["S"]
        self._use("GetItem", place[0], -(-self._sizes.get(place, 1) // 4096), READ_UNITS)
        return self._tables.get_item(Key=Key, **options)

    def _use(self, verb: str, pk: str, units: int, most: int) -> None:
        at = verb, pk, self._clock.now_ms() // 1_000
        self._used[at] += units
        if self._used[at] > most:
            raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "-"}}, verb)


def _size(value: dict[str, Any]) -> int:
    """Bytes of an attribute as DynamoDB counts them, about."""
    ((kind, held),) = value.items()
    if kind == "M":
        return 3 + sum(1 + len(name) + _size(one) for name, one in held.items())
    return len(held) // 2 + 2 if kind == "N" else len(held) if kind in "SB" else 1


def partial(aggregates: tuple[Aggregate, ...]) -> bytes:
    """Return a shard's share of a minute of 20,000 events."""
    columns, rng = Columns(aggregates), np.random.default_rng(1)
    columns.grow(1)
    devices = pa.array([f"dev-{one}" for one in rng.integers(0, 10_000, 20_000)])
    table = pa.table({"value": rng.normal(20.0, 5.0, 20_000), "device": devices})
    columns.fold(np.zeros(20_000, np.int64), table, np.zeros(20_000, np.int64))
    return columns.partial(0)


def bears(shards: int, spread: int, aggregates: tuple[Aggregate, ...], slot: bytes) -> bool:
    """Return whether a row takes the slots of so many shards for some seconds."""
    clock = ManualClock()
    client, view = Partitions(clock), ViewSpec("fleet", (), aggregates, spread=spread)
    stores = [ViewStore(client, "views", ViewSettings(attempts=1), clock=clock) for _ in range(shards)]
    for second, shard in itertools.product(range(1, SECONDS + 1), range(shards)):
        if shard == 0:
            clock.advance(1_000)
        upsert = Upsert((), 0, 60_000, f"shardId-{shard:012d}/0", str(second).zfill(56), slot)
        try:
            stores[shard].write(view, [upsert])
        except Throttled:
            return False
    return True


def most(spread: int, aggregates: tuple[Aggregate, ...]) -> int:
    """Return the largest fleet that a row bears."""
    slot = partial(aggregates)
    low, high = 0, 8
    while high < MOST and bears(high, spread, aggregates, slot):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bears(middle, spread, aggregates, slot) else (low, middle)
    return low


def main() -> None:
    """Print a line for each kind of row."""
    for name, aggregates in KINDS.items():
        found = {spread: most(spread, aggregates) for spread in (1, 8, 32)}
        kb = len(partial(aggregates)) / 1024
        shown = ", ".join(f"spread={spread}: {shards} ({shards / found[1]:.1f}x)" for spread, shards in found.items())
        print(f"{name}, {kb:.2f} KB a slot; shards that one row bears: {shown}", flush=True)


if __name__ == "__main__":
    main()
