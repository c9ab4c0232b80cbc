"""What a lake table had got from each shard up to a position, by its own history.

A processor's data file says in its name which shard and positions it is of, and lies on one side of any committed
position; a compacted file does not say. So two snapshots are taken: one from before the positions were committed, of
which every row counts, and one that has all up to them. In between only what was appended is looked at, by name,
whatever became of it since.
"""

from collections.abc import Mapping

from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot, ancestors_of

from headwater.errors import HeadwaterError
from sinks.compaction import committed_to, shard_of

__all__ = ["tasks_until"]


def tasks_until(
    table: Table,
    since: int,
    through: int,
    positions: Mapping[str, str],
    time: str,
    wanted: BooleanExpression | None = None,
) -> list[FileScanTask]:
    """The files with all rows that shards had committed at `positions`, and no later ones, by the least of `time`.

    `since` is a snapshot from before those commits, 0 for none, and `through` one that has all of them. The same
    arguments give the same files in the same order. `wanted` may leave out files without such rows.

    HeadwaterError when a snapshot has expired, or another writer has replaced the table's history.
    """
    tasks = {}
    if since:
        _snapshot(table, since)
        scan = table.scan(wanted or AlwaysTrue(), snapshot_id=since)
        tasks = {task.file.file_path: task for task in scan.plan_files()}
    for file in _appended(table, since, through):
        shard = shard_of(file.file_path)
        if shard is not None and committed_to(file.file_path) <= positions.get(shard, ""):
            tasks.setdefault(file.file_path, FileScanTask(file))
    return sorted(tasks.values(), key=lambda task: (_least(table, task.file, time), task.file.file_path))


def _appended(table: Table, since: int, through: int) -> list[DataFile]:
    """What the snapshots after `since` added, up to `through`."""
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
    return [
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        if manifest.content == ManifestContent.DATA and manifest.added_snapshot_id == snapshot.snapshot_id
        for entry in manifest.fetch_manifest_entry(table.io)
        if entry.status == ManifestEntryStatus.ADDED and entry.snapshot_id == snapshot.snapshot_id
    ]


def _snapshot(table: Table, snapshot_id: int) -> Snapshot:
    snapshot = table.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise HeadwaterError(f"snapshot {snapshot_id} of {'.'.join(table.name())} has expired: begin anew")
    return snapshot


def _least(table: Table, file: DataFile, column: str) -> int:
    """Of the column, which is a time; files that do not say come first."""
    field = table.schema().find_field(column)
    bound = (file.lower_bounds or {}).get(field.field_id)
    return -(1 << 62) if bound is None else int(from_bytes(field.field_type, bound))
