"""Answers as JSON, which knows no NaN and no infinities: they are null."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["json_text", "tagged"]

_AGE = "freshness_ms"


def json_text(value: object) -> str:
    """Compact; what JSON has no word for is null where it is a float, else text."""
    try:
        return _dumps(value)
    except ValueError:  # rare, so only then looked for
        return _dumps(_finite(value))


def tagged(answer: Mapping[str, Any]) -> tuple[str, bytes]:
    """ETag and body. The tag is a weak one, of what is said but for its age, which grows while nothing changes."""
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
