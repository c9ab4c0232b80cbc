"""Remember which data files the ancestors of a table's current snapshot have added.

A file that the current snapshot lacks is lost only when no ancestor ever had it. When one did, a later snapshot took it
out on purpose: another engine has rewritten it, or deleted its rows. Adding it again would double or bring back rows.

The lineage counts, not the list of snapshots: what was rolled back is in the list and in no ancestor. Our own snapshots
name their files in the summary, which lies in the table's metadata and costs no request; of other snapshots the added
manifests are read, once each. How to act on the answer is the publisher's business.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pyiceberg.manifest import ManifestContent, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, ancestors_of

from headwater.sinks.lake.standing import digest

__all__ = ["MAX_NAMED", "Ancestry", "Lineage", "named_files"]

MAX_NAMED = 100
"""Most files that a snapshot's summary names, at 17 bytes each: every metadata.json repeats all summaries."""
_FILES = "headwater.files"
_COMPACTION = "headwater.compaction"
_READERS = 8
"""Snapshots of others whose manifests are read at a time."""
_UNKNOWN = 1 << 62


def named_files(paths: Sequence[str]) -> dict[str, str]:
    """Return the summary properties of a snapshot that adds these files; none when they are too many to be named."""
    return {_FILES: " ".join(map(digest, paths))} if len(paths) <= MAX_NAMED else {}


@dataclass(frozen=True)
class Lineage:
    """Hold what is known of the current snapshot and its ancestors.

    `digests` are those of all data files that they added. `visible_from` is the lowest sequence number from which on
    every ancestor was looked at: 0 when all that were asked for were.
    """

    digests: frozenset[str]
    visible_from: int

    def __contains__(self, path: str, /) -> bool:
        """Return whether a visible ancestor has added the file."""
        return digest(path) in self.digests


class Ancestry:
    """Look up the lineage of one table, again and again; each snapshot's files are read once."""

    def __init__(self) -> None:
        self._added: dict[int, frozenset[str] | None] = {}

    def lineage(self, table: Table, before: int = 0) -> Lineage:
        """Return the lineage of the table's current snapshot, as far as it comes after sequence number `before`."""
        numbered = table.metadata.format_version > 1
        ancestors = []
        stopped = False
        for snapshot in ancestors_of(table.current_snapshot(), table.metadata):
            stopped = numbered and (snapshot.sequence_number or 0) <= before
            if stopped:
                break
            ancestors.append(snapshot)
        self._learn(table, [one for one in ancestors if one.snapshot_id not in self._added])
        known = {one.snapshot_id for one in table.snapshots()}
        self._added = {number: files for number, files in self._added.items() if number in known}
        found: list[frozenset[str]] = []
        last: Snapshot | None = None
        for snapshot in ancestors:
            files = self._added[snapshot.snapshot_id]
            if files is None:
                # its manifests are gone, as if it had expired
                return Lineage(frozenset().union(*found), _visible_from(table, last))
            found.append(files)
            last = snapshot
        complete = stopped or not ancestors
        return Lineage(frozenset().union(*found), 0 if complete else _visible_from(table, last))

    def _learn(self, table: Table, snapshots: Sequence[Snapshot]) -> None:
        """Remember what these snapshots have added."""
        foreign = []
        for snapshot in snapshots:
            summary = snapshot.summary
            if summary is not None and summary.get(_FILES):
                self._added[snapshot.snapshot_id] = frozenset(str(summary[_FILES]).split())
            elif summary is not None and _adds_nothing_pending(summary.operation, summary.get(_COMPACTION)):
                self._added[snapshot.snapshot_id] = frozenset()
            else:
                foreign.append(snapshot)
        if foreign:
            with ThreadPoolExecutor(_READERS) as pool:
                for snapshot, files in zip(foreign, pool.map(_reader(table), foreign), strict=True):
                    self._added[snapshot.snapshot_id] = files


def _adds_nothing_pending(operation: Operation, compaction: str | None) -> bool:
    """Return whether such a snapshot adds no file for the first time: it joins rows that were there, or deletes."""
    return operation in (Operation.REPLACE, Operation.DELETE) or compaction is not None


def _reader(table: Table) -> Callable[[Snapshot], frozenset[str] | None]:
    def read(snapshot: Snapshot) -> frozenset[str] | None:
        try:
            return frozenset(map(digest, _added_paths(table, snapshot)))
        except FileNotFoundError:
            return None

    return read


def _added_paths(table: Table, snapshot: Snapshot) -> Iterable[str]:
    """Yield the paths of the data files that a snapshot added, out of its own manifests."""
    for manifest in snapshot.manifests(table.io):
        if manifest.content == ManifestContent.DATA and manifest.added_snapshot_id == snapshot.snapshot_id:
            for entry in manifest.fetch_manifest_entry(table.io):
                if entry.status == ManifestEntryStatus.ADDED:
                    yield entry.data_file.file_path


def _visible_from(table: Table, last: Snapshot | None) -> int:
    """Return the sequence number of the earliest ancestor looked at. Tables of format 1 have no such numbers."""
    # a missing parent does not show that this is the first snapshot of all: pyiceberg's expiry cuts the link as well
    if last is None or table.metadata.format_version < 2:
        return _UNKNOWN
    return last.sequence_number or 0
