"""From the bytes of a record to its content, whoever wrote them."""

import pyarrow as pa

from headwater.codec.columnar import OtherContract, decode_batch, is_arrow
from headwater.codec.control import Control, decode_control, is_control
from headwater.codec.decoded import Decoded
from headwater.codec.inflate import gunzip, is_gzip, is_zstd, unzstd
from headwater.codec.jsonrows import decode_payloads, decode_text, one_line
from headwater.codec.kpl import is_kpl, user_payloads
from headwater.contract import Contract
from headwater.errors import InvalidEvent, InvalidRecord

__all__ = ["decode_record", "json_payloads"]

_BOM = b"\xef\xbb\xbf"
_BROKEN = (pa.ArrowException, ValueError, TypeError, KeyError, OSError, OverflowError, RecursionError, MemoryError)
"""What Arrow, zlib and the contract raise over broken bytes; anything else is a bug and shall be seen."""


def decode_record(data: bytes, contract: Contract) -> Decoded | Control | OtherContract:
    """What the record carries.

    Read are: columnar batches, also by other Arrow writers and uncompressed; JSON as one object, an array or lines,
    plain or under gzip or zstd; KPL aggregates of JSON objects; control records. Raises InvalidRecord, with a reason
    that names no place in the stream, for all else; the caller knows the place.
    """
    try:
        return _decode(data, contract)
    except InvalidRecord:
        raise
    except InvalidEvent as error:
        raise InvalidRecord(one_line(error)) from error
    except _BROKEN as error:
        raise InvalidRecord(f"cannot be decoded: {type(error).__name__}: {one_line(error)}") from error


def _decode(data: bytes, contract: Contract) -> Decoded | Control | OtherContract:
    if is_kpl(data):
        return decode_payloads([payload.strip() for payload in user_payloads(data)], contract)
    if is_zstd(data):
        data = unzstd(data)
    elif is_gzip(data):
        data = gunzip(data)
    if is_arrow(data):
        return decode_batch(data, contract)
    text = data.removeprefix(_BOM).strip()
    if is_control(text):
        return decode_control(text)
    if not text.startswith((b"{", b"[")):
        raise InvalidRecord("neither a batch nor JSON nor a KPL aggregate")
    return decode_text(text, contract)


def json_payloads(data: bytes) -> list[bytes] | None:
    """What `decode_payloads` is to read of a small record: the objects of a KPL aggregate, or one object on one line.

    None for all else, and for what cannot be read: `decode_record` has the word.
    """
    if is_kpl(data):
        try:
            return [payload.strip() for payload in user_payloads(data)] or None
        except InvalidRecord:
            return None
    text = data.removeprefix(_BOM).strip()
    if text.startswith(b"{") and text.endswith(b"}") and b"\n" not in text and not is_control(text):
        return [text]
    return None
