"""The types of a contract's fields: how they are written, and what a column of each is in Arrow. Pure.

A type is a text, so that contracts stay readable: a name such as `long`, or one with parameters, `decimal(10, 2)`.
"""

import re
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import lru_cache

import pyarrow as pa

__all__ = ["MOST_DIGITS", "NOT_KEYS", "TIMES", "TYPES", "UUID", "Kind", "parse_type"]

UUID = pa.binary(16)
"""The column of a uuid: its 16 bytes in the order in which they are written."""
TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("ms", "UTC"),
    "timestamp_us": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "uuid": UUID,
    "binary": pa.binary(),
    "json": pa.string(),
}
"""The Arrow type of each type without parameters. A json field holds any JSON value, as its text."""
TIMES = ("timestamp", "timestamp_us")
"""Points in time, in milliseconds and in microseconds."""
NOT_KEYS = frozenset({"json", "binary"})
"""Types whose values cannot be a key: they have no one text."""
MOST_DIGITS = 38
"""Digits of a decimal: what 128 bits hold, and Iceberg and DynamoDB take."""
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_DECIMAL = re.compile(r"decimal *\( *([0-9]{1,3}) *, *([0-9]{1,3}) *\)", re.ASCII)


@dataclass(frozen=True)
class Kind:
    """Hold a type as it is understood. `text` is its one way of writing, `precision` and `scale` are a decimal's."""

    name: str
    text: str
    arrow: pa.DataType
    precision: int = 0
    scale: int = 0

    @property
    def largest(self) -> Decimal:
        """Return the largest value of a decimal."""
        return Decimal((0, (9,) * self.precision, -self.scale))

    def holds(self, value: Decimal) -> bool:
        """Tell whether a decimal of this type can be the value, with no digit lost."""
        if not value.is_finite():
            return False
        _, digits, exponent = value.normalize(_EXACT).as_tuple()
        assert isinstance(exponent, int)  # it is finite
        return digits == (0,) or (-exponent <= self.scale and len(digits) + exponent <= self.precision - self.scale)


@lru_cache(maxsize=1024)
def parse_type(text: str) -> Kind:
    """Return the type that a text names. Raise ValueError with the reason when it names none.

    >>> parse_type("decimal(10,2)").text
    'decimal(10, 2)'
    """
    if text in TYPES:
        return Kind(text, text, TYPES[text])
    decimal = _DECIMAL.fullmatch(text)
    if decimal:
        precision, scale = int(decimal[1]), int(decimal[2])
        if not 1 <= precision <= MOST_DIGITS or scale > precision:
            raise ValueError(f"has 1 to {MOST_DIGITS} digits, and as many of them or fewer behind the point")
        arrow = pa.decimal128(precision, scale)
        return Kind("decimal", f"decimal({precision}, {scale})", arrow, precision, scale)
    if text.startswith("decimal"):
        raise ValueError("is written with its digits and those of them behind the point, as in decimal(10, 2)")
    raise ValueError(f"is unknown (one of {', '.join(TYPES)}, decimal(10, 2))")
