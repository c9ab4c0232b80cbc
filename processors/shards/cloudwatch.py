"""Samples out of Amazon's own shard-level metrics (enhanced monitoring), where no processor of ours measures."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from processors.shards.heat import Sample
from processors.shards.topology import Topology

__all__ = ["cloudwatch_samples"]

_METRICS = ("IncomingBytes", "IncomingRecords", "WriteProvisionedThroughputExceeded", "IteratorAgeMilliseconds")
_QUERIES = 500
"""GetMetricData takes no more in one call."""


def cloudwatch_samples(cloudwatch: Any, topology: Topology, now_ms: int, seconds: int = 300) -> dict[str, Sample]:
    """The open shards' means over the last so many seconds (a multiple of 60). Shards without metrics are left out.

    Events inside batches, peaks within a minute and heavy keys are unknown to Amazon; IteratorAge is the slowest
    GetRecords reader's.
    """
    found: dict[str, dict[str, float]] = {}
    end = datetime.fromtimestamp(now_ms // 60_000 * 60, UTC)
    start = datetime.fromtimestamp(now_ms // 60_000 * 60 - seconds, UTC)
    for queries, names in _batches(topology, seconds):
        pages = cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=start, EndTime=end
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                if result["Values"]:
                    shard_id, metric = names[result["Id"]]
                    found.setdefault(shard_id, {})[metric] = float(result["Values"][0])
    return {shard_id: _sample(shard_id, now_ms, seconds, values) for shard_id, values in found.items()}


def _batches(topology: Topology, seconds: int) -> Iterator[tuple[list[dict[str, Any]], dict[str, tuple[str, str]]]]:
    wanted = [(shard.shard_id, metric) for shard in topology.open for metric in _METRICS]
    for first in range(0, len(wanted), _QUERIES):
        names = {f"m{at}": pair for at, pair in enumerate(wanted[first : first + _QUERIES])}
        yield [_query(topology.stream, name, *pair, seconds) for name, pair in names.items()], names


def _query(stream: str, name: str, shard_id: str, metric: str, seconds: int) -> dict[str, Any]:
    dimensions = [{"Name": "StreamName", "Value": stream}, {"Name": "ShardId", "Value": shard_id}]
    return {
        "Id": name,
        "MetricStat": {
            "Metric": {"Namespace": "AWS/Kinesis", "MetricName": metric, "Dimensions": dimensions},
            "Period": seconds,
            "Stat": "Maximum" if metric == "IteratorAgeMilliseconds" else "Sum",
        },
    }


def _sample(shard_id: str, now_ms: int, seconds: int, values: dict[str, float]) -> Sample:
    age = values.get("IteratorAgeMilliseconds")
    bytes_s, records_s, throttles_s = (values.get(metric, 0.0) / seconds for metric in _METRICS[:3])
    return Sample(
        shard_id=shard_id,
        at_ms=now_ms,
        seconds=seconds,
        bytes_s=bytes_s,
        records_s=records_s,
        events_s=0.0,
        peak_bytes_s=bytes_s,
        peak_records_s=records_s,
        throttles_s=throttles_s,
        lag_ms={} if age is None else {"GetRecords": int(age)},
    )
