"""Read values that are text, as CSV has them, as their field's. Pure."""

import re

import pyarrow as pa
import pyarrow.compute as pc

from headwater.contract.definition import Field
from headwater.contract.types import TIMES
from headwater.contract.values import EXACT_FLOATS

__all__ = ["MILLISECONDS", "NULLS", "text_column", "text_value"]

NULLS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
"""Texts that are null in columns other than strings. In strings, and in base64, only the empty text is, where the field
is optional."""
_INTEGER = re.compile(r"[+-]?[0-9]+")
MILLISECONDS = re.compile(r"-?[0-9]{5,}")
"""Fewer digits are no time: a year, or a row that was shifted."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def text_value(field: Field, text: str) -> object:
    """Return one value as `validate_row` takes it; text that cannot be read stays text and is refused there."""
    if field.type in ("string", "binary"):
        return text if text or field.required else None
    if text in NULLS:
        return None
    bare = text.strip(" \t")
    if field.type in TIMES:
        return int(text) if MILLISECONDS.fullmatch(text) else text
    if field.type in ("int", "long"):
        return _whole_number(bare) if _NUMBER.fullmatch(bare) else text
    if field.type in ("float", "double"):
        return float(bare) if _NUMBER.fullmatch(bare) else text
    if field.kind.name == "decimal":
        return bare
    if field.type == "boolean":
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
    return text


def text_column(field: Field, column: pa.ChunkedArray) -> pa.ChunkedArray | list[object]:
    """Return what `text_value` does for each of a column of texts; those of numbers as Arrow reads them, where all are
    plain.

    >>> text_column(Field("value", "double"), pa.chunked_array([["1", "-2.5e3"]])).to_pylist()
    [1.0, -2500.0]
    """
    if field.type == "string" and field.required:
        return column
    kind = "time" if field.type in TIMES else field.type
    signs, plain = _PLAIN.get(kind, (None, None))
    if signs is not None and not any(bytes(one.buffers()[2] or b"").translate(None, signs) for one in column.chunks):
        try:
            found = column.cast(plain)
            if kind != "time" or (pc.min(found).as_py() or 0) > 9_999:  # at least five digits
                return found
        except pa.ArrowInvalid:  # some are empty, have a sign in their middle, or more digits
            pass
    return [text_value(field, text) for text in column.to_pylist()]


_PLAIN = {
    "time": (b"0123456789", pa.int64()),
    "int": (b"0123456789-", pa.int64()),
    "long": (b"0123456789-", pa.int64()),
    "float": (b"0123456789+-.eE", pa.float64()),
    "double": (b"0123456789+-.eE", pa.float64()),
}
"""Characters of the texts that Arrow reads as numbers just as `text_value` does, or refuses, by type."""


def _whole_number(text: str) -> object:
    """Return a number as an integer where float64 cannot have rounded it; as it is, for refusal, where it can have."""
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 30 else text
    number = float(text)
    return (
        int(number)
        if number.is_integer() and abs(number) < EXACT_FLOATS
        else text
        if abs(number) >= EXACT_FLOATS
        else number
    )
