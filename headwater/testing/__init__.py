"""Run headwater with no AWS: services in memory, a clock that a test moves, faults by script, events to send.

For tests of your own pipelines, and for ours. The services behave as the real ones do in what exactly-once depends on
(docs/emulators.md); a contract suite holds them against servers that others wrote. Nothing here draws from real time or
real randomness.

>>> from headwater.clock import ManualClock
>>> from headwater.testing import MemoryKinesis
>>> kinesis = MemoryKinesis(ManualClock())
>>> _ = kinesis.create_stream(StreamName="events", ShardCount=2)
>>> kinesis.put_record(StreamName="events", Data=b"{}", PartitionKey="device-1")["ShardId"]
'shardId-000000000001'
"""

from headwater.testing.dynamodb import MemoryDynamoDB, Staleness
from headwater.testing.faults import Faults
from headwater.testing.fleet import Fleet
from headwater.testing.kinesis import MemoryKinesis
from headwater.testing.objects import MemoryObjects

__all__ = ["Faults", "Fleet", "MemoryDynamoDB", "MemoryKinesis", "MemoryObjects", "Staleness"]
