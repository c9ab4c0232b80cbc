"""Run headwater with no AWS: services in memory, a clock that a test moves, faults by script, events to send.

For tests of your own pipelines, which `run_pipeline` takes over a list of events or a DataFrame, and for ours. The
services behave as the real ones do in what exactly-once depends on (docs/emulators.md); a contract suite holds them
against servers that others wrote. Nothing here draws from real time or real randomness.

>>> from headwater.clock import ManualClock
>>> from headwater.testing import MemoryKinesis
>>> kinesis = MemoryKinesis(ManualClock())
>>> _ = kinesis.create_stream(StreamName="events", ShardCount=2)
>>> kinesis.put_record(StreamName="events", Data=b"{}", PartitionKey="device-1")["ShardId"]
'shardId-000000000001'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headwater.testing.dynamodb import MemoryDynamoDB, Staleness
from headwater.testing.faults import Faults
from headwater.testing.fleet import Fleet
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.objects import MemoryObjects

if TYPE_CHECKING:
    from headwater.testing.pipelines import PipelineRun, run_pipeline

__all__ = [
    "Faults",
    "Fleet",
    "MemoryDynamoDB",
    "MemoryKinesis",
    "MemoryObjects",
    "PipelineRun",
    "Staleness",
    "run_pipeline",
]


def __getattr__(name: str) -> Any:
    """Load what runs pipelines when it is first used: the embedded AWS takes the services alone."""
    if name not in ("PipelineRun", "run_pipeline"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("headwater.testing.pipelines"), name)
