"""Find the events of the stream that must not come back into a view built from it: forgotten, or filtered.

The ledger's states say it. What is in no table but was read is in their `excluded` sets, by identity; where the key
itself is the origin, forgetting takes it out of `seen`. What they cannot say is refused: the lake knows.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headwater.errors import HeadwaterError, UsageError
from headwater.lineage.members import members
from headwater.lineage.origins import OriginSets
from headwater.processors.engine.state import ShardState
from headwater.processors.ports import PipelineStores
from headwater.processors.replay.stream import decoded
from headwater.processors.shard.snapshots import StateStore
from headwater.stream.record import StreamRecord

__all__ = ["ErasedEvents"]


class ErasedEvents:
    """Hold the events that the shards' committed states know as erased; raise UsageError where they cannot say it."""

    def __init__(self, stores: PipelineStores) -> None:
        contract = self._contract = stores.pipeline.contract
        self._decoder = stores.pipeline.decoder
        self._by_seen = contract.id is not None and contract.id.origin == contract.key
        self._seen, self._excluded, self._dead = OriginSets(), OriginSets(), OriginSets()
        self._newest_ms, revived = 0, 0
        store = StateStore(stores.pipeline, stores.objects)
        for entry in stores.ledger.shards():
            state = store.load(entry)
            if self._by_seen:
                self._seen.update(state.seen)
            self._excluded.update(state.excluded)
            self._dead.update(state.dead)  # what a step fails on once more is no row: it is tried, as it was
            revived += state.revived.count()
            self._newest_ms = max(self._newest_ms, state.max_arrived)
        if revived:
            raise UsageError(
                f"pipeline {stores.pipeline.name} has {revived:,} events that came back from the dead letters, and "
                "the stream does not say which of them were forgotten since: take them from the lake"
            )

    def leave_out(self, records: Sequence[StreamRecord], state: ShardState, stream: str) -> None:
        """Mark such events of the stream's records as seen in the state, and count those met first as `left_out`."""
        oldest_ms = min((record.arrived_ms for record in records), default=self._newest_ms)
        if oldest_ms + self._excluded.horizon_ms < self._newest_ms:
            raise HeadwaterError(
                f"stream {stream} keeps events for longer than it is known which were "
                "forgotten: give this one up, and take them from the lake"
            )
        if not records or not (self._by_seen or self._excluded.count()):
            return
        rows, _ = decoded(self._contract, list(records), self._decoder)
        out = members(rows, self._excluded) & ~members(rows, self._dead)
        if self._by_seen:
            out |= ~members(rows, self._seen)
        rows = rows.filter(pa.array(out))
        codes = state.seen.codes(rows["_origin"].combine_chunks())
        arrived = np.full(rows.num_rows, max(record.arrived_ms for record in records), np.int64)
        state.count("left_out", int(state.seen.add(codes, rows["_seq"].to_numpy(), arrived).sum()))
