"""What a child shard begins with, out of two parents: the union of what they knew, and the later of their times."""

import pytest

from headwater.contract import Contract, Field
from headwater.lineage.origins import OriginSets
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.state import ShardState
from headwater.processors.operators.aggregate import ALWAYS

PIPELINE = Pipeline("p", Contract("r", 1, (Field("k", "string"), Field("ts", "timestamp")), key="k", time="ts"))


def parent(max_ts: int, arrived: int, version: int, origin: str) -> ShardState:
    state = ShardState(PIPELINE)
    state.max_ts, state.max_arrived = max_ts, arrived
    state.references = {"zones": {"version": version, "uri": f"v{version}"}}
    for name in ("seen", "dead", "revived"):
        sets: OriginSets = getattr(state, name)
        sets.add_intervals(origin, [(0, 3)], arrived)
    state.counts = {"events": 3}
    return state


@pytest.mark.parametrize(("first", "second"), [(5_000, 9_000), (9_000, 5_000), (ALWAYS, 5_000), (5_000, ALWAYS)])
def test_a_merged_childs_watermark_is_the_higher(first: int, second: int) -> None:
    """By the lower, windows that were final would be open again."""
    child = parent(first, 1, 1, "a").child(PIPELINE, parent(second, 1, 1, "b"))
    assert child.max_ts == max(first, second)


@pytest.mark.parametrize("later", [0, 1])
def test_a_merged_child_knows_what_either_parent_knew(later: int) -> None:
    """Identities of both, the later arrival, the newer version of a reference table; no counts, which stay behind."""
    parents = [parent(1, 1, 1, "a"), parent(1, 1, 1, "b")]
    parents[later].max_arrived, parents[later].references["zones"]["version"] = 7, 10
    child = parents[0].child(PIPELINE, parents[1])
    assert child.max_arrived == 7
    assert child.references["zones"]["version"] == 10
    assert child.counts == {}
    for name in ("seen", "dead", "revived"):
        sets: OriginSets = getattr(child, name)
        assert sorted(sets.origins()) == ["a", "b"]
        assert sets.count() == 6


def test_a_childs_sets_are_its_own() -> None:
    """What it reads does not change its parents'."""
    one = parent(1, 1, 1, "a")
    one.child(PIPELINE).seen.add_intervals("c", [(0, 1)], 1)
    assert one.seen.origins() == ["a"]
