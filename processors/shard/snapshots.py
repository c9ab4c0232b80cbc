"""Store snapshots of a shard's state: small ones in the ledger item, others in S3.

What a snapshot contains is the business of `state`; this module only knows where the bytes lie.
"""

import re
from collections.abc import Sequence

from headwater.ledger import PendingFile, ShardEntry
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.engine.bounds import pending_bytes
from headwater.processors.engine.state import ShardState
from headwater.stores import ObjectStore
from headwater.stream import sequence

__all__ = ["INLINE_STATE", "StateStore", "entry_bytes", "is_fresh"]

INLINE_STATE = 64 * 1024
"""Bytes up to which a snapshot lives in the ledger item. A DynamoDB item holds 400 KB, pending files included."""

_OF_AN_OWNER = re.compile(r"(flushed-)?(\d{8})-[^/]*\.bin")
"""Names of the objects of a shard that each owner writes under its epoch: snapshots, and journals of flushes."""


def is_fresh(entry: ShardEntry) -> bool:
    """Tell whether the entry has no state of its own: what the shard begins with is the final states of its parents."""
    return entry.position == sequence.NONE and not entry.state and not entry.state_key


def entry_bytes(files: Sequence[PendingFile]) -> int:
    """Return at least the bytes that the files take in the ledger item, beside the state."""
    return sum(pending_bytes(one.table, one.uri) for one in files)


class StateStore:
    """Load and store the snapshots that ledger entries name."""

    def __init__(self, pipeline: Pipeline, objects: ObjectStore) -> None:
        self._pipeline = pipeline
        self._objects = objects

    def load(self, entry: ShardEntry) -> ShardState:
        """Return the state that the entry's commit left; a fresh one when there was no commit."""
        body = self._objects.get(entry.state_key) if entry.state_key else entry.state
        return ShardState.loads(self._pipeline, body) if body else ShardState(self._pipeline)

    def store(
        self, entry: ShardEntry, position: str, body: bytes, *, inline: bool = True
    ) -> tuple[bytes | None, str | None]:
        """Return what a commit at `position` has to name: the snapshot itself, or the S3 key it was written to.

        `inline` says that the ledger item has room for a small one.
        """
        if inline and len(body) <= INLINE_STATE:
            return body, None
        # the key names epoch and position, so no owner ever overwrites the snapshot of another
        key = f"state/{self._pipeline.name}/{entry.shard_id}/{entry.epoch:08d}-{position}.bin"
        self._objects.put(key, body)
        return None, key

    def sweep(self, entry: ShardEntry, stale: str | None, journal: str | None) -> None:
        """Delete what owners before the entry's have left; for its owner, after a commit.

        An owner that dies leaves the snapshot that it was about to name, and the one that it was about to delete. From
        the commit on nobody can name them again: whoever wrote them is fenced. The snapshot `stale` is kept, and of the
        journals the one of this key; all of them for None, where it is not known.
        """
        head = f"state/{self._pipeline.name}/{entry.shard_id}/"
        for key in self._objects.list(head):
            found = _OF_AN_OWNER.fullmatch(key.removeprefix(head))
            if found is None or int(found[2]) >= entry.epoch or key in (stale, journal, entry.state_key):
                continue
            if journal is not None or not found[1]:
                self._objects.delete(key)
