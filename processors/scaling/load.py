"""Describe load over the hash space: a density in parts, and single keys on top. Pure."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headwater.processors.scaling.heat import Sample
from headwater.processors.scaling.topology import Layout, Topology
from headwater.stream.hashkeys import HASH_SPACE, hash_key_of

__all__ = ["Floats", "LoadCurve", "Point", "even_load", "from_samples"]

_HEAVY = 0.02
"""Keys with a smaller share of their shard are left in its parts."""
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Point:
    """Hold a partition key so heavy that it is counted by itself; all of its load lies on one hash key."""

    key: str
    position: int
    bytes_s: float
    records_s: float


@dataclass(frozen=True, eq=False)
class LoadCurve:
    """Hold bytes and records per second over the hash space.

    Part i is the hash keys from edges[i] up to edges[i + 1], its load even over them. `edges` begins with 0 and ends
    with 2^128. The load of `points` is not in the parts.
    """

    edges: tuple[int, ...]
    bytes_s: Floats
    records_s: Floats
    points: tuple[Point, ...] = ()

    @property
    def total(self) -> tuple[float, float]:
        """Return bytes and records per second of the whole stream."""
        return (
            float(self.bytes_s.sum()) + sum(point.bytes_s for point in self.points),
            float(self.records_s.sum()) + sum(point.records_s for point in self.points),
        )

    def below(self, positions: Sequence[int]) -> tuple[Floats, Floats]:
        """Return, for each position (ascending), the bytes and records per second of all hash keys before it."""
        if tuple(positions) == self.edges and not self.points:
            return self._cumulative
        part = np.array([min(bisect_right(self.edges, at) - 1, len(self.edges) - 2) for at in positions], np.int64)
        edges = self.edges
        into = np.array(
            [(at - edges[i]) / (edges[i + 1] - edges[i]) for at, i in zip(positions, part.tolist(), strict=True)]
        )
        out = []
        for density, cumulative, loads in (
            (self.bytes_s, self._cumulative[0], [point.bytes_s for point in self._sorted]),
            (self.records_s, self._cumulative[1], [point.records_s for point in self._sorted]),
        ):
            below = cumulative[part] + density[part] * into
            if self._sorted:
                places = [point.position for point in self._sorted]
                heaps = np.concatenate([[0.0], np.cumsum(loads)])
                # A point at p lies before every position above p.
                below = below + heaps[[bisect_right(places, at - 1) for at in positions]]
            out.append(below)
        return out[0], out[1]

    def per_shard(self, layout: Layout) -> tuple[Floats, Floats]:
        """Return bytes and records per second of each shard of the layout."""
        by, records = self.below([*layout, HASH_SPACE])
        return np.diff(by), np.diff(records)

    def scaled(self, factor: float) -> "LoadCurve":
        """Return a curve of the same shape with `factor` times the load."""
        points = tuple(Point(p.key, p.position, p.bytes_s * factor, p.records_s * factor) for p in self.points)
        return LoadCurve(self.edges, self.bytes_s * factor, self.records_s * factor, points)

    @cached_property
    def _sorted(self) -> tuple[Point, ...]:
        """Return the points in the order of their positions."""
        return tuple(sorted(self.points, key=lambda point: point.position))

    @cached_property
    def _cumulative(self) -> tuple[Floats, Floats]:
        """Return the load of the parts before each edge, points aside."""
        return (
            np.concatenate([[0.0], np.cumsum(self.bytes_s)]),
            np.concatenate([[0.0], np.cumsum(self.records_s)]),
        )


def even_load(bytes_s: float, records_s: float, points: Sequence[Point] = ()) -> LoadCurve:
    """Return a load that is even over the hash space, as producers that spread their batches make it.

    >>> even_load(1_000_000, 100).per_shard((0, 2**127))[0].tolist()
    [500000.0, 500000.0]
    """
    return LoadCurve((0, HASH_SPACE), np.array([bytes_s]), np.array([records_s]), tuple(points))


def from_samples(topology: Topology, samples: Mapping[str, Sample], peak: bool = False) -> LoadCurve:
    """Return the measured load; a shard without a sample counts as idle.

    `peak` takes the worst second instead of the mean. A throttled shard is assumed to want more than it took: what was
    refused comes on top, up to twice the load.

    A heavy key counts as a point only where the key itself was the partition key: it hashes into the shard it was seen
    on, and the records of that part of the shard's range are at least half as heavy as the key. A key that is heavy
    inside spread batches heats no shard and is no point.
    """
    edges: list[int] = []
    by: list[float] = []
    records: list[float] = []
    points: list[Point] = []
    for shard in topology.open:
        sample = samples.get(shard.shard_id)
        shares = list(sample.bins) if sample and sample.bins and shard.width >= 4 * len(sample.bins) else [1.0]
        tried = 1 + min(1.0, sample.throttles_s / sample.records_s) if sample and sample.records_s else 1.0
        bytes_s = tried * (sample.peak_bytes_s if peak else sample.bytes_s) if sample else 0.0
        records_s = tried * (sample.peak_records_s if peak else sample.records_s) if sample else 0.0
        if sample and len(shares) > 1:
            for heavy in sample.heavy:
                place = hash_key_of(heavy.key)
                at = (place - shard.start) * len(shares) // shard.width
                if heavy.share >= _HEAVY and shard.start <= place <= shard.end and shares[at] >= heavy.share / 2:
                    taken = min(heavy.share, shares[at])
                    shares[at] -= taken
                    points.append(Point(heavy.key, place, bytes_s * taken, records_s * taken))
        edges += [shard.start + shard.width * at // len(shares) for at in range(len(shares))]
        by += [bytes_s * share for share in shares]
        records += [records_s * share for share in shares]
    return LoadCurve((*edges, HASH_SPACE), np.array(by), np.array(records), tuple(points))
