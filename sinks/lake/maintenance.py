"""Keep a lake table in shape beside its writers: compaction, expiry of snapshots, removal of orphans.

Whatever changes the table is one commit on top of the state that was read, and is looked for afterwards: a catalog may
acknowledge a commit and lose it. A crash anywhere leaves the table as it was or as it was to be, and at most an object
that no snapshot has, which is an orphan once it is old. Decisions belong in `compaction`, which is pure.

pyiceberg 0.12 expires snapshots, and no more: the rest is built from `update_snapshot().overwrite()`, its manifests and
its Arrow scan. It has no `replace` operation, so a compaction is a snapshot of kind `overwrite`; the summary says that
it was one (`headwater.compaction`).
"""

import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import FileScanTask, Table

from headwater.clock import HOUR_MS, Clock
from headwater.errors import Retryable, UsageError
from headwater.ledger import ShardEntry
from headwater.sinks.lake.compaction import (
    CompactionSizes,
    FileGroup,
    StoredObject,
    TableFile,
    find_orphans,
    plan_groups,
)
from headwater.sinks.lake.reading import plan
from headwater.sinks.lake.rewrite import (
    MEMORY,
    FileStore,
    Rewriter,
    RewriteResult,
    SortOrder,
    data_files,
    replace_files,
    unchanged,
)
from headwater.stores import ObjectStore

__all__ = [
    "LEAST_AGE_MS",
    "CompactReport",
    "ExpireReport",
    "Maintenance",
    "MaintenanceSettings",
    "OrphanReport",
    "live_objects",
]

LEAST_AGE_MS = HOUR_MS
"""No object younger than this is an orphan: it may belong to a commit of a table that is under way."""
_SLOWEST_MS = LEAST_AGE_MS // 2
"""A rewritten file that waits longer than this for its commit is given up, before it can be taken for an orphan."""
_ATTEMPTS = 5


class _PendingLedger(Protocol):
    def everyone(self) -> list[ShardEntry]: ...


class _LakeObjects(ObjectStore, FileStore, Protocol):
    bucket: str

    def dated(self, prefix: str) -> Iterator[tuple[str, int, int]]: ...


Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class CompactReport:
    """Report a compaction: groups joined, files and bytes before and after, rows in them.

    `overtaken` counts groups given up because others kept changing the table, or because the catalog lost their commit.
    """

    table: str
    groups: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    rows: int = 0
    overtaken: int = 0


@dataclass(frozen=True)
class ExpireReport:
    """Report an expiry: snapshots that went, and those that are left."""

    table: str
    expired: int
    kept: int


@dataclass(frozen=True)
class OrphanReport:
    """Report a search for orphans: objects looked at, and the orphans with their size in bytes; `removed` says if they
    went.
    """

    table: str
    looked_at: int
    objects: tuple[str, ...]
    bytes: int
    removed: bool


@dataclass(frozen=True)
class MaintenanceSettings:
    """Say how files are rewritten: the order of their rows, their sizes, and what DuckDB may take of memory."""

    order: SortOrder
    sizes: CompactionSizes = field(default_factory=CompactionSizes)
    memory: str = MEMORY


@dataclass(frozen=True)
class Maintenance:
    """Maintain one table.

    `reload` reads it from the catalog. `pinned` returns snapshots that a reader needs for longer (0: one before the
    first): those stay, and all that came after them.
    """

    name: str
    reload: Callable[[], Table]
    ledger: _PendingLedger
    objects: _LakeObjects
    clock: Clock
    settings: MaintenanceSettings
    pinned: Callable[[], Collection[int]] = tuple

    @property
    def prefix(self) -> str:
        """Return where the table's objects lie in the bucket."""
        return f"lake/{self.name}/"

    def groups(self, table: Table) -> list[FileGroup]:
        """Return the groups that a compaction would join now. Reads the ledger after the table was read."""
        pending = {file.uri for entry in self.ledger.everyone() for file in entry.pending}
        present = table.metadata.default_spec_id
        files = [
            TableFile(
                path=file.file_path,
                partition=f"{file.spec_id} {file.partition}",
                bytes=file.file_size_in_bytes,
                rows=file.record_count,
                earlier=file.spec_id != present,
            )
            for file in data_files(table)
        ]
        return plan_groups(files, pending, self.settings.sizes)

    def compact(
        self, advance: Advance = lambda _rows, _bytes: None, stopped: Callable[[], bool] = lambda: False
    ) -> CompactReport:
        """Join small files, one commit a group, until none are left or `stopped` returns True after a group.

        `advance` is called with rows and bytes done, within a group too; what it raises ends the group, whose files
        stay.
        """
        report, done = CompactReport(self.name), 0
        for group in self.groups(self.reload()):
            if stopped():
                break
            report = self._join(group, report, partial(_group_progress, advance, group, report.rows, done))
            done += group.bytes
            advance(report.rows, done)
        return report

    def _rewriter(self, table: Table) -> Rewriter:
        """Return what writes a group's files anew, over this state of the table."""
        return Rewriter(table, self.objects, self.settings.order, self.settings.memory)

    def _join(self, group: FileGroup, report: CompactReport, progress: Callable[[int], object]) -> CompactReport:
        """Join one group and return the report with it."""
        began = self.clock.now_ms()
        table = self.reload()
        wanted = {file.path for file in group.files}
        tasks = [task for task in plan(table) if task.file.file_path in wanted]
        if len(tasks) < len(wanted):
            return replace(report, overtaken=report.overtaken + 1)
        key = f"{self.prefix}data/compacted/{uuid.uuid4().hex}"
        try:
            written = self._rewriter(table).rewrite(tasks, key, progress=progress)
        except FileNotFoundError:
            if _all_there(tasks, self.reload()):
                raise
            # others have rewritten the files, expired every snapshot that had them, and deleted them
            return replace(report, overtaken=report.overtaken + 1)
        old, why = [task.file for task in tasks], {"headwater.compaction": str(len(tasks))}
        for _ in range(_ATTEMPTS):
            if self.clock.now_ms() - began > _SLOWEST_MS:
                break
            try:
                replace_files(table, old, written.files, why)
            except Retryable:
                # only the group's own files matter: what others have added beside them is no reason to write it anew
                table = self.reload()
                if not _all_there(tasks, table):
                    break
                continue
            if {*written.files} <= {*data_files(self.reload())}:
                return _joined(report, group, written)
            break
        return replace(report, overtaken=report.overtaken + 1)

    def expire(self, keep: int, older_than_ms: int) -> ExpireReport:
        """Remove snapshots older than `older_than_ms` (epoch) from the table, except the newest `keep`; their files
        become orphans.

        Raise UsageError for a `keep` below 1 and Retryable when others keep changing the table.
        """
        if keep < 1:
            raise UsageError("expire: at least one snapshot stays")
        for _ in range(_ATTEMPTS):
            table = self.reload()
            # not by time: each was made by the clock of another machine
            newest = sorted(table.snapshots(), key=lambda s: (s.sequence_number or 0, s.timestamp_ms), reverse=True)
            held = {ref.snapshot_id for ref in table.refs().values()}
            times = {one.snapshot_id: one.timestamp_ms for one in newest}
            older_than_ms = min(older_than_ms, *(times.get(one, 0) for one in self.pinned()), older_than_ms)
            gone = [
                s.snapshot_id for s in newest[keep:] if s.timestamp_ms < older_than_ms and s.snapshot_id not in held
            ]
            if not gone:
                return ExpireReport(self.name, 0, len(newest))
            try:
                table.maintenance.expire_snapshots().by_ids(gone).commit()
            except CommitFailedException:
                continue
            return ExpireReport(self.name, len(gone), len(newest) - len(gone))
        raise Retryable(f"table {self.name}: others keep changing it")

    def orphans(
        self, older_than_ms: int, *, remove: bool, advance: Advance = lambda _objects, _removed: None
    ) -> OrphanReport:
        """Find objects that nothing needs, last changed before `older_than_ms` (epoch ms), and delete them when
        `remove` is set.

        `advance` is called with the objects looked at and removed; what it raises ends the work. Raise UsageError when
        `older_than_ms` is less than LEAST_AGE_MS ago. The order of the readings matters: see `find_orphans` in
        `compaction.py`.
        """
        if older_than_ms > self.clock.now_ms() - LEAST_AGE_MS:
            raise UsageError(
                f"orphans: only objects older than {LEAST_AGE_MS // 60_000} minutes can be told from new ones"
            )
        found: list[StoredObject] = []
        for key, size, at in self.objects.dated(self.prefix):
            found.append(StoredObject(f"s3://{self.objects.bucket}/{key}", size, at))
            advance(len(found), 0)
        entries = self.ledger.everyone()
        gone = find_orphans(found, entries, live_objects(self.reload()), older_than_ms)
        if remove:
            for removed, one in enumerate(gone, 1):
                self.objects.delete(one.uri.removeprefix(f"s3://{self.objects.bucket}/"))
                advance(len(found), removed)
        return OrphanReport(
            self.name, len(found), tuple(one.uri for one in gone), sum(one.bytes for one in gone), remove
        )

    def step(
        self, keep: int, snapshot_age_ms: int, orphan_age_ms: int, stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Compact, expire and remove orphans once, as the service does at intervals; a stop is heeded between two
        groups of files.
        """
        compacted = self.compact(stopped=stopped)
        now = self.clock.now_ms()
        expired = self.expire(keep, now - snapshot_age_ms)
        removed = self.orphans(now - orphan_age_ms, remove=True)
        return {
            "table": self.name,
            "joined": compacted.files_before,
            "into": compacted.files_after,
            "overtaken": compacted.overtaken,
            "expired": expired.expired,
            "orphans": len(removed.objects),
        }


def live_objects(table: Table) -> set[str]:
    """Return the URI of every object that some snapshot needs, and of the metadata files that the table knows."""
    live = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    live |= {one.statistics_path for one in table.metadata.statistics}
    seen: set[str] = set()
    for snapshot in table.snapshots():
        live.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in seen:
                seen.add(manifest.manifest_path)
                entries: Sequence[Any] = manifest.fetch_manifest_entry(table.io)
                live |= {entry.data_file.file_path for entry in entries}
    return live | seen


def _all_there(tasks: Sequence[FileScanTask], table: Table) -> bool:
    """Tell whether the table still has the files, with the same delete files."""
    now = plan(table)
    return all(unchanged(task, now) for task in tasks)


def _group_progress(advance: Advance, group: FileGroup, rows: int, done: int, progress: int) -> None:
    """Report progress within a group: each row counts twice, when read and when written, and bytes go by that share."""
    advance(rows + progress // 2, done + group.bytes * min(progress, 2 * group.rows) // max(1, 2 * group.rows))


def _joined(report: CompactReport, group: FileGroup, written: RewriteResult) -> CompactReport:
    """Return the report with one more group."""
    return replace(
        report,
        groups=report.groups + 1,
        files_before=report.files_before + len(group.files),
        files_after=report.files_after + len(written.files),
        bytes_before=report.bytes_before + group.bytes,
        bytes_after=report.bytes_after + sum(file.file_size_in_bytes for file in written.files),
        rows=report.rows + written.rows,
    )
