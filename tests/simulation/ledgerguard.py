"""DynamoDB in memory that watches the ledger's items: each write is held against what may ever happen to one."""

from typing import Any

from headwater.sinks.views.items import Item, row_key
from headwater.sinks.views.slots import epoch_of
from headwater.testing.dynamodb import MemoryDynamoDB, Staleness
from tests.simulation.world import World

__all__ = ["LEDGER", "VIEWS", "GuardedDynamoDB"]

LEDGER, VIEWS, PIPELINE = "headwater-ledger", "headwater-views", "sim"


class GuardedDynamoDB(MemoryDynamoDB):
    """Positions never go back, epochs only up, a closed shard stays closed, and only its owner moves a shard."""

    def __init__(self, world: World) -> None:
        super().__init__(Staleness(seed=world.seed, unprocessed=0.1))
        self._world = world
        self.violations: list[str] = []
        self.woken: set[str] = set()
        """Rows of views that are there since an owner wrote to them that had lost its shard while it did so."""
        self._risen: dict[str, int] = {}
        """By shard, when it had another owner for the last time."""
        self.create_table(TableName=LEDGER, KeySchema=[{"AttributeName": "pipeline"}, {"AttributeName": "item"}])
        self.create_table(TableName=VIEWS, KeySchema=[{"AttributeName": "pk"}, {"AttributeName": "sk"}])

    def update_item(self, *, TableName: str, Key: dict[str, Any], **options: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        watched = TableName == LEDGER and Key["item"]["S"].startswith("shard#")
        at = tuple(part["S"] for part in Key.values())
        old = self.stored(TableName, *at) if watched else None
        answer = super().update_item(TableName=TableName, Key=Key, **options)
        new = self.stored(TableName, *at) if watched else None
        if new:
            self._check(old, new)
        return answer

    def put_item(self, *, TableName: str, Item: dict[str, Any], **options: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        old = self.stored(TableName, Item["pk"]["S"], Item["sk"]["S"]) if TableName == VIEWS else None
        answer = super().put_item(TableName=TableName, Item=Item, **options)
        if TableName == VIEWS and any(self._is_lost(shard, epoch) for shard, epoch in _written(old, Item)):
            self.woken.add(row_key(Item))
        return answer

    def delete_item(self, *, TableName: str, Key: dict[str, Any], **options: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        answer = super().delete_item(TableName=TableName, Key=Key, **options)
        if TableName == VIEWS:
            self.woken.discard(row_key(Key))
        return answer

    def _is_lost(self, shard: str, epoch: int) -> bool:
        """Whether the shard had another owner after this actor's last look at the ledger, or its first write."""
        entry, actor = self.stored(LEDGER, PIPELINE, f"shard#{shard}"), self._world.current
        if actor is None or entry is None or not 0 < epoch < int(entry["epoch"]["N"]):
            return False
        before, first, _ = actor.calls
        return self._risen[shard] >= (before if before[0] == LEDGER else first)[1]

    def _check(self, old: dict[str, Any] | None, new: dict[str, Any]) -> None:
        if old is None:
            self.violations.append("a shard's item was made by an update")
            return
        position = old["position"]["S"], new["position"]["S"]
        epoch = int(old["epoch"]["N"]), int(new["epoch"]["N"])
        closed = old["closed"]["BOOL"], new["closed"]["BOOL"]
        where = new["item"]["S"]
        if position[1] < position[0]:
            self.violations.append(f"{where}: the position went back")
        if epoch[1] < epoch[0] or (old["owner"] != new["owner"] and epoch[1] <= epoch[0]):
            self.violations.append(f"{where}: the epoch did not rise")
        if epoch[1] > epoch[0]:
            self._risen[where.removeprefix("shard#")] = self._world.now
        if closed[0] and not closed[1]:
            self.violations.append(f"{where}: a closed shard was opened")
        moved = position[0] != position[1] or closed[0] != closed[1]
        actor = self._world.current
        if moved and actor is not None and new["owner"]["S"] != actor.process:
            self.violations.append(f"{where}: moved by {actor.process}, owned by {new['owner']['S']}")


def _written(old: dict[str, Any] | None, new: dict[str, Any]) -> list[tuple[str, int]]:
    """Shard and epoch of each slot that is another than before."""
    if "slots" not in new:  # a key that is listed, or a slot beside its row, which names it next
        return []
    before, now = Item.read(old) if old else Item(), Item.read(new)
    return [
        (slot.rpartition("/")[0], epoch_of(now.version(slot)))
        for slot in {*now.slots, *now.more}
        if now.version(slot) != before.version(slot)
    ]
