"""Give DuckDB a lake table to scan: it says columns and condition, and gets the rows of files that may have any.

DuckDB scans any pyarrow Dataset by calling its `scanner` with the columns that a statement needs, and with the part of
its condition that such a source can judge. Here that goes to `reading`, so only files whose bounds allow the condition
are opened, and memory holds some rows of few files.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table

from headwater.sinks.lake.reading import ReadCounts, TableReader, empty_rows, plain_schema, prune

__all__ = ["Scan", "TableSource"]

_AHEAD = 8
"""Small files that are read at a time: on S3 each costs some round trips."""
_SMALL = 2 << 20
"""Bytes of the needed columns up to which a file is small, and read whole."""


@dataclass
class Scan:
    """Describe one scan of a table: what was planned, of how much, and what was decoded of it so far."""

    table: str
    files: int
    of_files: int
    bytes: int
    of_bytes: int
    condition: str
    counts: ReadCounts = field(default_factory=ReadCounts)


class TableSource(ds.InMemoryDataset):  # type: ignore[misc]  # pyarrow is not looked into
    """Be one state of a table, its files planned; each scan is noted in `scans`.

    With `dry` set scans are noted and give no row. What reading raises is kept in `failure`: of DuckDB's own error it
    would be a part of the text.
    """

    def __init__(self, name: str, table: Table, schema: Schema, tasks: Sequence[FileScanTask]) -> None:
        super().__init__(empty_rows(plain_schema(schema)))
        self._name, self._table, self._iceberg, self._tasks = name, table, schema, tasks
        self.scans: list[Scan] = []
        self.dry = False
        self.failure: Exception | None = None

    def scanner(
        self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None, **_: Any
    ) -> ds.Scanner:
        """Return a scanner of the rows that meet the condition, in these columns (all of them)."""
        names = list(self.schema.names if columns is None else columns)
        tasks = prune(self._tasks, self._iceberg, filter)
        reader = TableReader(self._table, self._iceberg)
        said = "" if filter is None else " ".join(str(filter).split())
        sizes = [task.file.file_size_in_bytes for task in tasks], [one.file.file_size_in_bytes for one in self._tasks]
        self.scans.append(
            Scan(self._name, len(tasks), len(self._tasks), sum(sizes[0]), sum(sizes[1]), said, reader.counts)
        )
        batches = iter(()) if self.dry else self._kept(self._rows(reader, tasks, names, filter))
        return ds.Scanner.from_batches(batches, schema=pa.schema([self.schema.field(name) for name in names]))

    def _kept(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as error:
            self.failure = error
            raise

    def _rows(
        self, reader: TableReader, tasks: Iterable[FileScanTask], names: Sequence[str], where: pc.Expression | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the files' rows in order; small files are read ahead, whole, a few at a time."""
        ids = [self._iceberg.find_field(name).field_id for name in names]

        def whole(task: FileScanTask) -> list[pa.RecordBatch]:
            return list(reader.batches(task, names, where))

        with ThreadPoolExecutor(_AHEAD) as pool:
            waiting: deque[Future[list[pa.RecordBatch]] | FileScanTask] = deque()
            for task in tasks:
                waiting.append(pool.submit(whole, task) if _bytes(task, ids) <= _SMALL else task)
                if len(waiting) >= _AHEAD:
                    yield from _taken(reader, waiting.popleft(), names, where)
            while waiting:
                yield from _taken(reader, waiting.popleft(), names, where)


def _taken(
    reader: TableReader,
    one: "Future[list[pa.RecordBatch]] | FileScanTask",
    names: Sequence[str],
    where: pc.Expression | None,
) -> Iterator[pa.RecordBatch]:
    if isinstance(one, Future):
        yield from one.result()
    else:
        yield from reader.batches(one, names, where)


def _bytes(task: FileScanTask, ids: Sequence[int]) -> int:
    """Return how many bytes of the file these columns have, about."""
    sizes = task.file.column_sizes
    return task.file.file_size_in_bytes if not sizes else sum(sizes.get(number, 0) for number in ids)
