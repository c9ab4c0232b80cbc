"""Describe the load measured on each shard, and how near it is to the shard's limits. Pure.

Measuring is in `tracker` and `cloudwatch`, reading what was stored in `readings`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from headwater.processors.scaling.limits import LIMITS
from headwater.processors.scaling.topology import Topology
from headwater.processors.scaling.tracker import HeatTracker
from headwater.stream.shards import Shard

__all__ = ["HeavyKey", "Sample", "ShardHeat", "heat", "sample_from_json", "sample_of"]

_SAMPLE_SECONDS = 60


@dataclass(frozen=True)
class HeavyKey:
    """Hold a key that is frequent inside the batches of a shard.

    `events` is a lower bound of its events, and `share` is its part of all events of the shard, from 0 to 1.
    """

    key: str
    events: int
    share: float


@dataclass(frozen=True)
class Sample:
    """Hold the load of one shard, measured over `seconds` up to the time `at_ms`.

    Rates (`…_s`) are means per second; the fields that begin with `peak` are the highest second. Bytes include the
    partition keys. `throttles_s` counts records that the shard refused.
    """

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
    """Milliseconds that each consumer is behind the tip of the shard, by the consumer's name."""
    heavy: tuple[HeavyKey, ...] = ()
    bins: tuple[float, ...] = ()
    """Share of the bytes in each of so many equal parts of the shard's hash range."""

    def to_json(self) -> dict[str, Any]:
        """Return the sample as a JSON document, which `sample_from_json` reads."""
        return asdict(self) | {"lag_ms": dict(self.lag_ms)}


def sample_from_json(doc: Mapping[str, Any]) -> Sample:
    """Return the sample that `Sample.to_json` wrote."""
    heavy = tuple(HeavyKey(**key) for key in doc.get("heavy", ()))
    return Sample(**{**doc, "heavy": heavy, "bins": tuple(doc.get("bins", ()))})


def sample_of(shard_id: str, tracker: HeatTracker, lag_ms: Mapping[str, int]) -> Sample:
    """Return a sample of the last minute that the processor's own tracker measured."""
    rates = tracker.rates(_SAMPLE_SECONDS)
    return Sample(
        shard_id=shard_id,
        at_ms=(tracker.last_second + 1) * 1000,
        seconds=_SAMPLE_SECONDS,
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
    """Hold a shard, its sample, and which share of each limit it uses.

    A share of 1.0 is the limit itself. Without a sample the write and read shares are 0.
    """

    shard: Shard
    sample: Sample | None
    write_bytes: float
    write_records: float
    read_bytes: float
    """Assumes that each GetRecords consumer reads all that is written; together they share the limit."""
    read_calls: float
    """Assumes one GetRecords call per second from each consumer."""

    @property
    def hottest(self) -> float:
        """Return the highest share of the byte and record limits; the rate of read calls is left out."""
        return max(self.write_bytes, self.write_records, self.read_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return the heat as a JSON document; hash keys are text, because they do not fit into a JSON number."""
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


def heat(topology: Topology, samples: Sequence[Sample], consumers: int = 1) -> tuple[ShardHeat, ...]:
    """Return the heat of every open shard, in the order of its hash range.

    `consumers` is the number of GetRecords readers; where a sample names more of them, that number counts.

    >>> shards = (Shard("shardId-0", 0, 2**127 - 1), Shard("shardId-1", 2**127, 2**128 - 1))
    >>> sample = Sample("shardId-0", at_ms=60_000, seconds=60, bytes_s=900_000, records_s=100, events_s=5_000)
    >>> [(one.shard.shard_id, one.hottest) for one in heat(Topology("orders", shards), [sample])]
    [('shardId-0', 0.9), ('shardId-1', 0.0)]
    """
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
                write_bytes=bytes_s / LIMITS.write_bytes,
                write_records=records_s / LIMITS.write_records,
                read_bytes=readers * bytes_s / LIMITS.read_bytes,
                read_calls=readers / LIMITS.read_calls,
            )
        )
    return tuple(out)
