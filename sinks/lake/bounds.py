"""Write column bounds as Iceberg's manifests hold them, leaving out what cannot be written. Pure.

Bounds only help readers to skip files. A value that cannot become one must never keep a file out of the table.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pyiceberg.types import StringType

__all__ = ["bounds", "text_above"]

_SURROGATES = range(0xD800, 0xE000)
"""Code points that no UTF-8 text has."""
_LAST = 0x10FFFF


def bounds(aggregates: Mapping[int, Any]) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Return the lower and the upper bounds by field id, of pyiceberg's aggregators of statistics."""
    lower, upper = {}, {}
    for field_id, one in aggregates.items():
        least, most = _written(one.min_as_bytes), _written(_upper(one))
        if least is not None:
            lower[field_id] = least
        if most is not None:
            upper[field_id] = most
    return lower, upper


def _upper(one: Any) -> Callable[[], bytes | None]:
    """Return what writes the upper bound: of text our own, as pyiceberg's ends in half a surrogate pair at times."""
    if one.primitive_type != StringType() or not isinstance(one.current_max, str):
        write: Callable[[], bytes | None] = one.max_as_bytes
        return write

    def text() -> bytes | None:
        found = text_above(one.current_max, one.trunc_length)
        return None if found is None else found.encode()

    return text


def _written(write: Callable[[], bytes | None]) -> bytes | None:
    try:
        return write()
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return None


def text_above(value: str, length: int | None) -> str | None:
    r"""Return a text of at most `length` characters that is not below `value`; None when there is none.

    >>> text_above("abcdef", 3)
    'abd'
    >>> text_above("ab\ud7ff and more", 3) == "ab\ue000"
    True
    >>> text_above("short", 16)
    'short'
    """
    if length is None or len(value) <= length:
        return value
    head = value[:length]
    while head:
        above = ord(head[-1]) + 1
        if above in _SURROGATES:
            above = _SURROGATES.stop
        if above <= _LAST:
            return head[:-1] + chr(above)
        head = head[:-1]
    return None
