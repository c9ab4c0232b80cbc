"""A view built from the stream: what was forgotten does not come back, and where that cannot be told it is refused."""

import json
from collections.abc import Callable

import pyarrow as pa
import pytest

from headwater.aggregates import count
from headwater.codec import encode_batch
from headwater.contract import parse_contract
from headwater.errors import HeadwaterError, UsageError
from headwater.ledger import Commit
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState
from headwater.processors.generations import DOCUMENT, Serving, generations, unique_events
from headwater.processors.rebuild.from_stream import StreamPast
from headwater.processors.rebuild.rebuild import Rebuild
from headwater.processors.shard.snapshots import StateStore
from headwater.stream.hashkeys import HASH_SPACE
from tests.kpl import aggregate
from tests.rebuilding import Told
from tests.typed import a_key
from tests.unit.test_rebuild_seam import services_of
from tests.unit.test_rollups import World

DAY_MS = 86_400_000
NUMBERED = Pipeline("rollups", contract="telemetry").view("total", by=[], n=count()).lake("telemetry")
OWN = parse_contract(
    "name: own\nversion: 1\nkey: device\ntime: ts\nid: {origin: device, seq: number}\nfields:\n"
    "  - {name: device, type: string}\n  - {name: number, type: long}\n  - {name: ts, type: timestamp}\n",
    "test",
)
OWNED = Pipeline("rollups", contract=OWN).view("total", by=[], n=count()).lake("telemetry")


class Stream(World):
    """With shards that are read by the pipeline, and states that are changed as forgetting changes them."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(350_000, pipeline)

    def put_owned(self, device: str, *numbers: int) -> None:
        now = self.clock.now_ms()
        rows = {"device": [device] * len(numbers), "number": list(numbers), "ts": [now] * len(numbers)}
        table = pa.table(rows, schema=OWN.arrow_schema)
        body = encode_batch(table, OWN, origin="x", first_seq=0)
        self.kinesis.put_record(StreamName="s", Data=body, PartitionKey=device)

    def change(self, change: Callable[[ShardState], object], at: int = 0) -> None:
        """The state of one shard, whose owner is fenced."""
        self.crash()
        entry = self.ledger.claim(self.ledger.shards()[at].shard_id, "forgets", None, self.clock.now_ms())
        store = StateStore(self.pipeline, self.objects)
        state = store.load(entry)
        change(state)
        body, key = store.store(entry, entry.position, state.dumps())
        mark, now = entry.watermark_ms, self.clock.now_ms()
        self.ledger.commit(entry, Commit(entry.position, body, key, [], state.counts, mark, entry.closed, now))

    def rebuilt(self) -> int:
        """By the view that was built anew, how many events there are."""
        services = services_of(self, self.pipeline)
        done = Rebuild(
            services.rebuild_ports,
            "total",
            StreamPast(services.reader, services.views),
            Told(lambda *_: self.read()),
        ).run()
        assert done.events == sum(unique_events(one.counts) for one in self.ledger.shards())
        (row,) = services.views.rows(Serving(self.ledger, self.pipeline, self.clock).view("total").spec)
        return int(str(row["n"]))

    @property
    def serving(self) -> int:
        return generations(self.ledger.document(DOCUMENT)[0], self.pipeline)["total"].serving.number


def test_events_that_were_forgotten_do_not_come_back() -> None:
    """Nor do their copies, on the same shard or on a child of it."""
    world = Stream(NUMBERED)
    for _ in range(3):
        world.put(0)
    world.read_all()
    world.change(lambda state: state.excluded.add_intervals("o", [(5, 12), (15, 25)], world.clock.now_ms()), at=1)
    world.reshard(True, 0.0)
    body = encode_batch(world.sent[0], NUMBERED.contract, origin="o", first_seq=0)
    world.kinesis.put_record(StreamName="s", Data=body, PartitionKey="x", ExplicitHashKey="0")
    world.read_all()
    assert world.rebuilt() == 60 - 17


def test_a_key_that_is_itself_the_origin_and_was_forgotten_does_not_come_back() -> None:
    """What it sent since then is counted."""
    world = Stream(OWNED)
    world.put_owned("a", 0, 1, 2)
    world.put_owned("b", 0, 1)
    world.read_all()
    for at in range(2):
        world.change(lambda state: state.forget(a_key("device", "a"), is_origin=True), at)
    world.put_owned("a", 7, 8)
    world.read_all()
    assert world.rebuilt() == 4


def test_events_without_an_identity_are_refused_when_some_are_not_in_the_lake() -> None:
    """Which ones, the stream does not say. While all are there, they are counted."""
    world = Stream(NUMBERED)
    event = {"device": "d", "metric": "m", "ts": "2025-11-03T09:00:00Z", "value": 1.5}
    world.kinesis.put_record(StreamName="s", Data=json.dumps(event).encode(), PartitionKey="x")
    world.put(0)
    world.read_all()
    assert world.ledger.shards()[0].counts.get("foreign", 0) + world.ledger.shards()[1].counts.get("foreign", 0) == 1
    assert world.rebuilt() == 21
    world.change(lambda state: state.count("foreign_excluded"))
    with pytest.raises(HeadwaterError, match=r"others put into stream s, some were forgotten.*take them from the lake"):
        world.rebuilt()
    assert world.serving == 2


def test_events_that_came_back_from_the_dead_letters_are_refused() -> None:
    """Before anything has begun."""
    world = Stream(OWNED)
    world.put_owned("a", 0)
    world.read_all()
    world.change(lambda state: state.revived.add_intervals("a", [(0, 1)], world.clock.now_ms()))
    with pytest.raises(UsageError, match=r"1 events that came back from the dead letters.*take them from the lake"):
        world.rebuilt()
    assert world.ledger.document(DOCUMENT)[0] == {}


def test_a_stream_that_keeps_events_for_longer_than_states_remember_is_refused() -> None:
    world = Stream(NUMBERED)
    world.kinesis.increase_stream_retention_period(StreamName="s", RetentionPeriodHours=8760)
    world.put(0)
    world.read_all()
    world.clock.advance(31 * DAY_MS)
    world.put(0)
    world.read_all()
    with pytest.raises(HeadwaterError, match="for longer than it is known which were forgotten"):
        world.rebuilt()
    assert world.serving == 1


def test_user_records_of_another_shard_count_where_they_belong() -> None:
    """An aggregate that the KPL put on the wrong shard for some of its user records, and those again."""
    world = Stream(NUMBERED)
    now = world.clock.now_ms()
    bodies = [json.dumps({"device": "k", "metric": "m", "ts": now, "value": float(at)}).encode() for at in range(3)]
    keys = [0, 1, HASH_SPACE - 1]
    users = [("k", body, key) for body, key in zip(bodies, keys, strict=True)]
    for data, key in [(aggregate(*users), keys[0]), (bodies[2], keys[2])]:
        world.kinesis.put_record(StreamName="s", Data=data, PartitionKey="k", ExplicitHashKey=str(key))
    world.read_all()
    assert world.rebuilt() == len(bodies)
