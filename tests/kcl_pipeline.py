"""The pipeline of the KCL's tests: small, so that the fleet around it is what is tested."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from headwater.aggregates import count, sum
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling


def broken_on_demand(events: pa.Table) -> pa.Table:
    """Ends the process without a word while the file named in the environment is there: a worker that crashes."""
    trigger = os.environ.get("KCL_TEST_CRASH", "")
    if trigger and Path(trigger).exists():
        os._exit(3)
    print("a user's function that prints")
    return pa.table({"doubled": pc.multiply(events["value"], 2.0)})


pipeline = (
    Pipeline("kcltest", contract="telemetry", allowed_lateness="2m")
    .map(broken_on_demand, adds={"doubled": "double"})
    .view("by_metric", by=["metric"], window=tumbling("1h"), spread=2, events=count(), total=sum("value"))
    .lake("kcltest", partition=None)
)
