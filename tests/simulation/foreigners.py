"""Records of writers that are not ours: plain events, a KPL's aggregates, and what is no event of anybody's."""

import json
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from headwater.codec.kpl import is_kpl, user_records
from headwater.testing.memoryshards import MemoryShard
from tests.kpl import aggregate
from tests.simulation.workload import Event
from tests.simulation.world import World

__all__ = ["ODD", "Foreigners", "inside"]

_AT = b'"ts": 1762160400000, "value": 1, "n": -1'
ODD = (
    b"\x00\x01 no record of anybody's",
    b"[" * 100_000,
    b'{"device": "odd", %b, "id": 9223372036854775808}' % _AT,
    b'{"device": "\\ud800", %b, "id": 1}' % _AT,
    b'{"$headwater":{"kind":"reference","name":"zones","version":1%b,"uri":"s3://memory/zones/1.csv"}}' % (b"0" * 400),
    b'{"$headwater":{"kind":"receipt","contract":"telemetry","intervals":{"odd":[[0,%b]]}}}' % (b"9" * 40),
    # these make sense, and are not signed
    b'{"$headwater":{"kind":"reference","name":"zones","version":2,"uri":"s3://memory/zones/1.csv"}}',
    b'{"$headwater":{"kind":"receipt","contract":"telemetry","intervals":{"odd":[[0,9]]}}}',
)
"""Records each of which is one dead letter, wherever they lie."""
SPACE = 1 << 128


def inside(data: bytes, shard: MemoryShard) -> list[bool] | None:
    """Return which user records of an aggregate belong to the shard; None for any other record."""
    if not is_kpl(data):
        return None
    keys = [one.hash_key for one in user_records(data)]
    return [key is not None and shard.start <= key <= shard.end for key in keys]


class Foreigners:
    """Whoever puts records on the stream without our library."""

    def __init__(self, world: World, stream: str, shards: Any) -> None:
        self.world, self.stream = world, stream
        self._shards = shards
        self.aggregated: set[int] = set()
        """Events that went in an aggregate: each counts where it belongs."""

    def put(self, client: Any, data: bytes, key: int | None = None) -> str:
        """Put one record, again until it is taken; return its shard, or nothing where it never was."""
        place = str(self.world.random.randrange(SPACE) if key is None else key)
        for _ in range(50):
            try:
                answer = client.put_record(StreamName=self.stream, Data=data, PartitionKey="f", ExplicitHashKey=place)
                return str(answer["ShardId"])
            except (ClientError, BotoCoreError):
                self.world.sleep(500)
        return ""

    def put_odd(self, client: Any) -> None:
        """Put what no reader can take for an event."""
        self.put(client, self.world.random.choice(ODD))

    def put_aggregate(self, client: Any, events: Sequence[Event]) -> None:
        """Put events as a KPL that takes them all for one shard's, and again those that were another's."""
        self.aggregated |= {event.n for event in events}
        keys = [self.world.random.randrange(SPACE) for _ in events]
        bodies = [json.dumps(event.row).encode() for event in events]
        data = aggregate(*(("f", body, key) for body, key in zip(bodies, keys, strict=True)))
        landed = self.put(client, data, keys[0])
        shard = next((one for one in self._shards() if one.shard_id == landed), None)
        for body, key in zip(bodies, keys, strict=True):
            if shard is not None and not shard.start <= key <= shard.end:
                self.put(client, body, key)
