"""Somebody who rebuilds a view from the stream by its second definition, until it serves, however often he dies."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.ledger import Ledger
from headwater.processors.jobs import Cancelled, NoProgress
from headwater.processors.ports import PipelineReader, PipelineStores, StreamClient
from headwater.processors.rebuild.from_stream import StreamPast
from headwater.processors.rebuild.ports import RebuildPorts
from headwater.processors.rebuild.rebuild import Rebuild
from headwater.processors.shard.context import WorkerContext
from headwater.processors.shard.worker import ShardWorker
from tests.simulation.ledgerguard import LEDGER
from tests.simulation.world import Proxy, World

if TYPE_CHECKING:
    from tests.simulation.system import System

__all__ = ["Rebuilder"]

_NEW = 2
"""The version of the definition that is built."""


class _Cancelling(NoProgress):
    """Now and then somebody cancels the job, as long as that can be done."""

    def __init__(self, world: World) -> None:
        self._world, self._final = world, False

    def __call__(self, events: int, done: int) -> None:
        if not self._final and self._world.now < self._world.faults_until_ms and self._world.random.random() < 0.01:
            self._world.fired["* given up"] += 1
            raise Cancelled("simulated")

    def phase(self, name: str, total: int | None = None, *, final: bool = False) -> None:
        self._final |= final
        self._world.note(f"rebuild: {name}")
        self(0, 0)


@dataclass
class Rebuilder:
    """One view's rebuild. `take_over`: shards that no processor touches are begun in its own name."""

    system: "System"
    stream: str
    view: str = field(init=False)
    take_over: str | None = field(init=False)
    waited: bool = False

    def __post_init__(self) -> None:
        random = self.system.world.random
        self.view = random.choice(["ever", "by_zone"])
        self.take_over = random.choice([None, "rebuilder"])

    def run(self) -> None:
        """Wait a while, then rebuild by the code that is deployed now."""
        world = self.system.world
        if not self.waited:
            world.sleep(world.random.randint(5_000, 80_000))
            self.waited = True
        while True:
            try:
                found = self._rebuild()
            except Cancelled:
                world.note("* the rebuild is given up")
                world.sleep(2_000)
            else:
                break
        world.note(f"* rebuilt {self.view} of {found} events")
        world.fired["* rebuild"] += 1

    def _rebuild(self) -> int:
        system = self.system
        pipeline, client = system.pipeline, system.client()
        dynamodb, objects = Proxy(system.world, "dynamodb", system.dynamodb), Proxy(system.world, "s3", system.objects)
        stores = PipelineStores(pipeline, Ledger(dynamodb, LEDGER, pipeline.name), objects, system.clock)  # type: ignore[arg-type]  # simulated objects
        shards = system.ports(pipeline)
        views: Any = shards.views

        def claim(shard_id: str, owner: str) -> ShardWorker:
            context = WorkerContext(pipeline, shards, system.settings, system.clock, owner)
            return ShardWorker.claim(context, shard_id)

        ports = RebuildPorts(stores, views, system.settings.commit_seconds, claim)
        reader = PipelineReader(stores, StreamClient(client, self.stream), _no_table)
        past = StreamPast(reader, views, shards.check_control)
        progress = _Cancelling(system.world)
        return Rebuild(ports, self.view, past, progress, take_over=self.take_over).run(_NEW).events


def _no_table() -> None:
    raise AssertionError("a rebuild from the stream reads no table")
