"""A second pipeline: it reads what the first one sends on to another stream, in a process that is started again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.ledger import Ledger, ShardEntry
from headwater.processors.definition.claims import REGISTRY, claim_names
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.runners.pages import ReaderSettings
from headwater.processors.shard.outgoing import outgoing_document
from headwater.sinks.streams import KinesisStreams, StreamBatch
from tests.simulation.ledgerguard import LEDGER
from tests.simulation.producers import CONTROL_KEY
from tests.simulation.services import NeverStopped
from tests.simulation.workload import NEXT, PASSED
from tests.simulation.world import Crash, Proxy

if TYPE_CHECKING:
    from tests.simulation.system import System

__all__ = ["Passing"]


class _Streams(KinesisStreams):
    """A process's way to the other stream, on which it may die: what it is about to put is written down by then."""

    def __init__(self, system: "System") -> None:
        self._world = system.world
        super().__init__(system.client(), lambda _: CONTROL_KEY, system.clock, system.world.random.random)

    def send(self, stream: str, batches: Sequence[StreamBatch]) -> None:
        if self._world.chance("crash before a put"):
            raise Crash
        super().send(stream, batches)


@dataclass
class Passing:
    """The other stream, and who reads it. Nobody publishes its files: they wait in its ledger."""

    system: "System"
    reader: ReaderSettings

    def __post_init__(self) -> None:
        self.system.kinesis.create_stream(StreamName=PASSED, ShardCount=self.system.world.random.choice([1, 2]))
        self.ledger = Ledger(self.system.dynamodb, LEDGER, NEXT.name)
        self.system.world.fired["* to stream"] += 1

    def streams(self) -> KinesisStreams:
        """A process's own way to the other stream."""
        return _Streams(self.system)

    def run(self, owner: str) -> None:
        """One process of the second pipeline."""
        system = self.system
        settings = system.settings.model_copy(update={"stream": PASSED})
        registry = Ledger(Proxy(system.world, "dynamodb", system.dynamodb), LEDGER, REGISTRY)
        claim_names(NEXT, settings, "memory", registry)
        ports = system.ports(NEXT)
        runner = EmbeddedRunner(NEXT, system.client(), ports, settings, system.clock, owner, self.reader)
        runner.run(NeverStopped(system.world), discover_seconds=5.0)  # type: ignore[arg-type]  # it has what an event has

    def entries(self) -> list[ShardEntry]:
        """The second pipeline's shards."""
        return self.ledger.shards()

    def is_settled(self) -> bool:
        """Whether all that goes on is there, told of and read."""
        system = self.system
        for entry in system.ledger.shards():
            document, _ = system.ledger.document(outgoing_document(entry.shard_id))
            if document.get("batches") or document.get("key") or any(document.get("unannounced", {}).values()):
                return False
        known = {entry.shard_id: entry for entry in self.entries()}
        for shard in system.kinesis.shards(PASSED):
            mine = known.get(shard.shard_id)
            if mine is None or (shard.closed is not None and not mine.closed):
                return False
            if shard.records and int(mine.position) < shard.records[-1].number:
                return False
        return True
