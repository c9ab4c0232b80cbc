"""One value of an event: read it as its field's type, or say why it is none.

The reference for both ways into a contract: `validate_row` uses it for every value, `conform` for those that its
vectorised checks do not take and for the wording of every reason.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import cast

import numpy as np

from headwater.contract.definition import INTEGER_BOUNDS, Field, as_float32

__all__ = ["MAX_MS", "MIN_MS", "Refused", "missing", "read_value"]

MIN_MS = -62_135_596_800_000
"""The first and the last millisecond of the years 1 to 9999, which is what Python's datetime holds."""
MAX_MS = 253_402_300_799_999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d(:\d\d(:\d\d([.,]\d+)?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?",
    re.ASCII,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class Refused(ValueError):
    """The value is none of its field's; the text says why, beginning with the value."""


def missing(field: Field) -> str:
    """The reason when a required field is null or absent."""
    return f"field {field.name}: required, but missing or null"


def read_value(field: Field, value: object) -> object:
    """The value as the field's type; `value` is not None. Raises Refused with the whole reason."""
    if isinstance(value, np.generic):
        value = _python(value)
    try:
        read = _READERS[field.type](value)
    except Refused as refused:
        raise Refused(f"field {field.name}: {shown(value)} {refused}") from None
    low, high = field.bounds
    if low is not None and read < low:  # type: ignore[operator]
        raise Refused(f"field {field.name}: {shown(value)} is below the minimum {field.minimum}")
    if high is not None and read > high:  # type: ignore[operator]
        raise Refused(f"field {field.name}: {shown(value)} is above the maximum {field.maximum}")
    if field.values and read not in field.values:
        raise Refused(f"field {field.name}: {shown(value)} is none of {', '.join(map(shown, field.values))}")
    return read


def shown(value: object) -> str:
    """The value in an error: one short line."""
    text = f'"{value}"' if isinstance(value, str) else str(value) if isinstance(value, datetime | date) else repr(value)
    text = text.encode("ascii", "backslashreplace").decode() if not text.isprintable() else text
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _python(value: np.generic) -> object:
    if isinstance(value, np.datetime64):
        found: object = value.astype("datetime64[ms]").astype(np.int64).item()
        return "NaT" if np.isnat(value) else found
    return cast(object, value.item())


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise Refused("is no string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused("is no valid Unicode") from None
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Refused("is neither true nor false")
    return value


def _integer(kind: str) -> Callable[[object], int]:
    low, high = INTEGER_BOUNDS[kind]

    def read(value: object) -> int:
        if isinstance(value, float) and math.isfinite(value):
            if not value.is_integer():
                raise Refused("is no whole number")
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Refused("is no whole number")
        if not low <= value <= high:
            raise Refused(f"does not fit {kind}")
        return int(value)

    return read


def _double(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("is no number")
    try:
        read = float(value)
    except OverflowError:
        raise Refused("does not fit double") from None
    if not math.isfinite(read):
        raise Refused("is not finite")
    return read


def _float(value: object) -> float:
    try:
        return as_float32(_double(value))
    except OverflowError:
        raise Refused("does not fit float") from None


def _timestamp(value: object) -> datetime:
    if isinstance(value, str):
        value = _time_of(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 is an integer to JSON Schema
    if isinstance(value, datetime) and value == value:  # pandas.NaT is a datetime
        ms = ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH) // _MS
    elif isinstance(value, date) and value == value:
        ms = (datetime(value.year, value.month, value.day, tzinfo=UTC) - _EPOCH) // _MS
    elif isinstance(value, int) and not isinstance(value, bool):
        ms = value
    else:
        raise Refused("is no time: ISO 8601 text or whole milliseconds since 1970")
    if not MIN_MS <= ms <= MAX_MS:
        raise Refused("lies outside the years 1 to 9999")
    return _EPOCH + timedelta(milliseconds=int(ms))


def _time_of(text: str) -> datetime:
    try:
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise Refused("is no ISO 8601 time")


def _date(value: object) -> date:
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise Refused("is no date as in 2026-01-31")


_READERS: dict[str, Callable[[object], object]] = {
    "string": _string,
    "boolean": _boolean,
    "int": _integer("int"),
    "long": _integer("long"),
    "float": _float,
    "double": _double,
    "timestamp": _timestamp,
    "date": _date,
}
