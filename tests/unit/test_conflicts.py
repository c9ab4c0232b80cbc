"""An identity that comes again with other content is said, and never taken for a copy; a copy never for a conflict."""

import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.codec import encode_batch
from headwater.contract import load_contract, parse_contract
from headwater.processors.audit.losses import losses_of
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Effects, Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.conflicts import CONFLICTS
from headwater.processors.operators.contents import HORIZON_MS, MOST_EVENTS
from headwater.stream.record import StreamRecord

CONTRACT = load_contract("telemetry")
PIPELINE = Pipeline("t", CONTRACT).lake("t")
START = 1_762_160_400_000


def batch(first: int, values: list[float], origin: str = "o") -> bytes:
    rows = [{"device": f"d{int(one) % 3}", "metric": "m", "ts": START, "value": one} for one in values]
    return encode_batch(
        pa.Table.from_pylist(rows, schema=CONTRACT.arrow_schema), CONTRACT, origin=origin, first_seq=first
    )


class Reader:
    """A shard's engine."""

    def __init__(self, state: ShardState | None = None, at: int = 0) -> None:
        self.state, self.at, self.letters = state or ShardState(PIPELINE), at, list[Any]()
        self.values: list[float] = []

    def take(self, *datas: bytes, later_ms: int = 0) -> "Reader":
        engine = Engine(PIPELINE, "shard-1", self.state, lambda *_: pytest.fail("no references"))
        records = []
        for data in datas:
            self.at += 1
            records.append(StreamRecord("shard-1", str(1000 + self.at), START + later_ms, "k", data))
        found: Effects = engine.process(records)
        self.letters += found.letters
        for table in found.lake:
            self.values += table["value"].to_pylist()
        return self

    @property
    def conflicts(self) -> int:
        return self.state.counts.get(CONFLICTS, 0)


def test_two_writers_that_number_alike_are_told_apart() -> None:
    """Their batches are cut elsewhere; the letter has the events that would have been dropped."""
    found = Reader().take(batch(0, [1, 2, 3, 4]), batch(0, [5, 6]), batch(2, [3, 4, 7]))
    assert (found.values, found.conflicts) == ([1, 2, 3, 4, 7], 2)
    (letter,) = found.letters
    assert "of origin 'o', numbers 0 to 1 were read before with other content" in letter.reason
    assert letter.payload.count(b"\n") == 1
    assert b'"value":5' in letter.payload.replace(b" ", b"")
    assert losses_of(found.state.counts) == {CONFLICTS: 2}


def test_events_of_others_between_hide_no_conflict() -> None:
    """In the same call, and before it; they have no identity that another could take."""
    other = b'{"device": "d", "metric": "m", "ts": 1762160400000, "value": 8}'
    found = Reader().take(batch(0, [1, 2]), other).take(other, batch(0, [5, 2]), other, batch(1, [6]))
    assert (found.values, found.conflicts, len(found.letters)) == ([1, 2, 8, 8, 8], 2, 2)


def test_an_own_id_names_one_event_for_ever_whatever_comes_under_it() -> None:
    """By the user's word: the second is a copy, and its content is not looked at."""
    text = "{name: a, version: 1, key: o, time: t, id: {origin: o, seq: s}, fields: [{name: o, type: string},"
    contract = parse_contract(text + " {name: t, type: timestamp}, {name: s, type: long}]}", "test")
    pipeline = Pipeline("t", contract).lake("t")
    state = ShardState(pipeline)
    engine = Engine(pipeline, "shard-1", state, lambda *_: pytest.fail("no references"))
    events = [f'{{"o": "d", "t": {START + at}, "s": 1}}'.encode() for at in range(2)]
    found = engine.process([StreamRecord("shard-1", str(at), START, "k", one) for at, one in enumerate(events, 1)])
    assert ([table.num_rows for table in found.lake], found.letters) == ([1], [])
    assert (state.counts["duplicates"], CONFLICTS in state.counts) == (1, False)
    assert state.contents.to_table().num_rows == 0


def test_what_is_remembered_survives_snapshots_and_reshards_and_ends() -> None:
    """Both parents' after a merge; nothing of other columns, of too long ago, or of too many events ago."""
    one, two = Reader().take(batch(0, [1, 2])), Reader().take(batch(0, [3, 4], "p"))
    state = ShardState.loads(PIPELINE, one.state.dumps())
    assert Reader(state, 5).take(batch(0, [9, 2])).conflicts == 1
    child = Reader(one.state.child(PIPELINE, two.state), 9).take(batch(0, [9, 2]), batch(0, [3, 9], "p"))
    assert child.conflicts == 2
    assert (
        Reader(ShardState.loads(PIPELINE, one.state.dumps()), 5).take(batch(0, [9]), later_ms=HORIZON_MS).conflicts == 0
    )
    full = Reader().take(batch(0, [1]), batch(1, [0.0] * (MOST_EVENTS - 1)))
    assert full.take(batch(0, [2])).conflicts == 1
    assert full.take(batch(MOST_EVENTS, [0.0]), batch(0, [3])).conflicts == 1


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_every_conflict_and_no_copy_however_batches_and_calls_are_cut(seed: int) -> None:
    """Runs of one origin come again and again, some from a writer with other content."""
    chance = random.Random(seed)
    first: dict[int, float] = {}
    datas, wrong = list[bytes](), 0
    for _ in range(chance.randint(1, 12)):
        start, count = chance.randrange(12), chance.randint(1, 6)
        other = chance.random() < 0.3
        values = [float(number * 7 + 1000 * other) for number in range(start, start + count)]
        for number, value in enumerate(values, start):
            wrong += first.setdefault(number, value) != value
        datas.append(batch(start, values))
    whole = Reader().take(*datas)
    cut = Reader()
    for data in datas:
        cut = Reader(ShardState.loads(PIPELINE, cut.state.dumps()), cut.at).take(data)
    assert whole.conflicts == cut.conflicts == wrong
    assert whole.state.contents.to_table().equals(cut.state.contents.to_table(), check_metadata=True)
