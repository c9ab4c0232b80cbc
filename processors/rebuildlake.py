"""The past of a view that is rebuilt, from the lake: its rows are what views see, so no step runs again.

The files are folded by event time into windows in memory; whenever there are many, or at the end, they are written as
a slot of their own, `lake/<n>`, and forgotten. Where that is cut depends on the files alone, so what is written twice
is the same. Between two files a snapshot of the memory may be kept, to go on from.
"""

import io
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, GreaterThanOrEqual
from pyiceberg.io.pyarrow import ArrowScan

from headwater import sequence
from processors.backfill import current_snapshot, settled
from processors.engine import times
from processors.jobs import Advance
from processors.operators.aggregate import ALWAYS, ViewState
from processors.pipeline import Pipeline, View
from processors.rebuilding import Build, snapshots
from processors.services import Services
from processors.worker import upsert
from sinks.catalog import open_table
from sinks.history import tasks_until

__all__ = ["MOST_SLOTS", "LakePast", "fold"]

MOST_SLOTS = 200_000
"""Windows of keys in memory, about; then they are written. With a sketch each takes some 3 KB."""
_PARTS = ("slots", "aggregates")
_KEPT_MS = 30_000
"""Between two snapshots of the memory."""


class LakePast:
    """`settle` makes a publisher's step. `advance` is told of events, and bytes of files."""

    source = "lake"

    def __init__(
        self, services: Services, settle: Callable[[], object], advance: Advance, most_slots: int = MOST_SLOTS
    ) -> None:
        self._services, self._settle, self._advance, self._most = services, settle, advance, most_slots
        self._kept: list[str] = []

    def before(self) -> Mapping[str, Any]:
        return {"since": current_snapshot(self._services)}

    def pin(self) -> Mapping[str, Any]:
        settled(self._services, self._services.ledger.shards(), self._settle)
        return {"through": current_snapshot(self._services)}

    def fill(self, build: Build, notes: Mapping[str, Any], save: Callable[[Mapping[str, Any]], None]) -> int:
        """The lake lacks nothing that the shards have committed, so nothing is checked here: the audit does."""
        services, pipeline, view = self._services, self._services.pipeline, build.view
        table = open_table(services.settings, pipeline.lake_to.table)
        time = pipeline.contract.time
        wanted = _not_expired(view, time, build.now_ms)
        tasks = tasks_until(table, notes["since"], notes["through"], build.positions, time, wanted)
        columns = {*view.by, *(one.field for one in view.aggregates if one.field), time}
        names = [name for name in pipeline.schema.names if name in columns]
        reader = ArrowScan(table.metadata, table.io, table.schema().select(*names), wanted)
        place = {"file": 0, "slot": 0, "events": 0, "bytes": 0, **notes.get("place", {})}
        state = self._loaded(view, place)
        kept_ms = services.clock.now_ms()
        for number, task in enumerate(tasks[place["file"] :], place["file"] + 1):
            events = fold(state, reader.to_table([task]).select(names), pipeline, number)
            place |= {"file": number, "events": place["events"] + events}
            place["bytes"] += task.file.file_size_in_bytes
            if len(state) > self._most:
                state, place["slot"] = self._written(state, view, place["slot"]), place["slot"] + 1
                kept_ms = 0
            if services.clock.now_ms() - kept_ms >= _KEPT_MS:
                self._keep(state, view, place, save)
                kept_ms = services.clock.now_ms()
            self._advance(place["events"], place["bytes"])
        self._written(state, view, place["slot"])
        return int(place["events"])

    def _written(self, state: ViewState, view: View, slot: int) -> ViewState:
        self._services.views.write(view.spec, [upsert(one, f"lake/{slot}") for one in state.dirty()])
        return ViewState(view, 0)

    def _keep(
        self, state: ViewState, view: View, place: Mapping[str, int], save: Callable[[Mapping[str, Any]], None]
    ) -> None:
        slots, aggregates = state.to_tables()
        for name, table in zip(_PARTS, (slots, aggregates), strict=True):
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            self._services.objects.put(self._key(view, place, name), sink.getvalue())
        save({"place": dict(place)})
        for key in self._kept:  # not gone on from any more
            self._services.objects.delete(key)
        self._kept = [self._key(view, place, name) for name in _PARTS]

    def _loaded(self, view: View, place: Mapping[str, int]) -> ViewState:
        state = ViewState(view, 0)
        if place["file"]:
            self._kept = [self._key(view, place, name) for name in _PARTS]
            parts = [pa.ipc.open_stream(self._services.objects.get(key)).read_all() for key in self._kept]
            state.load_tables(*parts)
        return state

    def _key(self, view: View, place: Mapping[str, int], name: str) -> str:
        return f"{snapshots(self._services, view.name)}/{place['file']:08d}-{name}.arrow"


def fold(state: ViewState, rows: pa.Table, pipeline: Pipeline, number: int) -> int:
    """Take in rows of the lake, of its `number`th file; how many. The columns are those that the view needs."""
    rows = rows.cast(pa.schema([pipeline.schema.field(name) for name in rows.column_names]))
    versions = np.array([sequence.pad(str(number))], "S56")
    nothing = np.zeros(rows.num_rows, np.int64)
    state.fold(rows, times(rows, pipeline.contract.time), nothing + ALWAYS, versions, nothing)
    count: int = rows.num_rows
    return count


def _not_expired(view: View, time: str, now_ms: int) -> BooleanExpression:
    """Events of windows that the view would let go at once need not be read."""
    if view.keep_ms is None or view.window is None:
        return AlwaysTrue()
    since = now_ms - view.keep_ms - view.window.size_ms
    return GreaterThanOrEqual(time, datetime.fromtimestamp(since / 1000, UTC).isoformat(timespec="milliseconds"))
