"""Read what a lake table had received from each shard up to a position, out of the table's own history.

A processor's data file says in its name which shard and positions it holds, and lies on one side of any committed
position; a compacted file does not say. So two snapshots are compared: one from before the positions were committed, of
which every row counts, and one that has all rows up to them. Between the two, only appended files are looked at, by
name, whatever became of them since.
"""

from collections.abc import Iterator, Mapping

from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from headwater.errors import HeadwaterError
from headwater.sinks.lake.compaction import commit_position, shard_of

__all__ = ["HistoryGone", "appended_since", "least_time", "scan_tasks_until"]


class HistoryGone(HeadwaterError):
    """Say that a snapshot has expired, or that another writer has replaced the table's history: begin anew."""


def scan_tasks_until(
    table: Table,
    since: int,
    through: int,
    positions: Mapping[str, str],
    time: str,
    wanted: BooleanExpression | None = None,
) -> list[FileScanTask]:
    """Return the files with all rows that the shards had committed at `positions`, and none later, ordered by least
    `time`.

    `since` is a snapshot from before those commits (0: none), `through` is one that has all of them. The same arguments
    give the same files in the same order. `wanted` may leave out files that hold no such rows.

    Raise HistoryGone when a snapshot has expired, or another writer has replaced the table's history.
    """
    tasks = {}
    if since:
        _snapshot(table, since)
        scan = table.scan(wanted or AlwaysTrue(), snapshot_id=since)
        tasks = {task.file.file_path: task for task in scan.plan_files()}
    for file in [one for _, files in appended_since(table, since, through) for one in files]:
        shard = shard_of(file.file_path)
        if shard is not None and commit_position(file.file_path) <= positions.get(shard, ""):
            tasks.setdefault(file.file_path, FileScanTask(file))
    return sorted(tasks.values(), key=lambda task: (least_time(table, task.file, time), task.file.file_path))


def appended_since(table: Table, since: int, through: int) -> Iterator[tuple[Snapshot, list[DataFile]]]:
    """Yield the snapshots after `since` (0: all) up to `through`, the oldest first, each with the data files it added.

    Raise HistoryGone when a snapshot between has expired, or another writer has replaced the table's history.
    """
    if not through or through == since:
        return
    later: list[Snapshot] = []
    for snapshot in ancestors_of(_snapshot(table, through), table.metadata):
        if snapshot.snapshot_id == since:
            break
        later.append(snapshot)
    else:
        if since or not later or later[-1].parent_snapshot_id is not None:
            raise HistoryGone(f"snapshots of {'.'.join(table.name())} have expired or were replaced: begin anew")
    for snapshot in reversed(later):
        yield snapshot, _added(table, snapshot)


def _added(table: Table, snapshot: Snapshot) -> list[DataFile]:
    """Return the data files that this snapshot added."""
    return [
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        if manifest.content == ManifestContent.DATA and manifest.added_snapshot_id == snapshot.snapshot_id
        for entry in manifest.fetch_manifest_entry(table.io)
        if entry.status == ManifestEntryStatus.ADDED and entry.snapshot_id == snapshot.snapshot_id
    ]


def _snapshot(table: Table, snapshot_id: int) -> Snapshot:
    """Return the snapshot, or raise HistoryGone when it has expired."""
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise HistoryGone(f"snapshot {snapshot_id} of {'.'.join(table.name())} has expired: begin anew")
    return snapshot


def least_time(table: Table, file: DataFile, column: str) -> int:
    """Return the file's least value of a time column, in microseconds; files without statistics come first."""
    field = table.schema().find_field(column)
    bound = (file.lower_bounds or {}).get(field.field_id)
    return -(1 << 62) if bound is None else int(from_bytes(field.field_type, bound))
