"""Compute delays of real flights per origin and hour, joined with airports and planes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from headwater import Pipeline, Reference, count, max, mean, tumbling, variance


def pipeline_with(airports: str | Path, planes: str | Path) -> Pipeline:
    """Return the pipeline over the reference tables at these paths (CSV or Parquet).

    >>> [view.name for view in pipeline_with("airports.csv", "planes.csv").views]
    ['delay_1h', 'manufacturer']
    """
    return (
        Pipeline("flights", contract="flights", allowed_lateness="1h")
        .enrich(
            Reference("airports", str(airports), "faa", {"name": "string", "alt": "double"}), on="dest", prefix="dest_"
        )
        .enrich(Reference("planes", str(planes), "tailnum", {"manufacturer": "string", "seats": "int"}), on="tailnum")
        .map(late_minutes, adds={"late": "boolean"})
        .view(
            "delay_1h",
            by=["origin"],
            window=tumbling("1h"),
            flights=count(),
            mean_delay=mean("dep_delay"),
            worst_delay=max("dep_delay"),
            variance=variance("dep_delay"),
        )
        .view("manufacturer", by=["manufacturer"], flights=count(), seats=mean("seats"))
        .lake("flights", partition="month")
    )


def late_minutes(flights: pa.Table) -> pa.Table:
    """Return which flights are late as the US Department of Transportation counts it: 15 minutes or more."""
    return pa.table({"late": pc.greater_equal(flights["dep_delay"], 15)})
