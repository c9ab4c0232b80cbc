"""Audit the tables of views: compute the rows of final windows anew from the lake, and name what is otherwise there.

Of each key and window the row of the highest revision counts. It has the events of the snapshot that the table names,
so that one is read, and nothing moves meanwhile. Two rows of one revision are named as well.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import FileScanTask, Table

from headwater.aggregates.merging import iso_ms
from headwater.arrays import times
from headwater.contract.written import as_text
from headwater.processors.audit.lake import LakeFiles
from headwater.processors.audit.places import Place, Places, places_of
from headwater.processors.audit.recount import Recount
from headwater.processors.audit.views import ViewAudit, WrongValue, agree
from headwater.processors.definition.parts import View
from headwater.processors.ports import PipelineReader
from headwater.processors.viewtables.following import position_of
from headwater.processors.viewtables.rows import TablePosition
from headwater.sinks.lake.reading import plain_schema, plan

__all__ = ["audit_view_tables"]

_ROWS_AT_ONCE = 100_000
_ALL = 1 << 64


def audit_view_tables(
    reader: PipelineReader, open_table: Callable[[str], Table], sample: int | None = 1_000
) -> Iterator[ViewAudit]:
    """Yield the audit of each view's table, under the name `table NAME`: of about `sample` rows, or of all when None.

    A table that is not there has no rows. Rows are not judged, and counted as moving, once the snapshot that they were
    computed from has expired: the next round of `lake maintain` names another.
    """
    events = reader.open_table()
    for view in (one for one in reader.stores.pipeline.definitions if one.table):
        try:
            table = open_table(str(view.table))
        except NoSuchTableError:
            yield ViewAudit(f"table {view.table}", 0, 0, ())
            continue
        position = position_of(table)
        if position is None:
            yield ViewAudit(f"table {view.table}", 0, 0, ())
        else:
            yield _TableCheck(reader, view, table, events, position).run(sample)


@dataclass
class _NewestRow:
    place: Place
    revision: int
    row: dict[str, Any]
    twice: bool = False


@dataclass
class _TableCheck:
    """Check one table against the events of the snapshot that it was computed from."""

    reader: PipelineReader
    view: View
    table: Table
    events: Table
    position: TablePosition
    _wrong: list[WrongValue] = field(default_factory=list)

    def run(self, sample: int | None) -> ViewAudit:
        name, files = f"table {self.view.table}", LakeFiles(self.table)
        total = sum(task.file.record_count for task in files.tasks())
        if self.events.snapshot_by_id(self.position.events) is None:
            return ViewAudit(name, 0, total, ())
        if sample is None:
            parts = max(1, -(-total // _ROWS_AT_ONCE))
            bounds = [_ALL * at // parts for at in range(parts + 1)]
        else:
            bounds = [0, self._cut(files, sample)]
        source, checked = LakeFiles(self.events), 0
        for low, high in pairwise(bounds):
            checked += self._compare(files, source, low, high)
        unreadable = {one.uri: one for one in (*files.unreadable, *source.unreadable)}
        return ViewAudit(name, checked, 0, tuple(self._wrong), tuple(unreadable.values()))

    def _cut(self, files: LakeFiles, sample: int) -> int:
        """Return the hash below which the `sample` places of lowest hash lie."""
        kept = np.zeros(0, np.uint64)
        for _, places in self._stored_rows(files):
            kept = np.unique(np.concatenate([kept, places.hash]))[: sample + 1]
        return _ALL if len(kept) <= sample else int(kept[sample])

    def _stored_rows(self, files: LakeFiles) -> Iterator[tuple[pa.Table, Places]]:
        """Yield the table's rows with their places."""
        columns = plain_schema(self.table.schema())
        for batch in files.live(files.tasks(), columns.names):
            rows = pa.Table.from_batches([batch]).cast(columns)
            starts = times(rows, "window_start")
            places = places_of(self.view, rows, starts)
            own = slice(0, rows.num_rows)  # what follows are earlier windows that the start lies in, of hopping ones
            yield rows, Places(places.keys, places.at[own], places.key[own], starts, places.hash[own])

    def _compare(self, files: LakeFiles, source: LakeFiles, low: int, high: int) -> int:
        stored = self._stored(files, low, high)
        recount = Recount(self.view.aggregates, {number: one.row for number, one in stored.items()})
        there: dict[int, Place] = {}
        for rows, places, ts_ms in self._event_rows(source):
            at = np.flatnonzero(_within(places, low, high) & (places.start + self._size <= self.position.through_ms))
            _, first = np.unique(places.hash[at], return_index=True)
            for number in at[first].tolist():
                there.setdefault(int(places.hash[number]), places.place(number))
            taken = places.at[at]
            recount.take(places.hash[at], rows.take(pa.array(taken)), ts_ms[taken])
        for number, one in stored.items():
            self._judge(recount, number, one, is_there=number in there)
        for number in there.keys() - stored.keys():
            self._say(there[number], "", None, "a row")
        return len(stored.keys() | there.keys())

    def _stored(self, files: LakeFiles, low: int, high: int) -> dict[int, _NewestRow]:
        """Return by the hash of its place the row of the highest revision."""
        found: dict[int, _NewestRow] = {}
        for rows, places in self._stored_rows(files):
            at = np.flatnonzero(_within(places, low, high))
            some = rows.take(pa.array(at))
            columns = {one.name: as_text(some[one.name], decimals=False).to_pylist() for one in self.view.aggregates}
            for row, (number, revision) in enumerate(zip(at.tolist(), some["_revision"].to_pylist(), strict=True)):
                key, before = int(places.hash[number]), found.get(int(places.hash[number]))
                if before is not None and before.revision >= revision:
                    before.twice |= before.revision == revision
                    continue
                values = {name: held[row] for name, held in columns.items()}
                found[key] = _NewestRow(places.place(number), revision, values)
        return found

    def _event_rows(self, source: LakeFiles) -> Iterator[tuple[pa.Table, Places, Any]]:
        """Yield the events of the snapshot, with the places that they belong to."""
        contract, schema = self.reader.stores.pipeline.contract, self.reader.stores.pipeline.schema
        fields = [name for one in self.view.aggregates for name in one.reads]
        wanted = pa.schema([schema.field(name) for name in dict.fromkeys([contract.time, *self.view.by, *fields])])
        tasks: list[FileScanTask] = plan(self.events, self.position.events)
        for batch in source.live(tasks, wanted.names):
            rows = pa.Table.from_batches([batch]).select(wanted.names).cast(wanted, safe=False)
            ts_ms = times(rows, contract.time)
            yield rows, places_of(self.view, rows, ts_ms), ts_ms

    def _judge(self, recount: Recount, number: int, one: _NewestRow, *, is_there: bool) -> None:
        if one.twice:
            self._say(one.place, "_revision", f"{one.revision} in two rows", "one row")
        if not is_there:
            self._say(one.place, "", "a row", None)
            return
        for aggregate in self.view.aggregates:
            right, got = recount.value(number, aggregate), one.row[aggregate.name]
            if not agree(aggregate, right, got):
                self._say(one.place, aggregate.name, got, right)

    def _say(self, place: Place, column: str, stored: Any, right: Any) -> None:
        key, start = place
        window = None if start is None else iso_ms(start)
        self._wrong.append(WrongValue(f"table {self.view.table}", key, window, column, stored, right))

    @property
    def _size(self) -> int:
        assert self.view.window is not None
        return self.view.window.size_ms


def _within(places: Places, low: int, high: int) -> Any:
    return (places.hash >= np.uint64(low)) & (places.hash <= np.uint64(high - 1))
