"""Compute what operators and functions of expressions say, on Arrow's arrays. Pure and total.

A row has an answer or null. An argument is an array or, of a constant, a scalar. Whole numbers have 64 bits; doubles
are IEEE 754, and what would be no number (an overflow, a division by zero) is null. No answer depends on other rows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.contract.types import TIMES, TYPES

__all__ = ["ARROW", "FUNCTIONS", "OPERATORS", "cast", "distinct", "finite", "like", "member", "pick", "substring"]

ARROW = {**TYPES, "null": pa.null()}
"""The Arrow type of each kind of value, kinds named as types of contracts are."""
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_INT = 1 << 31
_WHOLE_TEXT = r"^[+-]?[0-9]{1,19}$"
_NUMBER_TEXT = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,5})?$"


def finite(values: Any) -> Any:
    """Return doubles with null for those that are no finite number."""
    fine = pc.is_finite(values)
    if isinstance(values, pa.Scalar):
        return values if fine.as_py() in (None, True) else pa.scalar(None, values.type)
    return values if pc.all(fine).as_py() in (None, True) else pc.if_else(fine, values, pa.scalar(None, values.type))


def _whole(checked: Any, plain: Callable[..., int | None]) -> Callable[..., Any]:
    """Return a function of whole numbers that is null where the result does not fit, row by row if need be."""

    def compute(*args: Any) -> Any:
        try:
            return checked(*args)
        except pa.ArrowInvalid:
            return _by_row(args, plain)

    return compute


def _by_row(args: tuple[Any, ...], plain: Callable[..., int | None]) -> Any:
    rows = max((len(one) for one in args if not isinstance(one, pa.Scalar)), default=None)
    columns = [
        [one.as_py()] * (1 if rows is None else rows) if isinstance(one, pa.Scalar) else one.to_pylist() for one in args
    ]
    found = [None if None in row else plain(*row) for row in zip(*columns, strict=True)]
    fitting = [one if one is not None and _LEAST <= one <= _MOST else None for one in found]
    return pa.scalar(fitting[0], pa.int64()) if rows is None else pa.array(fitting, pa.int64())


def _doubles(function: Any) -> Callable[..., Any]:
    return lambda *args: finite(function(*args))


def _whole_remainder(left: Any, right: Any) -> Any:
    one, none = pa.scalar(1, pa.int64()), pa.scalar(None, pa.int64())
    by_zero = pc.equal(right, 0)
    divisor = pick(pc.or_(by_zero, pc.equal(right, -1)), one, right)  # the least number by -1 would not fit
    return pick(by_zero, none, pc.subtract(left, pc.multiply(pc.divide(left, divisor), divisor)))


def _double_remainder(left: Any, right: Any) -> Any:
    if isinstance(left, pa.Scalar) and isinstance(right, pa.Scalar):
        return _double_remainder(pa.array([left.as_py()], pa.float64()), right)[0]
    with np.errstate(invalid="ignore"):
        found = np.fmod(_floats(left), _floats(right))
    return pa.array(found, mask=np.isnan(found))


def _floats(values: Any) -> Any:
    if isinstance(values, pa.Scalar):
        return np.float64(np.nan if values.as_py() is None else values.as_py())
    return pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False)


OPERATORS: dict[str, dict[str, Callable[..., Any]]] = {
    "+": {"long": _whole(pc.add_checked, lambda a, b: a + b), "double": _doubles(pc.add)},
    "-": {"long": _whole(pc.subtract_checked, lambda a, b: a - b), "double": _doubles(pc.subtract)},
    "*": {"long": _whole(pc.multiply_checked, lambda a, b: a * b), "double": _doubles(pc.multiply)},
    "/": {"double": _doubles(pc.divide)},
    "%": {"long": _whole_remainder, "double": _double_remainder},
    "negative": {"long": _whole(pc.negate_checked, lambda a: -a), "double": pc.negate},
    "=": {"": pc.equal},
    "<>": {"": pc.not_equal},
    "<": {"": pc.less},
    "<=": {"": pc.less_equal},
    ">": {"": pc.greater},
    ">=": {"": pc.greater_equal},
    "and": {"boolean": pc.and_kleene},
    "or": {"boolean": pc.or_kleene},
    "not": {"boolean": pc.invert},
    "||": {"string": lambda left, right: pc.binary_join_element_wise(left, right, "")},
}
"""Kernels of each operator by the kind of its arguments; "" takes any kind that both sides have."""


def distinct(left: Any, right: Any) -> Any:
    """Tell where two values differ, null being a value like any other."""
    return pc.coalesce(pc.not_equal(left, right), pc.xor(pc.is_null(left), pc.is_null(right)))


def like(values: Any, pattern: str) -> Any:
    """Tell where texts match a pattern, in which % stands for any text, _ for a character, and \\ for itself."""
    return pc.match_like(values, pattern.replace("\\", "\\\\"))


def member(values: Any, among: pa.Array) -> Any:
    """Tell where values are in a list without nulls; null where a value is null."""
    if isinstance(values, pa.Scalar):
        return member(pa.array([values.as_py()], values.type), among)[0]
    return pc.if_else(pc.is_valid(values), pc.is_in(values, value_set=among), pa.scalar(None, pa.bool_()))


def pick(condition: Any, then: Any, otherwise: Any) -> Any:
    """Return `then` where the condition is true, else `otherwise`."""
    return pc.if_else(pc.fill_null(condition, False), then, otherwise)


def substring(values: Any, start: int, length: int | None) -> Any:
    """Return the characters from the `start`th, counted from 1, at most `length` of them."""
    return pc.utf8_slice_codeunits(values, start - 1, None if length is None else start - 1 + length)


def _root(values: Any) -> Any:
    return finite(pc.sqrt(values))


def _rounded(values: Any) -> Any:
    """Round halves away from zero; of a negative number by its amount, as Arrow makes -1 of the one above -0.5."""
    return pc.multiply(pc.round(pc.abs(values), 0, "half_towards_infinity"), pc.sign(values))


def _part(of: str, **options: Any) -> Callable[..., Any]:
    function = getattr(pc, of)
    return lambda values: function(values, **options).cast(pa.int64())


FUNCTIONS: dict[str, tuple[dict[str, tuple[str, Callable[..., Any]]], str]] = {
    "abs()": (
        {"long": ("long", _whole(pc.abs_checked, lambda a: abs(a))), "double": ("double", pc.abs)},
        "a number",
    ),
    "round()": (
        {
            "long": ("long", lambda values: values),
            "double": ("double", _rounded),
        },
        "a number",
    ),
    "floor()": ({"long": ("long", lambda values: values), "double": ("double", pc.floor)}, "a number"),
    "ceil()": ({"long": ("long", lambda values: values), "double": ("double", pc.ceil)}, "a number"),
    "sqrt()": ({"double": ("double", _root)}, "a number"),
    "lower()": ({"string": ("string", pc.utf8_lower)}, "a text"),
    "upper()": ({"string": ("string", pc.utf8_upper)}, "a text"),
    "trim()": ({"string": ("string", lambda values: pc.utf8_trim(values, " "))}, "a text"),
    "length()": ({"string": ("long", _part("utf8_length"))}, "a text"),
    **{
        f"{name}()": ({kind: ("long", _part(name)) for kind in (*TIMES, "date")}, "a time or a date")
        for name in ("year", "month", "day")
    },
    "isodow()": (
        {kind: ("long", _part("day_of_week", count_from_zero=False)) for kind in (*TIMES, "date")},
        "a time or a date",
    ),
    **{
        f"{name}()": ({kind: ("long", _part(name)) for kind in TIMES}, "a time")
        for name in ("hour", "minute", "second")
    },
}
"""Functions of one argument: by the kind that they take the kind that they return and what computes it; and the
argument in words."""


def cast(values: Any, kind: str, to: str) -> Any:
    """Return values of a kind in another; null where one has no such value."""
    if kind in ("null", to):
        return values.cast(ARROW["long" if to == "int" else to])
    if to == "int":
        whole = cast(values, kind, "long")
        fits = pc.and_(pc.greater_equal(whole, -_INT), pc.less(whole, _INT))
        return pick(fits, whole, pa.scalar(None, pa.int64()))
    if kind == "string":
        values = pick(pc.match_substring_regex(values, _WHOLE_TEXT if to == "long" else _NUMBER_TEXT), values, _NO_TEXT)
        values = pc.ascii_ltrim(values, "+")
        return finite(values.cast(pa.float64())) if to == "double" else _whole_of_text(values)
    if kind == "double" and to == "long":
        rounded = pc.round(values, 0, "half_to_even")
        fits = pc.and_(pc.greater_equal(rounded, -(2.0**63)), pc.less(rounded, 2.0**63))
        return pick(fits, rounded, pa.scalar(None, pa.float64())).cast(pa.int64(), safe=False)
    return values.cast(ARROW[to], safe=False)


_NO_TEXT = pa.scalar(None, pa.string())


def _whole_of_text(values: Any) -> Any:
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:  # 19 digits may be too many
        return _by_row((values,), int)
