"""Tell whether a pipeline has still to read records that are on its stream."""

from typing import Any

from headwater.ledger import ShardEntry
from headwater.processors.ports import PipelineReader
from headwater.processors.runners.pages import shard_iterator
from headwater.stream import sequence
from headwater.stream.shards import list_shards

__all__ = ["is_behind"]

_MOST_PAGES = 100
"""Pages without a record that are read of a shard: a gap in time may take several
(https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html)."""


def is_behind(reader: PipelineReader) -> bool:
    """Return whether a shard of the stream has a record after the pipeline's last commit there.

    Asks Kinesis for one record of each shard that the pipeline has not read to its end.
    """
    stream, entries = reader.stream, {entry.shard_id: entry for entry in reader.stores.ledger.shards()}
    return any(
        _has_record(stream.kinesis, stream.stream, shard.shard_id, entries.get(shard.shard_id))
        for shard in list_shards(stream.kinesis, stream.stream)
    )


def _has_record(kinesis: Any, stream: str, shard_id: str, entry: ShardEntry | None) -> bool:
    if entry is not None and entry.closed:
        return False
    iterator = shard_iterator(kinesis, stream, shard_id, sequence.NONE if entry is None else entry.position)
    for _ in range(_MOST_PAGES):
        if iterator is None:
            return False
        answer = kinesis.get_records(ShardIterator=iterator, Limit=1)
        if answer["Records"]:
            return True
        if not answer.get("MillisBehindLatest"):
            return False
        iterator = answer.get("NextShardIterator")
    return False
