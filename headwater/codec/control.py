"""Control records: what the pipeline tells itself through the stream, in order with the events."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from headwater.errors import InvalidRecord

__all__ = ["Control", "decode_control", "encode_control", "is_control"]

_MARK = "$headwater"
_HEAD = b'{"$headwater":'


@dataclass(frozen=True)
class Control:
    """A control record: its kind, such as `receipt` or `reference`, and what it says."""

    kind: str
    body: dict[str, object]


def encode_control(kind: str, body: Mapping[str, object]) -> bytes:
    """The bytes of a control record. `body` must not use the key `kind`."""
    if "kind" in body:
        raise ValueError("the body of a control record cannot have a key 'kind'")
    return json.dumps({_MARK: {"kind": kind, **body}}, separators=(",", ":"), allow_nan=False).encode()


def is_control(text: bytes) -> bool:
    """Whether stripped JSON text is a control record: its first key is the mark."""
    return text.startswith(b"{") and text[:64].replace(b" ", b"").replace(b"\n", b"").startswith(_HEAD)


def decode_control(text: bytes) -> Control:
    """Read what `encode_control` wrote."""
    try:
        content = json.loads(text)[_MARK]
        kind = content.pop("kind")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidRecord("a control record that cannot be read") from error
    if not isinstance(kind, str):
        raise InvalidRecord("a control record without a kind")
    return Control(kind, content)
