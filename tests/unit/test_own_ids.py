"""Own ids in the engine: random numbers of 64 bits, the ends of their range, and texts such as UUIDs."""

import json
import random
import uuid

import pyarrow as pa
import pytest

from headwater.codec import encode_batch
from headwater.contract import Contract, conform, parse_contract
from headwater.lineage.origins import OriginSets
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.controls import read_receipt
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.stream.record import StreamRecord

LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
START = 1_762_160_400_000
SHARD = "shardId-000000000000"


def contract(own_id: str) -> Contract:
    return parse_contract(
        f"""
name: reading
version: 1
key: device
time: ts
id: {own_id}
fields:
  - {{name: device, type: string}}
  - {{name: n, type: long}}
  - {{name: ts, type: timestamp}}
""",
        "test",
    )


NUMBERED, NAMED = contract("{origin: device, seq: n}"), contract("{origin: device}")


def no_reference(name: str, uri: str) -> ReferenceTable:
    raise AssertionError((name, uri))


class Reader:
    """The engine of one shard, and the rows that its lake got."""

    def __init__(self, of: Contract) -> None:
        self.contract, self.pipeline = of, Pipeline("t", contract=of).lake("readings")
        self.state, self.rows, self.read = ShardState(self.pipeline), list[tuple[str, int]](), 0
        self.engine = Engine(self.pipeline, SHARD, self.state, no_reference)

    def record(self, events: list[tuple[str, int]]) -> None:
        """Read one batch."""
        rows = [{"device": device, "n": n, "ts": START} for device, n in events]
        found = conform(self.contract, pa.Table.from_pylist(rows, self.contract.arrow_schema))
        assert not found.invalid
        self.read += 1
        number = str(1000 + self.read)
        record = StreamRecord(SHARD, number, START + self.read, "k", encode_batch(found.table, self.contract))
        for table in self.engine.process([record]).lake:
            self.rows += zip(table["device"].to_pylist(), table["n"].to_pylist(), strict=True)

    def reopen(self) -> None:
        """Go on from the snapshot, as after a restart."""
        self.state = ShardState.loads(self.pipeline, self.state.dumps())
        self.engine = Engine(self.pipeline, SHARD, self.state, no_reference)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "events",
    [
        [("a", HIGHEST)],
        [("a", LOWEST)],
        [("a", HIGHEST), ("a", LOWEST), ("a", 0), ("a", -1)],
        [("a", -(2**62) - 5), ("a", 2**62 + 5), ("a", 7), ("a", -99)],
    ],
)
def test_numbers_of_any_size_come_once(events: list[tuple[str, int]], again: bool) -> None:
    """One record each, all twice, and with a restart between: each is in the lake once."""
    reader = Reader(NUMBERED)
    for event in [*events, *events]:
        reader.record([event])
        if again:
            reader.reopen()
    assert reader.rows == events
    assert reader.state.counts["duplicates"] == len(events)


def test_two_thousand_random_ids_of_twenty_devices() -> None:
    """Two of a device in each batch, as devices with random ids send them; then all once more."""
    draw = random.Random(1)
    events = [(f"dev{at % 20}", draw.randint(LOWEST, HIGHEST)) for at in range(2_000)]
    reader = Reader(NUMBERED)
    for at in range(0, 2_000, 40):
        reader.record(events[at : at + 40])
    reader.reopen()
    for at in range(0, 2_000, 100):
        reader.record(events[at : at + 100])
    assert sorted(reader.rows) == sorted(events)
    assert reader.state.counts["duplicates"] == 2_000


def test_an_id_may_be_a_text() -> None:
    """A contract whose id is one field, unique by itself: a UUID is an origin with one event."""
    draw = random.Random(2)
    events = [(str(uuid.UUID(int=draw.getrandbits(128))), 0) for _ in range(500)]
    reader = Reader(NAMED)
    for at in range(0, 500, 50):
        reader.record(events[at : at + 50])
        reader.record(events[max(0, at - 25) : at + 50])
        reader.reopen()
    assert sorted(reader.rows) == sorted(events)


@pytest.mark.parametrize("intervals", [1, 200])
def test_a_receipt_reaches_the_highest_number(intervals: int) -> None:
    """Its half-open stop is 2^63, which no int64 holds: the whole receipt was refused, with all its other origins."""
    highest = 2**63 - 1
    spans = [[2 * number, 2 * number + 1] for number in range(intervals - 1)] + [[highest, highest + 1]]
    accepted = OriginSets()
    read_receipt({"contract": "c", "intervals": {"o": spans, "p": [[0, 3]]}}).add_to(accepted, 1)
    assert accepted.get("p").intervals == [(0, 3)]
    assert accepted.get("o").intervals[-1] == (highest, highest + 1)
    assert len(accepted.get("o").intervals) == intervals


@pytest.mark.parametrize("ahead", ["2100-01-01T00:00:00Z", "no time"])
def test_the_id_of_a_refused_event_is_found_by_its_path(ahead: str) -> None:
    """Whether it was refused as it was written, or after it was decoded, when its fields have their own names."""
    text = """
name: reading
version: 1
key: device
time: ts
id: {origin: device, seq: n}
fields:
  - {name: device, type: string, from: meta.device}
  - {name: n, type: long, from: meta.number}
  - {name: ts, type: timestamp}
"""
    reader = Reader(parse_contract(text, "test"))
    event = {"meta": {"device": "a", "number": 7}, "ts": ahead}
    record = StreamRecord(SHARD, "1", START, "k", json.dumps(event).encode())
    assert len(reader.engine.process([record]).letters) == 1
    assert reader.state.is_dead("a", 7)
