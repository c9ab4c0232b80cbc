"""Write answers as JSON, which knows no NaN and no infinities: they are null."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["json_text", "with_etag"]

_AGE = "freshness_ms"


def json_text(value: object) -> str:
    """Return compact JSON; floats that are not finite become null, values of other types text.

    >>> json_text({"mean": float("nan")})
    '{"mean":null}'
    """
    try:
        return _dumps(value)
    except ValueError:  # rare, so the values are looked through only then
        return _dumps(_finite(value))


def with_etag(answer: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return ETag and body of an answer. The tag is weak: it leaves out the age, which grows while nothing changes."""
    body = lasting = json_text(answer).encode()
    if _AGE in answer:
        lasting = json_text({**answer, _AGE: None}).encode()
    return f'W/"{hashlib.sha256(lasting).hexdigest()[:32]}"', body


def _dumps(value: object) -> str:
    return json.dumps(value, default=str, separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
