"""Publish committed files: add each to its lake table once, whatever the catalog forgets and other engines rewrite.

Processors name their files in the ledger. One publisher, elected by a lease, adds those that a table lacks in one
commit and reads the table back. A file leaves the ledger only after it was found twice, in successive steps: catalogs
were seen to acknowledge commits and lose them, at once or under another writer's next commit. What is lost is added
again; what the table has, or had and has taken out since, is not (see `standing`).

The lease only saves work; two publishers who both think they lead do no harm either. A commit is made on top of the
state that was read, so only one gets through. And the ledger is read again after the table: a file still pending then
was not yet confirmed when the table was read, so what that state never had, nobody has added and taken before it.

No file stops a table: one that is missing, or that the table cannot take, is quarantined, named, and tried again at
intervals. Neither Iceberg nor S3 belongs here: they are behind `TablePort`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Protocol

from headwater.clock import Clock
from headwater.errors import Fenced, HeadwaterError, Retryable
from headwater.lease import Lease
from headwater.ledger import PendingFile, ShardEntry
from headwater.sinks.lake.quarantine import Quarantine
from headwater.sinks.lake.standing import FilePlan, TableState, digest, plan_files
from headwater.stores import DocumentStore

__all__ = ["PublishReport", "Publisher", "TablePort", "confirmed"]

log = logging.getLogger("headwater.publisher")

_SETTLED_MS = 1000
"""Least time between the two sightings: far longer than an overtaking commit is on its way to the catalog."""
_MAX_TAKEN = 100
"""Most files that one write takes: each costs about 14 bytes of an update expression, which may have 4 KB."""
_UNDECIDED = "the table's snapshots since it was first added have expired: it may have been rewritten or deleted since"


class TablePort(Protocol):
    """Read one table, and add files on top of the state read last, in one commit or not at all."""

    def read(self) -> TableState:
        """Return the table's state now."""

    def add(self, paths: Sequence[str]) -> Mapping[str, str]:
        """Add the files; return those that the table cannot take, each with the reason. Raise Retryable when overtaken.

        A file whose object could not be read this time is in neither: it is to be added again.
        """


class PublisherLedger(DocumentStore, Protocol):
    """List the shards' pending files, take files out, and keep documents: what `headwater.ledger.Ledger` does."""

    def shards(self) -> list[ShardEntry]:
        """Return every shard's item."""

    def take(self, entry: ShardEntry, places: Sequence[int]) -> None:
        """Remove the pending files at these places of the entry, or raise Fenced."""


@dataclass(frozen=True)
class PublishReport:
    """Report one step, in files.

    `published` were found in their table for the first time; `readded` were acknowledged before, lost by the catalog
    and added again; `taken` are confirmed and out of the ledger; `waiting` are still in it, `quarantined` of them
    because their table cannot take them. `oldest_ms` is how long the oldest of the waiting has been waiting.
    """

    leader: bool
    published: int = 0
    readded: int = 0
    taken: int = 0
    waiting: int = 0
    quarantined: int = 0
    oldest_ms: int = 0

    @property
    def idle(self) -> bool:
        """Return whether another step at once would change nothing."""
        return self.waiting <= self.quarantined


def confirmed(entry: ShardEntry, since: Mapping[str, int], read_ms: int) -> list[int]:
    """Return the places in the shard's list of the files that have stayed found, in order.

    `since` says when each file was found first and ever since, up to a reading that began at `read_ms`. A file found by
    that reading alone has a later time there.
    """
    return [place for place, file in enumerate(entry.pending) if since.get(file.uri, read_ms) <= read_ms - _SETTLED_MS]


class Publisher:
    """Publish the pending files of one pipeline: call `step` at intervals.

    Keeps nothing that a successor needs. `rows_published` counts rows found in tables since it was made.
    """

    def __init__(
        self,
        ledger: PublisherLedger,
        tables: Callable[[str], TablePort],
        clock: Clock,
        owner: str,
        lease_seconds: float = 60.0,
    ) -> None:
        self._ledger = ledger
        self._tables = tables
        self._ports: dict[str, TablePort] = {}
        self._clock = clock
        self.lease = Lease(ledger, clock, "publisher", owner)
        self._lease_seconds = lease_seconds
        self._quarantine = Quarantine(ledger)
        self._since: dict[str, int] = {}
        self._seen: dict[str, int] = {}
        self._found: set[str] = set()
        self._acknowledged: set[str] = set()
        self.rows_published = 0

    def step(self) -> PublishReport:
        """Add what was lost or never added, confirm what stands. Raise Retryable when another writer was faster."""
        if not self.lease.acquire(self._lease_seconds):
            self._since.clear()
            return PublishReport(leader=False)
        began_ms = self._clock.now_ms()
        names = {file.table for entry in self._ledger.shards() for file in entry.pending}
        states = {name: self._port(name).read() for name in sorted(names)}
        # after the tables: see the module's docstring
        entries = self._ledger.shards() if names else []
        pending = [file for entry in entries for file in entry.pending]
        self._keep_only({file.uri for file in pending})
        published = readded = 0
        refused: dict[str, str] = {}
        for name, state in states.items():
            files = [file for file in pending if file.table == name]
            new, again = self._publish(name, files, state, refused)
            published, readded = published + new, readded + again
        self._settle_quarantine(refused, pending)
        taken = self._take(entries, began_ms)
        return self._report(pending, published, readded, taken)

    def release(self) -> None:
        """Give the lease back, if it is ours, so that another need not wait until it runs out."""
        self.lease.release()

    def drain(self, max_steps: int = 50) -> None:
        """Step until nothing waits; raise HeadwaterError when files still wait then, or are quarantined."""
        for _ in range(max_steps):
            try:
                report = self.step()
            except Retryable:
                report = PublishReport(leader=False)
            if report.leader and not report.waiting:
                return
            if report.leader and report.idle:
                raise HeadwaterError(f"{report.quarantined} files are quarantined; `headwater audit` names them")
            self._clock.sleep(0.5)
        raise HeadwaterError(f"the lake did not take all files in {max_steps} steps; is another publisher running?")

    def _publish(
        self, name: str, files: Sequence[PendingFile], state: TableState, refused: dict[str, str]
    ) -> tuple[int, int]:
        """Add what is missing in one commit and read the table again; return new files, and files added again."""
        port = self._port(name)
        before = {one: sequence for one, (sequence, _) in self._attempts().items()}
        plan = plan_files(files, state, before)
        again = sum(uri in self._acknowledged or uri in self._found for uri in plan.add)
        self._lose_sight(plan)
        now = self._clock.now_ms()
        due, start = self._quarantine.due(plan.add, now, self.lease.document.get("starts", {}).get(name, 0))
        if due:
            # before the commit: afterwards the file may be in a snapshot, and that may have expired
            known = set(self._attempts())
            before = self._note_attempts(due, state.sequence, {name: start})
            faults = port.add(due)
            self._drop_attempts({digest(uri) for uri in faults} - known)
            refused |= faults
            self._acknowledged.update(uri for uri in due if uri not in faults)
            state = port.read()
            plan = plan_files(files, state, before)
            self._lose_sight(plan)
        refused |= dict.fromkeys(plan.undecided, _UNDECIDED)
        return self._find(files, plan), again

    def _find(self, files: Sequence[PendingFile], plan: FilePlan) -> int:
        """Note when the standing files were found; return how many were found for the first time."""
        now = self._clock.now_ms()
        for uri in plan.standing:
            self._since.setdefault(uri, now)
        new = [file for file in files if file.uri in plan.standing - self._found]
        self.rows_published += sum(file.rows for file in new)
        self._found |= plan.standing
        return len(new)

    def _lose_sight(self, plan: FilePlan) -> None:
        """Start anew with the sightings of files that a reading did not find."""
        for uri in (*plan.add, *plan.undecided):
            self._since.pop(uri, None)

    def _attempts(self) -> dict[str, list[int]]:
        """Return by digest the table's sequence number before the first attempt to add each file, and its time.

        They lie in the lease's document, for the next leader; the time (epoch ms) is what a file has waited since.
        """
        found: dict[str, list[int]] = self.lease.document.get("attempts", {})
        self._seen = {uri: min(at, *found.get(digest(uri), (at, at))[1:]) for uri, at in self._seen.items()}
        return found

    def _note_attempts(self, uris: Iterable[str], sequence: int, starts: Mapping[str, int]) -> dict[str, int]:
        """Write down that these files are about to be added; return the sequence numbers before all attempts.

        `starts` has by table where a publisher that begins anew goes on. Files that are not pending any more are
        forgotten.
        """
        known, pending = self._attempts(), {digest(uri) for uri in self._seen}
        attempts = {one: found for one, found in known.items() if one in pending}
        for uri in uris:
            # a catalog that loses commits counts back as well: the lowest number is on the safe side
            earlier, at = attempts.get(digest(uri), (sequence, self._seen[uri]))
            attempts[digest(uri)] = [min(sequence, earlier), at]
        before: dict[str, int] = self.lease.document.get("starts", {})
        after = {one: at for one, at in {**before, **starts}.items() if at}
        if not attempts.items() <= known.items() or after != before:
            self._update(attempts=attempts, starts=after)
        return {one: number for one, (number, _) in attempts.items()}

    def _drop_attempts(self, refused: Set[str]) -> None:
        """Forget attempts that the table has refused: such a file is in no snapshot.

        Else notes of very many bad files would fill the document, which an item of DynamoDB has to hold.
        """
        if refused:
            self._update(attempts={one: found for one, found in self._attempts().items() if one not in refused})

    def _update(self, **changes: object) -> None:
        try:
            self.lease.update(**changes)
        except Fenced as error:
            raise Retryable("another publisher leads by now") from error

    def _settle_quarantine(self, refused: Mapping[str, str], pending: Sequence[PendingFile]) -> None:
        """Quarantine what was refused, release what stands by now."""
        for uri, reason in refused.items():
            if uri not in self._quarantine:
                log.error("a file is quarantined", extra={"uri": uri, "reason": reason})
        self._quarantine.update(refused, pending, self._since.keys() - refused.keys(), self._clock.now_ms())

    def _take(self, entries: Sequence[ShardEntry], began_ms: int) -> int:
        """Remove the confirmed files from the shards' lists; return how many."""
        taken = 0
        for shard in entries:
            entry, places = shard, confirmed(shard, self._since, began_ms)
            try:
                while places:
                    # from the end, so that no write moves what the next one removes
                    places, some = places[:-_MAX_TAKEN], places[-_MAX_TAKEN:]
                    self._ledger.take(entry, some)
                    left = tuple(file for at, file in enumerate(entry.pending) if at not in set(some))
                    entry = replace(entry, taken=entry.taken + len(some), pending=left)
                    taken += len(some)
            except Fenced:
                # another publisher took them: what it leaves is looked at afresh
                self._since.clear()
                break
        return taken

    def _report(self, pending: Sequence[PendingFile], published: int, readded: int, taken: int) -> PublishReport:
        now = self._clock.now_ms()
        waiting = [file.uri for file in pending if file.uri not in self._since]
        oldest = max((now - self._waits_since(uri) for uri in waiting), default=0)
        held = sum(file.uri in self._quarantine for file in pending)
        return PublishReport(True, published, readded, taken, len(pending) - taken, held, oldest)

    def _waits_since(self, uri: str) -> int:
        return self._quarantine.since(uri) or self._seen[uri]

    def _keep_only(self, live: Set[str]) -> None:
        """Forget files that are not pending any more."""
        now = self._clock.now_ms()
        self._seen = {uri: self._seen.get(uri, now) for uri in live}
        self._found &= live
        self._acknowledged &= live
        self._since = {uri: since for uri, since in self._since.items() if uri in live}

    def _port(self, name: str) -> TablePort:
        if name not in self._ports:
            self._ports[name] = self._tables(name)
        return self._ports[name]
