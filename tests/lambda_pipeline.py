"""The pipeline of the KCL's tests with another user's function: one that hangs once, or dies on a value."""

import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from headwater.aggregates import count, sum
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling

DEADLY = 666.0


def harmful(events: pa.Table) -> pa.Table:
    """Never returns while the file named in the environment is there, which it takes away; a value kills it."""
    trigger = Path(os.environ.get("LAMBDA_TEST_HANG", "/nowhere"))
    if trigger.exists():
        trigger.unlink()
        time.sleep(3600)
    if DEADLY in events["value"].to_pylist():
        os.kill(os.getpid(), signal.SIGKILL)
    return pa.table({"doubled": pc.multiply(events["value"], 2.0)})


pipeline = (
    Pipeline("kcltest", contract="telemetry", allowed_lateness="2m")
    .map(harmful, adds={"doubled": "double"})
    .view("by_metric", by=["metric"], window=tumbling("1h"), events=count(), total=sum("value"))
    .lake("kcltest", partition=None)
)
