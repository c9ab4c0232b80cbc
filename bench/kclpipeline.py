"""What `bench.kcl` lets the processor do: a view and a lake table."""

from bench.data import CONTRACT
from headwater import aggregates as agg
from processors.pipeline import Pipeline
from processors.windows import tumbling

pipeline = (
    Pipeline("bench", CONTRACT, allowed_lateness="1m")
    .view("metric_1m", by=["metric"], window=tumbling("1m"), n=agg.count(), mean=agg.mean("value"))
    .lake("bench")
)
