"""Where each shard begins a new generation of a view: waited for, or begun in the place of a processor."""

import logging
from collections.abc import Sequence
from typing import Any

from headwater import sequence
from headwater.ledger import ShardEntry
from processors.jobs import Progress
from processors.services import Services
from processors.worker import ShardWorker, StateStore, beginning

__all__ = ["Beginnings"]

log = logging.getLogger("headwater.rebuild")

_PAUSE_SECONDS = 1.0
_PATIENCE_MS = 10_000
"""Beyond a commit's time: then the shards that do not begin are named."""
_NAMED = 5
"""Shards named at most."""


class Beginnings:
    """Of the generation that is stored by this name. `take_over` is an owner by whose name shards that no processor
    touches are claimed, to begin there; None leaves them to processors."""

    def __init__(self, services: Services, stored: str, progress: Progress, take_over: str | None) -> None:
        self._services, self._stored, self._progress, self._take_over = services, stored, progress, take_over
        self._begun: dict[str, dict[str, Any]] = {}
        self._looked: dict[str, ShardEntry] = {}

    def wait(self) -> dict[str, dict[str, Any]]:
        """Of every shard that is not read to its end, where it began, once all have; of the others, their end."""
        clock = self._services.clock
        patience = clock.now_ms() + self._services.settings.commit_seconds * 1000 + _PATIENCE_MS
        self._progress.phase("waiting for shards", len(self._services.ledger.shards()))
        while left := self._left():
            if clock.now_ms() > patience:
                self._begun |= self._claimed(left)
                patience += 60_000
            self._progress(0, len(self._begun))
            clock.sleep(_PAUSE_SECONDS)
        return self._begun

    def _left(self) -> list[ShardEntry]:
        entries = self._services.ledger.shards()
        for entry in entries:
            if entry.shard_id not in self._begun and self._looked.get(entry.shard_id) != entry:
                self._looked[entry.shard_id] = entry
                found = self._found(entry)
                if found is not None:
                    self._begun[entry.shard_id] = found
        return [entry for entry in entries if entry.shard_id not in self._begun]

    def _found(self, entry: ShardEntry) -> dict[str, Any] | None:
        """Where the shard began the generation; one read to its end without, at its end."""
        state = StateStore(self._services.pipeline, self._services.objects).load(entry)
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
        services = self._services
        for entry in left:
            if entry.position == sequence.NONE:  # whoever claims it after this begins at its beginning
                services.ledger.claim(entry.shard_id, self._take_over, None, services.clock.now_ms())
                found[entry.shard_id] = beginning(sequence.NONE, {})
                continue
            worker = ShardWorker(
                services.pipeline, entry.shard_id, services.ports, services.settings, services.clock, self._take_over
            )
            worker.claim()
            worker.commit()
        return found
