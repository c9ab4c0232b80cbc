"""A lake table kept in shape beside its writers: compaction, expiry of snapshots, removal of orphans, and its health.

Whatever changes the table is one commit on top of the state that was read, and is looked for afterwards: a catalog may
acknowledge a commit and lose it. A crash anywhere leaves the table as it was or as it was to be, and at most an object
that no snapshot has, which is an orphan once it is old.

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
from pyiceberg.table import Table

from headwater.clock import Clock
from headwater.errors import HeadwaterError, Retryable, UsageError
from headwater.ledger import ShardEntry
from sinks.compaction import Found, Group, Sizes, TableFile, orphans, plan_groups
from sinks.rewriting import Order, Rewriter, Written, data_files, replace_files

__all__ = ["LEAST_AGE_MS", "CompactReport", "ExpireReport", "Maintenance", "OrphanReport", "live_objects"]

LEAST_AGE_MS = 3_600_000
"""No object younger than this is an orphan: it may belong to a commit of a table that is under way."""
_SLOWEST_MS = LEAST_AGE_MS // 2
"""A rewritten file that waited longer than this for its commit is given up."""
_ATTEMPTS = 5


class _Ledger(Protocol):
    def everyone(self) -> list[ShardEntry]: ...


class _Objects(Protocol):
    bucket: str

    def put(self, key: str, body: bytes) -> str: ...

    def dated(self, prefix: str) -> Iterator[tuple[str, int, int]]: ...

    def delete(self, key: str) -> None: ...


Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class CompactReport:
    """`overtaken`: groups given up because others kept changing the table, or whose commit the catalog lost."""

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
    table: str
    expired: int
    kept: int


@dataclass(frozen=True)
class OrphanReport:
    table: str
    looked_at: int
    objects: tuple[str, ...]
    bytes: int
    removed: bool


@dataclass(frozen=True)
class Maintenance:
    """Of one table. `reload` reads it from the catalog, `prefix` is where its objects lie in the bucket."""

    name: str
    reload: Callable[[], Table]
    ledger: _Ledger
    objects: _Objects
    clock: Clock
    order: Order
    sizes: Sizes = field(default_factory=Sizes)
    memory: str = "1GB"
    pinned: Callable[[], Collection[int]] = tuple
    """Snapshots that somebody reads for longer, 0 for one before the first: they stay, and all that came after them."""

    @property
    def prefix(self) -> str:
        return f"lake/{self.name}/"

    def groups(self, table: Table) -> list[Group]:
        """What a compaction would join now. The ledger is read after the table was."""
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
        return plan_groups(files, pending, self.sizes)

    def compact(
        self, advance: Advance = lambda _rows, _bytes: None, stopped: Callable[[], bool] = lambda: False
    ) -> CompactReport:
        """Join small files, a group a commit, until none are left, or until stopped: after the group at hand.

        `advance` hears of rows and bytes within a group too, and ends it by what it raises; the group stays as it was.
        """
        report, done = CompactReport(self.name), 0
        for group in self.groups(self.reload()):
            if stopped():
                break
            report = self._join(group, report, partial(_within, advance, group, report.rows, done))
            done += group.bytes
            advance(report.rows, done)
        return report

    def _join(self, group: Group, report: CompactReport, told: Callable[[int], object]) -> CompactReport:
        began = self.clock.now_ms()
        table = self.reload()
        wanted = {file.path for file in group.files}
        old = [file for file in data_files(table) if file.file_path in wanted]
        if len(old) < len(wanted):
            return replace(report, overtaken=report.overtaken + 1)
        key = f"{self.prefix}data/compacted/{uuid.uuid4().hex}"
        written = Rewriter(table, self.objects, self.order, self.memory).rewrite(old, key, told=told)
        if written.rows != group.rows:
            raise HeadwaterError(f"table {self.name}: {group.rows} rows were to be joined, {written.rows} were read")
        why = {"headwater.compaction": str(len(old))}
        for _ in range(_ATTEMPTS):
            if self.clock.now_ms() - began > _SLOWEST_MS:
                break
            try:
                replace_files(table, old, written.files, why)
            except Retryable:
                # only the group's own files matter: what others have added beside them is no reason to write it anew
                table = self.reload()
                if not wanted <= {file.file_path for file in data_files(table)}:
                    break
                continue
            if {*written.files} <= {*data_files(self.reload())}:
                return _joined(report, group, written)
            break
        return replace(report, overtaken=report.overtaken + 1)

    def expire(self, keep: int, older_than_ms: int) -> ExpireReport:
        """Forget snapshots from before `older_than_ms` (epoch), but the newest `keep`; their files become orphans."""
        if keep < 1:
            raise UsageError("expire: at least one snapshot stays")
        for _ in range(_ATTEMPTS):
            table = self.reload()
            newest = sorted(table.snapshots(), key=lambda one: one.timestamp_ms, reverse=True)
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
        """Objects that nothing needs, last changed before `older_than_ms` (epoch); removed if asked to. `advance` hears
        how many were looked at and removed, and ends it by what it raises.

        UsageError when that is less than LEAST_AGE_MS ago. The order of the readings matters: sinks.compaction.orphans.
        """
        if older_than_ms > self.clock.now_ms() - LEAST_AGE_MS:
            raise UsageError(
                f"orphans: only objects older than {LEAST_AGE_MS // 60_000} minutes can be told from new ones"
            )
        found: list[Found] = []
        for key, size, at in self.objects.dated(self.prefix):
            found.append(Found(f"s3://{self.objects.bucket}/{key}", size, at))
            advance(len(found), 0)
        entries = self.ledger.everyone()
        gone = orphans(found, entries, live_objects(self.reload()), older_than_ms)
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
        """Everything once, as the service does it; a stop is heeded between two groups of files."""
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
    """Every object that some snapshot of the table needs, and the metadata files that the table knows."""
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


def _within(advance: Advance, group: Group, rows: int, done: int, told: int) -> None:
    """Rows of the group are told of twice, read and written: the bytes are as many as that share of them."""
    advance(rows + told // 2, done + group.bytes * min(told, 2 * group.rows) // max(1, 2 * group.rows))


def _joined(report: CompactReport, group: Group, written: Written) -> CompactReport:
    return replace(
        report,
        groups=report.groups + 1,
        files_before=report.files_before + len(group.files),
        files_after=report.files_after + len(written.files),
        bytes_before=report.bytes_before + group.bytes,
        bytes_after=report.bytes_after + sum(file.file_size_in_bytes for file in written.files),
        rows=report.rows + written.rows,
    )
