"""DynamoDB in memory that watches the ledger's items: each write is held against what may ever happen to one."""

from typing import Any

from headwater.testing.dynamodb import MemoryDynamoDB, Staleness
from tests.simulation.world import World

__all__ = ["LEDGER", "VIEWS", "GuardedDynamoDB"]

LEDGER, VIEWS = "headwater-ledger", "headwater-views"


class GuardedDynamoDB(MemoryDynamoDB):
    """Positions never go back, epochs only up, a closed shard stays closed, and only its owner moves a shard."""

    def __init__(self, world: World) -> None:
        super().__init__(Staleness(seed=world.seed, unprocessed=0.1))
        self._world = world
        self.violations: list[str] = []
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
        if closed[0] and not closed[1]:
            self.violations.append(f"{where}: a closed shard was opened")
        moved = position[0] != position[1] or closed[0] != closed[1]
        actor = self._world.current
        if moved and actor is not None and new["owner"]["S"] != actor.process:
            self.violations.append(f"{where}: moved by {actor.process}, owned by {new['owner']['S']}")
