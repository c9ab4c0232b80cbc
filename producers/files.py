"""Events from files: NDJSON, CSV and Parquet, in bounded memory, as tables of the contract.

Text is read in blocks of whole lines, and each block in one pass; only a block with a fault in it is read again row by
row, so that the faulty rows can be named and the others kept.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headwater.contract import Contract, conform
from headwater.errors import HeadwaterError, InvalidEvent, UsageError
from producers import csvrows, jsonlines
from producers.blocks import BLOCK_BYTES, Counted, lines_blocks

__all__ = ["EventFile", "OnInvalid", "read_events"]

OnInvalid = Callable[[int, str, bytes], object]
"""Row number, reason, and the row as it stands in the file (empty for Parquet). The number counts from 1: lines in
NDJSON, rows below the header in CSV, rows in Parquet."""
_ROWS = 65_536
_KINDS = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".csv": "csv", ".parquet": "parquet"}
_KINDS |= {".pq": "parquet"}
_PACKED = (".gz", ".zst", ".bz2", ".lz4")


class EventFile:
    """An iterator over tables of the contract. Iterate once; it closes its file at the end or with `close`."""

    def __init__(
        self, path: str | Path, contract: Contract, ignore_unknown: bool, on_invalid: OnInvalid | None, stdin: IO[bytes]
    ) -> None:
        self._name = str(path)
        self._contract = contract
        self._ignore_unknown = ignore_unknown
        self._on_invalid = on_invalid
        self.total_rows: int | None = None
        """Known for Parquet only."""
        self.total_bytes: int | None = None
        """Of the file; None for stdin."""
        self._source = self._opened(stdin)
        try:
            self._tables = self._begin()
        except (OSError, EOFError, pa.ArrowException) as error:
            self._source.close()
            raise UsageError(f"{self._name}: cannot be read: {_line(error)}") from error
        except BaseException:
            self._source.close()
            raise

    @property
    def bytes_read(self) -> int:
        """How far the file has been read, of `total_bytes`."""
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
            raise HeadwaterError(f"{self._name}: cannot be read to its end: {_line(error)}") from error

    def close(self) -> None:
        self._source.close()

    def _opened(self, stdin: IO[bytes]) -> Counted:
        if self._name == "-":
            return Counted(stdin, keep_open=True)
        path = Path(self._name)
        try:
            if path.is_dir():
                raise UsageError(f"{path}: is a directory, not a file")
            source = path.open("rb")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error
        self.total_bytes = path.stat().st_size
        return Counted(source)

    def _begin(self) -> Iterator[pa.Table]:
        """Find out what it is, and check what can be checked before the first row."""
        path = Path(self._name)
        packed = path.suffix.lower() in _PACKED
        kind = _KINDS.get(Path(path.stem if packed else path).suffix.lower()) if self._name != "-" else None
        head = self._source.peek(16)
        if not packed and (kind == "parquet" or head.startswith(b"PAR1")):
            if self._name == "-":
                raise UsageError("-: Parquet cannot be read from stdin; give the file's name")
            return self._parquet()
        text: Any = self._source
        if packed:
            text = Counted(pa.CompressedInputStream(self._source.raw, _codec(path.suffix.lower())))
        first = text.peek(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if first == b"[" and kind != "csv":
            raise UsageError(f"{self._name}: a JSON array; write one event a line")
        if kind == "ndjson" or (kind is None and first in (b"{", b"")):
            return self._json(text)
        return self._csv(text)

    def _json(self, text: Counted) -> Iterator[pa.Table]:
        reader = jsonlines.Reader(self._name, self._contract, self._ignore_unknown, self._report)
        return (table for block in lines_blocks(text, BLOCK_BYTES) for table in reader.read(block) if table.num_rows)

    def _csv(self, text: Counted) -> Iterator[pa.Table]:
        blocks = lines_blocks(text, BLOCK_BYTES, quotes=True)
        first = next(blocks, b"")
        reader = csvrows.Reader(self._name, self._contract, self._ignore_unknown, self._report)
        body = reader.header(first)

        def tables() -> Iterator[pa.Table]:
            for block in [body]:
                yield reader.read(block)
            for block in blocks:
                yield reader.read(block)

        return (table for table in tables() if table.num_rows)

    def _parquet(self) -> Iterator[pa.Table]:
        try:
            file = pq.ParquetFile(self._source.raw)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{self._name}: no Parquet file: {_line(error)}") from error
        self.total_rows = file.metadata.num_rows
        columns = csvrows.known_columns(self._name, file.schema_arrow.names, self._contract, self._ignore_unknown)
        return self._parquet_tables(file, columns)

    def _parquet_tables(self, file: Any, columns: list[str]) -> Iterator[pa.Table]:
        row = 1
        for batch in file.iter_batches(_ROWS, columns=columns):
            table = pa.Table.from_batches([batch])
            try:
                found = conform(self._contract, table)
            except InvalidEvent as error:
                raise UsageError(f"{self._name}: {error}") from error
            for one in found.invalid:
                self._report(row + one.index, one.reason, b"")
            row += table.num_rows
            if found.table.num_rows:
                yield found.table

    def _report(self, row: int, reason: str, raw: bytes) -> None:
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
    """The events of a file, or of stdin for `-`, as tables that conform to the contract.

    What it is goes by the name's ending (also behind .gz, .zst, .bz2, .lz4), else by its first bytes. UsageError, at
    once: no such file, an unknown column (unless `ignore_unknown`), a required column missing. A row that breaks the
    contract is handed to `on_invalid` and left out; without one it raises InvalidEvent. In NDJSON, unknown fields are
    looked for in the first event; a later event that has some is an invalid row.
    """
    return EventFile(path, contract, ignore_unknown, on_invalid, stdin if stdin is not None else sys.stdin.buffer)


def _codec(suffix: str) -> str:
    return {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}[suffix]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
