"""Name the events of a request, so that a retry of it makes no duplicates.

Whatever a client chooses (an Idempotency-Key, an origin, the content of an OTLP export) is put below the name of the
caller, so the identities of two callers never meet. Pure, but for the memory of the keys seen last.
"""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import whole
from headwater.contract import Contract, InvalidRow
from headwater.producers.gateway.bodies import ParsedBody
from headwater.web.auth import Principal
from headwater.web.keys import ANY_ID
from headwater.web.problems import Problem

__all__ = ["IdempotencyKeys", "RequestIdentity", "content_origin", "refuse_foreign_ids"]

_MAX_SEQ = 2**63 - 1
_ORIGIN = re.compile(r"[!-~]{1,128}")
_KEY = re.compile(r"[!-~]{1,255}")
_RESERVED = ("key:", "otlp:")
"""Beginnings of origins that the gateway makes from an Idempotency-Key and from an OTLP export."""
_REMEMBERED = 10_000


@dataclass(frozen=True)
class RequestIdentity:
    """Hold what the headers say about the identity of the events: row i of the body is (origin, first_seq + i)."""

    key: str | None = None
    origin: str | None = None
    first_seq: int = 0

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> "RequestIdentity":
        """Read `Idempotency-Key`, or `Headwater-Origin` and `Headwater-Seq`; Problem 400 when they cannot be used.

        >>> RequestIdentity.from_headers({"headwater-origin": "truck-7", "headwater-seq": "41"})
        RequestIdentity(key=None, origin='truck-7', first_seq=41)
        """
        key, origin, seq = (headers.get(name) for name in ("idempotency-key", "headwater-origin", "headwater-seq"))
        if key is not None and (origin is not None or seq is not None):
            raise _bad("send either Idempotency-Key or Headwater-Origin and Headwater-Seq")
        if key is not None and not _KEY.fullmatch(key):
            raise _bad("Idempotency-Key is not 1 to 255 ASCII characters without spaces")
        if (origin is None) != (seq is None):
            raise _bad("Headwater-Origin and Headwater-Seq go together")
        if origin is None or seq is None:
            return cls(key)
        if not _ORIGIN.fullmatch(origin):
            raise _bad("Headwater-Origin is not 1 to 128 ASCII characters without spaces")
        if not re.fullmatch(r"[0-9]{1,19}", seq) or int(seq) > _MAX_SEQ:
            raise _bad("Headwater-Seq is not a whole number from 0 to 9223372036854775807")
        return cls(None, origin, int(seq))

    def first_identity(self, caller: str, contract: str, body: bytes, parsed: ParsedBody) -> tuple[str, int] | None:
        """Return origin and sequence number of the body's first row; None when the client has not named the events.

        The body is part of what an Idempotency-Key names: another body under a key used before gets another identity,
        so its events are not dropped as copies.
        """
        if self.key is not None:
            text = json.dumps([caller, contract, self.key]).encode() + hashlib.sha256(body).digest()
            return f"{caller}:key:{hashlib.blake2b(text, digest_size=16).hexdigest()}", 0
        origin, first = (self.origin, self.first_seq) if self.origin is not None else (parsed.origin, parsed.first_seq)
        if origin is None:
            return None
        if not _ORIGIN.fullmatch(origin) or first > _MAX_SEQ - parsed.total:
            raise _bad("origin and seq of the events are out of range")
        if origin.startswith(_RESERVED):
            raise _bad(f"an origin does not begin with {' or '.join(_RESERVED)}: those are made from keys and contents")
        return f"{caller}:{origin}", first


def content_origin(caller: str, kind: str, body: bytes) -> str:
    """Return the origin that the content of a request gives it: the same bytes of the same caller have it again.

    >>> content_origin("3f9c0a12b4de", "otlp", b"") == content_origin("3f9c0a12b4de", "otlp", b"")
    True
    """
    return f"{caller}:{kind}:{hashlib.blake2b(body, digest_size=16).hexdigest()}"


def refuse_foreign_ids(caller: Principal, contract: Contract, parsed: ParsedBody) -> ParsedBody:
    """Return the body with every event rejected whose own id is not one of the caller's; Problem 403 if it has none.

    The first copy of an id counts and all others are dropped. So a caller who could write any id could send those of
    another caller first, whose events would then be dropped as copies.
    """
    own = contract.id
    if own is None or ANY_ID in caller.id_prefixes:
        return parsed
    if not caller.id_prefixes:
        raise Problem(
            403,
            "forbidden",
            f"events of {contract.name} have ids of their own, and these credentials have no id prefix: "
            "an operator binds one to the key (headwater keys bind)",
        )
    # the text that the processor compares, whatever the type of the column
    ids = whole(parsed.table.column(own.origin)).cast(pa.string())
    is_own = np.zeros(len(ids), bool)
    for prefix in caller.id_prefixes:
        is_own |= pc.starts_with(ids, prefix).fill_null(False).to_numpy(zero_copy_only=False)
    if is_own.all():
        return parsed
    places = np.asarray(parsed.places)
    reason = f"field {own.origin}: the id does not begin with a prefix of these credentials"
    foreign = [InvalidRow(int(place), reason) for place in places[~is_own]]
    invalid = sorted((*parsed.invalid, *foreign), key=lambda row: row.index)
    return replace(parsed, table=parsed.table.filter(pa.array(is_own)), places=places[is_own], invalid=tuple(invalid))


def _bad(detail: str) -> Problem:
    return Problem(400, "invalid-header", detail)


class IdempotencyKeys:
    """Remember the body that each of the last Idempotency-Keys came with. Thread-safe."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()
        self._lock = Lock()

    def check(self, caller: str, contract: str, key: str, body: bytes) -> None:
        """Raise Problem 409 when the key came with another body before."""
        digest = hashlib.sha256(body).digest()
        with self._lock:
            known = self._bodies.setdefault((caller, contract, key), digest)
            self._bodies.move_to_end((caller, contract, key))
            if len(self._bodies) > _REMEMBERED:
                self._bodies.popitem(last=False)
        if known != digest:
            raise Problem(409, "key-reused", "nothing was accepted: a retry sends the same body again", accepted=0)
