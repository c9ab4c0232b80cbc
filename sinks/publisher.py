"""The publisher: committed files into the lake's tables, each once, whatever the catalog forgets.

Processors name their files in the ledger. One publisher, elected by a lease, adds those that a table lacks in one commit
and reads the table back. A file leaves the ledger only after it was found twice, in successive steps: catalogs were seen
to acknowledge commits and lose them, at once or under another writer's next commit. What is lost is added again, what is
there already is not: the table itself says which, by path. A commit is made on top of the state that was read, so of two
publishers who think they lead only one gets through.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError
from headwater.ledger import PendingFile, ShardEntry

__all__ = ["PublishReport", "Publisher", "TablePort"]

_SIGHTINGS = 2
_LEASE = "publisher"


class TablePort(Protocol):
    """One table: its data files, and adding more on top of the state last read."""

    def paths(self) -> set[str]: ...

    def add(self, paths: Sequence[str]) -> None: ...


class _Ledger(Protocol):
    def shards(self) -> list[ShardEntry]: ...

    def take(self, entry: ShardEntry, count: int) -> None: ...

    def document(self, name: str) -> tuple[dict[str, Any], int]: ...

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int: ...


@dataclass(frozen=True)
class PublishReport:
    """One step. `published`: files added for the first time; `readded`: added before and lost by the catalog;
    `taken`: confirmed and out of the ledger; `waiting`: still in it."""

    leader: bool
    published: int = 0
    readded: int = 0
    taken: int = 0
    waiting: int = 0


class Publisher:
    """Call `step` at intervals. Keeps nothing that a successor needs."""

    def __init__(
        self,
        ledger: _Ledger,
        tables: Callable[[str], TablePort],
        clock: Clock,
        owner: str,
        lease_seconds: float = 60.0,
    ) -> None:
        self._ledger = ledger
        self._tables = tables
        self._ports: dict[str, TablePort] = {}
        self._clock = clock
        self._owner = owner
        self._lease_ms = round(lease_seconds * 1000)
        self._sightings: dict[str, int] = {}
        self._added: set[str] = set()
        self.rows_published = 0

    def step(self) -> PublishReport:
        """Add what is missing, confirm what is there. Raises Retryable when another writer was faster."""
        if not self._lead():
            self._sightings.clear()
            return PublishReport(leader=False)
        entries = self._ledger.shards()
        pending = [file for entry in entries for file in entry.pending]
        published = readded = 0
        for name in sorted({file.table for file in pending}):
            new, again = self._publish(name, [file for file in pending if file.table == name])
            published, readded = published + new, readded + again
        taken = self._take(entries)
        live = {file.uri for file in pending}
        self._added &= live
        self._sightings = {uri: seen for uri, seen in self._sightings.items() if uri in live}
        return PublishReport(True, published, readded, taken, len(pending) - taken)

    def drain(self, steps: int = 50) -> None:
        """Step until nothing waits."""
        for _ in range(steps):
            report = self.step()
            if report.leader and not report.waiting:
                return
            self._clock.sleep(0.2)
        raise HeadwaterError(f"the lake did not take all files in {steps} steps; is another publisher running?")

    def _publish(self, name: str, files: Sequence[PendingFile]) -> tuple[int, int]:
        port = self._ports.setdefault(name, self._tables(name))
        missing = [file for file in files if file.uri not in (before := port.paths())] if files else []
        new = [file for file in missing if file.uri not in self._added]
        if missing:
            self._added.update(file.uri for file in missing)
            port.add([file.uri for file in missing])
            before = port.paths()
        for file in files:
            self._sightings[file.uri] = self._sightings.get(file.uri, 0) + 1 if file.uri in before else 0
        self.rows_published += sum(file.rows for file in new if file.uri in before)
        return len(new), len(missing) - len(new)

    def _take(self, entries: Sequence[ShardEntry]) -> int:
        """Remove the confirmed files that stand first in each shard's list."""
        taken = 0
        for entry in entries:
            count = 0
            while count < len(entry.pending) and self._sightings.get(entry.pending[count].uri, 0) >= _SIGHTINGS:
                count += 1
            if count:
                self._ledger.take(entry, count)
                taken += count
        return taken

    def _lead(self) -> bool:
        """Take or prolong the lease; False while somebody else holds it."""
        lease, revision = self._ledger.document(_LEASE)
        now = self._clock.now_ms()
        if lease and lease["owner"] != self._owner and lease["until_ms"] > now:
            return False
        try:
            self._ledger.put_document(_LEASE, {"owner": self._owner, "until_ms": now + self._lease_ms}, revision)
        except Fenced:
            return False
        return True
