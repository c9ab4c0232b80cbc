"""A process without an outbox that goes on twice from one memory snapshot, as a function or a machine may."""

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from headwater.errors import BufferFull, HeadwaterError
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings, Receipt, Runtime
from tests.simulation.producers import CONTROL_KEY
from tests.simulation.workload import Event, Flavour, Truth
from tests.simulation.world import SimClock, World

__all__ = ["Twins"]

_SETTINGS = ProducerSettings(max_events=4, linger_ms=400, receipt_seconds=4.0, delivery_seconds=60.0)


class _StoppedClock(SimClock):
    """The clock of a process that may have been stopped: the monotonic one stood meanwhile."""

    stood_ms = 0

    def monotonic_ms(self) -> int:
        return self.now_ms() - self.stood_ms


@dataclass
class Twins:
    """One process, its copy, and what became of their events. What was not confirmed may be lost: there is no disk."""

    world: World
    truth: Truth
    flavour: Flavour
    stream: str
    left: int
    alarms: list[str] = field(default_factory=list)

    def run(self, client: Any) -> None:
        """Put some events, be copied between two of them, and go on in both. Not started again."""
        world, seed = self.world, self.world.random.getrandbits(64)
        first, second = (self._producer(client, seed) for _ in range(2))
        producer, copy = first[0], second[0]
        self._put(producer, world.random.randint(1, 4))
        self._settle(producer.flush)
        # nothing is on its way now: what the copy has of the process is how far it has counted
        copy._sender.sealer.numbering = replace(producer._sender.sealer.numbering)
        second[1].stood_ms = world.random.randint(5_000, 500_000)
        world.fired["* twins"] += 1
        world.note("* a process goes on twice")
        while self.left:
            self._put(world.random.choice([producer, copy]), min(self.left, world.random.randint(1, 3)))
            world.sleep(world.random.randint(50, 2_000))
        for one in (producer, copy):
            self._settle(one.close)

    def _producer(self, client: Any, seed: int) -> tuple[Producer, _StoppedClock]:
        clock = _StoppedClock(self.world)
        runtime = Runtime(clock, Random(seed))
        contract = self.flavour.before.contract
        return Producer(
            self.stream, contract, client=client, settings=_SETTINGS, runtime=runtime, control_key=CONTROL_KEY
        ), clock

    def _put(self, producer: Producer, count: int) -> None:
        for _ in range(min(count, self.left)):
            event = self.truth.event()
            self.left -= 1
            self.truth.accepted.add(event.n)
            self.truth.lost.add(event.n)
            future = producer.put(event.row)
            future.add_done_callback(lambda done, event=event: self._settled(event, done))  # type: ignore[misc]  # a lambda's default has no type

    def _settled(self, event: Event, done: "Future[Receipt]") -> None:
        error = None if done.cancelled() else done.exception()
        if not done.cancelled() and error is None:
            self.truth.lost.discard(event.n)
        elif error is not None and not isinstance(error, BufferFull):
            meant = any(text in str(error) for text in ("given up after", "KMSDisabledException", "was closed"))
            self.alarms += [] if meant else [f"{event} failed for good: {error}"]

    def _settle(self, step: Any) -> None:
        try:
            step()
        except HeadwaterError as error:
            self.world.note(f"not all was delivered: {error}")
