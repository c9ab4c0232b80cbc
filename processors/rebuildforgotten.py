"""Which events of the stream must not come back into a view that is built from it: they were forgotten, or filtered.

The ledger's states say it. What is in no table but was read is in their `excluded` sets, by identity; where the key
itself is the origin, forgetting takes it out of `seen`. What they cannot say is refused: the lake knows.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from headwater.errors import HeadwaterError, UsageError
from headwater.lineage import OriginSets
from headwater.records import StreamRecord
from processors.operators.arrays import whole
from processors.replaying import decoded
from processors.services import Services
from processors.state import ShardState
from processors.worker import StateStore

__all__ = ["Forgotten"]

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Forgotten:
    """As all shards have committed by now. UsageError where it cannot be told."""

    def __init__(self, services: Services) -> None:
        self._services, contract = services, services.pipeline.contract
        self._by_seen = contract.id is not None and contract.id.origin == contract.key
        self._seen, self._excluded, self._dead = OriginSets(), OriginSets(), OriginSets()
        self._newest_ms, revived = 0, 0
        store = StateStore(services.pipeline, services.objects)
        for entry in services.ledger.shards():
            state = store.load(entry)
            if self._by_seen:
                self._seen.update(state.seen)
            self._excluded.update(state.excluded)
            self._dead.update(state.dead)  # what a step fails on once more is no row: it is tried, as it was
            revived += state.revived.count()
            self._newest_ms = max(self._newest_ms, state.max_arrived)
        if revived:
            raise UsageError(
                f"pipeline {services.pipeline.name} has {revived:,} events that came back from the dead letters, and "
                "the stream does not say which of them were forgotten since: take them from the lake"
            )

    def leave_out(self, records: Sequence[StreamRecord], state: ShardState) -> None:
        """Have the state take such events of the records for copies, and count those met first as `left_out`."""
        oldest_ms = min((record.arrived_ms for record in records), default=self._newest_ms)
        if oldest_ms + self._excluded.horizon_ms < self._newest_ms:
            raise HeadwaterError(
                f"stream {self._services.settings.stream} keeps events for longer than it is known which were "
                "forgotten: give this one up, and take them from the lake"
            )
        if not records or not (self._by_seen or self._excluded.count()):
            return
        rows, _ = decoded(self._services, list(records))
        out = inside(rows, self._excluded) & ~inside(rows, self._dead)
        if self._by_seen:
            out |= ~inside(rows, self._seen)
        rows = rows.filter(pa.array(out))
        codes = state.seen.codes(rows["_origin"].combine_chunks())
        arrived = np.full(rows.num_rows, max(record.arrived_ms for record in records), np.int64)
        state.count("left_out", int(state.seen.add(codes, rows["_seq"].to_numpy(), arrived).sum()))


def inside(rows: pa.Table, sets: OriginSets) -> Mask:
    """Which of the rows, sorted by identity, are in the sets."""
    origins, seqs = whole(rows["_origin"].combine_chunks().dictionary_encode()), rows["_seq"].to_numpy()
    mask = np.zeros(rows.num_rows, np.bool_)
    edges = np.flatnonzero(np.diff(origins.indices.to_numpy(), prepend=-1, append=-1))
    for start, stop in pairwise(edges.tolist()):
        for low, high in sets.get(origins[start].as_py()):
            first, last = np.searchsorted(seqs[start:stop], [low, high])
            mask[start + first : start + last] = True
    return mask
