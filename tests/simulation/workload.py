"""What the producers of a run have to say, and what has become of it in the stream: the truth."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from headwater import aggregates as agg
from headwater.contract import Contract, Field
from processors.pipeline import Pipeline, Reference
from processors.windows import tumbling
from producers.sealing import Numbers, SealedBatch, Sealer
from producers.settings import ProducerSettings
from tests.simulation.world import World

__all__ = ["BEFORE", "PIPELINE", "Event", "Outbox", "Session", "zones"]

_BASE = (Field("device", "string"), Field("ts", "timestamp"), Field("value", "long", maximum=1000))
V1 = Contract("telemetry", 1, _BASE, key="device", time="ts")
V2 = Contract("telemetry", 2, (*_BASE, Field("site", "string", required=False)), key="device", time="ts")
_UNBOUND = (*_BASE[:2], Field("value", "long"))
SLOPPY = {
    V1: Contract("telemetry", 1, _UNBOUND, key="device", time="ts"),
    V2: Contract("telemetry", 2, (*_UNBOUND, V2.fields[-1]), key="device", time="ts"),
}
"""A producer's that does not know the bound."""


def _kept(table: pa.Table) -> pa.Array:
    """Filters 13 and fails on 666."""
    values = table.column("value").to_pylist()
    if 666 in values:
        raise ValueError("a value that the function cannot take")
    return pa.array([value != 13 for value in values])


def zones(version: int) -> bytes:
    """A version of the reference table: its number for every device."""
    return b"device,zone\n" + b"".join(b"d%d,%d\n" % (device, version) for device in range(3))


def _over(contract: Contract) -> Pipeline:
    reference = Reference("zones", "s3://memory/zones/1.csv", key="device", columns={"zone": "long"})
    return (
        Pipeline("sim", contract)
        .where(_kept)
        .enrich(reference, on="device")
        .view("by_minute", by=["device"], window=tumbling("1m"), events=agg.count(), total=agg.sum("value"))
        .view("ever", by=["device"], events=agg.count(), highest=agg.max("value"))
        .view("by_zone", by=["zone"], spread=3, events=agg.count())
        .lake("telemetry", partition="hour")
    )


BEFORE, PIPELINE = _over(V1), _over(V2)
"""The pipeline with the contract's first version, and with the second, which readers take before producers do."""


@dataclass(frozen=True)
class Event:
    """One event as it was meant."""

    device: str
    ts: int
    value: int

    @property
    def dead(self) -> bool:
        return self.value > 1000 or self.value == 666

    @property
    def kept(self) -> bool:
        return not self.dead and self.value != 13


@dataclass
class Outbox:
    """What survives a producer: sealed batches, and which of them were confirmed."""

    batches: list[SealedBatch] = field(default_factory=list)
    confirmed: set[int] = field(default_factory=set)


class Session:
    """A producing session: numbers its events and seals them. `truth` has each by its identity."""

    def __init__(self, world: World, name: str, place: Callable[[int], int]) -> None:
        self._world = world
        self.numbers = Numbers(name)
        settings = ProducerSettings(max_events=8, receipts=False)
        self._sealers = {
            id(contract): Sealer(contract, settings, self.numbers, place) for contract in (V1, V2, *SLOPPY.values())
        }
        self.truth: dict[tuple[str, int], Event] = {}
        self.upgraded = False
        self.outbox = Outbox()

    def seal(self) -> list[SealedBatch]:
        """A few events more, sealed and in the outbox."""
        random = self._world.random
        sloppy = random.random() < 0.15
        contract = V2 if self.upgraded else V1
        contract = SLOPPY[contract] if sloppy else contract
        events = [self._event(sloppy) for _ in range(random.randint(1, 5))]
        columns = {
            "device": pa.array([one.device for one in events]),
            "ts": pa.array([one.ts for one in events], pa.int64()).cast(pa.timestamp("ms", "UTC")),
            "value": pa.array([one.value for one in events], pa.int64()),
            "site": pa.array([None for _ in events], pa.string()),
        }
        table = pa.table({one.name: columns[one.name] for one in contract.fields})
        sealer = self._sealers[id(contract)]
        for part in sealer.cut_table(table, 64, lambda _: None):
            sealer.append(part, self._world.now)
        made = []
        for buffer in sealer.take(self._world.now, everything=True):
            _, sealed = sealer.seal(buffer)
            made += [batch for batch, _ in sealed]
        first = made[0].first_seq
        self.truth.update({(self.numbers.origin, first + at): one for at, one in enumerate(events)})
        self.outbox.batches += made
        return made

    def _event(self, sloppy: bool) -> Event:
        random = self._world.random
        late = random.choice([0, 0, 0, 600_000, 4 * 3_600_000])
        value = random.randint(0, 600)
        if sloppy and random.random() < 0.4:
            value = 5000
        elif random.random() < 0.03:
            value = 666
        elif random.random() < 0.05:
            value = 13
        ts = self._world.now - late - random.randint(0, 90_000)
        return Event(f"d{random.randint(0, 2)}", ts, value)
