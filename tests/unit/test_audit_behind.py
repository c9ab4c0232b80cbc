"""An audit that waits knows what is on the stream and not read yet, whatever shape the stream has."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from headwater.clock import ManualClock
from headwater.ledger import ShardEntry
from headwater.processors.audit.behind import is_behind
from headwater.stream import sequence
from headwater.testing.kinesis import MemoryKinesis


class Stream:
    """Two shards, and what a pipeline has read of them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.kinesis = MemoryKinesis(self.clock)
        self.kinesis.create_stream(StreamName="s", ShardCount=2)
        self.read = dict[str, ShardEntry]()

    def put(self, *, second: bool) -> tuple[str, str]:
        key = str(2**127 + 1 if second else 1)
        answer = self.kinesis.put_record(StreamName="s", Data=b"x", PartitionKey="k", ExplicitHashKey=key)
        return answer["ShardId"], sequence.pad(answer["SequenceNumber"])

    def commit(self, shard: str, position: str, *, closed: bool = False) -> None:
        self.read[shard] = ShardEntry("p", shard, 1, "o", position, closed)

    @property
    def behind(self) -> bool:
        stores = SimpleNamespace(ledger=SimpleNamespace(shards=lambda: list(self.read.values())))
        reader: Any = SimpleNamespace(stores=stores, stream=SimpleNamespace(kinesis=self.kinesis, stream="s"))
        return is_behind(reader)


def test_a_pipeline_is_behind_until_each_shard_is_committed() -> None:
    stream = Stream()
    assert not stream.behind
    places: Mapping[str, str] = dict(stream.put(second=second) for second in (False, True))
    for shard, position in places.items():
        assert stream.behind
        stream.commit(shard, position)
    assert not stream.behind
    stream.put(second=True)
    assert stream.behind


@pytest.mark.parametrize("read", [True, False])
def test_a_closed_shard_counts_until_it_is_read_to_its_end(read: bool) -> None:
    stream = Stream()
    shard, position = stream.put(second=False)
    stream.kinesis.split_shard(StreamName="s", ShardToSplit=shard, NewStartingHashKey=str(2**126))
    if read:
        stream.commit(shard, position, closed=True)
    assert stream.behind is not read
