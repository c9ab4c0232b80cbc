"""Cut a stream of bytes into blocks of whole lines, or of whole rows of CSV."""

from collections.abc import Callable, Iterator
from typing import Any

from headwater.codec.csvrows import split_rows
from headwater.errors import HeadwaterError

__all__ = ["BLOCK_BYTES", "CountedSource", "csv_blocks", "lines_blocks"]

BLOCK_BYTES = 4 << 20
_LONGEST_LINE = 64 << 20
"""Far above any record; a file without line breaks must not fill the memory."""


class CountedSource:
    """Read from a source, count the bytes taken out of it, and allow to look ahead."""

    def __init__(self, raw: Any, keep_open: bool = False) -> None:
        self.raw = raw
        self._keep_open = keep_open
        self._ahead = b""
        self.count = 0

    def peek(self, size: int) -> bytes:
        """Return the next bytes without taking them; fewer than `size` only at the end.

        A seekable source is put back to where it was.
        """
        if not self._ahead:
            # a seekable source is left unmoved, because Parquet and decompression read it directly
            if _seekable(self.raw):
                at = self.raw.tell()
                head = _exactly(self.raw, size)
                self.raw.seek(at)
                return head
            self._ahead = _exactly(self.raw, size)
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, and no bytes at the end only."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            data = bytes(self.raw.read(size))
        self.count += len(data)
        return data

    def close(self) -> None:
        """Close the source, unless it is to stay open (stdin)."""
        if not self._keep_open:
            self.raw.close()


def _seekable(raw: Any) -> bool:
    try:
        return bool(raw.seekable())
    except AttributeError:
        return False


def _exactly(raw: Any, size: int) -> bytes:
    parts = []
    while size > 0 and (part := bytes(raw.read(size))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def lines_blocks(source: CountedSource, size: int) -> Iterator[bytes]:
    """Yield all bytes in order, in blocks of about `size` bytes that end with a line; the last may lack its line break.

    Raise HeadwaterError for a line of more than 64 MiB.
    """
    return _blocks(source, size, _last_line)


def csv_blocks(source: CountedSource, size: int) -> Iterator[bytes]:
    """Yield all bytes in order, in blocks of about `size` bytes that end with a row; the last may lack its line break.

    Raise HeadwaterError for a row of more than 64 MiB.
    """
    return _blocks(source, size, lambda rest: split_rows(rest, final=False)[1] if b'"' in rest else _last_line(rest))


def _last_line(rest: bytes) -> int:
    return rest.rfind(b"\n") + 1


def _blocks(source: CountedSource, size: int, whole: Callable[[bytes], int]) -> Iterator[bytes]:
    """Yield blocks; `whole` returns how many of the bytes at hand are whole lines or rows."""
    rest = b""
    while data := source.read(max(size, len(rest))):  # twice as much before a long row is looked at again
        rest += data
        cut = whole(rest)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > _LONGEST_LINE:
            raise HeadwaterError(f"a line of more than {_LONGEST_LINE >> 20} MiB")
    if rest:
        yield rest
