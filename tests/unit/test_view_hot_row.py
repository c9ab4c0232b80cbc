"""A row that more shards feed than its partition of DynamoDB bears: less fresh, and right."""

import json
from collections import Counter
from typing import Any

from botocore.exceptions import ClientError

from headwater.aggregates import merge, values
from headwater.clock import ManualClock
from headwater.errors import Throttled
from headwater.testing.dynamodb import MemoryDynamoDB
from tests.views import AGGREGATES, VIEW, memory, store, upsert

UNITS = 40
"""What the partition takes in a second; DynamoDB's 1,000, made small. One is a started KB."""
SHARDS, SECONDS = 30, 20


class Partition:
    """Throttles as one partition does: a put that is refused by its condition costs as well."""

    def __init__(self, dynamodb: MemoryDynamoDB, clock: ManualClock) -> None:
        self._dynamodb, self._clock = dynamodb, clock
        self.used: Counter[int] = Counter()
        self.throttled = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dynamodb, name)

    def put_item(self, **request: Any) -> Any:
        second = self._clock.now_ms() // 1000
        units = -(-len(json.dumps(request["Item"], default=repr)) // 1024)
        if self.used[second] + units > UNITS:
            self.throttled += 1
            raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "-"}}, "PutItem")
        self.used[second] += units
        return self._dynamodb.put_item(**request)


def test_a_row_above_its_partitions_limit_ends_right() -> None:
    """Shards flush every second; one that is throttled for good keeps what it has, and flushes its newest version."""
    dynamodb, clock = memory(), ManualClock()
    partition = Partition(dynamodb, clock)
    writers = [store(partition, clock, attempts=2) for _ in range(SHARDS)]
    waiting: dict[int, int] = {}
    written: Counter[int] = Counter()
    for second in range(1, SECONDS + 200):
        if second <= SECONDS:
            waiting = dict.fromkeys(range(SHARDS), second)
        for shard, number in list(waiting.items()):
            try:
                writers[shard].write(VIEW, [upsert("fleet", f"s{shard}/0", number)])
            except Throttled:
                continue
            del waiting[shard]
            written[shard] += 1
        clock.advance(1_000)
        if not waiting:
            break
    assert not waiting
    assert partition.throttled > SHARDS, "the partition was asked for more than it takes"
    assert max(partition.used.values()) <= UNITS
    assert max(written.values()) <= SECONDS, "a shard writes a row once a flush"
    newest = [upsert("fleet", f"s{shard}/0", SECONDS).partial for shard in range(SHARDS)]
    (row,) = store(dynamodb).get(VIEW, ("fleet",))
    assert {name: row[name] for name in ("n", "total")} == values(AGGREGATES, merge(AGGREGATES, newest))
