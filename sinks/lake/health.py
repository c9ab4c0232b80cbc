"""Measure a lake table from outside: its files, manifests and metadata, and how fresh it is. Reads only."""

import timeit
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table

from headwater.ledger import ShardEntry
from headwater.sinks.lake.compaction import shard_of

__all__ = ["Freshness", "freshness", "health"]

_BOUNDS = ((1 << 20, "<1MB"), (16 << 20, "<16MB"), (128 << 20, "<128MB"), (512 << 20, "<512MB"))
_SNAPSHOTS = 100
"""The newest, over which freshness is measured."""


def health(table: Table) -> dict[str, Any]:
    """Return figures of one table, fit for JSON.

    They cover files by size, delete files, manifests, snapshots, metadata files, and how long planning a scan takes.
    """
    began = timeit.default_timer()
    tasks = list(table.scan().plan_files())
    planning = timeit.default_timer() - began
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    sizes = [task.file.file_size_in_bytes for task in tasks]
    by_size = dict.fromkeys([name for _, name in _BOUNDS] + [">=512MB"], 0)
    for size in sizes:
        by_size[next((name for bound, name in _BOUNDS if size < bound), ">=512MB")] += 1
    return {
        "files": len(sizes),
        "bytes": sum(sizes),
        "rows": sum(task.file.record_count for task in tasks),
        "partitions": len({str(task.file.partition) for task in tasks}),
        "mean_bytes": sum(sizes) // len(sizes) if sizes else 0,
        "files_by_size": by_size,
        "old_partitionings": sum(task.file.spec_id != table.metadata.default_spec_id for task in tasks),
        "delete_files": len({one.file_path for task in tasks for one in task.delete_files}),
        "manifests": sum(one.content == ManifestContent.DATA for one in manifests),
        "manifest_bytes": sum(one.manifest_length for one in manifests),
        "snapshots": len(table.snapshots()),
        "metadata_files": len(table.metadata.metadata_log) + 1,
        "metadata_bytes": len(table.io.new_input(table.metadata_location)),
        "planning_seconds": round(planning, 3),
    }


@dataclass(frozen=True)
class Freshness:
    """Describe how fresh one shard's part of a table is; times in ms.

    `median_ms` and `worst_ms` run from the writing of a file, which its commit follows at once, to the snapshot that
    has it; None when none of the shard's files is in the snapshots looked at. `waiting_ms` is the age of the oldest
    committed file that the table does not have yet.
    """

    shard_id: str
    files: int
    median_ms: int | None
    worst_ms: int | None
    waiting_files: int
    waiting_rows: int
    waiting_ms: int


def freshness(
    table: Table,
    entries: Sequence[ShardEntry],
    dated: Iterable[tuple[str, int]],
    now_ms: int,
) -> list[Freshness]:
    """Return the freshness of each shard, over the files of the newest 100 snapshots.

    `dated` holds the URI and the time of writing (epoch ms) of each of the table's objects.
    """
    written = dict(dated)
    added, live = _added(table)
    spans: dict[str, list[int]] = {}
    for path, at in added.items():
        shard = shard_of(path)
        if shard is not None and path in written:
            spans.setdefault(shard, []).append(max(0, at - written[path]))
    waiting: Mapping[str, list[Any]] = {
        entry.shard_id: [file for file in entry.pending if file.uri not in live] for entry in entries
    }
    return [
        Freshness(
            shard_id,
            len(spans.get(shard_id, [])),
            sorted(spans[shard_id])[len(spans[shard_id]) // 2] if shard_id in spans else None,
            max(spans[shard_id]) if shard_id in spans else None,
            len(waiting.get(shard_id, [])),
            sum(file.rows for file in waiting.get(shard_id, [])),
            max((now_ms - written.get(file.uri, now_ms) for file in waiting.get(shard_id, [])), default=0),
        )
        for shard_id in sorted({*spans, *waiting})
    ]


def _added(table: Table) -> tuple[dict[str, int], set[str]]:
    """Return the files that the newest snapshots added, with the snapshots' times, and all files of the current
    snapshot.
    """
    times = {one.snapshot_id: one.timestamp_ms for one in table.snapshots()[-_SNAPSHOTS:]}
    added: dict[str, int] = {}
    live: set[str] = set()
    current = table.current_snapshot()
    for manifest in current.manifests(table.io) if current else []:
        for entry in manifest.fetch_manifest_entry(table.io):
            live.add(entry.data_file.file_path)
            if entry.snapshot_id in times:
                added[entry.data_file.file_path] = times[entry.snapshot_id]
    return added, live
