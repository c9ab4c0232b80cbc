"""The publisher: committed files into the lake's tables, each once, whatever the catalog forgets.

Processors name their files in the ledger. One publisher, elected by a lease, adds those that a table lacks in one
commit and reads the table back. A file leaves the ledger only after it was found twice, in successive steps: catalogs
were seen to acknowledge commits and lose them, at once or under another writer's next commit. What is lost is added
again, what is there already is not: the table itself says which, by path.

The lease only saves work; two publishers who both think they lead do no harm either. A commit is made on top of the
state that was read, so only one gets through. And the ledger is read again after the table: a file still pending then
was not yet confirmed when the table was read, so what that state lacks, nobody has added and taken (and table
maintenance has not rewritten) before it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, Retryable
from headwater.ledger import PendingFile, ShardEntry

__all__ = ["Plan", "PublishReport", "Publisher", "TablePort", "confirmed", "plan"]

_SETTLED_MS = 1000
"""How far apart the two sightings are at least: far longer than an overtaking commit is on its way to the catalog."""
_LEASE = "publisher"
_MOST_TAKEN = 100
"""Files a write takes at most: each costs about 14 bytes of an update expression, which may have 4 KB."""


class TablePort(Protocol):
    """One table: its data files, and adding more on top of the state last read, in one commit or not at all."""

    def paths(self) -> Set[str]: ...

    def add(self, paths: Sequence[str]) -> None: ...


class _Ledger(Protocol):
    def shards(self) -> list[ShardEntry]: ...

    def take(self, entry: ShardEntry, count: int) -> None: ...

    def document(self, name: str) -> tuple[dict[str, Any], int]: ...

    def put_document(self, name: str, doc: Mapping[str, Any], expected_rev: int) -> int: ...


@dataclass(frozen=True)
class PublishReport:
    """One step. `published`: files found in their table for the first time; `readded`: acknowledged before, lost by
    the catalog and added again; `taken`: confirmed and out of the ledger; `waiting`: still in it.
    """

    leader: bool
    published: int = 0
    readded: int = 0
    taken: int = 0
    waiting: int = 0


@dataclass(frozen=True)
class Plan:
    """What one table needs: paths to add, in the ledger's order and each once, and those it has already."""

    add: tuple[str, ...]
    there: frozenset[str]


def plan(pending: Iterable[PendingFile], present: Set[str]) -> Plan:
    """Compare one table's pending files with the paths of its current snapshot."""
    wanted = dict.fromkeys(file.uri for file in pending)
    there = frozenset(uri for uri in wanted if uri in present)
    return Plan(tuple(uri for uri in wanted if uri not in there), there)


def confirmed(entry: ShardEntry, since: Mapping[str, int], read_ms: int) -> int:
    """How many files at the head of the shard's list have stayed found; the ledger takes out a head only.

    `since` says when each file was found first and ever since, up to a reading that began at `read_ms`. A file found by
    that reading alone has a later time there.
    """
    for count, file in enumerate(entry.pending):
        if since.get(file.uri, read_ms) > read_ms - _SETTLED_MS:
            return count
    return len(entry.pending)


class Publisher:
    """Call `step` at intervals. Keeps nothing that a successor needs. `rows_published` counts rows found in tables."""

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
        self._since: dict[str, int] = {}
        self._found: set[str] = set()
        self._acknowledged: set[str] = set()
        self.rows_published = 0

    def step(self) -> PublishReport:
        """Add what is missing, confirm what is there. Raises Retryable when another writer was faster."""
        if not self._lead():
            self._since.clear()
            return PublishReport(leader=False)
        began_ms = self._clock.now_ms()
        names = {file.table for entry in self._ledger.shards() for file in entry.pending}
        present = {name: self._port(name).paths() for name in sorted(names)}
        entries = self._ledger.shards() if names else []
        pending = [file for entry in entries for file in entry.pending]
        self._forget_all_but({file.uri for file in pending})
        published = readded = 0
        for name, paths in present.items():
            new, again = self._publish(name, [file for file in pending if file.table == name], paths)
            published, readded = published + new, readded + again
        taken = self._take(entries, began_ms)
        return PublishReport(True, published, readded, taken, len(pending) - taken)

    def release(self) -> None:
        """Give the lease back, if it is ours, so that another need not wait until it runs out."""
        lease, revision = self._ledger.document(_LEASE)
        if lease and lease["owner"] == self._owner:
            with suppress(Fenced):
                self._ledger.put_document(_LEASE, {"owner": self._owner, "until_ms": 0}, revision)

    def drain(self, max_steps: int = 50) -> None:
        """Step until nothing waits."""
        for _ in range(max_steps):
            try:
                report = self.step()
            except Retryable:
                report = PublishReport(leader=False)
            if report.leader and not report.waiting:
                return
            self._clock.sleep(0.5)
        raise HeadwaterError(f"the lake did not take all files in {max_steps} steps; is another publisher running?")

    def _publish(self, name: str, files: Sequence[PendingFile], present: Set[str]) -> tuple[int, int]:
        """One commit with what is missing, and a look at what is there afterwards: new files, files added again."""
        port = self._port(name)
        missing = plan(files, present).add
        again = sum(uri in self._acknowledged or uri in self._found for uri in missing)
        self._break(missing)
        if missing:
            port.add(missing)
            self._acknowledged.update(missing)
            present = port.paths()
        after = plan(files, present)
        self._break(after.add)
        there, now = after.there, self._clock.now_ms()
        for uri in there:
            self._since.setdefault(uri, now)
        new = [file for file in files if file.uri in there - self._found]
        self.rows_published += sum(file.rows for file in new)
        self._found |= there
        return len(new), again

    def _break(self, lacking: Iterable[str]) -> None:
        """What a reading did not find has to be found twice anew."""
        for uri in lacking:
            self._since.pop(uri, None)

    def _take(self, entries: Sequence[ShardEntry], began_ms: int) -> int:
        """Remove the confirmed files that stand first in each shard's list."""
        taken = 0
        for entry in entries:
            count = confirmed(entry, self._since, began_ms)
            try:
                for start in range(0, count, _MOST_TAKEN):
                    size = min(_MOST_TAKEN, count - start)
                    self._ledger.take(replace(entry, taken=entry.taken + start), size)
                    taken += size
            except Fenced:
                # another publisher took them: what it leaves is looked at afresh
                self._since.clear()
                break
        return taken

    def _forget_all_but(self, live: Set[str]) -> None:
        self._found &= live
        self._acknowledged &= live
        self._since = {uri: since for uri, since in self._since.items() if uri in live}

    def _port(self, name: str) -> TablePort:
        if name not in self._ports:
            self._ports[name] = self._tables(name)
        return self._ports[name]

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
