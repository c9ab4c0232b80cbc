"""Control records: what the pipeline tells itself through the stream, in order with the events.

They are signed: anybody who may write to the stream may write a record that looks like one. The signature stands at the
end of the text and is of all the text without it, so that no two ways to write the same JSON have to agree.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from headwater.contract.written import exact_json
from headwater.errors import InvalidRecord

__all__ = ["Control", "decode_control", "encode_control", "is_control", "is_signed"]

_MARK = "$headwater"
_HEAD = b'{"$headwater":'
_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_SIGNATURE = re.compile(rb',"mac":"([0-9a-f]{64})"}\Z')


@dataclass(frozen=True)
class Control:
    """Hold a control record: its kind, such as `receipt` or `reference`, what it says, and by whose key."""

    kind: str
    body: dict[str, object]
    text: bytes = b""
    """Bytes that are signed."""
    mac: str = ""
    """The signature, in hex; empty where there is none."""


def encode_control(kind: str, body: Mapping[str, object], key: bytes | None = None) -> bytes:
    """Encode a control record, signed where there is a key. `body` must not use the key `kind`.

    >>> is_signed(decode_control(encode_control("receipt", {"contract": "c"}, b"k" * 32)), b"k" * 32)
    True
    """
    if "kind" in body:
        raise ValueError("the body of a control record cannot have a key 'kind'")
    text = exact_json({_MARK: {"kind": kind, **body}}, _ENCODER).encode()
    return text if key is None else b'%s,"mac":"%s"}' % (text[:-1], _mac(text, key).encode())


def is_control(text: bytes) -> bool:
    """Tell whether stripped JSON text is a control record: its first key is the mark."""
    return text.startswith(b"{") and text[:64].replace(b" ", b"").replace(b"\n", b"").startswith(_HEAD)


def decode_control(text: bytes, decoder: json.JSONDecoder = _DECODER) -> Control:
    """Read what `encode_control` wrote."""
    try:
        content = decoder.decode(text.decode())[_MARK]
        kind = content.pop("kind")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidRecord("a control record that cannot be read") from error
    if not isinstance(kind, str):
        raise InvalidRecord("a control record without a kind")
    signature = _SIGNATURE.search(text, max(0, len(text) - 128))
    if signature is None:
        return Control(kind, content)
    return Control(kind, content, text[: signature.start()] + b"}", signature[1].decode())


def is_signed(control: Control, key: bytes) -> bool:
    """Tell whether who wrote the record has the key."""
    return hmac.compare_digest(control.mac, _mac(control.text, key))


def _mac(text: bytes, key: bytes) -> str:
    return hmac.new(key, text, hashlib.sha256).hexdigest()
