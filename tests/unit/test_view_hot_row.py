"""A row that more shards feed than its partition of DynamoDB bears: less fresh, and right."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from headwater.aggregates.merging import merge, values
from headwater.clock import ManualClock
from headwater.errors import Throttled
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.views import AGGREGATES, VIEW, memory, store, upsert

UNITS = 40
"""What the partition takes in a second; DynamoDB's 1,000, made small. One is a started KB."""
SHARDS, SECONDS = 30, 20


class Partitions:
    """Each throttles by itself, as DynamoDB's do: a put that is refused by its condition costs as well."""

    def __init__(self, dynamodb: MemoryDynamoDB, clock: ManualClock) -> None:
        self._dynamodb, self._clock = dynamodb, clock
        self.used: Counter[tuple[str, int]] = Counter()
        self.throttled = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dynamodb, name)

    def put_item(self, **request: Any) -> Any:
        at = request["Item"]["pk"]["S"], self._clock.now_ms() // 1000
        units = -(-len(json.dumps(request["Item"], default=repr)) // 1024)
        if self.used[at] + units > UNITS:
            self.throttled += 1
            raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "-"}}, "PutItem")
        self.used[at] += units
        return self._dynamodb.put_item(**request)


class Load:
    """Shards that flush one row every second. One that is throttled for good keeps what it has, and flushes its newest
    version."""

    def __init__(self, spread: int) -> None:
        self.view = replace(VIEW, spread=spread)
        self.dynamodb, self.clock = memory(), ManualClock()
        self.partitions = Partitions(self.dynamodb, self.clock)
        self.written: Counter[int] = Counter()
        """Flushes of each shard that took place."""

    def run(self) -> None:
        """Until all is written that there is."""
        writers = [store(self.partitions, self.clock, attempts=2) for _ in range(SHARDS)]
        waiting: dict[int, int] = {}
        for second in range(1, SECONDS + 200):
            if second <= SECONDS:
                waiting = dict.fromkeys(range(SHARDS), second)
            for shard, number in list(waiting.items()):
                try:
                    writers[shard].write(self.view, [upsert("fleet", f"shardId-{shard:012d}/0", number)])
                except Throttled:
                    continue
                del waiting[shard]
                self.written[shard] += 1
            self.clock.advance(1_000)
            if second >= SECONDS and not waiting:
                return
        raise AssertionError(f"{len(waiting)} shards are still throttled")

    def row(self) -> dict[str, object]:
        (row,) = store(self.dynamodb).windows(self.view, ("fleet",))
        return {name: row[name] for name in ("n", "total")}


NEWEST = values(AGGREGATES, merge(AGGREGATES, [upsert("fleet", "any", SECONDS).partial] * SHARDS))


def test_a_row_above_its_partitions_limit_ends_right() -> None:
    load = Load(spread=1)
    load.run()
    assert load.partitions.throttled > SHARDS, "the partition was asked for more than it takes"
    assert max(load.partitions.used.values()) <= UNITS
    assert max(load.written.values()) <= SECONDS, "a shard writes a row once a flush"
    assert load.row() == NEWEST


def test_a_row_that_is_spread_bears_as_many_times_the_shards() -> None:
    """The same load over eight partitions: none is throttled, so every flush takes place and the row is fresh."""
    plain, spread = Load(spread=1), Load(spread=8)
    plain.run()
    spread.run()
    assert spread.partitions.throttled == 0
    assert set(spread.written.values()) == {SECONDS}
    assert sum(plain.written.values()) < SHARDS * SECONDS / 2
    assert spread.row() == plain.row() == NEWEST
