"""Who keeps the lake's table in shape, and who has a key forgotten: each until it is done, however often it dies."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.errors import Retryable
from headwater.ledger import Ledger
from headwater.processors.alerts.store import AlertStore
from headwater.processors.erasure.forget import forget
from headwater.processors.erasure.ports import ErasurePorts
from headwater.processors.generations import pinned_snapshots
from headwater.processors.ports import PipelineStores
from headwater.sinks.deadletter import DeadLetters
from headwater.sinks.lake.compaction import CompactionSizes
from headwater.sinks.lake.maintenance import Maintenance, MaintenanceSettings
from headwater.sinks.lake.rewrite import SortOrder
from headwater.sinks.lake.unreadable import is_unreadable
from headwater.sinks.views.items import key_parts
from tests.simulation.catalog import CatalogSession
from tests.simulation.ledgerguard import LEDGER
from tests.simulation.operator import PASSING
from tests.simulation.world import Proxy

if TYPE_CHECKING:
    from tests.simulation.system import System

__all__ = ["Eraser", "Keeper"]

Positions = dict[str, int]
"""By shard, up to where it is read."""
_SIZES = CompactionSizes(target=1 << 20, small=1 << 19, fewest=2)
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000


def _maintenance(system: "System") -> Maintenance:
    """A process's own upkeep of the table, with what it reads and writes through."""
    world, pipeline = system.world, system.after
    ledger, session = _ledger(system), CatalogSession(system.table, world)
    contract = pipeline.contract
    objects: Any = Proxy(world, "s3", system.objects)
    how = MaintenanceSettings(SortOrder(contract.key, contract.time), _SIZES)
    return Maintenance(
        system.table.name,
        session.load_table,
        ledger,
        objects,
        system.clock,
        how,
        lambda: pinned_snapshots(ledger, pipeline),
    )


def _ledger(system: "System") -> Ledger:
    return Ledger(Proxy(system.world, "dynamodb", system.dynamodb), LEDGER, system.after.name)


@dataclass
class Keeper:
    """The table's upkeep, for some rounds."""

    system: "System"
    left: int = 3

    def run(self) -> None:
        """A few rounds of what `lake maintain` does. Started again after a crash, it does the rest."""
        world = self.system.world
        care = _maintenance(self.system)
        while self.left:
            world.sleep(world.random.randint(5_000, 25_000))
            self.left -= 1
            try:
                done = care.step(2, world.random.choice([10_000, _DAY_MS]), _HOUR_MS)
            except Exception as error:
                if not (isinstance(error, (*PASSING, OSError)) or is_unreadable(error)):
                    raise
                world.note(f"the table's upkeep will try again: {type(error).__name__}: {error}")
            else:
                world.note(f"* {done}")
                world.fired["* compact"] += done["joined"] > 0


@dataclass
class Eraser:
    """One key's forgetting. What it takes away is judged by where the shards were before and after it."""

    system: "System"
    rebuilding: bool
    """Whether a view is rebuilt from the stream: what others wrote cannot be left out there once it is forgotten."""
    key: str = field(init=False)
    before: Positions = field(default_factory=dict)
    """When the call began that had nothing left at its end: events up to here are gone."""
    after: Positions | None = None
    """When it had ended: events behind this are there. None while it has not."""
    _waited: bool = False

    def __post_init__(self) -> None:
        keys = ["d0", "d1", "d2"] + ["foreign"] * (2 * (not self.rebuilding))
        self.key = self.system.world.random.choice(keys)

    def run(self) -> None:
        """Wait a while, and call until nothing of the key is left."""
        system, world = self.system, self.system.world
        if not self._waited:
            world.sleep(world.random.randint(15_000, 90_000))
            self._waited = True
        owner = f"{world.current.name}.{world.now}" if world.current else ""
        while self.after is None:
            self.before = self._positions()
            publisher = system.publisher(owner)

            def publish(publisher: Any = publisher) -> None:
                publisher.step()
                world.sleep(1_000)

            try:
                found = forget(self._ports(), self.key, owner, publish, step_bytes=world.random.choice([1, 1 << 20]))
            except Exception as error:
                if not (isinstance(error, (*PASSING, OSError)) or is_unreadable(error)):
                    raise
                world.note(f"forgetting {self.key} again: {type(error).__name__}: {error}")
                if isinstance(error, Retryable) and system.quarantined() & system.pending():
                    return  # the call waits for every file, and this one waits for a person
                world.sleep(3_000)
                continue
            if found.left:
                world.note(f"still there of {self.key}: {found.left}")
                world.sleep(3_000)
                continue
            self.after = self._positions()
            world.fired["* forget"] += 1
            world.note(f"* forgotten: {found}")

    def is_undone(self) -> bool:
        """Whether an owner that hung within a write has brought a row of the key back, as docs/lake.md says it may.

        The write was sent after all else was removed: only the next call can take it away.
        """
        keys = (key_parts(row.partition("#")[2]) for row in self.system.dynamodb.woken)
        return self.after is not None and any(self.key in one for one in keys)

    def _ports(self) -> ErasurePorts:
        system = self.system
        dynamodb = Proxy(system.world, "dynamodb", system.dynamodb)
        objects: Any = Proxy(system.world, "s3", system.objects)
        session: Any = CatalogSession(system.table, system.world)
        pipeline = system.pipeline
        stores = PipelineStores(pipeline, Ledger(dynamodb, LEDGER, pipeline.name), objects, system.clock)
        views: Any = system.ports(pipeline).views
        return ErasurePorts(
            stores,
            session.load_table,
            views,
            AlertStore(dynamodb, LEDGER, pipeline.name),
            DeadLetters(objects),
            lambda: _maintenance(system),
            view_tables=list,  # there are none
            drop_table=lambda _: None,
        )

    def _positions(self) -> Positions:
        return {entry.shard_id: int(entry.position) for entry in self.system.ledger.shards()}
