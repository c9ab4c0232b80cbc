"""Read a file's rows as samples, from which a contract is proposed."""

import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.codec.csvrows import miscount, split_row, split_rows
from headwater.codec.jsonrows import read_object
from headwater.contract.inference import NAME, Samples
from headwater.contract.values import shown
from headwater.errors import UsageError
from headwater.producers.files.blocks import BLOCK_BYTES, csv_blocks, lines_blocks
from headwater.producers.files.csv import MAX_COLUMNS
from headwater.producers.files.parquetpages import check_pages
from headwater.producers.files.source import FileSource, one_line

__all__ = ["MOST_ROWS", "read_samples"]

MOST_ROWS = 100_000
"""Rows that are looked at, from the first on."""
_Row = Mapping[str, Any] | str


def read_samples(path: str | Path, stdin: IO[bytes] | None = None) -> tuple[Samples, list[str]]:
    """Return the first rows of a file, or of stdin for `-`, and a line for each that no contract can have.

    Raises UsageError when the file cannot be read, or a column of CSV or Parquet has a name that no field may have.
    """
    source = FileSource(path, stdin if stdin is not None else sys.stdin.buffer)
    try:
        rows = {"parquet": _parquet, "ndjson": _json, "csv": _csv}[source.kind](source)
        samples, refused = Samples(text=source.kind == "csv"), []
        for number, row in islice(enumerate(rows, 1), MOST_ROWS):
            reason = row if isinstance(row, str) else samples.add(row)
            if reason:
                refused.append(f"row {number}: {reason}")
        return samples, refused
    except (OSError, EOFError, pa.ArrowException) as error:
        raise UsageError(f"{path}: cannot be read: {one_line(error)}") from error
    finally:
        source.close()


def _json(file: FileSource) -> Iterator[_Row]:
    first = True
    for block in lines_blocks(file.text, BLOCK_BYTES):
        for line in (block.removeprefix(b"\xef\xbb\xbf") if first else block).split(b"\n"):
            first = False
            if line.strip():
                yield read_object(line.strip())


def _csv(file: FileSource) -> Iterator[_Row]:
    columns: list[str] | None = None
    for block in csv_blocks(file.text, BLOCK_BYTES):
        text = block if columns is not None else block.removeprefix(b"\xef\xbb\xbf")
        for row in split_rows(text)[0]:
            try:
                values = split_row(row, MAX_COLUMNS if columns is None else len(columns))
            except UnicodeDecodeError:
                values = None
            if columns is None:
                columns = _checked(file, values or [])
            elif values is None:
                yield "not UTF-8 text"
            elif wrong := miscount(values, len(columns)):
                yield wrong
            else:
                yield dict(zip(columns, values, strict=True))


def _parquet(file: FileSource) -> Iterator[_Row]:
    found = pq.ParquetFile(file.source.raw, coerce_int96_timestamp_unit="us")
    check_pages(file.name, file.source.raw, found.metadata)
    _checked(file, found.schema_arrow.names)
    for batch in found.iter_batches(1_000):
        # nanoseconds would be objects of another library
        columns = [
            column.cast(pa.timestamp("us", column.type.tz), safe=False)
            if pa.types.is_timestamp(column.type)
            else column
            for column in batch.columns
        ]
        yield from pa.table(columns, names=batch.schema.names).to_pylist()


def _checked(file: FileSource, columns: list[str]) -> list[str]:
    """Return the names of columns. Raise UsageError for one that no field of a contract can have."""
    if len(columns) > MAX_COLUMNS:
        raise UsageError(f"{file.name}: more than {MAX_COLUMNS} columns")
    low = [column.lower() for column in columns]
    for column in columns:
        if not NAME.fullmatch(column):
            raise UsageError(f"{file.name}: column {shown(column)}: a field's name is letters, digits and _: rename it")
        if low.count(column.lower()) > 1:
            raise UsageError(f"{file.name}: two columns are named {shown(column)}, but for large and small letters")
    if not columns:
        raise UsageError(f"{file.name}: is empty: no header")
    return columns
