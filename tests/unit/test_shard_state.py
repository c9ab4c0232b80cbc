"""What a shard remembers: packed into a snapshot and read back, forgotten in time, and asked for."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headwater.aggregates import count
from headwater.contract import Contract, Field
from headwater.lineage.origins import HORIZON_MS, OriginSets
from headwater.processors.definition.parts import Reference
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine import state as module
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.aggregate import ALWAYS
from tests.typed import a_key

CONTRACT = Contract("r", 1, (Field("k", "string"), Field("ts", "timestamp")), key="k", time="ts")
ZONES, SITES = (Reference(name, "unused.csv", "k", {name: "string"}) for name in ("zones", "sites"))
PIPELINE = Pipeline("p", CONTRACT).enrich(ZONES, on="k").enrich(SITES, on="k").view("ever", by=["k"], n=count())
NOW = 2 * HORIZON_MS
SETS = ("seen", "excluded", "dead", "revived", "accepted")


def fold(state: ShardState, *keys: str) -> None:
    table = pa.table(
        {"k": pa.array(keys).dictionary_encode(), "ts": pa.array([1] * len(keys), pa.timestamp("ms", "UTC"))}
    )
    zeros = np.zeros(len(keys), np.int64)
    state.views["ever"].fold(table, zeros, zeros, np.array(["0"], "S56"), zeros)


def full() -> ShardState:
    """Nothing in it is as it begins, and no two things are alike."""
    state = ShardState(PIPELINE)
    for at, name in enumerate(SETS):
        sets: OriginSets = getattr(state, name)
        sets.add_intervals("o", [(at, at + 2)], NOW - at)
    state.max_ts, state.max_arrived = 70, NOW
    state.references = {"zones": {"version": 3, "uri": "v3"}}
    state.count("events", 4)
    state.contents.remember("o", np.arange(3), np.array([7, 8, 9], np.uint16), NOW)
    state.begun, state.forgetting = {"ever": {"position": "5"}}, {"hash": "key"}
    state.awaited, state.has_kpl, state.renewed, state.renewed_ms = {"a": [5, 1]}, True, {"b": 6}, 8
    fold(state, "x", "y")
    return state


def known(state: ShardState) -> dict[str, Any]:
    """All that a snapshot has to hold."""
    names = ["max_ts", "max_arrived", "references", "counts", "begun", "forgetting"]
    names += ["awaited", "has_kpl", "renewed", "renewed_ms"]
    sets = {name: getattr(state, name).to_table().to_pylist() for name in SETS}
    plain = {name: getattr(state, name) for name in names}
    contents = state.contents.to_table()
    views = {name: len(view) for name, view in state.views.items()}
    return sets | plain | views | {"contents": contents.to_pylist(), "tag": contents.schema.metadata}


def test_a_state_begins_empty() -> None:
    state = ShardState(PIPELINE)
    assert (state.max_ts, state.max_arrived, state.has_kpl, state.renewed_ms) == (ALWAYS, 0, False, None)
    assert (state.counts, state.references, len(state.seen)) == ({}, {}, 0)


def test_a_snapshot_holds_everything() -> None:
    state = full()
    again = ShardState.loads(PIPELINE, state.dumps())
    assert known(again) == known(state)
    assert [getattr(again, name).horizon_ms for name in SETS] == [HORIZON_MS, *[module._NEVER] * 4]
    assert again.dumps() == state.dumps()
    fold(again, "x", "z")
    assert len(again.views["ever"]) == 3
    with pytest.raises(ValueError, match="not a state snapshot of this version"):
        ShardState.loads(PIPELINE, b"HWS2" + state.dumps()[4:])


def test_a_snapshot_of_an_earlier_version_lacks_what_came_since() -> None:
    """And one from before a view was added has none of it."""
    head, tables = module._unpack(full().dumps())
    old = {name: head[name] for name in ("max_ts", "max_arrived", "references", "counts")}
    kept = {name: table for name, table in tables.items() if name in SETS}
    found = known(ShardState.loads(PIPELINE, module._pack(old, kept)))
    wanted = known(full())
    empty = {"contents": [], "begun": {}, "awaited": {}, "renewed": {}, "forgetting": {}, "ever": 0}
    empty |= {"has_kpl": False, "renewed_ms": None, "tag": found["tag"]}
    assert found == wanted | empty


def test_a_counter_that_would_stay_zero_is_not_made() -> None:
    state = ShardState(PIPELINE)
    for by in (0, 1, 2, 0):
        state.count("events", by)
    state.count("events")
    state.count("records", 0)
    assert state.counts == {"events": 4}


def test_a_reference_table_begins_with_its_first_version_where_no_other_is_known() -> None:
    state = ShardState(PIPELINE)
    state.references = {"zones": {"version": 9, "uri": "v9"}}
    first = {name: {"initial": {"version": 1, "uri": f"{name}-1"}} for name in ("zones", "sites")}
    state.refer(PIPELINE, first)
    assert state.references == {"zones": {"version": 9, "uri": "v9"}, "sites": {"version": 1, "uri": "sites-1"}}
    state.references["sites"]["version"] = 2
    assert first["sites"]["initial"]["version"] == 1, "what the ledger has is not changed"


@pytest.mark.parametrize("past_ms", [0, 1])
def test_an_origin_leaves_the_state_as_a_whole_after_the_horizon(past_ms: int) -> None:
    """From its snapshots, and where an event of it arrives; to the millisecond, and no other with it."""
    state = ShardState(PIPELINE)
    for name in SETS:
        for origin in ("old", "new"):
            getattr(state, name).add_intervals(origin, [(0, 1)], 5 if origin == "old" else 10)
    state.accepted.add_intervals("told", [(0, 1)], 5)
    state.max_arrived = 5 + HORIZON_MS + past_ms
    assert state.known_since_ms == 5 + past_ms
    kept = ShardState.loads(PIPELINE, state.dumps())
    alive = ["new"] if past_ms else ["new", "old"]
    assert [sorted(getattr(kept, name).origins()) for name in SETS] == [alive] * 4 + [
        alive if past_ms else [*alive, "told"]
    ]
    codes = state.seen.codes(["old", "new"])
    state.forget_expired(codes, np.full(2, 5 + HORIZON_MS + past_ms, np.int64))
    assert [sorted(getattr(state, name).origins()) for name in SETS[1:4]] == [alive] * 3
    assert "old" in state.seen.origins(), "that set forgets when the event is added"


@pytest.mark.parametrize(
    ("told", "seen", "kept"), [(5, 0, True), (4, 0, False), (4, 5, True), (5, 4, True), (3, 4, False)]
)
def test_receipts_are_forgotten_where_nothing_of_their_origin_has_come(told: int, seen: int, kept: bool) -> None:
    """Neither a receipt nor an event, for the horizon."""
    state = ShardState(PIPELINE)
    state.accepted.add_intervals("o", [(0, 3)], told)
    state.accepted.add_intervals("another", [(0, 3)], 1)
    if seen:
        state.seen.add_intervals("o", [(0, 1)], seen)
    state.forget_receipts(["o", "never met"], 5 + HORIZON_MS)
    assert sorted(state.accepted.origins()) == (["another", "o"] if kept else ["another"])
    assert len(state.accepted) == 2, "an origin that is only asked for is not met"


def test_an_event_is_dead_until_it_has_come_again_put_right() -> None:
    state = ShardState(PIPELINE)
    state.dead.add_intervals("o", [(2, 4)], 1)
    state.revived.add_intervals("o", [(3, 6)], 1)
    assert [state.is_dead("o", seq) for seq in range(1, 6)] == [False, True, False, False, False]
    assert not state.is_dead("another", 2)


@pytest.mark.parametrize("is_origin", [False, True])
def test_a_forgotten_keys_slots_go_and_its_sets_where_it_is_the_origin(is_origin: bool) -> None:
    state = full()
    for name in SETS:
        getattr(state, name).add_intervals("x", [(0, 1), (5, 6)], NOW)
    assert state.forget(a_key("k", "x"), is_origin=is_origin) == (11 if is_origin else 1)
    assert len(state.views["ever"]) == 1
    wanted = ["o"] if is_origin else ["o", "x"]
    assert [sorted(getattr(state, name).origins()) for name in SETS] == [wanted] * 5
    assert state.seen.horizon_ms == HORIZON_MS
    assert state.forget(a_key("k", "x"), is_origin=is_origin) == 0
    assert state.forget(a_key("other", "y"), is_origin=False) == 0


def bound(version: int, pipeline: str = "p") -> dict[str, object]:
    return {"version": version, "uri": f"s3://b/reference/{pipeline}/zones/{version:010d}-0123456789abcdef.parquet"}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (bound(2), bound(1)),
        (bound(1), {"version": 900, "uri": "v900"}),
        ({"version": 2, "uri": "v2"}, {"version": 1, "uri": "v1"}),
        ({"version": 1, "uri": "v1"}, bound(7, "another")),
        (bound(1), bound(7, "another")),
    ],
)
def test_a_merged_child_takes_the_version_that_would_have_replaced_the_other(
    better: dict[str, object], worse: dict[str, object]
) -> None:
    one, two = ShardState(PIPELINE), ShardState(PIPELINE)
    one.references, two.references = {"zones": better}, {"zones": worse, "sites": {"version": 1, "uri": "s"}}
    for child in (one.child(PIPELINE, two), two.child(PIPELINE, one)):
        assert child.references == {"zones": better, "sites": {"version": 1, "uri": "s"}}
    same = ShardState(PIPELINE)
    same.references = {"zones": {**better, "uri": str(better["uri"])}}
    assert one.child(PIPELINE, same).references["zones"] is better


def test_a_child_has_its_parents_kpl_records_and_contents() -> None:
    """After a split as well; the time of its first record is not known yet."""
    one, two = full(), ShardState(PIPELINE)
    two.contents.remember("q", np.arange(2), np.array([1, 2], np.uint16), NOW)
    for child, origins in ((one.child(PIPELINE), {"o"}), (two.child(PIPELINE, one), {"o", "q"})):
        assert (child.awaited, child.has_kpl, child.renewed, child.renewed_ms) == ({"a": [5, 1]}, True, {"b": 6}, 0)
        assert {row["origin"] for row in child.contents.to_table().to_pylist()} == origins
        assert (child.max_ts, child.max_arrived) == (70, NOW)
        assert [sorted(getattr(child, name).origins()) for name in SETS] == [["o"], [], ["o"], ["o"], []]
        assert (child.counts, len(child.views["ever"])) == ({}, 0)
    child = two.child(PIPELINE)
    assert (child.has_kpl, child.renewed_ms, child.max_ts) == (False, None, ALWAYS)
