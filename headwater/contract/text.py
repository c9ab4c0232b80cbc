"""Read values that are text, as CSV has them, as their field's. Pure."""

import re
from collections.abc import Sequence

from headwater.contract.definition import Field
from headwater.contract.types import TIMES
from headwater.contract.values import EXACT_FLOATS

__all__ = ["MILLISECONDS", "NULLS", "text_value", "text_values"]

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


def text_values(field: Field, texts: Sequence[str]) -> Sequence[object]:
    """Return what `text_value` does for each of many texts; those of numbers are read at once where all are plain.

    >>> text_values(Field("value", "double"), ["1", "-2.5e3"])
    [1.0, -2500.0]
    """
    if field.type in ("string", "binary") and field.required:
        return texts
    kind = "time" if field.type in TIMES else field.type
    signs = _SIGNS.get(kind)
    if signs is not None and not "".join(texts).encode(errors="replace").translate(None, signs):
        try:
            if kind in ("float", "double"):
                return [*map(float, texts)]
            lengths = [*map(len, texts)]
            if max(lengths) < 30 and (kind != "time" or min(lengths) >= 5):
                return [*map(int, texts)]
        except ValueError:  # some are empty, or have a sign in their middle
            pass
    return [text_value(field, text) for text in texts]


_SIGNS = {
    "time": b"0123456789",
    "int": b"0123456789+-",
    "long": b"0123456789+-",
    "float": b"0123456789+-.eE",
    "double": b"0123456789+-.eE",
}
"""Characters of the texts that Python reads, and refuses, as numbers just as `text_value` does, by type."""


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
