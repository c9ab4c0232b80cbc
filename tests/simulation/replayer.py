"""Somebody who puts a span of the stream on it again, and does so until it is done, however often the process dies."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.errors import UsageError
from headwater.ledger import Ledger
from headwater.processors.ports import PipelineReader, PipelineStores, StreamClient
from headwater.processors.replay.chunk import ArrivalSpan
from headwater.processors.replay.replay import Replay
from headwater.producers.resending import Resender
from tests.simulation.ledgerguard import LEDGER
from tests.simulation.producers import CONTROL_KEY
from tests.simulation.world import Proxy

if TYPE_CHECKING:
    from tests.simulation.system import System

__all__ = ["Replayer"]


@dataclass
class Replayer:
    """One replay, named by the span that was chosen when it began."""

    system: "System"
    stream: str
    span: ArrivalSpan | None = None

    def run(self) -> None:
        """Wait a while, then replay what has come by then."""
        system, world = self.system, self.system.world
        if self.span is None:
            began = world.now
            world.sleep(world.random.randint(10_000, 80_000))
            start = began + world.random.choice([-3_600_000, 5_000, 20_000])
            self.span = ArrivalSpan(start, max(start + 1, world.now - world.random.randint(1_000, 9_000)))
        dynamodb = Proxy(world, "dynamodb", system.dynamodb)
        objects: Any = Proxy(world, "s3", system.objects)
        pipeline, client = system.pipeline, system.client()
        stores = PipelineStores(pipeline, Ledger(dynamodb, LEDGER, pipeline.name), objects, system.clock)
        reader = PipelineReader(stores, StreamClient(client, self.stream), _no_table)
        resender = Resender(
            client, self.stream, pipeline.contract, system.clock, None, world.random.random, CONTROL_KEY
        )
        try:
            found = Replay(reader, self.span, "stream", self.stream).run(resender, lambda: None)
        except UsageError as error:  # a clock behind takes the span's end for the future
            world.note(f"no replay: {error}")
        else:
            world.note(f"* replayed {found.events} events")
            world.fired["* replay"] += found.events > 0


def _no_table() -> None:
    raise AssertionError("a replay of the stream reads no table")
