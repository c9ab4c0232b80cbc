"""Request bodies: taken in with bounds, decompressed with bounds, read into a table of the contract.

Whatever the bytes, `read_events` gives rows or raises Problem, in a time that the bounds limit.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.codec import Decoded, InvalidRow, OtherContract, decode_record
from headwater.codec.decoded import Ints, kept_rows
from headwater.codec.inflate import gunzip, unzstd
from headwater.codec.jsonrows import decode_payloads, decode_text
from headwater.contract import Contract
from headwater.errors import InvalidRecord, UsageError
from headwater.web.problems import Problem
from producers.csvrows import Reader

__all__ = ["FORMATS", "Bounds", "Rows", "field_of", "format_of", "inflate", "read_events"]

FORMATS = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
}
_ENCODINGS = ("gzip", "zstd", "identity")
_ARROW_FILE = b"ARROW1"
_BETWEEN = re.compile(rb"\},\s?\{")
_LINES_IN_QUOTES = 1_000
_FIELD = re.compile(r"field ([A-Za-z]\w*|\"[^\"]*\")")


@dataclass(frozen=True)
class Bounds:
    """What one body may come to."""

    decoded_bytes: int = 48 << 20
    rows: int = 100_000
    arrow_rows: int = 2_000_000


@dataclass(frozen=True)
class Rows:
    """The valid events, the place of each among the body's events, and the others. Places count from 0."""

    table: pa.Table
    places: Ints
    invalid: tuple[InvalidRow, ...]
    total: int
    origin: str | None = None
    first_seq: int = 0
    """From the metadata of an Arrow stream that was sealed by the client."""


def format_of(content_type: str) -> str:
    """The format that a Content-Type names; Problem 415 for any other."""
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


def inflate(body: bytes, encoding: str, most: int) -> bytes:
    """The body without its Content-Encoding; Problem 413 when it comes to more than `most` bytes."""
    encoding = encoding.strip().lower() or "identity"
    if encoding not in _ENCODINGS:
        accepted = {"Accept-Encoding": ", ".join(_ENCODINGS)}
        raise Problem(415, "unsupported-media-type", f"Content-Encoding {_shown(encoding)} is not supported", accepted)
    try:
        if encoding == "gzip":
            body = gunzip(body)
        elif encoding == "zstd":
            body = unzstd(body)
    except InvalidRecord as error:
        if "when decompressed" in str(error):
            raise Problem(413, "too-large", f"the body comes to {error}") from None
        raise Problem(400, "malformed-body", f"the body is {error}") from None
    if len(body) > most:
        raise Problem(413, "too-large", f"the body comes to more than {most} bytes when decompressed")
    return body


def read_events(body: bytes, kind: str, contract: Contract, bounds: Bounds) -> Rows:
    """All events of a decompressed body."""
    rows = _READERS[kind](body, contract, bounds)
    if rows.total > (bounds.arrow_rows if kind == "arrow" else bounds.rows):
        raise _too_many(bounds.arrow_rows if kind == "arrow" else bounds.rows)
    return rows


def field_of(reason: str) -> str | None:
    """The field that a reason names, if it does."""
    found = _FIELD.match(reason)
    return found[1].strip('"') if found else None


def _read_json(body: bytes, contract: Contract, bounds: Bounds) -> Rows:
    text = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not text.startswith((b"{", b"[")):
        raise Problem(400, "malformed-body", "the body is neither a JSON object nor a JSON array")
    if text.startswith(b"{"):
        _parsed(text)
        return _rows(_guarded(lambda: decode_payloads([text.replace(b"\n", b" ")], contract)))
    lines = _BETWEEN.sub(b"}\n{", text[1:-1].strip()).split(b"\n")
    if text.endswith(b"]") and len(lines) <= bounds.rows and lines[0].startswith(b"{"):
        # a quick guess, taken only when every line came out as a valid event: then it cannot have been wrong
        found = _guarded(lambda: decode_payloads(lines, contract))
        if not found.invalid:
            return _rows(found)
    events = _parsed(text)
    if len(events) > bounds.rows:
        raise _too_many(bounds.rows)
    return _rows(_guarded(lambda: decode_text(text, contract)))


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise Problem(400, "malformed-body", f"not UTF-8 text at byte {error.start}") from None
    except RecursionError:
        raise Problem(400, "malformed-body", "not JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Problem(
            400, "malformed-body", f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except ValueError as error:  # a number of more than 4,300 digits
        raise Problem(400, "malformed-body", f"not JSON: {error}") from None


def _read_lines(body: bytes, contract: Contract, bounds: Bounds) -> Rows:
    text = body.removeprefix(b"\xef\xbb\xbf")
    if text.count(b"\n") > 2 * bounds.rows:
        raise _too_many(bounds.rows)
    lines = [line for line in map(bytes.strip, text.split(b"\n")) if line]
    if len(lines) > bounds.rows:
        raise _too_many(bounds.rows)
    if not lines:
        raise Problem(400, "malformed-body", "the body has no lines")
    return _rows(_guarded(lambda: decode_payloads(lines, contract)))


def _read_csv(body: bytes, contract: Contract, bounds: Bounds) -> Rows:
    if body.count(b"\n") > 2 * bounds.rows:
        raise _too_many(bounds.rows)
    _check_quotes(body)
    invalid: list[InvalidRow] = []

    def report(number: int, reason: str, raw: bytes) -> None:
        invalid.append(InvalidRow(number - 1, reason, raw))

    reader = Reader("the body", contract, False, report)
    try:
        table = reader.read(reader.header(body))
    except UsageError as error:
        raise Problem(422, "invalid-events", f"nothing was accepted: {error}", accepted=0) from None
    except (pa.ArrowException, ValueError) as error:
        raise Problem(400, "malformed-body", f"not CSV: {_shown(str(error))}") from None
    total = table.num_rows + len(invalid)
    invalid.sort(key=lambda row: row.index)
    return Rows(table, kept_rows(total, invalid), tuple(invalid), total)


def _check_quotes(body: bytes) -> None:
    """A quoted value over very many lines would take the reader long, and is a quote that was never closed."""
    if b'"' not in body:
        return
    data = np.frombuffer(body, np.uint8)
    quotes = np.flatnonzero(data == ord('"'))
    lines = np.append(np.searchsorted(np.flatnonzero(data == ord("\n")), quotes), body.count(b"\n"))
    inside = lines[1::2] - lines[: len(lines[1::2]) * 2 : 2]
    if len(inside) and int(inside.max()) > _LINES_IN_QUOTES:
        raise Problem(400, "malformed-body", f"not CSV: a quoted value of more than {_LINES_IN_QUOTES} lines")


def _read_arrow(body: bytes, contract: Contract, _: Bounds) -> Rows:
    if body.startswith(_ARROW_FILE):
        raise Problem(400, "malformed-body", "an Arrow file: send the stream format (IPC stream) in place")
    if not body.startswith(b"\xff\xff\xff\xff"):
        raise Problem(400, "malformed-body", "not an Arrow IPC stream")
    return _rows(_guarded(lambda: _decoded(body, contract)))


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


def _rows(found: Decoded) -> Rows:
    return Rows(found.table, found.rows, found.invalid, found.total, found.origin, found.first_seq)


def _too_many(most: int) -> Problem:
    return Problem(413, "too-large", f"the body has more than {most} rows; send it in parts")


def _shown(text: str) -> str:
    return text[:100].encode("ascii", "backslashreplace").decode()


_READERS: dict[str, Callable[[bytes, Contract, Bounds], Rows]] = {
    "json": _read_json,
    "ndjson": _read_lines,
    "csv": _read_csv,
    "arrow": _read_arrow,
}
