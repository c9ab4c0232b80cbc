"""Read what a lake table had received from each shard up to a position, out of the table's own history.

A processor's data file says in its name which shard and positions it holds, and lies on one side of any committed
position; a compacted file does not say. So two snapshots are compared: one from before the positions were committed, of
which every row counts, and one that has all rows up to them. Between the two, only appended files are looked at, by
name, whatever became of them since.
"""

from collections.abc import Mapping

from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from headwater.errors import HeadwaterError
from headwater.sinks.lake.compaction import commit_position, shard_of

__all__ = ["scan_tasks_until"]


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

    Raise HeadwaterError when a snapshot has expired, or another writer has replaced the table's history.
    """
    tasks = {}
    if since:
        _snapshot(table, since)
        scan = table.scan(wanted or AlwaysTrue(), snapshot_id=since)
        tasks = {task.file.file_path: task for task in scan.plan_files()}
    for file in _appended(table, since, through):
        shard = shard_of(file.file_path)
        if shard is not None and commit_position(file.file_path) <= positions.get(shard, ""):
            tasks.setdefault(file.file_path, FileScanTask(file))
    return sorted(tasks.values(), key=lambda task: (_least(table, task.file, time), task.file.file_path))


def _appended(table: Table, since: int, through: int) -> list[DataFile]:
    """Return the files that the snapshots after `since` added, up to `through`."""
    found: list[DataFile] = []
    if not through or through == since:
        return found
    snapshot = None
    for snapshot in ancestors_of(_snapshot(table, through), table.metadata):
        if snapshot.snapshot_id == since:
            return found
        found += _added(table, snapshot)
    if since or snapshot is None or snapshot.parent_snapshot_id is not None:
        raise HeadwaterError(f"snapshots of {'.'.join(table.name())} have expired or were replaced: begin anew")
    return found


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
    """Return the snapshot, or raise HeadwaterError when it has expired."""
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise HeadwaterError(f"snapshot {snapshot_id} of {'.'.join(table.name())} has expired: begin anew")
    return snapshot


def _least(table: Table, file: DataFile, column: str) -> int:
    """Return the file's least value of a time column; files without statistics come first."""
    field = table.schema().find_field(column)
    bound = (file.lower_bounds or {}).get(field.field_id)
    return -(1 << 62) if bound is None else int(from_bytes(field.field_type, bound))
