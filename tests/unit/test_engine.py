"""What the engine decides is a function of the shard's records up to there, and it is right."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.aggregates import count, distinct, first, last, max, mean, min, quantile, sum, variance
from headwater.aggregates.merging import merge, values
from headwater.codec import encode_batch, encode_control, encode_kpl
from headwater.contract import parse_contract
from headwater.errors import UsageError
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import hopping, tumbling
from headwater.processors.engine.engine import Engine
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.enrich import ReferenceTable
from headwater.processors.rebuild.recompute import batch_view, differences
from headwater.stream import sequence
from headwater.stream.record import StreamRecord

POISON = [
    b"\x00\x01",
    b"\x28\xb5\x2f\xfd\x00",
    b"not json",
    encode_control("reference", {"name": "sites"}),
    encode_control("receipt", {"contract": "reading", "intervals": {"p1": [[1]]}}),
]
START = 1_762_160_400_000
CONTRACT = parse_contract(
    """
name: reading
version: 1
key: device
time: ts
fields:
  - {name: device, type: string}
  - {name: ts, type: timestamp}
  - {name: value, type: double, maximum: 1000}
  - {name: note, type: string, required: false}
""",
    "test",
)
SITES = {
    "v1": pa.table({"device": ["a", "b"], "site": ["x", "y"]}),
    "v2": pa.table({"device": ["a", "b", "c"], "site": ["x2", "y", "z"]}),
}
REFERENCE = Reference("sites", "unused.csv", "device", {"site": "string"})


def doubled(events: pa.Table) -> pa.Table:
    if any(value == 13 for value in events["value"].to_pylist()):
        raise ValueError("unlucky")
    return pa.table({"double_value": pa.array([value * 2 for value in events["value"].to_pylist()], pa.float64())})


PIPELINE = (
    Pipeline("test", CONTRACT, allowed_lateness="1m")
    .enrich(REFERENCE, on="device")
    .map(doubled, adds={"double_value": "double"})
    .where(lambda events: pa.array([value != 7 for value in events["value"].to_pylist()], pa.bool_()))
    .view("per_minute", by=["device"], window=tumbling("1m"), n=count(), total=sum("value"), v=variance("value"))
    .view(
        "hops", by=["device", "site"], window=hopping("2m", every="1m"), n=count(), top=max("value"), low=min("value")
    )
    .view("ever", by=["site"], n=count(), m=mean("value"), f=first("value"), l=last("note"), q=quantile("value", 0.5))
    .view("all", by=[], window=tumbling("5m"), d=distinct("device"))
    .lake("readings")
)


def load_reference(name: str, uri: str) -> ReferenceTable:
    return ReferenceTable.of(REFERENCE, SITES[uri])


def new_state() -> ShardState:
    state = ShardState(PIPELINE)
    state.references = {"sites": {"version": 1, "uri": "v1"}}
    return state


@dataclass
class Sink:
    """What reaches the sinks, as they keep it: views by slot with 'only if newer'."""

    lake: list[dict[str, Any]] = field(default_factory=list)
    letters: list[tuple[str, int | None, str, bytes]] = field(default_factory=list)
    slots: dict[tuple[Any, ...], tuple[str, bytes]] = field(default_factory=dict)

    def flush(self, state: ShardState, *, evict: bool) -> None:
        for name, view in state.views.items():
            for partial in view.dirty():
                place = (name, partial.key, partial.window_start_ms, partial.bucket)
                if place not in self.slots or self.slots[place][0] < partial.version:
                    self.slots[place] = (partial.version, partial.partial)
            view.clean()
            if evict:
                view.evict(state.max_ts)

    def take(self, effects: Any) -> None:
        for table in effects.lake:
            self.lake += table.to_pylist()
        self.letters += [(x.sequence_number, x.index, x.reason, x.payload) for x in effects.letters]


events = st.fixed_dictionaries(
    {
        "device": st.sampled_from(["a", "b", "c"]),
        "ts": st.integers(0, 12 * 60).map(lambda s: START + s * 1000),
        "value": st.sampled_from([0.5, 7.0, 13.0, 250.0, 1e9, -3.25]),
        "note": st.sampled_from([None, "n1", "n2"]),
    }
)


@st.composite
def streams(draw: st.DrawFn) -> list[StreamRecord]:
    """Batches with identities, copies of them, foreign records of all forms, poison and control records."""
    sealed: list[bytes] = []
    datas: list[bytes] = []
    next_seq = {"p1": 0, "p2": 0}
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["batch"] * 5 + ["copy"] * 3 + ["json", "lines", "kpl", "poison", "reference"]))
        rows = draw(st.lists(events, min_size=1, max_size=8))
        plain = [json.dumps({name: value for name, value in row.items() if value is not None}).encode() for row in rows]
        if kind == "batch" or (kind == "copy" and not sealed):
            origin = draw(st.sampled_from(["p1", "p2"]))
            table = pa.Table.from_pylist(rows, CONTRACT.arrow_schema)
            sealed.append(encode_batch(table, CONTRACT, origin=origin, first_seq=next_seq[origin]))
            next_seq[origin] += len(rows) + draw(st.integers(0, 2))
            datas.append(sealed[-1])
        elif kind == "copy":
            datas.append(draw(st.sampled_from(sealed)))
        elif kind == "json":
            datas.append(plain[0])
        elif kind == "lines":
            datas.append(b"\n".join([*plain, b'{"device": 5}']))
        elif kind == "kpl":
            datas.append(encode_kpl(plain, "k", None))
        elif kind == "poison":
            datas.append(draw(st.sampled_from(POISON)))
        else:
            datas.append(encode_control("reference", {"name": "sites", "version": 2, "uri": "v2"}))
    step = draw(st.sampled_from([1, 10**20]))
    return [
        StreamRecord("shardId-000000000001", str((n + 1) * step), START + n * 60_000, "k", data)
        for n, data in enumerate(datas)
    ]


def run(records: Sequence[StreamRecord], cuts: Sequence[int], *, restore: bool) -> tuple[Sink, ShardState]:
    """Process in pieces; between them flush, evict, and pass the state through its snapshot."""
    sink, state = Sink(), new_state()
    edges = [0, *sorted(set(cuts)), len(records)]
    for start, stop in pairwise(edges):
        engine = Engine(PIPELINE, "shardId-000000000001", state, load_reference)
        sink.take(engine.process(records[start:stop]))
        if restore:
            sink.flush(state, evict=True)
            state = ShardState.loads(PIPELINE, state.dumps())
    sink.flush(state, evict=True)
    return sink, state


@settings(max_examples=60)
@given(records=streams(), data=st.data())
def test_prefix_decides(records: list[StreamRecord], data: st.DataObject) -> None:
    """However the records are cut into calls, flushes, evictions and restarts, the sinks get the same bits."""
    cuts = data.draw(st.lists(st.integers(0, len(records)), max_size=6))
    whole, state = run(records, [], restore=False)
    parts, other = run(records, cuts, restore=True)
    assert parts.lake == whole.lake
    assert sorted(parts.letters, key=repr) == sorted(whole.letters, key=repr)
    assert parts.slots == whole.slots
    assert other.counts == state.counts
    assert other.max_ts == state.max_ts
    for sets, others in ((state.seen, other.seen), (state.excluded, other.excluded)):
        assert {o: sets.get(o).intervals for o in sets.origins()} == {
            o: others.get(o).intervals for o in others.origins()
        }


@settings(max_examples=60)
@given(records=streams())
def test_once_and_right(records: list[StreamRecord]) -> None:
    """Every identity at most once in the lake, what is excluded has a letter or was filtered, views equal pandas'."""
    sink, state = run(records, range(len(records)), restore=True)
    identities = [(row["_origin"], row["_seq"]) for row in sink.lake]
    assert len(identities) == len(set(identities))
    c = state.counts
    assert c.get("events", 0) - c.get("duplicates", 0) == len(sink.lake) + c.get("filtered", 0) + c.get(
        "dead_events", 0
    )
    assert c.get("dead_events", 0) + c.get("poison_records", 0) == len(sink.letters)
    own = {(o, s) for o, s in identities if o in ("p1", "p2")}
    expected = {
        (o, s)
        for o in ("p1", "p2")
        for a, b in state.seen.get(o).difference(state.excluded.get(o))
        for s in range(a, b)
    }
    assert own == expected
    if not sink.lake:
        return
    frame = pa.Table.from_pylist(sink.lake, PIPELINE.lake_schema).to_pandas()
    for view in PIPELINE.views:
        rows: dict[tuple[Any, ...], list[bytes]] = {}
        for (name, key, start, _), (_, partial) in sink.slots.items():
            if name == view.name:
                rows.setdefault((key, start), []).append(partial)
        stored = [
            dict(zip(view.by, key, strict=True))
            | (
                {}
                if start is None
                else {"window_start": f"{pa.scalar(start, pa.timestamp('ms', 'UTC')).as_py().isoformat()}"}
            )
            | values(view.aggregates, merge(view.aggregates, partials))
            for (key, start), partials in rows.items()
        ]
        assert differences(view, batch_view(PIPELINE, view, frame), stored) == []


def test_a_quantile_is_compared_by_rank_and_not_by_its_last_digit() -> None:
    """Between equal values a digest may answer one a last digit beside them; all of them still count as reached."""
    view = Pipeline("ranks", contract=CONTRACT).view("rank", by=["device"], p90=quantile("value", 0.9)).views[0]
    values = [12.5] * 70 + [12.72] * 25 + [13.0] * 5
    frame = pa.table({"device": ["a"] * 100, "ts": pa.array([START] * 100, pa.timestamp("ms", "UTC")), "value": values})
    expected = batch_view(PIPELINE, view, frame.to_pandas())

    def found(p90: float | None) -> int:
        return len(differences(view, expected, [{"device": "a", "p90": p90}]))

    assert [found(p90) for p90 in (12.72, 12.719999999999999, 12.720000000000002)] == [0, 0, 0]
    assert [found(p90) for p90 in (12.5, 12.71, 12.99, 13.1, None)] == [1, 1, 0, 1, 1]


def test_reference_version_from_the_stream() -> None:
    """Events before the control record are joined with the old version, those behind it with the new one."""
    row = {"device": "c", "ts": START, "value": 1.0, "note": None}
    table = pa.Table.from_pylist([row], CONTRACT.arrow_schema)
    datas = [
        encode_batch(table, CONTRACT, origin="p", first_seq=0),
        encode_control("reference", {"name": "sites", "version": 2, "uri": "v2"}),
        encode_batch(table, CONTRACT, origin="p", first_seq=1),
    ]
    records = [StreamRecord("shardId-000000000001", str(n), START, "k", data) for n, data in enumerate(datas, 1)]
    sink, _ = run(records, [], restore=False)
    assert [row["site"] for row in sink.lake] == [None, "z"]


def test_child_takes_over_what_was_seen() -> None:
    """After a split both children drop what the parent has read; after a merge the child what either has."""
    row = {"device": "a", "ts": START, "value": 1.0, "note": None}
    table = pa.Table.from_pylist([row], CONTRACT.arrow_schema)
    batches = [encode_batch(table, CONTRACT, origin="p", first_seq=n) for n in range(2)]
    states = []
    for n, data in enumerate(batches):
        _, state = run([StreamRecord(f"shardId-00000000000{n}", "5", START, "k", data)], [], restore=True)
        states.append(state)
    child = states[0].child(PIPELINE, states[1])
    engine = Engine(PIPELINE, "shardId-000000000003", child, load_reference)
    again = [StreamRecord("shardId-000000000003", str(n), START, "k", data) for n, data in enumerate(batches, 9)]
    assert [table.num_rows for table in engine.process(again).lake] == [0]
    assert child.counts["duplicates"] == 2
    assert sequence.pad("9") > sequence.NONE


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"by": ("site",)}, r'kept as {"by": \["device"\].*has {"by": \["site"\]'),
        ({"window": tumbling("5m")}, '"size_ms": 60000.*"size_ms": 300000'),
        ({"window": None}, '"window": null'),
        ({"aggregates": (max("value", "top"),)}, "aggregates were changed"),
    ],
)
def test_a_view_that_was_changed_in_place_is_refused(changed: dict[str, Any], said: str) -> None:
    """Its slots would be taken for those of other keys or windows. How long rows are kept, and how they are spread, may
    change; a view that is new begins."""
    view = PIPELINE.views[0]
    event = json.dumps({"device": "a", "ts": START, "value": 1.0}).encode()
    _, state = run([StreamRecord("shardId-000000000001", "1", START, "k", event)], [], restore=False)
    snapshot = state.dumps()
    with pytest.raises(UsageError, match=f"view per_minute was changed in place.*{said}.*headwater view rebuild"):
        ShardState.loads(PIPELINE.having([replace(view, **changed)]), snapshot)
    kept = PIPELINE.having([replace(view, keep_ms=10**9, spread=4), replace(view, name="more", by=())])
    found = ShardState.loads(kept, snapshot).views
    assert {name: len(one) for name, one in found.items()} == {"per_minute": 1, "more": 0}
