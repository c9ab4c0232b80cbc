"""Read rows of a lake table file by file, whatever has become of single files.

A file that is gone or cannot be read is named and left out: the audit then finds what it held missing, by number. Any
other failure, such as one of the network, ends the reading.
"""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.table import FileScanTask, Table

from headwater.ledger import PendingFile
from headwater.processors.audit.report import UnreadableFile
from headwater.sinks.lake.reading import TableReader, plan

__all__ = ["IDENTITY", "LakeFiles"]

IDENTITY = ("_origin", "_seq", "_arrived_at")


class LakeFiles:
    """Read some columns of a table's files, and of files that are not in the table yet.

    What could not be read is in `unreadable` once the iterators are through.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._reader = TableReader(table)
        self._names = frozenset(one.name for one in table.schema().fields)
        self.unreadable: list[UnreadableFile] = []

    def tasks(self) -> list[FileScanTask]:
        """Return the files of the current snapshot."""
        return plan(self._table)

    def live(self, tasks: Iterable[FileScanTask], columns: Sequence[str] = IDENTITY) -> Iterator[pa.RecordBatch]:
        """Yield the rows of files of the table, deleted rows aside, some at a time."""
        for task in tasks:
            file = task.file
            yield from self._guarded(self._read(task, columns), file.file_path, file.record_count, "live")

    def pending(self, files: Iterable[PendingFile], columns: Sequence[str] = IDENTITY) -> Iterator[pa.RecordBatch]:
        """Yield the rows of files that the ledger names and the table perhaps does not have yet."""
        for file in files:
            task = FileScanTask(DataFile.from_args(file_path=file.uri, file_format=FileFormat.PARQUET))
            yield from self._guarded(self._read(task, columns), file.uri, file.rows, "pending")

    def _read(self, task: FileScanTask, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        there = [name for name in columns if name in self._names]
        return self._reader.batches(task, there, coded=there)

    def _guarded(self, read: Iterator[pa.RecordBatch], uri: str, rows: int, state: str) -> Iterator[pa.RecordBatch]:
        try:
            yield from read
        except FileNotFoundError:
            self.unreadable.append(UnreadableFile(uri, rows, state, "the object is gone"))
        except pa.ArrowInvalid as error:
            reason = " ".join(str(error).split())[:200]
            self.unreadable.append(UnreadableFile(uri, rows, state, f"not a readable Parquet file: {reason}"))
