"""Decompress within a bound, so that a small record cannot fill the memory. What the content is belongs elsewhere."""

import zlib

import zstandard

from headwater.errors import InvalidRecord

__all__ = [
    "MAX_BYTES",
    "InflateBudget",
    "decompressed",
    "gunzip",
    "is_compressed",
    "is_gzip",
    "is_zlib",
    "is_zstd",
    "unzstd",
]

MAX_BYTES = 64 << 20
"""Maximum size of a record when decompressed: six times Kinesis' largest record (10 MiB), far above real batches."""

_MAX_BROKEN = 1 << 20
"""Bytes of an aggregate in broken compressed user records that are tried: they inflate to 1 GiB at most."""
_INPUT_STEP = 1 << 10
_MAX_MEMBERS = 1_000


def is_zstd(data: bytes) -> bool:
    """Tell whether the bytes begin as a zstd frame."""
    return data.startswith(b"\x28\xb5\x2f\xfd")


def is_gzip(data: bytes) -> bool:
    """Tell whether the bytes begin as a gzip member."""
    return data.startswith(b"\x1f\x8b")


def is_zlib(data: bytes) -> bool:
    """Tell whether the bytes begin as a zlib stream of the usual window, without a dictionary (RFC 1950)."""
    return data[:1] == b"\x78" and len(data) > 1 and not (0x7800 | data[1]) % 31 and not data[1] & 0x20


def is_compressed(data: bytes) -> bool:
    """Tell whether the bytes begin as what `decompressed` reads."""
    return is_gzip(data) or is_zstd(data) or is_zlib(data)


def decompressed(data: bytes, limit: int = MAX_BYTES) -> bytes:
    """Return the content of gzip, zlib or zstd by its first bytes, and other bytes as they are.

    Several members, streams or frames end to end count as one. Raise InvalidRecord for what cannot be read whole, and
    for more than `limit` bytes.
    """
    if is_zstd(data):
        return unzstd(data, limit)
    if is_gzip(data):
        return gunzip(data, limit)
    return _inflated(data, limit, zlib.MAX_WBITS, "zlib stream") if is_zlib(data) else data


class InflateBudget:
    """Bound what decompression makes of all user records of one aggregate together, and the work for broken ones."""

    def __init__(self) -> None:
        self._left = MAX_BYTES
        self._broken = 0

    def decompressed(self, data: bytes) -> bytes:
        """Return the content; InvalidRecord when it cannot be read or there are too many bytes."""
        if self._broken > _MAX_BROKEN:
            raise InvalidRecord("too many compressed user records of one aggregate are broken")
        try:
            content = decompressed(data, self._left)
        except InvalidRecord:
            self._broken += len(data)  # how far it came is unknown
            raise
        self._left -= len(content)
        return content

    def tried(self, data: bytes) -> bytes:
        """Return the content, or the bytes as they are: those of a binary format may begin like compressed ones."""
        try:
            return self.decompressed(data)
        except InvalidRecord as error:
            if "when decompressed" in str(error):
                raise
            return data


def unzstd(data: bytes, limit: int = MAX_BYTES) -> bytes:
    """Return the content of one or several zstd frames."""
    # A new decompressor each time (10 µs): one may not be used by two threads.
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_BYTES)
    try:
        size = zstandard.frame_content_size(data)
        if size > limit:
            raise _too_large(limit)
        if size > 0:  # a first frame without content would be taken for all of it, whatever is behind it
            try:
                content: bytes = decompressor.decompress(data, max_output_size=size, allow_extra_data=False)
            except zstandard.ZstdError:
                pass  # broken, or several frames: the loop tells
            else:
                return content
        return _unzstd_frames(decompressor, data, limit)
    except zstandard.ZstdError as error:
        raise InvalidRecord(f"a zstd frame that cannot be read: {error}") from error


def _unzstd_frames(decompressor: zstandard.ZstdDecompressor, data: bytes, limit: int) -> bytes:
    pieces: list[bytes] = []
    total = frames = 0
    while data:
        frames += 1
        if frames > _MAX_MEMBERS:
            raise InvalidRecord(f"more than {_MAX_MEMBERS} zstd frames")
        stream, at = decompressor.decompressobj(), 0
        # 1 KiB of input comes to at most 32 MiB: the smallest block has 4 bytes and 128 KiB of content.
        while at < len(data) and not stream.eof:
            piece = stream.decompress(data[at : at + _INPUT_STEP])
            at += _INPUT_STEP
            total += len(piece)
            if total > limit:
                raise _too_large(limit)
            pieces.append(piece)
        if not stream.eof:
            raise InvalidRecord("a zstd frame that ends too early")
        data = stream.unused_data + data[at:]
        if data and not is_zstd(data):
            raise InvalidRecord("a zstd frame with something behind it")
    return b"".join(pieces)


def gunzip(data: bytes, limit: int = MAX_BYTES) -> bytes:
    """Return the content of one or several gzip members; zeros behind the last are padding (RFC 1952 files on tape)."""
    return _inflated(data, limit, 16 + zlib.MAX_WBITS, "gzip member")


def _inflated(data: bytes, limit: int, wbits: int, what: str) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while data:
        if len(pieces) == _MAX_MEMBERS:
            raise InvalidRecord(f"more than {_MAX_MEMBERS} {what}s")
        member = zlib.decompressobj(wbits=wbits)
        try:
            piece = member.decompress(data, limit + 1 - total)
        except zlib.error as error:
            raise InvalidRecord(f"a {what} that cannot be read: {error}") from error
        total += len(piece)
        if total > limit:
            raise _too_large(limit)
        if not member.eof:
            raise InvalidRecord(f"a {what} that ends too early")
        pieces.append(piece)
        data = member.unused_data
        if not any(data[:1]) and not data.strip(b"\0"):
            break
    return b"".join(pieces)


def _too_large(limit: int) -> InvalidRecord:
    size = f"{limit >> 20} MiB" if limit == MAX_BYTES else f"{limit} bytes"
    return InvalidRecord(f"more than {size} when decompressed")
