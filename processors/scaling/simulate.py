"""Simulate a stream: producers that keep what is refused, shard limits, readers, and a scaler that reshards.

Time goes in the steps of the trace (a minute, say); all shards of a step are one numpy expression, so ten thousand
shards over a day take seconds. Within a step load is even: bursts shorter than it are not seen. A split or merge takes
effect when it is done; what waits at producers stays with its hash keys, what is unread with its part of the range.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from headwater.processors.scaling.calls import Step, after
from headwater.processors.scaling.limits import LIMITS
from headwater.processors.scaling.load import Floats, LoadCurve, Point
from headwater.processors.scaling.pricing import Cost, OnDemand, Prices, Usage, on_demand, provisioned
from headwater.processors.scaling.topology import Layout
from headwater.processors.scaling.trace import Trace
from headwater.stream.hashkeys import HASH_SPACE, hash_key_of

__all__ = ["Observed", "Scaler", "SimulationResult", "World", "simulate"]


@dataclass(frozen=True)
class World:
    """Set what is the same for every scaler: readers, producers' buffers, and placement of records."""

    consumers: int = 1
    fan_out: int = 0
    read_bytes: float = 5_000_000.0
    """Bytes per second that a reader can process of one shard."""
    buffer_seconds: float = 60.0
    """Producers keep so many seconds of the present load; beyond, they drop."""
    spread: bool = False
    """Batches are placed evenly over the shards, whatever their keys (our producer), not by key hash (the KPL)."""


@dataclass(frozen=True)
class Observed:
    """Hold what a scaler may know: the load taken and refused during the last step, and the present layout."""

    now_ms: int
    layout: Layout
    curve: LoadCurve
    usage: Usage
    throttled: bool
    busy: bool


class Scaler(Protocol):
    """Decide on reshards in a simulation; `act` is called every `period` seconds."""

    name: str
    period: float
    price: OnDemand | None
    """The on-demand prices to pay; None is provisioned mode."""

    def act(self, seen: Observed) -> tuple[Step, ...]:
        """Return the calls to make, one after the other; it is called again only when they are done."""
        ...


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """Hold what a simulation came to, per step.

    Arrays have one value per step of `step` seconds: open shards, records refused, bytes waiting at producers, bytes
    dropped by them, and the lag of the worst reader. `dollars` is the cost of the whole trace.
    """

    name: str
    step: float
    shards: Floats
    throttled: Floats
    waiting: Floats
    dropped: Floats
    lag_seconds: Floats
    taken: Floats
    """Bytes that entered the stream."""
    calls: int
    dollars: float

    def to_json(self) -> dict[str, Any]:
        """Return a summary: costs, mean and highest number of shards, throttling, loss, and lag."""
        offered = self.taken.sum() + self.dropped.sum() + self.waiting[-1]
        return {
            "name": self.name,
            "dollars": round(self.dollars, 2),
            "dollars_per_day": round(self.dollars / (len(self.shards) * self.step / 86_400), 2),
            "shards_mean": round(float(self.shards.mean()), 1),
            "shards_most": int(self.shards.max()),
            "calls": self.calls,
            "throttled_minutes": round(float((self.throttled > 0).sum() * self.step / 60), 1),
            "throttled_records": round(float(self.throttled.sum())),
            "dropped_share": float(self.dropped.sum() / offered) if offered else 0.0,
            "lag_p99_seconds": round(float(np.quantile(self.lag_seconds, 0.99)), 1),
            "lag_most_seconds": round(float(self.lag_seconds.max()), 1),
        }


class _Stream:
    """Hold the state of the simulated stream at a time."""

    def __init__(self, layout: Layout, trace: Trace, world: World) -> None:
        self.trace, self.world = trace, world
        self._places = [hash_key_of(key) for key in trace.keys]
        self._key_at = np.array(self._places, np.float64) / HASH_SPACE
        self.held = np.zeros((2, trace.bytes_s.shape[1]))
        self.held_keys = np.zeros((2, len(trace.keys)))
        self.unread: Floats = np.zeros(0)
        self._bounds: Floats = np.zeros(0)
        self.take_layout(layout)
        self.unread = np.zeros(len(layout))

    def take_layout(self, layout: Layout) -> None:
        """Change the shards; unread bytes stay in their part of the hash range."""
        bounds = np.array([*[at / HASH_SPACE for at in layout], 1.0])
        if len(self.unread):
            before = np.concatenate([[0.0], np.cumsum(self.unread)])
            self.unread = np.diff(np.interp(bounds, self._bounds, before))
        self.layout, self._bounds = layout, bounds
        parts = self.held.shape[1]
        self._in_parts = bounds * parts
        self._width = np.diff(bounds)
        self._key_shard = np.clip(np.searchsorted(bounds, self._key_at, "right") - 1, 0, len(layout) - 1)
        self._part_bounds = np.arange(parts + 1) / parts

    def step(self, at: int) -> tuple[float, float, float, float]:
        """Simulate one step; return records refused, and bytes waiting, dropped and taken."""
        trace, dt = self.trace, self.trace.step
        parts = np.stack([trace.bytes_s[at], trace.records_s[at]]) * dt + self.held
        keys = np.stack([trace.key_bytes_s[at], trace.key_records_s[at]]) * dt + self.held_keys
        wanted = self._per_shard(parts, keys)
        most = np.array([[LIMITS.write_bytes * dt], [LIMITS.write_records * dt]])
        # The tighter limit of the two decides; 1e-300 stands for no load, where any share will do.
        pass_share = np.minimum(1.0, (most / np.maximum(wanted, 1e-300)).min(axis=0))
        taken = wanted * pass_share
        refused = wanted - taken
        self._keep(parts, keys, pass_share, taken, wanted)
        dropped = self._drop(at)
        self.load = taken / dt
        self.tried = wanted[1] / dt
        self.taken_keys = keys * (pass_share[self._key_shard] if not self.world.spread else pass_share.mean()) / dt
        self.unread += taken[0]
        self.unread -= np.minimum(self.unread, self._readable() * dt)
        return (
            float(refused[1].sum()),
            float(self.held[0].sum() + self.held_keys[0].sum()),
            dropped,
            float(taken[0].sum()),
        )

    def lag(self) -> float:
        """Return the seconds that the worst reader is behind, at the speed it can read."""
        return float(self.unread.max() / self._readable())

    def curve(self) -> LoadCurve:
        """Return the load as a scaler measures it: what each shard took, and more where records were refused."""
        # Retries inflate what is tried, so it counts up to twice the load, as in `load.from_samples`.
        more = np.minimum(2.0, self.tried / np.maximum(self.load[1], 1e-9))
        load = self.load * np.maximum(1.0, more)
        if self.world.spread:
            return LoadCurve((0, HASH_SPACE), load[0].sum(keepdims=True), load[1].sum(keepdims=True))
        points = []
        for i, key in enumerate(self.trace.keys):
            by, records = (float(self.taken_keys[measure, i] * more[self._key_shard[i]]) for measure in (0, 1))
            points.append(Point(key, self._places[i], by, records))
            load[0, self._key_shard[i]] -= by
            load[1, self._key_shard[i]] -= records
        load = np.maximum(load, 0.0)
        return LoadCurve((*self.layout, HASH_SPACE), load[0], load[1], tuple(points))

    def _readable(self) -> float:
        """Return the bytes per second that each reader can read of a shard."""
        shared = LIMITS.read_bytes / max(1, self.world.consumers)
        return min(self.world.read_bytes, LIMITS.read_bytes if self.world.fan_out else shared)

    def _per_shard(self, parts: np.ndarray[Any, Any], keys: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the bytes and records that fall on each shard, out of the load of parts and keys."""
        count = len(self.layout)
        if self.world.spread:
            total = parts.sum(axis=1) + keys.sum(axis=1)
            return np.repeat(total[:, None] / count, count, axis=1)
        grid = np.arange(parts.shape[1] + 1)
        out = np.empty((2, count))
        for measure in (0, 1):
            below = np.concatenate([[0.0], np.cumsum(parts[measure])])
            out[measure] = np.diff(np.interp(self._in_parts, grid, below))
            out[measure] += np.bincount(self._key_shard, keys[measure], count)
        return np.maximum(out, 0.0)

    def _keep(
        self,
        parts: np.ndarray[Any, Any],
        keys: np.ndarray[Any, Any],
        pass_share: Floats,
        taken: np.ndarray[Any, Any],
        wanted: np.ndarray[Any, Any],
    ) -> None:
        """Keep at the producers what the shards refused, with the hash keys that it belongs to."""
        if self.world.spread:
            left = 1 - taken.sum(axis=1) / np.maximum(wanted.sum(axis=1), 1e-300)
            self.held, self.held_keys = parts * left[:, None], keys * left[:, None]
            return
        if pass_share.min() >= 1.0:
            self.held, self.held_keys = np.zeros_like(parts), np.zeros_like(keys)
            return
        # A part is refused as much as the shards it reaches into are, by how much of it each has.
        refused = np.concatenate([[0.0], np.cumsum((1 - pass_share) * self._width)])
        share = np.diff(np.interp(self._part_bounds, self._bounds, refused)) * parts.shape[1]
        self.held = parts * share
        self.held_keys = keys * (1 - pass_share[self._key_shard])

    def _drop(self, at: int) -> float:
        """Drop what the producers' buffers cannot hold; return the bytes dropped."""
        arriving = self.trace.bytes_s[at].sum() + self.trace.key_bytes_s[at].sum()
        capacity = arriving * self.world.buffer_seconds
        waiting = self.held[0].sum() + self.held_keys[0].sum()
        if waiting <= capacity:
            return 0.0
        self.held = self.held * (capacity / waiting)
        self.held_keys = self.held_keys * (capacity / waiting)
        return float(waiting - capacity)


def simulate(trace: Trace, start: Layout, scaler: Scaler, world: World, prices: Prices) -> SimulationResult:
    """Return how the scaler does over the whole trace, from the layout `start`.

    >>> from headwater.processors.scaling.pricing import load_prices
    >>> from headwater.processors.scaling.scalers import Fixed
    >>> from headwater.processors.scaling.topology import even_layout
    >>> minutes, none = np.ones((30, 1)), np.zeros((30, 0))
    >>> trace = Trace(60.0, 1_500_000 * minutes, 100 * minutes, 100 * minutes[:, 0], (), none, none)
    >>> for count in (1, 2):
    ...     outcome = simulate(trace, even_layout(count), Fixed(), World(), load_prices()).to_json()
    ...     print(count, outcome["throttled_minutes"])
    1 30.0
    2 0.0
    """
    stream = _Stream(start, trace, world)
    rows = np.zeros((6, trace.steps))
    todo: list[Step] = []
    spare, calls, dollars, next_look = 0.0, 0, 0.0, 0.0
    totals = trace.totals()
    for at in range(trace.steps):
        now = at * trace.step
        spare, made = _reshard(stream, todo, spare + trace.step)
        calls += made
        refused, waiting, dropped, taken = stream.step(at)
        rows[:, at] = (len(stream.layout), refused, waiting, dropped, stream.lag(), taken)
        usage = Usage(taken / trace.step, float(totals[1][at]), world.consumers, world.fan_out)
        dollars += _cost(scaler, usage, len(stream.layout), prices).hour * trace.step / 3600
        if now >= next_look and not todo:
            next_look = now + scaler.period
            seen = Observed(round((now + trace.step) * 1000), stream.layout, stream.curve(), usage, refused > 0, False)
            todo = list(scaler.act(seen))
            spare = 0.0  # time before the decision cannot be used for its calls
    shards, throttled, waiting_at, dropped_at, lag, taken_at = rows
    return SimulationResult(
        scaler.name, trace.step, shards, throttled, waiting_at, dropped_at, lag, taken_at, calls, dollars
    )


def _reshard(stream: _Stream, todo: list[Step], spare: float) -> tuple[float, int]:
    """Make as many of the calls as the time allows; return the time left over and the number of calls."""
    layout, made = stream.layout, 0
    while todo:
        needs = LIMITS.update_seconds if todo[0].call == "UpdateShardCount" else LIMITS.reshard_seconds
        if needs > spare:
            break
        layout = after(layout, todo.pop(0))
        spare -= needs
        made += 1
    if made:
        stream.take_layout(layout)
    return (spare if todo else 0.0), made


def _cost(scaler: Scaler, usage: Usage, shards: int, prices: Prices) -> Cost:
    """Return the hourly cost of the scaler's pricing mode."""
    return on_demand(scaler.price, usage) if scaler.price else provisioned(prices, usage, shards)
