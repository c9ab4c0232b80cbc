"""A stream as values: its shards, its hash space, sequence numbers and records. Nothing here does I/O of its own."""

from headwater.stream import sequence
from headwater.stream.hashkeys import HASH_SPACE, hash_key_of
from headwater.stream.record import StreamRecord
from headwater.stream.shards import Shard, list_shards, open_shards, shards_of

__all__ = [
    "HASH_SPACE",
    "Shard",
    "StreamRecord",
    "hash_key_of",
    "list_shards",
    "open_shards",
    "sequence",
    "shards_of",
]
