"""Compute views and a lake table from the events of starter. Paths are relative to this file."""

import pyarrow as pa
import pyarrow.compute as pc

from headwater import Pipeline, Reference, count, max, mean, tumbling

sensors = Reference("sensors", "sensors.csv", key="sensor", columns={"site": "string", "limit": "double"})


def judged(events: pa.Table) -> pa.Table:
    """Say which values are above their sensor's limit. Each row by itself: how events are cut is not defined."""
    return pa.table({"too_high": pc.greater(events["value"], events["limit"])})


pipeline = (
    Pipeline("starter", contract="contract.yaml", allowed_lateness="2m")
    .enrich(sensors, on="sensor")
    .map(judged, adds={"too_high": "boolean"})
    .view("site_1m", by=["site"], window=tumbling("1m"), events=count(), mean=mean("value"), most=max("value"))
    .lake("starter", partition="day")
)
