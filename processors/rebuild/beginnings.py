"""Find where each shard begins a new generation of a view: wait for its processor, or begin in its place."""

import logging
from collections.abc import Sequence
from typing import Any

from headwater.ledger import ShardEntry
from headwater.processors.generations import beginning
from headwater.processors.jobs import Progress
from headwater.processors.rebuild.ports import RebuildPorts
from headwater.processors.shard.snapshots import StateStore
from headwater.stream import sequence

__all__ = ["Beginnings"]

log = logging.getLogger("headwater.rebuild")

_PAUSE_SECONDS = 1.0
_PATIENCE_MS = 10_000
"""Beyond a commit's time: then the shards that do not begin are named."""
_NAMED = 5
"""Shards named at most."""


class Beginnings:
    """Find where the shards begin the generation that is stored by the name `stored`.

    `take_over` is an owner in whose name shards that no processor touches are claimed, to begin there; None leaves them
    to processors.
    """

    def __init__(self, ports: RebuildPorts, stored: str, progress: Progress, take_over: str | None) -> None:
        self._ports, self._stores = ports, ports.stores
        self._stored, self._progress, self._take_over = stored, progress, take_over
        self._begun: dict[str, dict[str, Any]] = {}
        self._looked: dict[str, ShardEntry] = {}

    def wait(self) -> dict[str, dict[str, Any]]:
        """Wait until all shards have begun; return where each did, and of one that is read to its end, that end."""
        clock = self._stores.clock
        patience = clock.now_ms() + self._ports.commit_seconds * 1000 + _PATIENCE_MS
        self._progress.phase("waiting for shards", len(self._stores.ledger.shards()))
        while left := self._left():
            if clock.now_ms() > patience:
                self._begun |= self._claimed(left)
                patience += 60_000
            self._progress(0, len(self._begun))
            clock.sleep(_PAUSE_SECONDS)
        return self._begun

    def _left(self) -> list[ShardEntry]:
        """Return the shards that have not begun; an entry is looked at again only when it has changed."""
        entries = self._stores.ledger.shards()
        for entry in entries:
            if entry.shard_id not in self._begun and self._looked.get(entry.shard_id) != entry:
                self._looked[entry.shard_id] = entry
                found = self._found(entry)
                if found is not None:
                    self._begun[entry.shard_id] = found
        return [entry for entry in entries if entry.shard_id not in self._begun]

    def _found(self, entry: ShardEntry) -> dict[str, Any] | None:
        """Return where the shard began the generation; for one read to its end before that, its end."""
        state = StateStore(self._stores.pipeline, self._stores.objects).load(entry)
        if self._stored in state.begun:
            return state.begun[self._stored]
        return beginning(entry.position, entry.counts) if entry.closed else None

    def _claimed(self, left: Sequence[ShardEntry]) -> dict[str, dict[str, Any]]:
        """Begin on these shards, where that is wanted: a processor that has one is fenced, and claims it again."""
        if self._take_over is None:
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            named = ", ".join(entry.shard_id for entry in left[:_NAMED]) + more
            log.warning(
                "%s: not begun yet; processors with this version of the view have to run, or call with --take-over",
                named,
                extra={"stored": self._stored, "shards": [entry.shard_id for entry in left]},
            )
            self._progress.phase(f"waiting for {named}", len(self._begun) + len(left))
            return {}
        found = {}
        ledger, clock = self._stores.ledger, self._stores.clock
        for entry in left:
            if entry.position == sequence.NONE:
                # whoever claims it after this begins at its beginning; if it was read since it was looked at, maybe
                # to its end, the next look finds where it is
                if ledger.claim(entry.shard_id, self._take_over, None, clock.now_ms()).position == sequence.NONE:
                    found[entry.shard_id] = beginning(sequence.NONE, {})
                continue
            self._ports.claim(entry.shard_id, self._take_over).commit()
        return found
