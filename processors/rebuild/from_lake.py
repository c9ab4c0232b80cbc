"""Take the past of a view that is rebuilt from the lake: its rows are what views see, so no step runs again.

The files are folded by event time into windows in memory; whenever there are many, or at the end, they are written as
a slot of their own, `lake/<n>`, and forgotten. Where that is cut depends on the files alone, so what is written twice
is the same. Between two files a snapshot of the memory may be kept, to go on from.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, GreaterThanOrEqual
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from headwater.arrays import times
from headwater.errors import UsageError
from headwater.processors.definition.parts import View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.jobs import Progress
from headwater.processors.operators.aggregate import ALWAYS, ViewState
from headwater.processors.ports import PipelineReader, PipelineStores
from headwater.processors.rebuild.generation_rows import write
from headwater.processors.rebuild.rebuild import Build, snapshots
from headwater.processors.replay.lake import current_snapshot, published_table
from headwater.sinks.lake.compaction import shard_of
from headwater.sinks.lake.history import scan_tasks_until
from headwater.sinks.views.store import ViewStore
from headwater.stream import sequence

__all__ = ["MOST_SLOTS", "LakePast", "fold"]

MOST_SLOTS = 200_000
"""Windows of keys in memory, about; then they are written. With a sketch each takes some 3 KB."""
_PARTS = ("slots", "aggregates")
_KEPT_MS = 30_000
"""Between two snapshots of the memory."""


class LakePast:
    """Fold the rows of the lake into a view; `publish` makes a publisher's step."""

    source = "lake"

    def __init__(
        self,
        reader: PipelineReader,
        views: ViewStore,
        publish: Callable[[], object],
        most_slots: int = MOST_SLOTS,
        *,
        accept_missing: bool = False,
    ) -> None:
        """Accept rows from before a step added a column, with no value in it, if `accept_missing`; else refuse them."""
        self._stores, self._open_table, self._views = reader.stores, reader.open_table, views
        self._publish, self._most = publish, most_slots
        self._accept_missing = accept_missing

    def before(self, view: View, /) -> Mapping[str, Any]:
        """Return the snapshot that there is before a processor begins; raise UsageError for rows that lack a column."""
        table = self._open_table()
        wanted = _not_expired(view, self._stores.pipeline.contract.time, self._stores.clock.now_ms())
        self._check_added(view, table, [task.file for task in table.scan(wanted).plan_files()])
        return {"since": current_snapshot(table)}

    def pin(self) -> Mapping[str, Any]:
        """Return the snapshot that has all events up to where the shards began; wait for the publisher to get there."""
        entries = self._stores.ledger.shards()
        return {"through": current_snapshot(published_table(self._stores, self._open_table, entries, self._publish))}

    def fill(
        self,
        build: Build,
        notes: Mapping[str, Any],
        save: Callable[[Mapping[str, Any]], None],
        progress: Progress,
    ) -> int:
        """Fold the files from where an earlier call kept its place; return how many events they have.

        Whether the lake lacks something that the shards have committed is not checked here: the audit does.
        """
        pipeline, view = self._stores.pipeline, build.view
        table = self._open_table()
        time = pipeline.contract.time
        wanted = _not_expired(view, time, build.now_ms)
        tasks = scan_tasks_until(table, notes["since"], notes["through"], build.positions, time, wanted)
        self._check_added(view, table, [task.file for task in tasks])
        columns = {*_columns(view), time}
        names = [name for name in pipeline.schema.names if name in columns]
        reader = ArrowScan(table.metadata, table.io, table.schema().select(*names), wanted)
        folding = _Folding(self._stores, self._views, view, notes.get("place", {}), save, progress)
        total = sum(task.file.file_size_in_bytes for task in tasks)
        folding.read(total)
        for task in tasks[folding.place["file"] :]:
            folding.take(reader.to_table([task]).select(names), task.file.file_size_in_bytes)
            if len(folding.state) > self._most:
                folding.write()
                folding.read(total)
            folding.keep()
        folding.write()
        return folding.place["events"]

    def _check_added(self, view: View, table: Table, files: Sequence[DataFile]) -> None:
        """Raise UsageError for files from before a step of the pipeline added a column that the view needs.

        The event did not have it, so no step can be asked. What the contract has got since, old events lack by right.
        """
        if self._accept_missing:
            return
        for name in [name for name in self._stores.pipeline.added.names if name in _columns(view)]:
            column = table.schema().find_field(name).field_id
            rows = sum(file.record_count for file in files if _lacks(file, column))
            if rows:
                raise UsageError(
                    f"{rows:,} rows of the lake are from before column {name} was added, and have none: build the view "
                    "with --source stream, fill a new pipeline with replay --into, or accept that with --accept-missing"
                )


class _Folding:
    """Fold files in memory, from the place where an earlier call kept it."""

    def __init__(
        self,
        stores: PipelineStores,
        views: ViewStore,
        view: View,
        place: Mapping[str, int],
        save: Callable[[Mapping[str, Any]], None],
        progress: Progress,
    ) -> None:
        self._stores, self._views, self._view, self._save, self._progress = stores, views, view, save, progress
        self.place = {"file": 0, "slot": 0, "events": 0, "bytes": 0, **place}
        self.state = ViewState(view, 0)
        self._kept: list[str] = []
        self._kept_ms = stores.clock.now_ms()
        if self.place["file"]:
            self._kept = self._keys()
            self.state.load_tables(*(pa.ipc.open_stream(stores.objects.get(key)).read_all() for key in self._kept))

    def read(self, total: int) -> None:
        """Begin the phase that reads the files, `total` bytes in all."""
        self._progress.phase("reading", total)
        self._progress(self.place["events"], self.place["bytes"])

    def take(self, rows: pa.Table, size: int) -> None:
        """Fold the rows of the next file, which has `size` bytes."""
        place = self.place
        place["file"] += 1
        place["events"] += fold(self.state, rows, self._stores.pipeline, place["file"])
        place["bytes"] += size
        self._progress(place["events"], place["bytes"])

    def write(self) -> None:
        """Write all that is in memory as a slot of its own, and begin anew."""
        partials, slot = self.state.dirty(), f"lake/{self.place['slot']}"
        self._progress.phase("writing", len(partials))
        write(self._views, self._view.spec, partials, lambda _: slot, partial(self._progress, self.place["events"]))
        self.state = ViewState(self._view, 0)
        self.place["slot"] += 1
        self._kept_ms = 0

    def keep(self) -> None:
        """Keep a snapshot now and then, to go on from; after a slot was written, at once."""
        if self._stores.clock.now_ms() - self._kept_ms < _KEPT_MS:
            return
        for key, table in zip(self._keys(), self.state.to_tables(), strict=True):
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            self._stores.objects.put(key, sink.getvalue())
        self._save({"place": dict(self.place)})
        for key in self._kept:  # not gone on from any more
            self._stores.objects.delete(key)
        self._kept, self._kept_ms = self._keys(), self._stores.clock.now_ms()

    def _keys(self) -> list[str]:
        at = f"{snapshots(self._stores.pipeline, self._view.name)}/{self.place['file']:08d}"
        return [f"{at}-{name}.arrow" for name in _PARTS]


def fold(state: ViewState, rows: pa.Table, pipeline: Pipeline, number: int) -> int:
    """Fold rows of the lake's `number`th file, in the columns that the view needs; return how many."""
    rows = rows.cast(pa.schema([pipeline.schema.field(name) for name in rows.column_names]))
    versions = np.array([sequence.pad(str(number))], "S56")
    nothing = np.zeros(rows.num_rows, np.int64)
    state.fold(rows, times(rows, pipeline.contract.time), nothing + ALWAYS, versions, nothing)
    count: int = rows.num_rows
    return count


def _columns(view: View) -> set[str]:
    """Return the columns of the lake that the view reads."""
    return {*view.by, *(name for one in view.aggregates for name in one.reads)}


def _lacks(file: DataFile, column: int) -> bool:
    """Tell whether the file was written without the column; a compaction gives it one that is empty."""
    values = (file.value_counts or {}).get(column)
    if values is None:
        return True
    return shard_of(file.file_path) is None and (file.null_value_counts or {}).get(column) == values


def _not_expired(view: View, time: str, now_ms: int) -> BooleanExpression:
    """Return what leaves out the events of windows that the view would let go at once."""
    if view.keep_ms is None or view.window is None:
        return AlwaysTrue()
    since = now_ms - view.keep_ms - view.window.size_ms
    return GreaterThanOrEqual(time, datetime.fromtimestamp(since / 1000, UTC).isoformat(timespec="milliseconds"))
