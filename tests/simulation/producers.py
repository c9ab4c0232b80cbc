"""The processes that produce: applications with a Producer and an outbox, and a client of a DirectProducer.

Their state that outlives a process is what the disk has: the outbox's file, and what the client has numbered.
"""

import shutil
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from headwater.contract import Contract
from headwater.errors import HeadwaterError
from headwater.lineage.origins import HORIZON_MS
from headwater.producers.direct import DirectProducer
from headwater.producers.producer import Producer
from headwater.producers.settings import ProducerSettings, Receipt, Runtime
from tests.simulation.workload import Event, Flavour, Truth
from tests.simulation.world import SimClock, World

__all__ = ["CONTROL_KEY", "Application", "Meter"]

CONTROL_KEY = b"what the stream's control records are signed with"
_SETTINGS = ProducerSettings(max_events=6, linger_ms=800, receipt_seconds=6.0, delivery_seconds=60.0)
_SUFFIXES = ("", "-wal", "-shm")


@dataclass
class Application:
    """One application: it puts its events, closes, and is started again when it crashed or could not deliver."""

    world: World
    truth: Truth
    flavour: Flavour
    stream: str
    path: Path
    """Of the outbox."""
    left: int
    """How many events it has still to put."""
    operations: frozenset[str]
    upgraded: bool = False
    restored: bool = False
    origins: set[str] = field(default_factory=set)
    """Sessions that tell of all their events sooner or later: the outbox remembers what no receipt has named."""
    mine: list[Event] = field(default_factory=list)
    delivered: set[int] = field(default_factory=set)
    """Of `mine`, by number, those that were confirmed for certain."""
    _copy: tuple[int, set[int]] | None = None
    _copied_ms: int = 0
    """What the copy of the file stands for: how many of `mine` came before, and those that were not confirmed then."""

    def run(self, client: Any) -> None:
        """One process. Raises HeadwaterError when not all was delivered: then it is to be started again."""
        random = self.world.random
        self._restore_or_copy()
        contract = self.flavour.contract(self.upgraded, random.random() < 0.2)
        runtime = Runtime(SimClock(self.world), Random(random.getrandbits(64)))
        producer = Producer(
            self.stream,
            contract,
            client=client,
            settings=_SETTINGS,
            outbox=self.path,
            runtime=runtime,
            control_key=CONTROL_KEY,
        )
        self.origins.add(producer.origin)
        for _ in range(min(self.left, random.randint(1, 14))):
            self._put(producer, contract.field("value").maximum is None)
            if random.random() < 0.4:
                self.world.sleep(random.randint(50, 5_000))
            if random.random() < 0.1:
                producer.flush()
        producer.close()

    def _put(self, producer: Producer, sloppy: bool) -> None:
        event = self.truth.event(sloppy)
        future = producer.put(event.row)
        self.truth.accepted.add(event.n)
        self.left -= 1
        self.mine.append(event)
        future.add_done_callback(lambda done: self._settled(event, done))

    def _settled(self, event: Event, done: "Future[Receipt]") -> None:
        if not done.cancelled() and done.exception() is None:
            self.delivered.add(event.n)

    def _restore_or_copy(self) -> None:
        """Before a process starts, its file may be put back to how it was before an earlier one.

        Not to one of more than thirty days ago: readers have forgotten by then what they had (docs/guarantees.md).
        """
        random = self.world.random
        if "restore" not in self.operations:
            return
        kept = self.path.with_suffix(".copy")
        if self._copy is not None and self.world.now - self._copied_ms > HORIZON_MS:
            self._copy = None
        if self._copy is not None and random.random() < 0.3:
            self._move(kept, self.path)
            count, unsealed = self._copy
            self.truth.doubled |= unsealed
            self.truth.lost |= {event.n for event in self.mine[count:]} - self.delivered
            self.restored, self._copy = True, None
            self.world.fired["* restore"] += 1
            self.world.note("* the outbox is put back")
        elif self.path.exists() and random.random() < 0.4:
            self._move(self.path, kept)
            self._copy = len(self.mine), {event.n for event in self.mine} - self.delivered
            self._copied_ms = self.world.now

    @staticmethod
    def _move(source: Path, target: Path) -> None:
        for suffix in _SUFFIXES:
            target.with_name(target.name + suffix).unlink(missing_ok=True)
            if source.with_name(source.name + suffix).exists():
                shutil.copy(source.with_name(source.name + suffix), target.with_name(target.name + suffix))


@dataclass
class Meter:
    """A client that numbers its events itself and sends a run again until a gateway has said that it is taken."""

    world: World
    truth: Truth
    flavour: Flavour
    stream: str
    path: Path
    left: int
    origin: str = "meter-0"
    next_seq: int = 0
    sending: list[Event] = field(default_factory=list)
    clash: bool = False
    """Whether somebody counts again from 0 under the same name, with other events."""
    clashed: set[int] = field(default_factory=set)
    """Their numbers in the truth: under identities that others have, they belong into the dead letters."""

    def run(self, client: Any) -> None:
        """One process of the gateway, and the client for so long."""
        world = self.world
        runtime = Runtime(SimClock(world), Random(world.random.getrandbits(64)))
        contract = self.flavour.before.contract
        gateway = DirectProducer(
            self.stream,
            contract,
            client=client,
            settings=_SETTINGS,
            outbox=self.path,
            runtime=runtime,
            control_key=CONTROL_KEY,
        )
        while self.left or self.sending:
            if not self.sending:
                self.sending = [self.truth.event() for _ in range(min(self.left, world.random.randint(1, 4)))]
                self.left -= len(self.sending)
                self.truth.accepted |= {event.n for event in self.sending}
            table = pa.Table.from_pylist([event.row for event in self.sending]).cast(contract.arrow_schema)
            taken = gateway.put(table, self.origin, self.next_seq)
            while not taken.done() and world.random.random() < 0.95:
                world.sleep(world.random.randint(50, 2_000))
            if taken.done() and taken.exception() is None:
                world.fired["* meter"] += 1
                self.next_seq += len(self.sending)
                self.sending = []
        if self.clash and self.next_seq:
            self._count_again(gateway, contract)
        try:
            gateway.close()
        except HeadwaterError as error:
            self.world.note(f"the gateway ends: {error}")
            raise

    def _count_again(self, gateway: DirectProducer, contract: Contract) -> None:
        """Send events under numbers that were given before, until they are taken."""
        events = [self.truth.event() for _ in range(min(self.next_seq, 3))]
        events = [replace(event, value=7) for event in events]
        self.truth.events |= {event.n: event for event in events}
        self.clashed |= {event.n for event in events}
        table = pa.Table.from_pylist([event.row for event in events]).cast(contract.arrow_schema)
        taken = gateway.put(table, self.origin, 0)
        while not taken.done():
            self.world.sleep(500)
        if taken.exception() is None:
            self.clash = False
            self.truth.accepted |= {event.n for event in events}
            self.world.fired["* clash"] += 1
