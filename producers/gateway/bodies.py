"""Turn request bodies into rows of a contract: decompress within limits, parse within limits. Pure.

Whatever the bytes, `parse_body` returns rows or raises Problem, in a time that the limits bound.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import islice

import pyarrow as pa

from headwater.arrays import Ints
from headwater.codec import Decoded, InvalidRow, OtherContract, decode_record
from headwater.codec.bounds import MAX_CONTAINERS, check_containers, container_count, has_many
from headwater.codec.decoded import kept_rows
from headwater.codec.inflate import gunzip, unzstd
from headwater.codec.jsonrows import decode_payloads, decode_text, read_object
from headwater.codec.jsonvalues import array_values
from headwater.codec.rows import one_line
from headwater.contract import Contract
from headwater.errors import HeadwaterError, InvalidRecord, UsageError
from headwater.producers.files.blocks import BLOCK_BYTES, CountedSource, csv_blocks
from headwater.producers.files.csv import CsvReader
from headwater.web.problems import Problem

__all__ = [
    "EXPANSION",
    "FORMATS",
    "BodyLimits",
    "ParsedBody",
    "event_bytes",
    "field_of",
    "format_of",
    "inflate",
    "parse_body",
    "parse_bytes",
]

FORMATS = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
}
PARSE_FACTORS = {"json": 7, "ndjson": 6, "csv": 6, "arrow": 6}
"""Bytes of memory at the peak of parsing for each byte of a body, measured on bodies of 30 to 40 MB.

Too low a factor lets memory grow beyond `max_inflight_bytes`; too high a one only lets fewer bodies in together.
"""
EXPANSION = 4
"""Bytes of memory for each byte of the texts that an export's rows have once they are in a table."""
_ROW_BYTES, _LISTED_BYTES = 1_000, 32
_CONTAINER_BYTES = 200
"""Bytes of memory for each object and list in JSON beyond what `PARSE_FACTORS` says: `{},` has three bytes of text."""
_ENCODINGS = ("gzip", "zstd", "identity")
_ARROW_FILE = b"ARROW1"
_BETWEEN = re.compile(rb"\},\s?\{")
_FIELD = re.compile(r"field ([A-Za-z]\w*|\"[^\"]*\")")


@dataclass(frozen=True)
class BodyLimits:
    """Hold how many rows one body may have, in text formats and as Arrow."""

    rows: int = 100_000
    arrow_rows: int = 2_000_000


@dataclass(frozen=True)
class ParsedBody:
    """Hold the valid events of a body, the place of each among all its events (from 0), and the invalid ones."""

    table: pa.Table
    places: Ints
    invalid: tuple[InvalidRow, ...]
    total: int
    origin: str | None = None
    first_seq: int = 0
    """Origin and first sequence number in the metadata of an Arrow stream that the client sealed."""


def format_of(content_type: str) -> str:
    """Return the format that a Content-Type names; Problem 415 for any other.

    >>> format_of("text/csv; charset=utf-8")
    'csv'
    """
    media, _, parameters = content_type.partition(";")
    found = FORMATS.get(media.strip().lower())
    if found is None:
        known = ", ".join(FORMATS)
        raise Problem(
            415, "unsupported-media-type", f"Content-Type {_shown(content_type)} is none of {known}", {"Accept": known}
        )
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters)
    if charset and found != "arrow" and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Problem(415, "unsupported-media-type", f"charset {_shown(charset[1])} is not utf-8")
    return found


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body without its Content-Encoding; Problem 413 when it comes to more than `limit` bytes."""
    encoding = encoding.strip().lower() or "identity"
    encoding = "gzip" if encoding == "x-gzip" else encoding  # its old name (RFC 9110, 8.4.1.3)
    if encoding not in _ENCODINGS:
        accepted = {"Accept-Encoding": ", ".join(_ENCODINGS)}
        raise Problem(415, "unsupported-media-type", f"Content-Encoding {_shown(encoding)} is not supported", accepted)
    try:
        if encoding == "gzip":
            body = gunzip(body, limit)
        elif encoding == "zstd":
            body = unzstd(body, limit)
    except InvalidRecord as error:
        if "when decompressed" in str(error):
            raise Problem(413, "too-large", f"the body comes to {error}") from None
        raise Problem(400, "malformed-body", f"the body is {error}") from None
    if len(body) > limit:
        raise Problem(413, "too-large", f"the body comes to more than {limit} bytes when decompressed")
    return body


def parse_bytes(body: bytes, factor: int, rows: int) -> int:
    """Return the bytes of memory that parsing a decompressed body takes at its peak, at `factor` for each byte.

    `rows` is how many there may be: each takes as much as a thousand bytes, however short it is.

    >>> parse_bytes(b'[{},{}]', 10, 2)
    2702
    """
    values = _LISTED_BYTES * body.count(b",") + _CONTAINER_BYTES * min(container_count(body), MAX_CONTAINERS)
    return factor * len(body) + values + _ROW_BYTES * rows


def event_bytes(body: bytes, kind: str, most_rows: int) -> int:
    """Return what `parse_bytes` does for the events of a format."""
    rows = 0 if kind == "arrow" else min(most_rows, 1 + max(body.count(b"\n"), body.count(b"{")))
    return parse_bytes(body, PARSE_FACTORS[kind], rows)


def parse_body(body: bytes, kind: str, contract: Contract, limits: BodyLimits) -> ParsedBody:
    """Parse all events of a decompressed body; Problem 400, 413 or 422 when it cannot be read."""
    if kind != "arrow" and len(body) > 2 and body.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Problem(415, "unsupported-media-type", "the body is UTF-16: send UTF-8")
    parsed = _READERS[kind](body, contract, limits)
    if parsed.total > (limits.arrow_rows if kind == "arrow" else limits.rows):
        raise _too_many(limits.arrow_rows if kind == "arrow" else limits.rows)
    return parsed


def field_of(reason: str) -> str | None:
    """Return the field that a reason begins with, if it names one.

    >>> field_of("field ts is missing")
    'ts'
    """
    found = _FIELD.match(reason)
    return found[1].strip('"') if found else None


def _read_json(body: bytes, contract: Contract, limits: BodyLimits) -> ParsedBody:
    text = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not text.startswith((b"{", b"[")):
        raise Problem(400, "malformed-body", "the body is neither a JSON object nor a JSON array")
    if text.startswith(b"{"):
        if not has_many(text):  # what has is refused with its reason, unread
            _load_json(text)
        return _to_body(_guarded(lambda: decode_payloads([text.replace(b"\n", b" ")], contract)))
    _check_size(text)
    found = _array_of_lines(text, contract, limits)
    if found is not None:
        return _to_body(found)
    _check_array(text, limits.rows)
    return _to_body(_guarded(lambda: decode_text(text, contract)))


def _array_of_lines(text: bytes, contract: Contract, limits: BodyLimits) -> Decoded | None:
    """Return the events of an array by a quick guess, None where it may have been wrong.

    It cannot have been when every line came out as an object.
    """
    lines = _BETWEEN.sub(b"}\n{", text[1:-1].strip()).split(b"\n")
    if not text.endswith(b"]") or len(lines) > limits.rows or not lines[0].startswith(b"{"):
        return None
    found = _guarded(lambda: decode_payloads(lines, contract))
    return None if any(isinstance(read_object(row.event), str) for row in found.invalid) else found


def _check_size(text: bytes) -> None:
    try:
        check_containers(text)
    except InvalidRecord as error:
        raise Problem(413, "too-large", f"the body is {error}; send it in parts") from None


def _load_json(text: bytes) -> None:
    with _malformed():
        json.loads(text.decode())


def _check_array(text: bytes, most: int) -> None:
    """Raise Problem unless it is an array of so many values at most, without holding them."""
    with _malformed():
        try:
            found = sum(1 for _ in islice(array_values(text, most + 2), most + 1))
        except InvalidRecord as error:
            raise Problem(413, "too-large", f"the body has {error}; send it in parts") from None
    if found > most:
        raise _too_many(most)


@contextmanager
def _malformed() -> Iterator[None]:
    """Say where a text is no JSON."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise Problem(400, "malformed-body", f"not UTF-8 text at byte {error.start}") from None
    except RecursionError:
        raise Problem(400, "malformed-body", "not JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Problem(
            400, "malformed-body", f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except ValueError as error:  # a number of more than 4,300 digits
        raise Problem(400, "malformed-body", f"not JSON: {one_line(error)}") from None


def _read_lines(body: bytes, contract: Contract, limits: BodyLimits) -> ParsedBody:
    text = body.removeprefix(b"\xef\xbb\xbf")
    if text.count(b"\n") > 2 * limits.rows:
        raise _too_many(limits.rows)
    lines = [line for line in map(bytes.strip, text.split(b"\n")) if line]
    if len(lines) > limits.rows:
        raise _too_many(limits.rows)
    if not lines:
        raise Problem(400, "malformed-body", "the body has no lines")
    return _to_body(_guarded(lambda: decode_payloads(lines, contract)))


def _read_csv(body: bytes, contract: Contract, limits: BodyLimits) -> ParsedBody:
    if body.count(b"\n") > 2 * limits.rows:
        raise _too_many(limits.rows)
    invalid: list[InvalidRow] = []

    def report(number: int, reason: str, raw: bytes) -> None:
        invalid.append(InvalidRow(number - 1, reason, raw))

    reader = CsvReader("the body", contract, False, report)
    try:
        rows = reader.header(body)
        # in blocks, which bound the memory of what is read row by row
        blocks = csv_blocks(CountedSource(BytesIO(rows)), BLOCK_BYTES) if len(rows) > BLOCK_BYTES else [rows]
        table = pa.concat_tables([reader.read(block) for block in blocks])
    except UsageError as error:
        raise Problem(422, "invalid-events", f"nothing was accepted: {error}", accepted=0) from None
    except (pa.ArrowException, ValueError, HeadwaterError) as error:
        raise Problem(400, "malformed-body", f"not CSV: {_shown(str(error))}") from None
    total = table.num_rows + len(invalid)
    invalid.sort(key=lambda row: row.index)
    return ParsedBody(table, kept_rows(total, invalid), tuple(invalid), total)


def _read_arrow(body: bytes, contract: Contract, _: BodyLimits) -> ParsedBody:
    if body.startswith(_ARROW_FILE):
        raise Problem(400, "malformed-body", "an Arrow file: send the stream format (IPC stream) in place")
    if not body.startswith(b"\xff\xff\xff\xff"):
        raise Problem(400, "malformed-body", "not an Arrow IPC stream")
    return _to_body(_guarded(lambda: _decoded(body, contract)))


def _decoded(body: bytes, contract: Contract) -> Decoded:
    found = decode_record(body, contract)
    if isinstance(found, OtherContract):
        raise InvalidRecord(f"a batch of contract {found.name}, not of {contract.name}")
    assert isinstance(found, Decoded)
    return found


def _guarded(read: Callable[[], Decoded]) -> Decoded:
    try:
        return read()
    except InvalidRecord as error:
        raise Problem(422, "invalid-events", f"nothing was accepted: {error}", accepted=0) from None


def _to_body(found: Decoded) -> ParsedBody:
    return ParsedBody(found.table, found.rows, found.invalid, found.total, found.origin, found.first_seq)


def _too_many(most: int) -> Problem:
    return Problem(413, "too-large", f"the body has more than {most} rows; send it in parts")


def _shown(text: str) -> str:
    return text[:100].encode("ascii", "backslashreplace").decode()


_READERS: dict[str, Callable[[bytes, Contract, BodyLimits], ParsedBody]] = {
    "json": _read_json,
    "ndjson": _read_lines,
    "csv": _read_csv,
    "arrow": _read_arrow,
}
