"""What was measured of each shard, and how near it is to its limits. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from processors.operators.heat import HeatTracker
from processors.shards.limits import LIMITS, Limits
from processors.shards.topology import Shard, Topology

__all__ = ["HeavyKey", "Sample", "ShardHeat", "heat", "sample_from_json", "sample_of"]


@dataclass(frozen=True)
class HeavyKey:
    """A key inside the batches: at least so many events, and its share of the shard's."""

    key: str
    events: int
    share: float


@dataclass(frozen=True)
class Sample:
    """One shard over some seconds up to `at_ms`. Rates are per second; peaks are the worst second."""

    shard_id: str
    at_ms: int
    seconds: float
    bytes_s: float
    records_s: float
    events_s: float
    peak_bytes_s: float = 0.0
    peak_records_s: float = 0.0
    throttles_s: float = 0.0
    lag_ms: Mapping[str, int] = field(default_factory=dict)
    """How far behind the tip of the shard each consumer is."""
    heavy: tuple[HeavyKey, ...] = ()
    bins: tuple[float, ...] = ()
    """Share of the bytes in each of so many equal parts of the shard's hash range."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"lag_ms": dict(self.lag_ms)}


def sample_from_json(doc: Mapping[str, Any]) -> Sample:
    """What to_json wrote."""
    heavy = tuple(HeavyKey(**key) for key in doc.get("heavy", ()))
    return Sample(**{**doc, "heavy": heavy, "bins": tuple(doc.get("bins", ()))})


def sample_of(shard_id: str, tracker: HeatTracker, lag_ms: Mapping[str, int], seconds: int = 60) -> Sample:
    """A sample out of the processor's own measurements."""
    rates = tracker.rates(seconds)
    return Sample(
        shard_id=shard_id,
        at_ms=(tracker.last_second + 1) * 1000,
        seconds=seconds,
        bytes_s=rates["bytes_s"],
        records_s=rates["records_s"],
        events_s=rates["events_s"],
        peak_bytes_s=rates["peak_bytes_s"],
        peak_records_s=rates["peak_records_s"],
        throttles_s=rates["refused_s"],
        lag_ms=dict(lag_ms),
        heavy=tuple(HeavyKey(*row) for row in tracker.heavy()),
        bins=tuple(tracker.bins()),
    )


@dataclass(frozen=True)
class ShardHeat:
    """A shard, its sample, and the shares of its limits (1.0 is the limit)."""

    shard: Shard
    sample: Sample | None
    write_bytes: float
    write_records: float
    read_bytes: float
    """All GetRecords consumers together reading as much as is written."""
    read_calls: float
    """If each consumer asks once a second."""

    @property
    def hottest(self) -> float:
        return max(self.write_bytes, self.write_records, self.read_bytes)

    def to_json(self) -> dict[str, Any]:
        return {
            "shard_id": self.shard.shard_id,
            "start": str(self.shard.start),
            "end": str(self.shard.end),
            "sample": self.sample.to_json() if self.sample else None,
            "shares": {
                "write_bytes": self.write_bytes,
                "write_records": self.write_records,
                "read_bytes": self.read_bytes,
                "read_calls": self.read_calls,
            },
            "hottest": self.hottest,
        }


def heat(
    topology: Topology, samples: Sequence[Sample], consumers: int = 1, limits: Limits = LIMITS
) -> tuple[ShardHeat, ...]:
    """Every open shard in the order of its hash range."""
    known = {sample.shard_id: sample for sample in samples}
    out = []
    for shard in topology.open:
        sample = known.get(shard.shard_id)
        bytes_s, records_s = (sample.bytes_s, sample.records_s) if sample else (0.0, 0.0)
        readers = max(consumers, len(sample.lag_ms) if sample else 0)
        out.append(
            ShardHeat(
                shard=shard,
                sample=sample,
                write_bytes=bytes_s / limits.write_bytes,
                write_records=records_s / limits.write_records,
                read_bytes=readers * bytes_s / limits.read_bytes,
                read_calls=readers / limits.read_calls,
            )
        )
    return tuple(out)
