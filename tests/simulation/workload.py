"""What a run is about: contracts, the pipeline before and after a deployment, and the truth about every event.

The truth knows an event by a number of its own, in the field `n`, and nothing of identities: who gives an event its
identity is under test.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from headwater import aggregates as agg
from headwater.contract import Contract, Field
from headwater.contract.definition import OwnId
from headwater.processors.alerts import above, absent
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from tests.simulation.world import World

__all__ = ["FLAVOURS", "NEXT", "PASSED", "SESSIONS", "WINDOW_MS", "Event", "Flavour", "Truth", "goes_on", "zones"]

WINDOW_MS = 10_000
"""Of the view `by_time`."""
_BASE = (
    Field("device", "string"),
    Field("ts", "timestamp"),
    Field("value", "long", maximum=1000),
    Field("n", "long"),
    Field("id", "long"),
)
_SITE = Field("site", "string", required=False)


def _kept(table: pa.Table) -> pa.Array:
    """Filters 13 and fails on 666."""
    values = table.column("value").to_pylist()
    if 666 in values:
        raise ValueError("a value that the function cannot take")
    return pa.array([value != 13 for value in values])


def zones(version: int) -> bytes:
    """A version of the reference table: its number for every device."""
    return b"device,zone\n" + b"".join(b"d%d,%d\n" % (device, version) for device in range(3))


def _weighed(code: int) -> Callable[[pa.Table], pa.Table]:
    """What a version of the code makes of an event: another fold after each deployment."""
    return lambda table: pa.table({"weight": pa.array([value * code for value in table["value"].to_pylist()])})


def goes_on(value: int) -> bool:
    """Whether a kept event of this value goes on to the other stream."""
    return value % 2 == 0


def _even(table: pa.Table) -> pa.Array:
    return pa.array([goes_on(value) for value in table["value"].to_pylist()])


PASSED = "passed"
"""The other stream."""
_PASSED = Contract(
    "passed",
    1,
    (Field("device", "string"), Field("ts", "timestamp"), Field("n", "long"), Field("weight", "long")),
    key="device",
    time="ts",
)
NEXT = Pipeline("next", _PASSED).lake("next", partition=None)
"""The pipeline that reads it."""


def _over(contract: Contract, code: int, sends: bool) -> Pipeline:
    made = _plain(contract, code)
    return made.to_stream(PASSED, contract=_PASSED, where=_even) if sends else made


def _plain(contract: Contract, code: int) -> Pipeline:
    reference = Reference("zones", "s3://memory/zones/1.csv", key="device", columns={"zone": "long"})
    return (
        Pipeline("sim", contract, allowed_lateness="10s")
        .where(_kept)
        .map(_weighed(code), adds={"weight": "long"})
        .enrich(reference, on="device")
        .view("by_time", by=["device"], window=tumbling("10s"), events=agg.count(), total=agg.sum("weight"))
        .view("ever", by=["device"], events=agg.count(), highest=agg.max("value"))
        .view("ever", version=2, by=["device"], events=agg.count(), lowest=agg.min("value"))
        .view("by_zone", by=["zone"], spread=3, events=agg.count())
        .view("by_zone", version=2, by=["zone", "device"], spread=2, events=agg.count())
        .alert("busy", on="by_time", when=above("events", 2, clear=1))
        .alert("steady", on="by_time", when=above("events", 0), for_="20s")
        .alert("silent", on="by_time", when=absent(), for_="20s")
        .lake("telemetry", partition="hour")
    )


@dataclass(frozen=True)
class Flavour:
    """A contract in two versions, the pipelines over them, and the same for producers that do not know the bound."""

    before: Pipeline
    after: Pipeline
    sloppy: tuple[Contract, Contract]

    @property
    def own(self) -> bool:
        """Whether events have ids of their own."""
        return self.after.contract.id is not None

    def contract(self, upgraded: bool, sloppy: bool) -> Contract:
        """What a producer is started with."""
        return self.sloppy[upgraded] if sloppy else (self.after if upgraded else self.before).contract


def _flavour(own: OwnId | None, sends: bool) -> Flavour:
    unbound = tuple(Field("value", "long") if one.name == "value" else one for one in _BASE)

    def contract(version: int, fields: tuple[Field, ...]) -> Contract:
        return Contract("telemetry", version, fields, key="device", time="ts", id=own)

    v1, v2 = contract(1, _BASE), contract(2, (*_BASE, _SITE))
    return Flavour(_over(v1, 1, sends), _over(v2, 2, sends), (contract(1, unbound), contract(2, (*unbound, _SITE))))


FLAVOURS = {
    (own, sends): _flavour(OwnId("device", "id", partitions=4) if own else None, sends)
    for own in (False, True)
    for sends in (False, True)
}
"""By whether events have ids of their own, and whether they go on to another stream."""
SESSIONS = FLAVOURS[False, False]


@dataclass(frozen=True)
class Event:
    """One event as it was meant. `id` is its own where the contract has one, else of no account."""

    device: str
    ts: int
    value: int
    n: int
    id: int

    @property
    def dead(self) -> bool:
        return self.value > 1000 or self.value == 666

    @property
    def kept(self) -> bool:
        return not self.dead and self.value != 13

    @property
    def row(self) -> dict[str, object]:
        return {"device": self.device, "ts": self.ts, "value": self.value, "n": self.n, "id": self.id}


@dataclass
class Truth:
    """Every event that somebody has put, and what may have become of it."""

    world: World
    own: bool
    random_ids: bool = False
    """Ids of 64 random bits and the ends of their range, not numbers that count up."""
    _edges: list[int] = field(default_factory=lambda: [(1 << 63) - 1, -(1 << 63), 0, -1, 1, (1 << 63) - 2])
    events: dict[int, Event] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    """`put` has returned, or the client would not rest until it had."""
    lost: set[int] = field(default_factory=set)
    """Those in no copy of an outbox that was put back: they may be gone."""
    doubled: set[int] = field(default_factory=set)
    """Those that a copy of an outbox had unsealed: they may be there again under another identity."""

    def event(self, sloppy: bool = False, device: str | None = None) -> Event:
        """A new event; of contracts with own ids none that is dead, for it may come again under its id."""
        random = self.world.random
        late = random.choice([0, 0, 0, 600_000, 4 * 3_600_000])
        value = random.randint(0, 600)
        if sloppy and random.random() < 0.4:
            value = 5000
        elif random.random() < 0.03:
            value = 666
        elif random.random() < 0.05:
            value = 13
        if self.own and (value > 1000 or value == 666):
            value = 1
        n = len(self.events)
        own_id = n
        if self.random_ids:
            own_id = random.getrandbits(64) - (1 << 63)
            if self._edges and random.random() < 0.1:
                own_id = self._edges.pop()
        ts = self.world.now - late - random.randint(0, 90_000)
        event = Event(device or f"d{random.randint(0, 2)}", ts, value, n, own_id)
        self.events[n] = event
        return event
