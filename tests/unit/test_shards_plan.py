"""The planner: fewest shards under the target, legal calls, and never dearer than even shards."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import HeadwaterError, UsageError
from headwater.processors.scaling.calls import Step, layouts, reshard, seconds, updates
from headwater.processors.scaling.limits import LIMITS
from headwater.processors.scaling.load import LoadCurve, Point, even_load
from headwater.processors.scaling.packing import over
from headwater.processors.scaling.plan import Goal, Plan, cap_of, make_plan, plan_from_json
from headwater.processors.scaling.pricing import Usage, load_prices
from headwater.processors.scaling.topology import Layout, even_layout, parse, widths
from headwater.stream.hashkeys import HASH_SPACE

PRICES = load_prices()
MB = 1e6


def planned(current: Layout, curve: LoadCurve, goal: Goal | None = None, consumers: int = 1) -> Plan:
    by, records = curve.total
    return make_plan("s", current, curve, Usage(by / 2, records / 2, consumers), goal or Goal(), PRICES)


@st.composite
def curves(draw: st.DrawFn) -> LoadCurve:
    """Up to 24 unequal parts, cold to hotter than a shard, and up to two heavy keys anywhere."""
    inner = draw(st.lists(st.integers(1, (1 << 20) - 1), max_size=23, unique=True))
    edges = (0, *sorted(at << 108 for at in inner), HASH_SPACE)
    count = len(edges) - 1
    by = draw(st.lists(st.floats(0, 3 * MB), min_size=count, max_size=count))
    records = draw(st.lists(st.floats(0, 3_000), min_size=count, max_size=count))
    keys = draw(st.lists(st.tuples(st.integers(0, HASH_SPACE - 1), st.floats(0, 1.5 * MB)), max_size=2))
    points = tuple(Point(f"k{i}", at, load, load / 1_000) for i, (at, load) in enumerate(keys))
    return LoadCurve(edges, np.array(by), np.array(records), points)


@st.composite
def layouts_now(draw: st.DrawFn) -> Layout:
    """Even layouts and crooked ones, shards as narrow as the service allows among them."""
    if draw(st.booleans()):
        return even_layout(draw(st.integers(1, 40)))
    at, out = 0, [0]
    for width in draw(st.lists(st.one_of(st.integers(2, 9), st.integers(1 << 60, 1 << 124)), max_size=12)):
        at += width
        out.append(at)
    return tuple(out)


def is_layout(layout: Layout) -> bool:
    return layout[0] == 0 and min(widths(layout)) >= 2 and sum(widths(layout)) == HASH_SPACE


@given(curves(), layouts_now(), st.sampled_from(["auto", "exact", "local"]), st.integers(1, 12))
def test_a_plan_leads_from_layout_to_layout_and_breaks_no_limit(
    curve: LoadCurve, current: Layout, method: str, floor: int
) -> None:
    """After every call the shards cover the hash space, each is wide enough, and there are not too many."""
    quota = 400
    plan = planned(current, curve, Goal(method=method, floor=floor, quota=quota))  # type: ignore[arg-type]  # a method by its name
    seen = list(layouts(current, plan.steps))
    assert seen[0] == current
    assert seen[-1] == plan.new
    counts = [len(layout) for layout in seen]
    assert all(is_layout(layout) for layout in seen)
    assert max(counts) <= quota
    assert len(plan.new) >= min(floor, len(current)) if method == "local" else len(plan.new) >= floor
    for step, before in zip(plan.steps, seen, strict=False):
        if step.call == "UpdateShardCount":
            assert len(before) / 2 <= step.count <= 2 * len(before)
    assert sum(step.call == "UpdateShardCount" for step in plan.steps) <= LIMITS.updates_per_day


@given(curves(), layouts_now(), st.sampled_from(["auto", "exact"]), st.integers(1, 5))
def test_every_shard_is_under_the_cap_or_holds_a_hot_key_alone(
    curve: LoadCurve, current: Layout, method: str, consumers: int
) -> None:
    goal = Goal(method=method)  # type: ignore[arg-type]  # a method by its name
    plan = planned(current, curve, goal, consumers)
    cap = cap_of(goal, consumers)
    hot = {key.position for key in plan.hot_keys}
    for i in over(curve, plan.new, cap):
        start, width = plan.new[i], widths(plan.new)[i]
        inside = [p for p in curve.points if start <= p.position < start + width]
        narrow = width <= 1 << 66
        assert narrow, (start, width)
        assert {p.position for p in inside} & hot or len(inside) > 1


@given(curves(), layouts_now(), st.integers(1, 5))
def test_a_plan_is_never_dearer_than_the_naive_one(curve: LoadCurve, current: Layout, consumers: int) -> None:
    """Even shards, the fewest that hold the target, cost at least as much."""
    goal = Goal(method="auto")
    plan = planned(current, curve, goal, consumers)
    cap = cap_of(goal, consumers)
    holds = [n for n in range(1, 200) if not over(curve, even_layout(n), cap)]
    if holds:
        assert len(plan.new) <= holds[0]
        naive = next(a for a in plan.alternatives if a.name.startswith("even shards"))
        assert naive.shards is not None
        assert naive.shards >= holds[0]
        assert plan.month_after <= naive.month + 1e-9


@given(curves(), layouts_now())
def test_nothing_is_done_where_nothing_is_gained(curve: LoadCurve, current: Layout) -> None:
    plan = planned(current, curve)
    again = planned(plan.new, curve)
    assert again.steps == ()


def test_a_hot_shard_is_split_at_the_median_of_its_load() -> None:
    """The second quarter has nine tenths of the load: the boundary goes there, not to the middle of the space."""
    quarter = HASH_SPACE // 4
    loads = np.array([0.05, 0.9, 0.05]) * 1.0 * MB
    curve = LoadCurve((0, quarter, 2 * quarter, HASH_SPACE), loads, loads / 1e5)
    plan = planned((0,), curve)
    (step,) = plan.steps
    assert step.call == "SplitShard"
    assert step.at / HASH_SPACE == pytest.approx(0.375, abs=0.01)
    by, _ = curve.per_shard(plan.new)
    assert by[0] == pytest.approx(by[1], rel=0.05)


def test_cold_neighbours_are_merged() -> None:
    plan = planned(even_layout(8), even_load(1.0 * MB, 100), Goal(method="local"))
    assert len(plan.new) == 3
    assert {step.call for step in plan.steps} == {"MergeShards"}
    assert plan.month_after == pytest.approx(plan.month_before - 5 * 0.015 * 730)


def test_a_hot_key_is_named_with_what_cures_it() -> None:
    """A key of two shards' limit: it gets a narrow shard of its own, and the others hold the target."""
    curve = even_load(1.0 * MB, 100, [Point("boiler-7", 5 << 125, 2.0 * MB, 200)])
    plan = planned(even_layout(4), curve)
    (key,) = plan.hot_keys
    assert (key.key, round(key.share, 2)) == ("boiler-7", 2.4)
    assert "spread" in key.cure
    assert not next(a for a in plan.alternatives if a.name.startswith("even")).holds
    (hot,) = over(curve, plan.new, cap_of(Goal(), 1))
    assert widths(plan.new)[hot] <= 1 << 65


def test_even_load_is_rescaled_in_one_call() -> None:
    plan = planned(even_layout(8), even_load(8.0 * MB, 100))
    assert [step.call for step in plan.steps] == ["UpdateShardCount"]
    assert plan.steps[0].count == 14 == len(plan.new)
    assert plan.seconds == LIMITS.update_seconds


def test_the_ceiling_holds_and_is_told() -> None:
    plan = planned(even_layout(2), even_load(50.0 * MB, 100), Goal(ceiling=20))
    assert len(plan.new) <= 20
    assert any("ceiling of 20" in note for note in plan.notes)


def test_too_many_shards_on_the_way_are_refused() -> None:
    with pytest.raises(HeadwaterError, match="raise the quota"):
        reshard((0,), even_layout(8), [1.0], most=4)


def test_readers_count_as_load() -> None:
    """Four readers share 2 MB/s, so a shard takes only half a megabyte in."""
    assert cap_of(Goal(target=1.0, margin=0.0), 4).bytes_s == 500_000
    assert len(planned((0,), even_load(1.0 * MB, 10), consumers=4).new) > len(
        planned((0,), even_load(1.0 * MB, 10)).new
    )


def test_update_shard_count_doubles_and_halves_at_most() -> None:
    chain = updates(3, 40)
    assert chain is not None
    assert [step.count for step in chain] == [6, 12, 24, 40]
    down = updates(40, 3)
    assert down is not None
    assert [step.count for step in down] == [20, 10, 5, 3]
    assert updates(10, 10_001) is None
    eleven = [Step("UpdateShardCount", count=2)] * 11
    assert seconds(eleven) == 11 * LIMITS.update_seconds + 86_400


def test_a_plan_survives_its_file_and_is_not_changed_by_hand() -> None:
    plan = planned(even_layout(4), even_load(3.0 * MB, 100, [Point("k", 9, 1.2 * MB, 1)]))
    doc = json.loads(json.dumps(plan.to_json()))
    assert plan_from_json(doc) == plan
    doc["new"] = doc["new"][:-1]
    with pytest.raises(UsageError, match="changed by hand"):
        plan_from_json(doc)
    with pytest.raises(UsageError, match="not a plan"):
        plan_from_json({"plan": "x"})


def test_gaps_and_overlaps_are_named() -> None:
    def shard(name: str, start: int, end: int) -> dict[str, object]:
        span = {"StartingHashKey": str(start), "EndingHashKey": str(end)}
        return {"ShardId": name, "HashKeyRange": span, "SequenceNumberRange": {"StartingSequenceNumber": "1"}}

    with pytest.raises(HeadwaterError, match="gap in the hash space at 10 before b"):
        parse("s", [{"Shards": [shard("a", 0, 9), shard("b", 11, HASH_SPACE - 1)]}])
    with pytest.raises(HeadwaterError, match="overlap in the hash space at 9 before b"):
        parse("s", [{"Shards": [shard("a", 0, 9), shard("b", 9, HASH_SPACE - 1)]}])
    with pytest.raises(HeadwaterError, match="to its end"):
        parse("s", [{"Shards": [shard("a", 0, 9)]}])


def test_prices_can_be_replaced(tmp_path: object) -> None:
    usage = Usage(bytes_s=1024 * 1024, records_s=20, consumers=2)
    dearer = replace(PRICES, provisioned=replace(PRICES.provisioned, shard_hour=1.0))
    cheap = make_plan("s", (0,), even_load(1e5, 1), usage, Goal(), PRICES)
    dear = make_plan("s", (0,), even_load(1e5, 1), usage, Goal(), dearer)
    assert dear.month_before - cheap.month_before == pytest.approx(0.985 * 730)
