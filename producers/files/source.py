"""Open a file of events, or stdin, and tell its format by its name or its first bytes."""

from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from headwater.errors import UsageError
from headwater.producers.files.blocks import CountedSource

__all__ = ["FileSource", "one_line"]

_KINDS = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".csv": "csv", ".parquet": "parquet"}
_KINDS |= {".pq": "parquet"}
_PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}


class FileSource:
    """Hold an open file: `kind` is ndjson, csv or parquet, and `text` what to read of the first two, unpacked.

    Raises UsageError when it cannot be opened, and for what is none of these.
    """

    def __init__(self, path: str | Path, stdin: IO[bytes]) -> None:
        self.name = str(path)
        self.total_bytes: int | None = None
        """The size of the file; None for stdin."""
        self.source = self._opened(stdin)
        try:
            self.kind, self.text = self._detected()
        except (OSError, EOFError, pa.ArrowException) as error:
            self.close()
            raise UsageError(f"{self.name}: cannot be read: {one_line(error)}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; stdin stays open."""
        self.source.close()

    def _opened(self, stdin: IO[bytes]) -> CountedSource:
        if self.name == "-":
            return CountedSource(stdin, keep_open=True)
        path = Path(self.name)
        try:
            if path.is_dir():
                raise UsageError(f"{path}: is a directory, not a file")
            source = path.open("rb")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error
        self.total_bytes = path.stat().st_size
        return CountedSource(source)

    def _detected(self) -> tuple[str, CountedSource]:
        path = Path(self.name)
        packed = _PACKED.get(path.suffix.lower())
        kind = _KINDS.get(Path(path.stem if packed else path).suffix.lower()) if self.name != "-" else None
        head = self.source.peek(16)
        if not packed and (kind == "parquet" or head.startswith(b"PAR1")):
            if self.name == "-":
                raise UsageError("-: Parquet cannot be read from stdin; give the file's name")
            return "parquet", self.source
        text: Any = self.source
        if packed:
            text = CountedSource(pa.CompressedInputStream(self.source.raw, packed))
        first = text.peek(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if first == b"[" and kind != "csv":
            raise UsageError(f"{self.name}: a JSON array; write one event a line")
        return ("ndjson" if kind == "ndjson" or (kind is None and first in (b"{", b"")) else "csv"), text


def one_line(error: Exception) -> str:
    """Return an error's text on one line, not too long."""
    return " ".join(str(error).split())[:200]
