"""Decompression with a bound, so that a small record cannot fill the memory."""

import zlib

import zstandard

from headwater.errors import InvalidRecord

__all__ = ["MAX_BYTES", "gunzip", "is_gzip", "is_zstd", "unzstd"]

MAX_BYTES = 64 << 20
"""What a record may come to when decompressed: six times Kinesis' largest record (10 MiB), far above real batches."""

_INPUT_STEP = 1 << 10
_MAX_MEMBERS = 1_000


def is_zstd(data: bytes) -> bool:
    """Whether the bytes begin as a zstd frame."""
    return data.startswith(b"\x28\xb5\x2f\xfd")


def is_gzip(data: bytes) -> bool:
    """Whether the bytes begin as a gzip member."""
    return data.startswith(b"\x1f\x8b")


def unzstd(data: bytes) -> bytes:
    """The content of one zstd frame."""
    # A new decompressor each time (10 µs): one may not be used by two threads.
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_BYTES)
    try:
        size = zstandard.frame_content_size(data)
        if size > MAX_BYTES:
            raise _too_large()
        if size >= 0:
            content: bytes = decompressor.decompress(data, max_output_size=max(size, 1), allow_extra_data=False)
            return content
        return _unzstd_unsized(decompressor, data)
    except zstandard.ZstdError as error:
        raise InvalidRecord(f"a zstd frame that cannot be read: {error}") from error


def _unzstd_unsized(decompressor: zstandard.ZstdDecompressor, data: bytes) -> bytes:
    pieces: list[bytes] = []
    total = at = 0
    stream = decompressor.decompressobj()
    # 1 KiB of input comes to at most 32 MiB: the smallest block has 4 bytes and 128 KiB of content.
    while at < len(data) and not stream.eof:
        piece = stream.decompress(data[at : at + _INPUT_STEP])
        at += _INPUT_STEP
        total += len(piece)
        if total > MAX_BYTES:
            raise _too_large()
        pieces.append(piece)
    if not stream.eof:
        raise InvalidRecord("a zstd frame that ends too early")
    if stream.unused_data or at < len(data):
        raise InvalidRecord("a zstd frame with something behind it")
    return b"".join(pieces)


def gunzip(data: bytes) -> bytes:
    """The content of one or several gzip members."""
    pieces: list[bytes] = []
    total = 0
    while data:
        if len(pieces) == _MAX_MEMBERS:
            raise InvalidRecord(f"more than {_MAX_MEMBERS} gzip members")
        member = zlib.decompressobj(wbits=31)
        try:
            piece = member.decompress(data, MAX_BYTES + 1 - total)
        except zlib.error as error:
            raise InvalidRecord(f"a gzip member that cannot be read: {error}") from error
        total += len(piece)
        if total > MAX_BYTES:
            raise _too_large()
        if not member.eof:
            raise InvalidRecord("a gzip member that ends too early")
        pieces.append(piece)
        data = member.unused_data
    return b"".join(pieces)


def _too_large() -> InvalidRecord:
    return InvalidRecord(f"more than {MAX_BYTES >> 20} MiB when decompressed")
