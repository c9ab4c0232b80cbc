"""Read rows of a lake table file by file, whatever has become of single files.

A file that is gone or cannot be read is named and left out: the audit then finds what it held missing, by number. Any
other failure, such as one of the network, ends the reading.
"""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, PyArrowFileIO
from pyiceberg.table import FileScanTask, Table

from headwater.ledger import PendingFile
from headwater.processors.audit.report import UnreadableFile

__all__ = ["IDENTITY", "LakeFiles"]

IDENTITY = ("_origin", "_seq", "_arrived_at")
_BATCH_ROWS = 65_536


class LakeFiles:
    """Read some columns of a table's files, and of files that are not in the table yet.

    What could not be read is in `unreadable` once the iterators are through.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self.unreadable: list[UnreadableFile] = []

    def tasks(self) -> list[FileScanTask]:
        """Return the files of the current snapshot."""
        return list(self._table.scan().plan_files())

    def live(self, tasks: Iterable[FileScanTask], columns: Sequence[str] = IDENTITY) -> Iterator[pa.RecordBatch]:
        """Yield the rows of files of the table, deleted rows aside, some at a time."""
        for task in tasks:
            file = task.file
            # only Iceberg's own reader applies delete files, and finds columns by number after a renaming
            whole = bool(task.delete_files) or self._was_renamed(columns)
            read = self._deleted_aside(task, columns) if whole else self._plain(file.file_path, columns)
            yield from self._guarded(read, file.file_path, file.record_count, "live")

    def pending(self, files: Iterable[PendingFile], columns: Sequence[str] = IDENTITY) -> Iterator[pa.RecordBatch]:
        """Yield the rows of files that the ledger names and the table perhaps does not have yet."""
        for file in files:
            yield from self._guarded(self._plain(file.uri, columns), file.uri, file.rows, "pending")

    def _guarded(self, read: Iterator[pa.RecordBatch], uri: str, rows: int, state: str) -> Iterator[pa.RecordBatch]:
        try:
            yield from read
        except FileNotFoundError:
            self.unreadable.append(UnreadableFile(uri, rows, state, "the object is gone"))
        except pa.ArrowInvalid as error:
            reason = " ".join(str(error).split())[:200]
            self.unreadable.append(UnreadableFile(uri, rows, state, f"not a readable Parquet file: {reason}"))

    def _plain(self, uri: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        bucket, _, path = uri.removeprefix("s3://").partition("/")
        assert isinstance(self._table.io, PyArrowFileIO)
        with self._table.io.fs_by_scheme("s3", bucket).open_input_file(f"{bucket}/{path}") as source:
            file = pq.ParquetFile(source)
            there = [name for name in columns if name in file.schema_arrow.names]
            if there:
                yield from file.iter_batches(_BATCH_ROWS, columns=there)
            else:  # rows that have none of the columns are rows all the same
                yield pa.RecordBatch.from_struct_array(pa.array([{}] * file.metadata.num_rows, pa.struct([])))

    def _deleted_aside(self, task: FileScanTask, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        table = self._table
        scan = ArrowScan(table.metadata, table.io, table.schema().select(*columns), AlwaysTrue())
        yield from scan.to_table([task]).to_batches(_BATCH_ROWS)

    def _was_renamed(self, columns: Sequence[str]) -> bool:
        """Tell whether one of these names ever stood for another column, or one of the columns had another name."""
        pairs = {(one.name, one.field_id) for schema in self._table.schemas().values() for one in schema.fields}
        numbers = {number for name, number in pairs if name in columns}
        names = {name for name, _ in pairs if name in columns}
        return len(numbers) > len(names) or len({pair for pair in pairs if pair[1] in numbers}) > len(numbers)
