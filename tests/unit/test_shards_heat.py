"""What is measured of a shard, and the load curve that comes of it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.processors.scaling.heat import heat, sample_from_json, sample_of
from headwater.processors.scaling.load import from_samples
from headwater.processors.scaling.readings import read_topology
from headwater.processors.scaling.topology import Topology
from headwater.processors.scaling.tracker import HeatTracker
from headwater.stream.hashkeys import hash_key_of
from headwater.stream.record import StreamRecord
from tests.streams import memory_stream


def topology(shards: int) -> Topology:
    return read_topology(memory_stream(shards, ManualClock()), "s")


def test_rates_are_per_second_of_arrival() -> None:
    tracker = HeatTracker()
    tracker.records([1_000, 1_500, 60_999], [100, 200, 300], [10, 20, 30])
    rates = tracker.rates(60)
    assert rates["bytes_s"] == pytest.approx(10.0)
    assert rates["events_s"] == pytest.approx(1.0)
    assert rates["peak_events_s"] == 30
    assert tracker.rates(1)["bytes_s"] == 300


@given(st.lists(st.tuples(st.integers(0, 50_000), st.integers(1, 9_000), st.integers(1, 500)), min_size=1))
def test_nothing_is_lost_between_calls_and_through_json(rows: list[tuple[int, int, int]]) -> None:
    """However the records are cut into calls, the sums are those of the records."""
    rows = sorted(rows)
    whole, parts = HeatTracker(), HeatTracker()
    whole.records(*zip(*rows, strict=True))
    for row in rows:
        parts.records([row[0]], [row[1]], [row[2]])
        parts = HeatTracker.from_json(parts.to_json())
    assert whole.rates(60) == parts.rates(60)
    seconds = whole.last_second + 1
    assert whole.rates(seconds)["bytes_s"] * seconds == pytest.approx(sum(row[1] for row in rows))


def test_the_heaviest_keys_inside_batches_are_found() -> None:
    """One key of 40 % among 20,000: found with its share, which no metric of the service shows."""
    draw = np.random.default_rng(1)
    tracker = HeatTracker()
    for batch in range(20):
        names = [f"d{i}" for i in draw.integers(0, 20_000, 3_000)] + ["hot"] * 2_000
        tracker.records([batch * 1_000], [40_000], [5_000])
        tracker.keys(pa.array(names).dictionary_encode())
    (key, events, share), *_ = tracker.heavy(3)
    assert key == "hot"
    assert events == pytest.approx(40_000, rel=0.02)
    assert share == pytest.approx(0.4, abs=0.01)


def test_records_and_the_keys_of_their_events_are_seen_together() -> None:
    """Batches count as spread; keyed records of others where their key hashes to; every event's key is counted."""
    tracker = HeatTracker(0, 2**128 - 1)
    batch = StreamRecord("s", "1", 1_000, "anything", b"\x28\xb5\x2f\xfd" + bytes(996))
    plain = StreamRecord("s", "2", 1_000, "pump-3", b"{" + bytes(99))
    keys = pa.array(["pump-3"] * 3 + ["pump-4"]).dictionary_encode()
    tracker.observe([batch, plain], [(np.array([0, 0, 0, 1]), keys)])
    assert tracker.rates(1) == {"refused_s": 0} | {
        name: value
        for rate, value in {"records_s": 2, "bytes_s": 1_114, "events_s": 4}.items()
        for name in (rate, f"peak_{rate}")
    }
    assert tracker.heavy() == [("pump-3", 3, 0.75), ("pump-4", 1, 0.25)]
    bins = tracker.bins()
    hot = hash_key_of("pump-3") * len(bins) >> 128
    assert bins[hot] == pytest.approx((106 + 1_008 / len(bins)) / 1_114)
    assert sum(bins) == pytest.approx(1)


def test_old_heat_is_forgotten() -> None:
    tracker = HeatTracker(epoch_seconds=60)
    tracker.records([0], [1], [1])
    tracker.keys(pa.array(["old"] * 10))
    for second in (61, 130):
        tracker.records([second * 1_000], [1], [1])
        tracker.keys(pa.array(["new"]))
    assert [key for key, _, _ in tracker.heavy()] == ["new"]


def test_heat_is_shown_as_shares_of_the_limits() -> None:
    shards = topology(2)
    tracker = HeatTracker()
    for second in range(60):
        tracker.records([second * 1_000], [500_000], [5_000])
    sample = sample_of(shards.open[0].shard_id, tracker, {"lake": 1_500})
    one, two = heat(shards, [sample], consumers=2)
    assert one.write_bytes == pytest.approx(0.5)
    assert one.write_records == pytest.approx(0.001)
    assert one.read_bytes == pytest.approx(0.5)
    assert two.sample is None
    assert sample_from_json(sample.to_json()) == sample


def test_a_heavy_key_is_a_point_only_where_it_places_its_records() -> None:
    """Keyed records: the key is a point at its hash. The same key inside spread batches heats no place."""
    shards = topology(1)
    keyed, spread = HeatTracker(), HeatTracker()
    for second in range(60):
        for tracker in (keyed, spread):
            tracker.records([second * 1_000], [100_000], [1_000])
            tracker.keys(pa.array(["hot"] * 400 + [f"k{i}" for i in range(600)]))
        keyed.places(["hot", *[f"k{i}" for i in range(600)]], [40_000, *[100] * 600])
        spread.places([f"batch-{second}-{i}" for i in range(100)], [1_000] * 100)
    name = shards.open[0].shard_id
    point = from_samples(shards, {name: sample_of(name, keyed, {})}).points
    assert [(p.key, p.position) for p in point] == [("hot", hash_key_of("hot"))]
    assert point[0].bytes_s == pytest.approx(40_000, rel=0.05)
    curve = from_samples(shards, {name: sample_of(name, spread, {})})
    assert curve.points == ()
    assert curve.total[0] == pytest.approx(100_000)
