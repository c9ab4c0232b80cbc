"""Define the pipeline that `bench.kcl` runs: a view and a lake table."""

from bench.data import CONTRACT
from headwater import aggregates as agg
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling

pipeline = (
    Pipeline("bench", CONTRACT, allowed_lateness="1m")
    .view("metric_1m", by=["metric"], window=tumbling("1m"), n=agg.count(), mean=agg.mean("value"))
    .lake("bench")
)
