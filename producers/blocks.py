"""A stream of bytes cut into blocks of whole lines."""

from collections.abc import Iterator
from typing import Any

from headwater.errors import HeadwaterError

__all__ = ["BLOCK_BYTES", "Counted", "lines_blocks"]

BLOCK_BYTES = 4 << 20
_LONGEST_LINE = 64 << 20
"""Far above any record; a file without line breaks must not fill the memory."""


class Counted:
    """A readable that counts what was taken out of it and lets one look ahead."""

    def __init__(self, raw: Any, keep_open: bool = False) -> None:
        self.raw = raw
        self._keep_open = keep_open
        self._ahead = b""
        self.count = 0

    def peek(self, size: int) -> bytes:
        """The next bytes, left where they are; fewer only at the end. A seekable source is not moved."""
        if not self._ahead:
            if _seekable(self.raw):
                at = self.raw.tell()
                head = _exactly(self.raw, size)
                self.raw.seek(at)
                return head
            self._ahead = _exactly(self.raw, size)
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, empty at the end only."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            data = bytes(self.raw.read(size))
        self.count += len(data)
        return data

    def close(self) -> None:
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


def lines_blocks(source: Counted, size: int, quotes: bool = False) -> Iterator[bytes]:
    """All bytes in order, in blocks of about `size` that end with a line (the last one perhaps without a break).

    With `quotes` a line break between double quotes ends no line, as in CSV.
    """
    rest = b""
    while data := source.read(size):
        rest += data
        cut = _cut(rest, quotes)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > _LONGEST_LINE:
            raise HeadwaterError(f"a line of more than {_LONGEST_LINE >> 20} MiB")
    if rest:
        yield rest


def _cut(data: bytes, quotes: bool) -> int:
    """Behind the last line break that ends a line, 0 when there is none."""
    end = data.rfind(b"\n") + 1
    if not quotes:
        return end
    inside = data.count(b'"', 0, end) % 2
    while end and inside:
        before = data.rfind(b"\n", 0, end - 1) + 1
        inside = (inside + data.count(b'"', before, end)) % 2
        end = before
    return end
