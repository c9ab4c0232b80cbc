"""Real flights: delay per origin and hour, joined with airports and planes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from headwater.aggregates import count, max, mean, variance
from processors.pipeline import Pipeline, Reference
from processors.windows import tumbling


def pipeline_with(airports: str | Path, planes: str | Path) -> Pipeline:
    """The pipeline over reference tables at these places (CSV or Parquet)."""
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
    """Late as the US Department of Transportation counts it: 15 minutes or more."""
    return pa.table({"late": pc.greater_equal(flights["dep_delay"], 15)})
