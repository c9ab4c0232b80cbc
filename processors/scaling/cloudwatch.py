"""Make samples out of Amazon's shard-level metrics (enhanced monitoring), where no processor of ours measures."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from headwater.processors.scaling.heat import Sample
from headwater.processors.scaling.topology import Topology

__all__ = ["cloudwatch_samples"]

_METRICS = ("IncomingBytes", "IncomingRecords", "WriteProvisionedThroughputExceeded", "IteratorAgeMilliseconds")
_QUERIES = 500
"""Queries in one call: the limit of GetMetricData."""
_SECONDS = 300
"""Period of which a sample is the mean; periods of GetMetricData are multiples of 60 s."""


def cloudwatch_samples(cloudwatch: Any, topology: Topology, now_ms: int) -> dict[str, Sample]:
    """Return the open shards' means over the last five minutes, by shard id.

    Shards without metrics are left out. Events inside batches, peaks within a minute and heavy keys are unknown to
    Amazon; IteratorAge is that of the slowest GetRecords reader.
    """
    found: dict[str, dict[str, float]] = {}
    end = datetime.fromtimestamp(now_ms // 60_000 * 60, UTC)
    start = datetime.fromtimestamp(now_ms // 60_000 * 60 - _SECONDS, UTC)
    for queries, names in _batches(topology):
        pages = cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=start, EndTime=end
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                if result["Values"]:
                    shard_id, metric = names[result["Id"]]
                    found.setdefault(shard_id, {})[metric] = float(result["Values"][0])
    return {shard_id: _sample(shard_id, now_ms, values) for shard_id, values in found.items()}


def _batches(topology: Topology) -> Iterator[tuple[list[dict[str, Any]], dict[str, tuple[str, str]]]]:
    """Yield as many queries as one call takes, with the shard and metric that each id stands for."""
    wanted = [(shard.shard_id, metric) for shard in topology.open for metric in _METRICS]
    for first in range(0, len(wanted), _QUERIES):
        names = {f"m{at}": pair for at, pair in enumerate(wanted[first : first + _QUERIES])}
        yield [_query(topology.stream, name, *pair) for name, pair in names.items()], names


def _query(stream: str, name: str, shard_id: str, metric: str) -> dict[str, Any]:
    """Return the query of one metric of a shard."""
    dimensions = [{"Name": "StreamName", "Value": stream}, {"Name": "ShardId", "Value": shard_id}]
    return {
        "Id": name,
        "MetricStat": {
            "Metric": {"Namespace": "AWS/Kinesis", "MetricName": metric, "Dimensions": dimensions},
            "Period": _SECONDS,
            "Stat": "Maximum" if metric == "IteratorAgeMilliseconds" else "Sum",
        },
    }


def _sample(shard_id: str, now_ms: int, values: dict[str, float]) -> Sample:
    """Return the sample of the values of one shard; a metric that is missing is 0."""
    age = values.get("IteratorAgeMilliseconds")
    bytes_s, records_s, throttles_s = (values.get(metric, 0.0) / _SECONDS for metric in _METRICS[:3])
    return Sample(
        shard_id=shard_id,
        at_ms=now_ms,
        seconds=_SECONDS,
        bytes_s=bytes_s,
        records_s=records_s,
        events_s=0.0,
        peak_bytes_s=bytes_s,
        peak_records_s=records_s,
        throttles_s=throttles_s,
        lag_ms={} if age is None else {"GetRecords": int(age)},
    )
