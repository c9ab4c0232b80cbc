"""Sums of floats without rounding, so that the order of merging shows in no bit.

A float is an integer over a power of two, and so is any sum of them. As JSON: an int, a float where
the sum is one, else `"<numerator in hex>p<exponent of two>"`.
"""

import math
from collections.abc import Iterable
from fractions import Fraction

__all__ = ["Exact", "add", "fraction", "number", "pointed", "rounded"]

Exact = int | float | str | dict[str, str]
"""A number as JSON; of decimals `{"n": "12.30"}`."""


def fraction(value: Exact) -> Fraction:
    """Return the exact value of a number that is finite."""
    if isinstance(value, dict):
        return Fraction(value["n"])
    if isinstance(value, str):
        numerator, _, exponent = value.partition("p")
        return Fraction(int(numerator, 16), 1 << int(exponent))
    return Fraction(value)


def number(value: Fraction) -> Exact:
    """Return the shortest JSON form of an integer over a power of two; never an int: those are sums of ints."""
    as_float = rounded(value)
    if math.isfinite(as_float) and Fraction(as_float) == value:
        return as_float
    return f"{value.numerator:x}p{value.denominator.bit_length() - 1}"


def pointed(value: int, scale: int) -> str:
    """Return a whole number as text with a point before its last `scale` digits.

    >>> pointed(-5, 2)
    '-0.05'
    """
    digits = str(abs(value)).zfill(scale + 1)
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else sign + digits


def rounded(value: Fraction) -> float:
    """Return the nearest float, or an infinity beyond the largest."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def add(values: Iterable[Exact]) -> Exact:
    """Add numbers: ints give an int, all else is exact; infinities and NaN as in IEEE 754, in any order."""
    terms = list(values)
    decimals = [term["n"] for term in terms if isinstance(term, dict)]
    if decimals:
        scale = len(decimals[0].partition(".")[2])
        return {"n": pointed(sum(int(one.replace(".", "")) for one in decimals), scale)}
    if all(isinstance(term, int) for term in terms):
        return sum(term for term in terms if isinstance(term, int))
    odd = [term for term in terms if isinstance(term, float) and not math.isfinite(term)]
    if odd:
        return sum(odd)
    return number(sum((fraction(term) for term in terms), Fraction(0)))
