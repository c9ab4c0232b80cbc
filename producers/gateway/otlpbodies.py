"""Turn the body of an OTLP export into rows of a contract, within the gateway's limits. Pure."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
import zstandard

from headwater.arrays import Ints
from headwater.codec.bounds import TooLarge
from headwater.codec.decoded import Decoded, moved
from headwater.codec.rows import Row, Unread, decode_rows, with_arrival
from headwater.config import GatewaySettings
from headwater.contract import Contract, InvalidRow
from headwater.errors import InvalidRecord
from headwater.formats.opentelemetry import otlp_rows
from headwater.producers.gateway.bodies import EXPANSION, ParsedBody, parse_bytes
from headwater.producers.settings import ProducerSettings
from headwater.web.problems import Problem

__all__ = ["export_bytes", "parse_export"]

_MAX_BYTES = ProducerSettings().max_record_bytes - (8 << 10)
"""Maximum size of one row in a record of its own, whose schema, names and identity take less than 8 KiB."""


_PARSE_FACTOR = 8
"""Bytes of memory at the peak of parsing for each byte of an export, measured on 30 MB in JSON and in protobuf."""
_ROW_TEXT = 16
"""Bytes of a row in protobuf, at least: its time alone has nine."""
_USUAL_TEXTS = 4 << 20
"""Bytes of the texts of all rows up to which an export is read once; each row has what its resource and scope say."""
_ROWS = 4_096
"""Rows that are there at once: each takes a kilobyte before it is in a table."""


def export_bytes(body: bytes, most_rows: int) -> int:
    """Return the bytes of memory that parsing a decompressed export takes at its peak, with its usual texts."""
    rows = min(most_rows, 1 + max(body.count(b"{"), len(body) // _ROW_TEXT))
    texts = min(_USUAL_TEXTS, 2 * rows * len(body))
    return parse_bytes(body, _PARSE_FACTOR, rows) + EXPANSION * texts


def parse_export(
    body: bytes, in_json: bool, contract: Contract, settings: GatewaySettings, now_ms: int, most: int | None = None
) -> ParsedBody:
    """Return all rows of a request, in its order; those that cannot be taken are invalid, and the others are kept.

    Raise Problem: 400 when the body is no request or nothing that is known is in it, 413 when there are too many rows,
    or more than `max_decoded_bytes` of text in them: each row has what its resource and scope say once. TooLarge when
    that is more than `most` bytes, and may be tried with more.
    """
    most = settings.max_decoded_bytes if most is None else most
    parts, total = list[Decoded](), 0
    try:
        rows = otlp_rows(body, contract.name, in_json=in_json, nesting=settings.max_nesting, limit=most)
        while some := list(islice(rows, _ROWS)):
            total += len(some)
            if total > settings.max_rows:
                detail = f"the request has more than {settings.max_rows} rows; send it in parts"
                raise Problem(413, "too-large", detail)
            parts.append(decode_rows([_fitting(row) for row in with_arrival(some, now_ms)], contract, flat=True))
    except TooLarge as error:
        if most < settings.max_decoded_bytes:
            raise
        raise Problem(413, "too-large", f"{error}; send it in parts") from None
    except InvalidRecord as error:
        raise Problem(400, "malformed-body", str(error)) from None
    return _joined(parts, contract)


def _joined(parts: Sequence[Decoded], contract: Contract) -> ParsedBody:
    tables, places, invalid, total = [contract.arrow_schema.empty_table()], list[Ints](), list[InvalidRow](), 0
    for part in parts:
        tables.append(part.table)
        places.append(part.rows + total)
        invalid += moved(part.invalid, total)
        total += part.total
    return ParsedBody(pa.concat_tables(tables), np.concatenate([np.zeros(0, np.int64), *places]), tuple(invalid), total)


def _fitting(row: Row | Unread) -> Row | Unread:
    """Return the row; Unread for one that no record has room for, which would have its neighbours refused."""
    if isinstance(row, Unread):
        return row
    texts = [value.encode() for value in row.values() if isinstance(value, str)]
    if sum(map(len, texts)) <= _MAX_BYTES:
        return row
    size = len(zstandard.compress(b"\n".join(texts)))
    return row if size <= _MAX_BYTES else Unread(f"takes {size} bytes compressed, more than a record has room for", b"")
