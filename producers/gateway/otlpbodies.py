"""Turn the body of an OTLP export into rows of a contract, within the gateway's limits. Pure."""

import zstandard

from headwater.codec.bounds import TooLarge
from headwater.codec.inflate import MAX_BYTES
from headwater.codec.rows import Row, Unread, decode_rows, with_arrival
from headwater.config import GatewaySettings
from headwater.contract import Contract
from headwater.errors import InvalidRecord
from headwater.formats.opentelemetry import otlp_rows
from headwater.producers.gateway.bodies import ParsedBody
from headwater.producers.settings import ProducerSettings
from headwater.web.problems import Problem

__all__ = ["parse_export"]

_MAX_BYTES = ProducerSettings().max_record_bytes - (8 << 10)
"""Maximum size of one row in a record of its own, whose schema, names and identity take less than 8 KiB."""


def parse_export(
    body: bytes, in_json: bool, contract: Contract, settings: GatewaySettings, now_ms: int, most: int = MAX_BYTES
) -> ParsedBody:
    """Return all rows of a request, in its order; those that cannot be taken are invalid, and the others are kept.

    Raise Problem: 400 when the body is no request or nothing that is known is in it, 413 when there are too many rows,
    or too much text in them: each row has what its resource and scope say once. TooLarge when that is more than `most`
    bytes, and may be tried with more.
    """
    try:
        rows = otlp_rows(body, contract.name, in_json=in_json, nesting=settings.max_nesting, limit=most)
        if len(rows) <= settings.max_rows:
            fitting = [_fitting(row) for row in with_arrival(rows, now_ms)]
            found = decode_rows(fitting, contract, flat=True)
    except TooLarge as error:
        if most < MAX_BYTES:
            raise
        raise Problem(413, "too-large", f"{error}; send it in parts") from None
    except InvalidRecord as error:
        raise Problem(400, "malformed-body", str(error)) from None
    if len(rows) > settings.max_rows:
        raise Problem(413, "too-large", f"the request has more than {settings.max_rows} rows; send it in parts")
    return ParsedBody(found.table, found.rows, found.invalid, found.total)


def _fitting(row: Row | Unread) -> Row | Unread:
    """Return the row; Unread for one that no record has room for, which would have its neighbours refused."""
    if isinstance(row, Unread):
        return row
    texts = [value.encode() for value in row.values() if isinstance(value, str)]
    if sum(map(len, texts)) <= _MAX_BYTES:
        return row
    size = len(zstandard.compress(b"\n".join(texts)))
    return row if size <= _MAX_BYTES else Unread(f"takes {size} bytes compressed, more than a record has room for", b"")
