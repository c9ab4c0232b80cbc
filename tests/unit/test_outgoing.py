"""What goes on of a shard, call by call: what is on the other streams, in the shard's document and in the objects."""

import base64
import random
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headwater.clock import ManualClock
from headwater.codec import Decoded, decode_record
from headwater.codec.bounds import plain_bytes
from headwater.config import Settings
from headwater.errors import Fenced, Retryable, UsageError
from headwater.ledger import Ledger
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.operators.outputs import Outputs
from headwater.processors.shard import outgoing
from headwater.processors.shard.context import Ports, WorkerContext
from headwater.processors.shard.outgoing import Outgoing, outgoing_document
from headwater.sinks.streams import StreamBatch
from headwater.stream import sequence
from headwater.stream.record import StreamRecord
from headwater.testing import MemoryDynamoDB
from headwater.testing.objects import MemoryObjects
from tests.flowing import DOUBLED, READING, SHARD, times

START = 30_000
"""As much after the clock's beginning as there is between two receipts."""
Sent = tuple[str, str, int, list[int]]
"""Of a batch: stream, origin, first number, and `n` of its events."""


class Streams:
    """What was put, and the streams that take nothing now."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, StreamBatch]] = []
        self.receipts: list[tuple[str, Mapping[str, Any]]] = []
        self.down: set[str] = set()

    def send(self, stream: str, batches: Sequence[StreamBatch]) -> None:
        if stream in self.down:
            raise Retryable(f"stream {stream} is down")
        self.batches += [(stream, one) for one in batches]

    def announce(self, stream: str, receipt: Mapping[str, object]) -> None:
        self.receipts.append((stream, receipt))


class World:
    """One shard's ledger and objects, for one owner after the other."""

    def __init__(self) -> None:
        self.clock, self.streams, self.objects = ManualClock(START), Streams(), MemoryObjects()
        db: Any = MemoryDynamoDB()
        keys = [{"AttributeName": n, "KeyType": k} for n, k in (("pipeline", "HASH"), ("item", "RANGE"))]
        db.create_table(TableName="ledger", KeySchema=keys)
        self.ledger = Ledger(db, "ledger", "p")

    def owner(self, epoch: int, *, streams: Streams | None = None, two: bool = True) -> Outgoing:
        pipeline = Pipeline("p", READING).map(times(2), adds={"twice": "long"}).to_stream("a", contract=READING)
        pipeline = pipeline.to_stream("b", contract=DOUBLED) if two else pipeline
        nothing: Any = None
        ports = Ports(self.ledger, self.objects, nothing, nothing, nothing, None, streams or self.streams)
        return Outgoing(WorkerContext(pipeline, ports, Settings(), self.clock, "me"), SHARD, epoch)

    @property
    def document(self) -> dict[str, Any]:
        return self.ledger.document(outgoing_document(SHARD))[0]

    @property
    def revision(self) -> int:
        return self.ledger.document(outgoing_document(SHARD))[1]

    def sent(self) -> list[Sent]:
        """What was put since the last time."""
        found = list[Sent]()
        for stream, one in self.streams.batches:
            content = decode_record(one.data, READING if stream == "a" else DOUBLED)
            assert isinstance(content, Decoded)
            assert content.origin is not None
            found.append((stream, content.origin, content.first_seq, content.table["n"].to_pylist()))
        self.streams.batches = []
        return found

    def told(self) -> list[tuple[str, str, list[list[list[int]]]]]:
        """The receipts since the last time."""
        found = [
            (stream, str(one["contract"]), list(one["intervals"].values())) for stream, one in self.streams.receipts
        ]
        self.streams.receipts = []
        return found

    def life(self, subject: Outgoing, *events: int, stream: str = "a") -> None:
        """Take in an event a record, and put it."""
        add(subject, {stream: list(events)}, *events)
        subject.flush(sequence.pad(str(max(events))))


def add(subject: Outgoing, streams: dict[str, list[int]], *records: int, traces: Sequence[str] = ()) -> None:
    """Take in events, each of the record of its number."""
    made = []
    for stream, events in streams.items():
        schema = (READING if stream == "a" else DOUBLED).arrow_schema
        rows = [{"device": "d", "ts": 1, "n": n, "twice": 2 * n} for n in events]
        at = np.array([records.index(n) for n in events], np.int64)
        made.append(Outputs(stream, pa.Table.from_pylist(rows, schema=schema), at))
    subject.add(made, [StreamRecord(SHARD, str(one), 0, "k", b"") for one in records], traces)


def pos(number: int) -> str:
    return sequence.pad(str(number))


def test_what_is_due_is_put_after_its_second_and_told_after_thirty() -> None:
    """To the millisecond; with numbers that go on, and each event told of once."""
    world = World()
    subject = world.owner(1)
    world.clock.advance(400)
    add(subject, {"a": [5, 6], "b": [6]}, 5, 6)
    world.clock.advance(599)
    subject.tick(pos(6))
    assert (world.sent(), world.document) == ([], {"epoch": 1})
    world.clock.advance(1)
    subject.tick(pos(6))
    ((_, origin, _, _), _) = sent = world.sent()
    assert sent == [("a", origin, 0, [5, 6]), ("b", origin, 0, [6])]
    assert origin.startswith(f"p/{SHARD}/")
    assert world.document["through"] == pos(6)
    assert world.document["unannounced"] == {"a": {origin: 2}, "b": {origin: 1}}
    add(subject, {"a": [7]}, 7)
    world.clock.advance(999)
    subject.tick(pos(7))
    assert world.sent() == []
    world.clock.advance(1)
    subject.tick(pos(7))
    assert world.sent() == [("a", origin, 2, [7])]
    world.clock.advance(27_999)
    subject.tick(pos(7))
    assert world.told() == []
    world.clock.advance(1)
    subject.tick(pos(7))
    assert world.told() == [("a", "reading", [[[0, 3]]]), ("b", "doubled", [[[0, 1]]])]
    assert world.document == {
        "epoch": 1,
        "through": pos(7),
        "unannounced": {"a": {}, "b": {}},
        "contracts": {"a": "reading", "b": "doubled"},
        "announced": {"a": {}, "b": {}},
    }
    revision = world.revision
    world.clock.advance(30_000)
    subject.tick(pos(7))
    subject.before_commit(pos(7), closed=True)
    assert (world.told(), world.revision) == ([], revision), "nothing new, nothing said and written"
    add(subject, {"a": [8]}, 8)
    subject.before_commit(pos(8), closed=False)
    assert (world.sent(), world.told()) == ([("a", origin, 3, [8])], [])
    subject.before_commit(pos(8), closed=True)
    assert world.told() == [("a", "reading", [[[3, 4]]])]


def test_before_a_commit_nothing_is_left_to_be_put_again() -> None:
    """What is told of waits for its time, or for the shard's end; written once."""
    world = World()
    subject = world.owner(1)
    subject.before_commit(pos(4), closed=False)
    assert world.revision == 1, "nothing has been put"
    add(subject, {"a": [5]}, 5)
    subject.before_commit(pos(5), closed=False)
    (sent,) = world.sent()
    assert (world.told(), world.document["unannounced"]) == ([], {"a": {sent[1]: 1}})
    assert not {"batches", "key"} & world.document.keys()
    revision = world.revision
    subject.before_commit(pos(9), closed=False)
    subject.flush(pos(9))
    assert (world.sent(), world.revision, world.document["through"]) == ([], revision, pos(5))
    subject.before_commit(pos(9), closed=True)
    assert (world.told(), world.revision) == ([("a", "reading", [[[0, 1]]])], revision + 1)


def test_a_successor_puts_the_same_bytes_and_leaves_out_what_they_have() -> None:
    """Written down and perhaps put; what the dead owner only had in memory is read again."""
    world = World()
    old = world.owner(1)
    add(old, {"a": [5, 6]}, 5, 6, traces=["00-0-0-00", f"00-{'1' * 32}-{'2' * 16}-01"])
    world.streams.down = {"a"}
    with pytest.raises(Retryable):
        old.flush(pos(6))
    assert len(base64.b64decode(world.document["batches"])) > 100
    world.streams.down = set()
    add(old, {"a": [7]}, 7)
    subject = world.owner(2)
    assert world.document["epoch"] == 2
    assert world.document["through"] == pos(6)
    add(subject, {"a": [5, 6]}, 5, 6)
    add(subject, {"a": [6, 7, 8]}, 6, 7, 8)
    subject.tick(pos(8))
    assert (world.sent(), world.told()) == ([], []), "neither due, nor to be told of before it is put"
    subject.flush(pos(8))
    (first, second) = world.sent()
    assert first[:1] + first[2:] == ("a", 0, [5, 6])
    assert second[:1] + second[2:] == ("a", 0, [7, 8])
    assert first[1] != second[1]
    subject.tick(pos(8))
    assert world.told() == [("a", "reading", [[[0, 2]], [[0, 2]]])], "what another left is told of at once"
    world.clock.advance(29_999)
    world.life(subject, 9)
    subject.tick(pos(9))
    assert world.told() == []
    for fenced in (lambda: old.flush(pos(7)), lambda: world.owner(1)):
        with pytest.raises(Fenced, match="another owner has taken it"):
            fenced()
    assert world.owner(2), "the same owner, whose answer was lost"


def test_a_batch_names_the_trace_that_its_events_came_with_last() -> None:
    world = World()
    subject, trace = world.owner(1), f"00-{'1' * 32}-{'2' * 16}-01"
    add(subject, {"a": [5]}, 5, traces=["00-0-0-00", trace])
    add(subject, {"a": [6]}, 6)
    subject.flush(pos(6))
    content = decode_record(world.streams.batches[0][1].data, READING)
    assert isinstance(content, Decoded)
    assert content.traceparent == trace


def test_what_a_predecessor_put_and_did_not_tell_of_is_told_at_the_first_time() -> None:
    """Also where nothing waits any more; and of a stream that the pipeline has no more."""
    world = World()
    old = world.owner(1)
    add(old, {"b": [5]}, 5)
    old.before_commit(pos(5), closed=False)
    ((_, origin, _, _),) = world.sent()
    subject = world.owner(2, two=False)
    subject.tick(pos(5))
    assert world.told() == [("b", "doubled", [[[0, 1]]])]
    assert world.document["unannounced"] == {"b": {}}
    assert origin not in str(world.document)
    quiet = world.owner(3, two=False)
    revision = world.revision
    world.clock.advance(29_999)
    quiet.tick(pos(5))
    assert (world.told(), world.revision) == ([], revision)


def test_a_successor_tells_of_nothing_that_its_predecessor_has_told_of() -> None:
    """Maybe a month ago: readers who have forgotten it since would look for it in vain."""
    world = World()
    old = world.owner(1)
    world.life(old, 5, 6)
    old.before_commit(pos(6), closed=True)
    assert world.told() == [("a", "reading", [[[0, 2]]])]
    world.life(old, 7)
    old.before_commit(pos(7), closed=False)
    world.owner(2).tick(pos(7))
    assert world.told() == [("a", "reading", [[[2, 3]]])]
    world.owner(3).tick(pos(7))
    assert world.told() == []


def test_a_stream_that_is_down_holds_up_no_other_and_gets_each_batch_once() -> None:
    world = World()
    subject = world.owner(1)
    add(subject, {"a": [5], "b": [5]}, 5)
    world.streams.down = {"b"}
    for _ in range(2):
        with pytest.raises(Retryable):
            subject.before_commit(pos(5), closed=True)
    (sent,) = world.sent()
    assert sent[0] == "a"
    world.clock.advance(30_000)
    world.streams.down = set()
    add(subject, {"a": [6]}, 6)
    subject.tick(pos(6))
    assert [(stream, first, events) for stream, _, first, events in world.sent()] == [("b", 0, [5]), ("a", 1, [6])]
    assert world.told() == [("a", "reading", [[[0, 2]]]), ("b", "doubled", [[[0, 1]]])]


def test_what_a_successor_is_to_put_is_put_when_its_second_is_over() -> None:
    world = World()
    world.streams.down = {"a"}
    with pytest.raises(Retryable):
        world.life(world.owner(1), 5)
    world.streams.down = set()
    subject = world.owner(2)
    world.clock.advance(1_000)
    subject.tick(sequence.NONE)
    assert [events for _, _, _, events in world.sent()] == [[5]]


def test_what_is_read_again_is_dropped_if_it_has_no_number_yet() -> None:
    world = World()
    subject = world.owner(1)
    world.life(subject, 5)
    add(subject, {"a": [6]}, 6)
    subject.rewound()
    world.life(subject, 5, 6, 7)
    assert [(first, events) for _, _, first, events in world.sent()] == [(0, [5]), (1, [6, 7])]


def test_bodies_too_large_for_the_document_are_in_one_of_two_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a byte more; never in the one that the document names, and a successor deletes what nobody names."""
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))
    world = World()
    world.life(world.owner(7), 5)
    size = len(base64.b64decode(world.document["batches"]))
    for most, inside in ((size, True), (size - 1, False)):
        monkeypatch.setattr(outgoing, "INLINE_STATE", most)
        world = World()
        subject = world.owner(7)
        world.life(subject, 5)
        assert ("batches" in world.document) == (not world.objects.bodies) == inside
    names = [f"state/p/{SHARD}/outgoing-00000007-{at}.arrow" for at in (0, 1)]
    for number, at in ((6, 1), (7, 0), (8, 1), (9, 0)):
        world.life(subject, number)
        assert "batches" not in world.document
        assert world.document["key"] == names[at]
        assert list(world.objects.bodies) == [names[at]]
    world.objects.put(names[1], b"of an owner that died between object and document")
    world.sent()
    successor = world.owner(8)
    assert list(world.objects.bodies) == [names[0]]
    successor.flush(pos(9))
    assert [events for _, _, _, events in world.sent()] == [[9]]
    world.life(successor, 10)
    assert list(world.objects.bodies) == [names[0].replace("7-0", "8-0")]
    successor.before_commit(pos(10), closed=False)
    assert world.objects.bodies == {}


def test_what_does_not_fit_a_record_is_halved_and_many_events_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of just the bytes is one, of one more it is two; by what a reader makes of it as well."""
    world, counted = World(), list[int]()
    events = sorted(random.Random(1).sample(range(1 << 50), 64))
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))

    def counting(table: pa.Table) -> int:
        counted.append(plain_bytes(table))
        return counted[-1]

    with monkeypatch.context() as patch:
        patch.setattr(outgoing, "plain_bytes", counting)
        world.life(world.owner(1), *events)
    ((_, body),) = world.streams.batches
    plain = max(counted)
    cases = [
        ("_BATCH_ROWS", 24, [events[:24], events[24:48], events[48:]]),
        ("_BATCH_BYTES", len(body.data), [events]),
        ("_BATCH_BYTES", len(body.data) - 1, [events[:32], events[32:]]),
        ("_BATCH_BYTES", 1, [[one] for one in events]),
        ("MAX_BATCH_BYTES", plain, [events]),
        ("MAX_BATCH_BYTES", plain - 1, [events[:32], events[32:]]),
        ("MAX_BATCH_BYTES", 1, [[one] for one in events]),
    ]
    for name, bound, wanted in cases:
        with monkeypatch.context() as patch:
            patch.setattr(outgoing, name, bound)
            world = World()
            world.life(world.owner(1), *events)
        places = {one.place for _, one in world.streams.batches}
        assert len(places) == len(wanted), "each batch has a place of its own"
        batches = world.sent()
        assert [found for _, _, _, found in batches] == wanted, (name, bound)
        assert [first for _, _, first, _ in batches] == [events.index(found[0]) for found in wanted]


def test_a_pipeline_with_streams_needs_somebody_to_put_on_them() -> None:
    world = World()
    nothing: Any = None
    ports = Ports(world.ledger, world.objects, nothing, nothing, nothing)
    pipeline = Pipeline("p", READING).to_stream("a", contract=READING)
    with pytest.raises(UsageError, match="pipeline p puts events on other streams, and there are none here"):
        Outgoing(WorkerContext(pipeline, ports, Settings(), world.clock, "me"), SHARD, 1)
