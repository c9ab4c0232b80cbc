"""Read events from NDJSON, CSV and Parquet files in bounded memory, as tables of the contract.

Text is read in blocks of whole lines, and each block in one pass. Only a block with a fault is read again row by row,
so that the faulty rows can be named and the others kept.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.contract import Contract, conform
from headwater.errors import HeadwaterError, InvalidEvent, UsageError
from headwater.producers.files import csv as csvfiles
from headwater.producers.files import jsonlines
from headwater.producers.files.blocks import BLOCK_BYTES, CountedSource, csv_blocks, lines_blocks
from headwater.producers.files.parquet import HowToRead, how_to_read, plain_tables
from headwater.producers.files.parquetpages import check_pages
from headwater.producers.files.source import FileSource, one_line

__all__ = ["EventFile", "OnInvalid", "read_events"]

OnInvalid = Callable[[int, str, bytes], object]
"""Takes a row's number, the reason, and the row as it stands in the file (empty for Parquet). Numbers count from 1:
lines in NDJSON, rows below the header in CSV, rows in Parquet."""


class EventFile:
    """Iterate over a file's events as tables of the contract, once; the file is closed at the end or by `close`."""

    def __init__(
        self, path: str | Path, contract: Contract, ignore_unknown: bool, on_invalid: OnInvalid | None, stdin: IO[bytes]
    ) -> None:
        self._name = str(path)
        self._contract = contract
        self._ignore_unknown = ignore_unknown
        self._on_invalid = on_invalid
        self.total_rows: int | None = None
        """The number of rows; known for Parquet only."""
        self._file = FileSource(path, stdin)
        self.total_bytes = self._file.total_bytes
        """The size of the file; None for stdin."""
        self._source = self._file.source
        try:
            self._tables = self._begin()
        except (OSError, EOFError, pa.ArrowException) as error:
            self._source.close()
            raise UsageError(f"{self._name}: cannot be read: {one_line(error)}") from error
        except BaseException:
            self._source.close()
            raise

    @property
    def bytes_read(self) -> int:
        """Return how many of the `total_bytes` have been read."""
        return self._source.count

    def __iter__(self) -> Iterator[pa.Table]:
        return self

    def __next__(self) -> pa.Table:
        try:
            return next(self._tables)
        except StopIteration:
            self.close()
            raise
        except (OSError, EOFError, pa.ArrowException) as error:
            self.close()
            raise HeadwaterError(f"{self._name}: cannot be read to its end: {one_line(error)}") from error

    def close(self) -> None:
        """Close the file; stdin stays open."""
        self._source.close()

    def _begin(self) -> Iterator[pa.Table]:
        """Check what can be checked before the first row."""
        if self._file.kind == "parquet":
            return self._parquet()
        return (self._json if self._file.kind == "ndjson" else self._csv)(self._file.text)

    def _json(self, text: CountedSource) -> Iterator[pa.Table]:
        reader = jsonlines.JsonLinesReader(self._name, self._contract, self._ignore_unknown, self._report)
        return (table for block in lines_blocks(text, BLOCK_BYTES) for table in reader.read(block) if table.num_rows)

    def _csv(self, text: CountedSource) -> Iterator[pa.Table]:
        blocks = csv_blocks(text, BLOCK_BYTES)
        first = next(blocks, b"")
        reader = csvfiles.CsvReader(self._name, self._contract, self._ignore_unknown, self._report)
        body = reader.header(first)

        def tables() -> Iterator[pa.Table]:
            for block in [body]:
                yield reader.read(block)
            for block in blocks:
                yield reader.read(block)

        return (table for table in tables() if table.num_rows)

    def _parquet(self) -> Iterator[pa.Table]:
        try:
            file = pq.ParquetFile(self._source.raw, coerce_int96_timestamp_unit="us")
            check_pages(self._name, self._source.raw, file.metadata)
            how = how_to_read(file)
            file = pq.ParquetFile(
                self._source.raw, metadata=file.metadata, coerce_int96_timestamp_unit="us", read_dictionary=how.coded
            )
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{self._name}: no Parquet file: {one_line(error)}") from error
        self.total_rows = file.metadata.num_rows
        columns = csvfiles.known_columns(self._name, file.schema_arrow.names, self._contract, self._ignore_unknown)
        return self._parquet_tables(file, columns, how)

    def _parquet_tables(self, file: Any, columns: list[str], how: HowToRead) -> Iterator[pa.Table]:
        row = 1  # the next row's number
        for table in (one for batch in file.iter_batches(how.rows, columns=columns) for one in plain_tables(batch)):
            try:
                found = conform(self._contract, table)
            except InvalidEvent as error:
                raise UsageError(f"{self._name}: {error}") from error
            for one in found.invalid:
                self._report(row + one.index, one.reason, b"")
            row += table.num_rows
            if found.table.num_rows:
                yield found.table
        if row - 1 != self.total_rows:
            raise HeadwaterError(f"{self._name}: {self.total_rows} rows are said to be in it, and {row - 1} were read")

    def _report(self, row: int, reason: str, raw: bytes) -> None:
        """Hand an invalid row to `on_invalid`; without one raise InvalidEvent."""
        if self._on_invalid is None:
            raise InvalidEvent(f"{self._name}: row {row}: {reason}")
        self._on_invalid(row, reason, raw)


def read_events(
    path: str | Path,
    contract: Contract,
    *,
    ignore_unknown: bool = False,
    on_invalid: OnInvalid | None = None,
    stdin: IO[bytes] | None = None,
) -> EventFile:
    """Return the events of a file, or of stdin for `-`, as an iterator over tables that conform to the contract.

    The format goes by the name's ending (also before .gz, .zst, .bz2 or .lz4), else by the first bytes. A row that
    breaks the contract is handed to `on_invalid` and left out; without `on_invalid` it raises InvalidEvent. In NDJSON,
    unknown fields are looked for in the first event; a later event that has some is an invalid row.

    Raises UsageError at once when there is no such file, a column is unknown (unless `ignore_unknown`), or a required
    column is missing.
    """
    return EventFile(path, contract, ignore_unknown, on_invalid, stdin if stdin is not None else sys.stdin.buffer)
