"""Count the rows that a forgetting takes out of the lake as excluded, each once, however often it is interrupted.

Events with an identity of their own go into the set of the first shard that has seen them: there the set lasts as long
as what was seen. Foreign events are only a number in the state, so which of them are in it is kept beside it until the
key is gone: hashes of their identities, in an object that the state names. Both change in one commit of the shard.
"""

import hashlib
import io
import uuid
from functools import partial

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, Mask, coded, whole
from headwater.lineage.foreign import is_foreign
from headwater.lineage.members import members
from headwater.lineage.origins import OriginSets
from headwater.processors.audit.presence import Hashes, hashed_rows
from headwater.processors.engine.state import ShardState
from headwater.processors.erasure.ports import change_state
from headwater.processors.generations import DOCUMENT, keeping
from headwater.processors.ports import PipelineStores
from headwater.processors.shard.snapshots import StateStore, is_fresh

__all__ = ["ExcludedRows"]


class ExcludedRows:
    """Count rows of one key as excluded, some at a time, in the name of `owner`; `finish` once none is left."""

    def __init__(self, stores: PipelineStores, key: str, owner: str) -> None:
        self._stores, self._owner = stores, owner
        about = f"{stores.pipeline.name}\0{key}".encode()
        self._mark = hashlib.blake2b(about, digest_size=16).hexdigest()
        self._notes = f"state/{stores.pipeline.name}/forgetting/{self._mark}/"

    def add(self, rows: pa.Table) -> None:
        """Count these rows, by `_origin` and `_seq`; those that were counted before change nothing."""
        rows = rows.select(["_origin", "_seq"]).combine_chunks()
        origins = coded(rows["_origin"])
        strange = np.array([is_foreign(name) for name in origins.dictionary.to_pylist()], np.bool_)
        foreign: Mask = strange[origins.indices.to_numpy()] if rows.num_rows else np.zeros(0, np.bool_)
        self._add_own(rows.filter(pa.array(~foreign)))
        if foreign.any():
            some = rows.filter(pa.array(foreign))
            before = change_state(self._stores, self._shards()[0], self._owner, partial(self._count, some))
            if before:
                self._stores.objects.delete(before)

    def finish(self) -> None:
        """Forget which foreign rows were counted: the key is gone."""
        stores = self._stores
        store = StateStore(keeping(stores.pipeline, stores.ledger.document(DOCUMENT)[0]), stores.objects)
        for entry in stores.ledger.shards():
            if self._mark in store.load(entry).forgetting:
                change_state(stores, entry.shard_id, self._owner, lambda state: state.forgetting.pop(self._mark, ""))
        for name in list(stores.objects.list(self._notes)):
            stores.objects.delete(name)

    def _shards(self) -> list[str]:
        return [entry.shard_id for entry in self._stores.ledger.shards() if not is_fresh(entry)]

    def _add_own(self, rows: pa.Table) -> None:
        """Put the rows into the sets of the shards: a parent comes before its children, and keeps what it has seen."""
        stores = self._stores
        store = StateStore(keeping(stores.pipeline, stores.ledger.document(DOCUMENT)[0]), stores.objects)
        left = rows.sort_by([("_origin", "ascending"), ("_seq", "ascending")])
        for entry in stores.ledger.shards():
            if not left.num_rows:
                return
            mine = members(left, store.load(entry).seen)
            if mine.any():
                some = left.filter(pa.array(mine))
                change_state(stores, entry.shard_id, self._owner, partial(_exclude, some))
                left = left.filter(pa.array(~mine))
        if left.num_rows:  # older than the shards' memory: the audit does not judge them
            change_state(stores, self._shards()[0], self._owner, partial(_exclude, left))

    def _count(self, rows: pa.Table, state: ShardState) -> str:
        """Count foreign rows that were not counted yet, and note that they are; return the note that ends by it."""
        objects, before = self._stores.objects, state.forgetting.get(self._mark, "")
        known: Hashes = _loads(objects.get(before)) if before else np.zeros(0, np.uint64)
        sets = OriginSets()
        sets.add(sets.codes(whole(rows["_origin"])), rows["_seq"].to_numpy(), np.zeros(rows.num_rows, np.int64))
        new = np.setdiff1d(hashed_rows(sets), known)
        if not len(new):
            return ""
        state.forgetting[self._mark] = name = f"{self._notes}{uuid.uuid4().hex}.arrow"
        objects.put(name, _dumps(np.union1d(known, new)))
        state.count("foreign_excluded", len(new))
        return before


def _exclude(rows: pa.Table, state: ShardState) -> None:
    arrived: Ints = np.full(rows.num_rows, state.max_arrived, np.int64)
    codes = state.excluded.codes(whole(rows["_origin"]).cast(pa.string()))
    state.excluded.add(codes, rows["_seq"].to_numpy(), arrived)


def _dumps(rows: Hashes) -> bytes:
    table, sink = pa.table({"row": pa.array(rows)}), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _loads(body: bytes) -> Hashes:
    found: Hashes = pa.ipc.open_stream(body).read_all()["row"].to_numpy()
    return found
