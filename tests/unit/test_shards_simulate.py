"""The simulation: conserves bytes, keeps to the limits, agrees with a stream that enforces them."""

from pathlib import Path

import numpy as np
import pytest

from headwater.clock import ManualClock
from headwater.errors import UsageError
from headwater.processors.scaling.autoscale import Memory, Policy, forecast, remember
from headwater.processors.scaling.calls import updates
from headwater.processors.scaling.pricing import load_prices
from headwater.processors.scaling.scalers import EvenSplits, Fixed, OnDemandMode, Ours
from headwater.processors.scaling.simulate import SimulationResult, World, simulate
from headwater.processors.scaling.topology import even_layout
from headwater.processors.scaling.trace import Trace, read_trace, write_trace
from headwater.stream.hashkeys import hash_key_of
from tests.streams import memory_stream

PRICES = load_prices()


def day(
    top: float, parts: int = 16, hot: float = 0.0, days: float = 1.0, step: float = 60.0, skew: float = 0.4
) -> Trace:
    """A day's curve with its peak at four in the afternoon, parts of unequal load, and maybe one hot key."""
    at = np.arange(int(days * 86_400 / step)) * step
    total = top * (0.55 - 0.45 * np.cos(2 * np.pi * (at / 86_400 - 4 / 24)))
    weight = np.random.default_rng(1).lognormal(0, skew, parts)
    spread = total[:, None] * (1 - hot) * weight / weight.sum()
    alone = total[:, None] * hot if hot else np.zeros((len(at), 0))
    return Trace(step, spread, spread / 5e4, total / 8, ("hot",) if hot else (), alone, alone / 5e4)


def conserved(outcome: SimulationResult, trace: Trace) -> bool:
    offered = trace.totals()[0].sum() * trace.step
    found = outcome.taken.sum() + outcome.dropped.sum() + outcome.waiting[-1]
    return bool(found == pytest.approx(offered, rel=1e-6))


@pytest.mark.parametrize("spread", [True, False])
def test_bytes_are_taken_dropped_or_waiting(spread: bool) -> None:
    trace, world = day(9e6, hot=0.2), World(spread=spread)
    scalers = (Fixed(), EvenSplits(), Ours(Policy(), PRICES), OnDemandMode(PRICES.on_demand_standard))
    outcomes = [simulate(trace, even_layout(4), scaler, world, PRICES) for scaler in scalers]
    assert all(conserved(outcome, trace) for outcome in outcomes)
    assert outcomes[0].dropped.sum() > 0
    assert all((outcome.taken <= outcome.shards * 1e6 * trace.step * (1 + 1e-9)).all() for outcome in outcomes)


def test_the_autoscaler_beats_a_fixed_peak_on_cost_and_even_splits_on_throttles() -> None:
    trace, world = day(20e6, days=2.0, skew=0.9), World()
    ours = simulate(trace, even_layout(24), Ours(Policy(), PRICES), world, PRICES)
    fixed = simulate(trace, even_layout(60), Fixed(), world, PRICES)
    evenly = simulate(trace, even_layout(24), EvenSplits(), world, PRICES)
    on_demand = simulate(trace, even_layout(10), OnDemandMode(PRICES.on_demand_standard), world, PRICES)
    assert ours.throttled.sum() == 0 < evenly.throttled.sum()
    assert ours.dollars < fixed.dollars < on_demand.dollars
    assert ours.shards.max() > 1.5 * ours.shards.min()


def test_the_model_agrees_with_a_stream_that_enforces_its_limits() -> None:
    """Two minutes of a load with a hot key over four shards, record by record: what gets in is the same within 3 %."""
    spread = np.full((120, 1), 2.0e6)
    alone = np.full((120, 1), 1.5e6)
    trace = Trace(1.0, spread, spread / 2e4, np.zeros(120), ("hot",), alone, alone / 2e4)
    modelled = simulate(trace, even_layout(4), Fixed(), World(buffer_seconds=0.0), PRICES)
    clock = ManualClock()
    stream = memory_stream(4, clock)
    draw = np.random.default_rng(2)
    for _ in range(120):
        keys = [int(part) << 96 for part in draw.integers(0, 1 << 32, 100)] + [hash_key_of("hot")] * 75
        for some in (keys[0::2], keys[1::2]):
            records = [{"Data": bytes(19_999), "PartitionKey": "-", "ExplicitHashKey": str(key)} for key in some]
            stream.put_records(StreamName="s", Records=records)
            clock.advance(500)
    assert sum(shard.taken_bytes for shard in stream.shards("s")) == pytest.approx(modelled.taken.sum(), rel=0.03)
    assert modelled.dropped.sum() > 0


def test_a_hot_key_stays_hot_whatever_is_split() -> None:
    """2 MB/s on one hash key: refused to the end, and the autoscaler does not split for ever."""
    trace = day(4e6, hot=0.5)
    ours = Ours(Policy(ceiling=50), PRICES)
    outcome = simulate(trace, even_layout(4), ours, World(), PRICES)
    spread = simulate(trace, even_layout(4), Ours(Policy(ceiling=50), PRICES), World(spread=True), PRICES)
    assert outcome.throttled.sum() > 0
    assert spread.throttled.sum() == 0
    assert outcome.shards.max() <= 30


def test_the_budget_caps_the_shards() -> None:
    """Ten shards' worth a day for a load of thirty: it stays there, within the money, and does not churn."""
    policy = Policy(budget_per_day=10 * 0.015 * 24 + 0.5)
    outcome = simulate(day(20e6), even_layout(4), Ours(policy, PRICES), World(spread=True), PRICES)
    assert outcome.shards[-1] <= 11
    assert outcome.dollars <= 10 * 0.015 * 24 + 0.5
    assert outcome.calls < 80


def test_no_more_calls_than_the_service_takes() -> None:
    trace = day(2_000e6, days=2.0, step=300.0)
    ours = Ours(Policy(ceiling=10_000), PRICES)
    outcome = simulate(trace, even_layout(1_200), ours, World(spread=True), PRICES)
    assert outcome.calls <= trace.seconds / 30
    assert outcome.throttled.sum() == 0
    chain = updates(300, 4_000)
    assert chain is not None
    assert len(chain) == 4


def test_the_time_of_day_is_learned() -> None:
    """After a day of nights at 1 and days at 3, the hour before the rise expects three times the load."""
    memory, quarter = Memory(), 900_000
    for at in range(96):
        memory = remember(memory, at * quarter, (3e6 if at >= 40 else 1e6, 10.0))
    assert forecast(memory, 36 * quarter, 3_600) == pytest.approx(3.0)
    assert forecast(memory, 30 * quarter, 3_600) == 1.0
    assert forecast(Memory(), 0, 3_600) == 1.0


def test_a_trace_survives_its_file(tmp_path: Path) -> None:
    trace = day(3e6, parts=4, hot=0.1, days=0.1)
    write_trace(trace, tmp_path / "t.csv")
    again = read_trace(tmp_path / "t.csv")
    assert again.step == trace.step
    assert np.allclose(again.bytes_s, trace.bytes_s)
    assert np.allclose(again.key_bytes_s, trace.key_bytes_s)
    assert np.allclose(again.events_s, trace.events_s)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at,bytes_s\n0,1\n", "no column records_s"),
        ("at,bytes_s,records_s\n", "no rows"),
        ("at,bytes_s,records_s\n0,x,1\n", "line 2"),
        ("at,bytes_s,records_s\n0,-1,1\n", "not negative"),
        ("at,bytes_s,records_s\n0,1,1\n60,1,1\n90,1,1\n", "not evenly apart"),
    ],
)
def test_a_bad_trace_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_trace(tmp_path / "t.csv")


def test_a_missing_trace_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_trace(tmp_path / "none.csv")
