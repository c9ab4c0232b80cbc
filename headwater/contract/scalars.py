"""Read decimals, bytes, UUIDs and times of day, one value at a time, or say why one is none.

Nothing is rounded: a decimal has the digits that were written or is refused. Only of a time the part below the
microsecond is cut off, as that below the millisecond is of a `timestamp`.
"""

import base64
import binascii
import re
from datetime import time
from decimal import Context, Decimal
from uuid import UUID

from headwater.contract.types import MOST_DIGITS, Kind

__all__ = ["DAY_US", "DECIMAL_TEXT", "MOST_FLOAT_DIGITS", "JsonNumber", "Refused", "decimal_text", "read_scalar"]

DAY_US = 86_400_000_000
DECIMAL_TEXT = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?"
MOST_FLOAT_DIGITS = 15
"""Digits of a decimal that a float64 keeps, whichever they are; with more, another decimal may have been meant."""
_DECIMAL = re.compile(DECIMAL_TEXT, re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_TIME = re.compile(r"(\d\d:\d\d(:\d\d)?)(?:(?<=:\d\d:\d\d)[.,](\d+))?", re.ASCII)
_EXACT_FLOATS = 2**53
_MOST_POWER = 100
"""Beyond it a decimal is written with an exponent, lest one of a few bytes be written with millions of zeros."""
_WIDE = Context(prec=2 * MOST_DIGITS)
_NO_TIME = "is no time of day as in 13:45:00.5, and no microseconds since midnight"


class Refused(ValueError):
    """Refuse a value that is none of its field's; the text says why, beginning with the value."""


class JsonNumber(float):
    """A number of JSON with a point or an exponent, which knows how it is written.

    >>> JsonNumber("0.10").text
    '0.10'
    """

    text: str

    def __new__(cls, text: str) -> "JsonNumber":
        """Return the number that the text is."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def read_scalar(kind: Kind, value: object) -> object:
    """Read the value as a decimal, binary, uuid or time. Raise Refused with the reason, without field and value."""
    if kind.name == "decimal":
        return _decimal(kind, value)
    if kind.name == "uuid":
        return _uuid(value)
    return _binary(value) if kind.name == "binary" else _time(value)


def decimal_text(value: Decimal) -> str:
    """Return a decimal as it is written, without an exponent unless it is beyond 10 to the power of 100 or its inverse.

    >>> decimal_text(Decimal("0E-2"))
    '0.00'
    """
    return format(value, "f") if abs(value.adjusted()) <= _MOST_POWER else str(value)


def _decimal(kind: Kind, value: object) -> Decimal:
    if isinstance(value, JsonNumber):
        value = value.text
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise Refused("is no decimal number")
        found = Decimal(value)
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Refused("is no number")
    else:
        # an integer of too many digits for any decimal is not written out, which would cost by their square
        long = isinstance(value, int) and value.bit_length() > 4 * MOST_DIGITS
        found = Decimal(repr(float(value))) if isinstance(value, float) else Decimal("1e1000" if long else value)
        if isinstance(value, float) and found.is_finite() and _is_rounded(found):
            raise Refused(
                f"may have been rounded: a float keeps {MOST_FLOAT_DIGITS} digits; write it as text or as a Decimal"
            )
    if not kind.holds(found):
        raise Refused(f"does not fit {kind.text}, and nothing is rounded" if found.is_finite() else "is not finite")
    # columns have one zero, which has no sign
    return (found if found else Decimal(0)).quantize(Decimal(1).scaleb(-kind.scale), context=_WIDE)


def _is_rounded(found: Decimal) -> bool:
    """Tell whether a float may stand for another decimal than the shortest that is written for it."""
    return abs(found) >= _EXACT_FLOATS or len(found.normalize().as_tuple().digits) > MOST_FLOAT_DIGITS


def _binary(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise Refused("is neither bytes nor text in base64")
    try:
        return base64.b64decode(value.encode(), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("is no text in base64") from None


def _uuid(value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    if isinstance(value, bytes) and len(value) == 16:
        return UUID(bytes=value)
    if isinstance(value, str) and _UUID.fullmatch(value):
        return UUID(value)
    raise Refused("is no UUID as in 01234567-89ab-cdef-0123-456789abcdef")


def _time(value: object) -> time:
    if isinstance(value, time):
        if value.tzinfo is not None:
            raise Refused("has a zone, and a time of day has none")
        return value.replace(fold=0)
    if isinstance(value, str):
        found = _TIME.fullmatch(value)
        if found is None:
            raise Refused(_NO_TIME)
        try:
            return time.fromisoformat(found[1]).replace(microsecond=int((found[3] or "0").ljust(6, "0")[:6]))
        except ValueError:
            raise Refused(_NO_TIME) from None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(_NO_TIME)
    if not 0 <= value < DAY_US:
        raise Refused("lies outside the day, which has 86,400,000,000 microseconds")
    seconds, micros = divmod(int(value), 1_000_000)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, micros)
