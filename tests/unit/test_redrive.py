"""Events with an id of their own that died come back under the same id, once, however often they are sent."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates import count, sum
from headwater.codec import encode_batch, encode_kpl
from headwater.contract import parse_contract
from headwater.ledger import ShardEntry
from headwater.processors.audit.audit import audit
from headwater.processors.audit.report import AuditReport
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.stream.record import StreamRecord

START = 1_762_160_400_000
CONTRACT = parse_contract(
    """
name: metered
version: 1
key: device
time: ts
id: {origin: device, seq: seq}
fields:
  - {name: device, type: string}
  - {name: seq, type: long}
  - {name: ts, type: timestamp}
  - {name: value, type: double, maximum: 1000}
""",
    "test",
)
GOOD, FAILS, FILTERED, INVALID = 1.5, 13.0, 7.0, 1e9


def doubled(events: pa.Table) -> pa.Table:
    if FAILS in events["value"].to_pylist():
        raise ValueError("unlucky")
    return pa.table({"twice": pa.array([value * 2 for value in events["value"].to_pylist()], pa.float64())})


PIPELINE = (
    Pipeline("test", CONTRACT)
    .map(doubled, adds={"twice": "double"})
    .where(lambda events: pa.array([value != FILTERED for value in events["value"].to_pylist()], pa.bool_()))
    .view("ever", by=["device"], n=count(), total=sum("value"))
    .lake("metered")
)
Event = tuple[str, int, float]


def record(number: int, events: Sequence[Event], form: str = "batch") -> StreamRecord:
    rows = [{"device": d, "seq": s, "ts": START + s, "value": v} for d, s, v in events]
    if form == "batch" and all(value != INVALID for _, _, value in events):
        data = encode_batch(pa.Table.from_pylist(rows, CONTRACT.arrow_schema), CONTRACT)
    else:
        data = encode_kpl([json.dumps(row).encode() for row in rows], "k", None)
    return StreamRecord("shardId-000000000000", str(number), START + number, "k", data)


class Reader:
    """A shard's reader with what reached its sinks."""

    def __init__(self, state: ShardState | None = None) -> None:
        self.state = state or ShardState(PIPELINE)
        self.lake: list[pa.Table] = []
        self.letters: list[Any] = []

    def read(self, records: Sequence[StreamRecord]) -> "Reader":
        engine = Engine(PIPELINE, "shardId-000000000000", self.state, lambda *_: pytest.fail("no references"))
        effects = engine.process(records)
        self.lake += effects.lake
        self.letters += [(x.sequence_number, x.index, x.reason, x.payload) for x in effects.letters]
        return self

    def restart(self) -> None:
        self.state = ShardState.loads(PIPELINE, self.state.dumps())

    def rows(self) -> list[Event]:
        return [(x["device"], x["seq"], x["value"]) for table in self.lake for x in table.to_pylist()]

    def audit(self) -> AuditReport:
        batches = [batch for table in self.lake for batch in table.combine_chunks().to_batches()]
        entries: list[ShardEntry] = []
        return audit("test", entries, [self.state], batches)


events = st.tuples(
    st.sampled_from(["a", "b"]), st.integers(0, 5), st.sampled_from([GOOD, 2.5, FAILS, FILTERED, INVALID])
)
streams = st.lists(
    st.tuples(st.lists(events, min_size=1, max_size=5), st.sampled_from(["batch", "kpl"])), min_size=1, max_size=10
).map(lambda found: [record(n, rows, form) for n, (rows, form) in enumerate(found, 1)])


def test_put_right_and_sent_again() -> None:
    """A failing function and a broken contract: both letters, sent again put right, arrive under the same id, once."""
    reader = Reader().read([record(1, [("a", 1, FAILS), ("a", 2, INVALID), ("a", 3, GOOD)], "kpl")])
    assert [letter[1] for letter in reader.letters] == [0, 1]
    assert reader.rows() == [("a", 3, GOOD)]
    again = [record(n, [("a", 1, GOOD), ("a", 2, 2.5)]) for n in (2, 3)]
    reader.read(again)
    assert sorted(reader.rows()) == [("a", 1, GOOD), ("a", 2, 2.5), ("a", 3, GOOD)]
    assert reader.state.counts["revived"] == 2
    assert reader.audit().exact
    assert reader.audit().excluded == 0


def test_still_not_right() -> None:
    """What is sent again and fails again gets a letter again: redriving never loses one."""
    reader = Reader().read([record(1, [("a", 1, FAILS)]), record(2, [("a", 2, INVALID)])])
    reader.read([record(3, [("a", 1, FAILS)]), record(4, [("a", 2, INVALID)])])
    assert [letter[0] for letter in reader.letters] == ["1", "2", "3", "4"]
    assert reader.rows() == []
    assert reader.audit().exact


@pytest.mark.parametrize("form", ["batch", "kpl"])
def test_sent_again_in_the_next_record_of_one_read(form: str) -> None:
    """What became of the first decides about the second, also of records that are read in one pass."""
    reader = Reader().read([record(1, [("a", 1, FAILS)], form), record(2, [("a", 1, GOOD)], form)])
    assert [letter[0] for letter in reader.letters] == ["1"]
    assert reader.rows() == [("a", 1, GOOD)]
    assert reader.state.counts["revived"] == 1


def test_after_a_split_and_a_merge() -> None:
    """Children know what died in their parent, and after a merge what was revived in either."""
    parent = Reader().read([record(1, [("a", 1, FAILS)])])
    left, right = Reader(parent.state.child(PIPELINE)), Reader(parent.state.child(PIPELINE))
    assert left.read([record(2, [("a", 1, GOOD)])]).rows() == [("a", 1, GOOD)]
    merged = Reader(right.state.child(PIPELINE, left.state))
    assert merged.read([record(3, [("a", 1, GOOD)])]).rows() == []


@settings(max_examples=150)
@given(records=streams, cuts=st.lists(st.integers(0, 10), max_size=5))
def test_however_it_is_cut(records: list[StreamRecord], cuts: list[int]) -> None:
    """The same lake rows and letters for any cut and restart; each id in the lake at most once, the audit exact."""
    whole = Reader().read(records)
    parts = Reader()
    for start, stop in pairwise([0, *sorted(cut for cut in cuts if cut < len(records)), len(records)]):
        parts.read(records[start:stop]).restart()
    assert parts.rows() == whole.rows()
    assert parts.letters == whole.letters or sorted(parts.letters) == sorted(whole.letters)
    assert parts.state.counts == whole.state.counts
    ids = [row[:2] for row in whole.rows()]
    assert len(ids) == len(set(ids))
    assert whole.audit().exact
    buried = {(x["device"], x["seq"]) for x in (json.loads(letter[3]) for letter in whole.letters)}
    assert whole.state.counts["events"] >= len(ids) + len(buried - set(ids))
