"""Read numbers of databases and serializers exactly, or refuse them. Pure."""

import re
from decimal import Decimal

__all__ = ["decimal_of", "unscaled"]

_MOST_DIGITS = 400
"""Digits before the point of a number, and behind it: more than a double or any field has."""
_MOST_BYTES = 320
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)


def decimal_of(text: object) -> Decimal:
    """Return the number that a text is; ValueError for none, for one that is not finite, and for too many digits.

    >>> decimal_of("1.50")
    Decimal('1.50')
    """
    # Decimal takes blanks, underscores, the digits of all scripts, tuples and floats as well
    if not isinstance(text, str) or len(text) > 2 * _MOST_DIGITS or not _NUMBER.fullmatch(text):
        raise ValueError("no number")
    return _bounded(Decimal(text))


def unscaled(data: bytes, scale: object) -> Decimal:
    """Return the decimal whose digits are a signed big-endian number, and whose point stands so far from their end.

    Exactly, whatever its digits. Raise ValueError for too many of them, and for what is no scale.

    >>> unscaled(b"\\x04\\xd2", 2)
    Decimal('12.34')
    """
    if type(scale) is not int or len(data) > _MOST_BYTES:
        raise ValueError("no scale, or too many digits")
    return _bounded(Decimal(f"{int.from_bytes(data, 'big', signed=True)}E{-scale}"))


def _bounded(found: Decimal) -> Decimal:
    """Refuse a number that would take a text of any length to be written out."""
    _, digits, exponent = found.as_tuple()
    if not isinstance(exponent, int) or len(digits) > 2 * _MOST_DIGITS or abs(exponent) > _MOST_DIGITS:
        raise ValueError("too many digits")
    return found
