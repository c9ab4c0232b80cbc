"""Follow the events' table with a view's table: each final window once, and again when events came late for it.

What a table has is said by a property of it, which changes in the commit that brings the rows, on top of exactly the
state that was read. So rows and position are there together or not at all: a commit that failed, was overtaken, or that
the catalog acknowledged and lost is made again from what the table says. Nothing else is remembered.

Windows are computed from the events in the lake, so a view's table needs no step of a processor, and joins exactly.
What becomes final is decided by the ledger; the files that it names are waited for.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table import Table

from headwater.errors import Retryable, UsageError
from headwater.processors.definition.parts import View
from headwater.processors.operators.aggregate import ALWAYS, Partial
from headwater.processors.ports import PipelineReader
from headwater.processors.replay.lake import current_snapshot, published_table
from headwater.processors.viewtables.events import EventSource, LateWindows, TooMany
from headwater.processors.viewtables.rows import POSITION, TablePosition, definition_of, table_columns, table_rows
from headwater.processors.watermark import final_until
from headwater.sinks.lake.buffer import LakeBuffer
from headwater.sinks.lake.catalog import append_files
from headwater.sinks.lake.compaction import shard_of
from headwater.sinks.lake.datafiles import describe, field_ids
from headwater.sinks.lake.history import HistoryGone, appended_since
from headwater.sinks.lake.partitioning import Partitioning
from headwater.sinks.lake.rewrite import data_files, replace_files
from headwater.stream.shards import list_shards

__all__ = [
    "MOST_WINDOWS",
    "PARTITIONING",
    "FollowReport",
    "ViewTablePorts",
    "check_ours",
    "follow",
    "is_of_others",
    "position_of",
]

log = logging.getLogger("headwater.viewtables")

MOST_WINDOWS = 100_000
"""Windows of keys that are in memory and in one commit, about. With a sketch each takes some 3 KB."""
PARTITIONING = Partitioning("window_start", "window_end")


@dataclass(frozen=True)
class ViewTablePorts:
    """Hold what the tables of a pipeline's views are written with.

    `open_table` returns the table of a view, made when it is not there; `wait` is called while files wait for the
    publisher.
    """

    reader: PipelineReader
    open_table: Callable[[View], Table]
    wait: Callable[[], object]
    idle_seconds: float = 0.0
    most: int = MOST_WINDOWS


@dataclass(frozen=True)
class FollowReport:
    """Report what one table got: rows of windows that became final, and rows that amend others.

    `unfit` counts values that a column cannot hold, which are null. `through_ms` is the event time up to which the
    table has every final window; None before the first. `anew` says that the table was begun anew.
    """

    view: str
    table: str
    rows: int = 0
    amended: int = 0
    unfit: int = 0
    through_ms: int | None = None
    anew: bool = False


def follow(ports: ViewTablePorts) -> Iterator[FollowReport]:
    """Bring the tables of the pipeline's views up to date, and yield what each got.

    Raise Retryable when others keep changing a table or files wait for the publisher for too long, and UsageError for a
    table that another definition has written. The tables before it have what they got.
    """
    stores, stream = ports.reader.stores, ports.reader.stream
    views = [view for view in stores.pipeline.definitions if view.table]
    if not views:
        return
    # before the events are read: a table that is dropped later on, as a forgetting does, takes no rows from before it
    tables = [ports.open_table(view) for view in views]
    entries = stores.ledger.shards()
    listed = {one.shard_id: one.parents for one in list_shards(stream.kinesis, stream.stream)}
    until = final_until(stores.pipeline, ports.idle_seconds, entries, listed, stores.clock.now_ms())
    events = published_table(stores, ports.reader.open_table, entries, ports.wait)
    for view, table in zip(views, tables, strict=True):
        yield _Following(ports, view, table, events).run(until)


def position_of(table: Table) -> TablePosition | None:
    """Return what the table says that it has; None for a table that was not written yet."""
    text = table.properties.get(POSITION)
    return None if text is None else TablePosition.loads(text)


def is_of_others(table: Table) -> bool:
    """Tell whether the table has rows that no view has written: those come in one commit with the position."""
    return position_of(table) is None and bool(data_files(table))


def check_ours(table: Table) -> None:
    """Raise UsageError for a table that has rows and that no view has written: they would be taken out."""
    if is_of_others(table):
        raise UsageError(
            f"table {'.'.join(table.name())} has rows that no view has written: give the view's table another name"
        )


class _Following:
    """Bring one table up to date."""

    def __init__(self, ports: ViewTablePorts, view: View, table: Table, events: Table) -> None:
        self._ports, self._view, self._table, self._events = ports, view, table, events
        self._pipeline = ports.reader.stores.pipeline
        self._source = EventSource(events, self._pipeline, view)
        self._columns = table_columns(view, self._pipeline.schema)
        self._report = FollowReport(view.name, view.table or "")

    def run(self, until: int | None) -> FollowReport:
        """Amend what events came late for, then write the windows that end by `until`, epoch ms."""
        check_ours(self._table)
        position, target = position_of(self._table), current_snapshot(self._events)
        if position is not None and position.definition != definition_of(self._view):
            raise UsageError(
                f"table {self._view.table} was written for another definition of view {self._view.name}: give this one "
                f"a table of another name, or drop the table in the catalog to have it written anew"
            )
        if target and until is not None:
            position = self._begin(target) if position is None else self._amend(position, target)
            self._write_new(position, until)
        elif position is not None:
            self._told(position)
        return self._report

    def _begin(self, target: int, before: TablePosition | None = None) -> TablePosition:
        """Return the position of a table without rows; take out those it has."""
        revision = max(self._number(target), 0 if before is None else before.revision + 1)
        position = TablePosition(definition_of(self._view), target, revision)
        old = data_files(self._table)
        if old:
            self._report = replace(self._report, anew=True)
            replace_files(self._table, old, [], {"headwater.anew": str(len(old))}, {POSITION: position.dumps()})
        return position

    def _amend(self, position: TablePosition, target: int) -> TablePosition:
        """Write the windows anew that events have come for since.

        A commit has them up to the end of a snapshot, since the position names one: those of one snapshot are one
        commit however many they are, with a bounded number of them in memory.
        """
        late: LateWindows | None = None
        try:
            for snapshot, files in appended_since(self._events, position.events, target):
                found = self._source.late([file for file in files if _ours(file.file_path)], position.through_ms)
                late = found if late is None else late.joined(found)
                if len(late) >= self._ports.most:
                    position, late = self._write_late(position, snapshot.snapshot_id, late), None
        except HistoryGone as error:
            log.warning("a view's table is written anew", extra={"table": self._view.table, "reason": str(error)})
            return self._begin(target, position)
        return position if late is None else self._write_late(position, target, late)

    def _write_late(self, position: TablePosition, snapshot_id: int, late: LateWindows) -> TablePosition:
        revision = max(self._number(snapshot_id), position.revision + 1)
        position = replace(position, events=snapshot_id, revision=revision)
        if not len(late):
            return position  # said with the next rows, or at the end
        amended = self._commit(
            position, (self._source.amended(snapshot_id, part) for part in late.parts(self._ports.most))
        )
        self._report = replace(self._report, amended=self._report.amended + amended)
        return position

    def _write_new(self, position: TablePosition, until: int) -> None:
        """Write the windows that end after the position and by `until`."""
        assert self._view.window is not None
        every, snapshot_id = self._view.window.every_ms, position.events
        until = until // every * every
        span = until - position.through_ms
        while position.through_ms < until:
            after = self._source.next_after(snapshot_id, position.through_ms)
            if after is None or after >= until:
                break
            stop = min(until, after + max(every, span // every * every))
            try:
                partials = self._source.ending_in(snapshot_id, after, stop, self._ports.most)
            except TooMany:
                span = (stop - after) // 2
                continue
            position = replace(position, through_ms=stop)
            if partials:
                added = self._commit(position, [partials])
                self._report = replace(self._report, rows=self._report.rows + added)
            span *= 2
        position = replace(position, through_ms=max(position.through_ms, until))
        if position != position_of(self._table):
            self._commit(position, [])
        self._told(position)

    def _commit(self, position: TablePosition, parts: Iterable[Sequence[Partial]]) -> int:
        """Add the rows and move the position, in one commit, and return how many rows; a part is in memory at a time.

        Raise Retryable when another writer was faster.
        """
        count, uris, table = 0, list[str](), self._table
        for partials in parts:
            count += len(partials)
            uris += self._stored(partials, position.revision)
        try:
            files = [describe(table.io, table.metadata, uri) for uri in uris]
            append_files(table, files, {POSITION: position.dumps()})
        except (CommitFailedException, NoSuchTableError) as error:
            reason = " ".join(str(error).split())
            raise Retryable(f"table {self._view.table}: another writer was faster: {reason}") from error
        return count

    def _stored(self, partials: Sequence[Partial], revision: int) -> list[str]:
        """Write the rows into files, which are not in the table yet, and return where."""
        rows, unfit = table_rows(self._view, self._columns, partials, revision)
        for one in unfit:
            log.warning("a value does not fit its column: it is null", extra={"table": self._view.table, "value": one})
        self._report = replace(self._report, unfit=self._report.unfit + len(unfit))
        buffer = LakeBuffer(self._columns, PARTITIONING)
        buffer.number_columns(field_ids(self._table))
        buffer.append(rows.sort_by([(name, "ascending") for name in self._view.by]) if self._view.by else rows)
        base, put = f"lake/{self._view.table}/data/{uuid.uuid4().hex}", self._ports.reader.stores.objects.put
        return [put(f"{base}-{at:04d}.parquet", one.body) for at, one in enumerate(buffer.seal())]

    def _number(self, snapshot_id: int) -> int:
        """Return the snapshot's number in the events' table, which only grows; 0 in a table of format 1."""
        snapshot = self._events.snapshot_by_id(snapshot_id)
        return 0 if snapshot is None else snapshot.sequence_number or 0

    def _told(self, position: TablePosition) -> None:
        through = None if position.through_ms == ALWAYS else position.through_ms
        self._report = replace(self._report, through_ms=through)


def _ours(path: str) -> bool:
    """Tell whether a processor wrote the file: what a compaction or another engine writes has rows that came before."""
    return shard_of(path) is not None
