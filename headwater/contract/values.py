"""Read one value of an event as its field's type, or say why it is none.

The reference for both ways into a contract: `validate_row` uses it for every value, `conform` for those that its
vectorised checks do not take and for the wording of every reason.
"""

import base64
import json
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NoReturn, cast
from uuid import UUID

import numpy as np

from headwater.contract.definition import EPOCHS, INTEGER_BOUNDS, Field, as_float32
from headwater.contract.nested import nested_size, read_nested
from headwater.contract.scalars import Refused, decimal_text, read_scalar
from headwater.contract.types import NESTED, TIMES, Kind
from headwater.contract.written import exact_json

__all__ = [
    "EXACT_FLOATS",
    "MAX_MS",
    "MIN_MS",
    "TIME",
    "json_text",
    "jsonable",
    "missing",
    "python_value",
    "read_value",
    "reason_of",
    "shown",
    "size_of",
    "too_long",
    "worded",
]

MIN_MS = -62_135_596_800_000
"""The first and the last millisecond of the years 1 to 9999, which is what Python's datetime holds."""
MAX_MS = 253_402_300_799_999
EXACT_FLOATS = 2**53
"""Below it float64 holds every whole number; 2^53 itself is also what 2^53 + 1 is rounded to."""
_MOST_COUNTED = 1e21
"""Beyond it a number is no time in any unit, and has too many digits to be divided."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_PLAIN = (datetime, date, time, Decimal, UUID)
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxother, _BRIEF.maxstring = 3, 80, 40
_OUTSIDE = "lies outside the years 1 to 9999"
TIME = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d(:\d\d(:\d\d([.,]\d+)?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?",
    re.ASCII,
)
_NO_TIME = "is no time: ISO 8601 text or a whole number since 1970"
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def missing(field: Field) -> str:
    """Return the reason when a required field is null or absent."""
    return f"field {field.name}: required, but missing or null"


def size_of(field: Field, value: object) -> int:
    """Return the bytes of a text in UTF-8, or of bytes; of a value made of others as `nested_size` has it."""
    if field.kind.name in NESTED:
        return nested_size(field.kind, value)
    return len(value) if isinstance(value, bytes) else len(str(value).encode())


def too_long(field: Field, value: object, limit: int) -> str:
    """Return the reason when a text, or bytes, are longer than may be."""
    size = size_of(field, value)
    return f"field {field.name}: {shown(value)} has {size:,} bytes, and {limit:,} at most are taken"


def read_value(field: Field, value: object) -> object:
    """Read the value as the field's type; `value` is not None. Raise Refused with the whole reason."""
    try:
        if isinstance(value, np.generic):
            value = python_value(value)
        read = _read(field, value)
    except Refused as refused:
        refused.args = (worded(field, value, str(refused)),)
        raise
    low, high = field.bounds
    if low is not None and read < low:  # type: ignore[operator]  # the reader of the kind gives what can be compared
        raise Refused(f"field {field.name}: {shown(value)} is below the minimum {field.minimum}")
    if high is not None and read > high:  # type: ignore[operator]  # the same
        raise Refused(f"field {field.name}: {shown(value)} is above the maximum {field.maximum}")
    if field.values and read not in field.values:
        raise Refused(f"field {field.name}: {shown(value)} is none of {', '.join(map(shown, field.values))}")
    return read


def _read(field: Field, value: object) -> object:
    reader = _READERS.get(field.type)
    if reader is not None:
        return reader(value)
    if field.type in TIMES:
        return _timestamp(field, value)
    if field.kind.name in NESTED:
        return read_nested(field.kind, value, _read_part)
    return read_scalar(field.kind, value)


def _read_part(kind: Kind, value: object) -> object:
    """Read a value within another, which has no bounds and no unit of its own."""
    return _read(_part_field(kind.text), python_value(value) if isinstance(value, np.generic) else value)


@lru_cache(maxsize=1024)
def _part_field(text: str) -> Field:
    return Field("x", text)


def reason_of(field: Field, value: object) -> str:
    """Return why a value that is of none of the field's types is refused, without the value.

    >>> reason_of(Field("at", "date"), 5)
    'is no date as in 2026-01-31'
    """
    try:
        _read(field, value)
    except Refused as refused:
        return str(refused)
    raise AssertionError(f"{value!r} is a {field.type}")


def worded(field: Field, value: object, why: str) -> str:
    """Return the whole reason for which a value is refused."""
    return f"field {field.name}: {shown(value)} {why}"


def shown(value: object) -> str:
    """Show the value in an error: one short line."""
    if isinstance(value, str) and len(value) > 200:
        if value.isascii() and (head := value[:100]).isprintable() and "  " not in head:
            return f'"{head[:75]} ...'
        value = value[:1_000]  # what is shown costs no more than that, however much was sent
    if isinstance(value, bytes | bytearray):
        value = bytes(value[:100])
    if isinstance(value, int) and value.bit_length() > 1_000:
        return "a whole number of more than 300 digits"  # Python refuses to write very long ones
    if isinstance(value, list | tuple | Mapping):
        text = _BRIEF.repr(value)
        return text if len(text) <= 80 else f"{text[:76]} ..."
    text = f'"{value}"' if isinstance(value, str) else str(value) if isinstance(value, _PLAIN) else repr(value)
    if not text.isprintable():
        text = text.encode("ascii", "backslashreplace").decode()
    if "  " in text or not text.isprintable():
        text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:76]} ..."


def python_value(value: np.generic) -> object:
    """Return a value of numpy's as Python has it. Raise Refused for a time outside the years of its datetime."""
    if not isinstance(value, np.datetime64):
        return cast(object, value.item())
    if np.isnat(value):
        return "NaT"
    us = value.astype("datetime64[us]")
    # what does not fit microseconds comes back as another time
    if us.astype(value.dtype) > value or not MIN_MS <= (count := us.astype(np.int64).item()) // 1000 <= MAX_MS:
        raise Refused(_OUTSIDE)
    return _EPOCH + timedelta(microseconds=count)


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
        if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
            value = int(value) if value.adjusted() < 40 else value
        if isinstance(value, float) and math.isfinite(value):
            if not value.is_integer():
                raise Refused("is no whole number")
            if abs(value) >= EXACT_FLOATS:
                raise Refused("may have been rounded: write whole numbers from 2^53 on without a point and exponent")
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Refused("is no whole number")
        if not low <= value <= high:
            raise Refused(f"does not fit {kind}")
        return int(value)

    return read


def _double(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
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


def _timestamp(field: Field, value: object) -> datetime:
    """Return a point in time, rounded down to the unit of the field."""
    if isinstance(value, str):
        value = _time_of(field, value)
    if isinstance(value, datetime) and value == value:  # pandas.NaT is a datetime
        us = ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH) // _US
    elif isinstance(value, date) and value == value:
        us = (datetime(value.year, value.month, value.day, tzinfo=UTC) - _EPOCH) // _US
    else:
        us = _counted_us(field, value)
    if not MIN_MS <= us // 1000 <= MAX_MS:
        raise Refused(_OUTSIDE)
    return _EPOCH + timedelta(microseconds=int(us if field.type == "timestamp_us" else us // 1000 * 1000))


def _counted_us(field: Field, value: object) -> int:
    """Return a time that is counted in the field's unit since 1970 in microseconds, rounded down."""
    if isinstance(value, float) and math.isfinite(value):
        if field.epoch != "s" and not value.is_integer():
            raise Refused(_NO_TIME)
        if abs(value) > _MOST_COUNTED:
            raise Refused(_OUTSIDE)
        # decimal, because a double of seconds times 1000 is not always the milliseconds that were written
        us = int(Decimal(repr(float(value))) * EPOCHS[field.epoch] // EPOCHS["us"])
    elif isinstance(value, int) and not isinstance(value, bool):
        us = value * EPOCHS[field.epoch] // EPOCHS["us"]
    else:
        raise Refused(_NO_TIME)
    if MIN_MS * 1000 <= us < field.earliest_ms * 1000:
        raise Refused(
            f"counted in {field.epoch} is before {(_EPOCH + timedelta(milliseconds=field.earliest_ms)).date()}: "
            "is it in another unit? Name it in the contract with epoch, or an earlier date with earliest"
        )
    return us


def _time_of(field: Field, text: str) -> datetime:
    try:
        if field.format:
            return datetime.strptime(text, field.format)
        if TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise Refused(f"is no time as in {field.format}" if field.format else "is no ISO 8601 time")


def _json(value: object) -> str:
    """Return the text of a JSON value; text that is JSON is that JSON, so reading it again changes nothing."""
    if isinstance(value, str):
        try:
            json.loads(value, parse_constant=_no_number)
        except (ValueError, RecursionError):
            return _string(json.dumps(value, ensure_ascii=False))
        return _string(value)
    return _string(json_text(value))


def json_text(value: object) -> str:
    """Return a value as JSON, its numbers as they were written. Raise Refused for what has none."""
    try:
        return exact_json(value, _ENCODER)
    except (ValueError, TypeError, RecursionError):
        raise Refused("cannot be written as JSON") from None


def jsonable(value: object) -> object:
    """Return what JSON has no type for as text or number, for `json.dumps`: times as ISO 8601, bytes in base64."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        number = float(value)
        return number if math.isfinite(number) and Decimal(repr(number)) == value else decimal_text(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return python_value(value) if isinstance(value, np.generic) else str(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=jsonable)


def _no_number(token: str) -> NoReturn:
    raise ValueError(token)


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
    "date": _date,
    "json": _json,
}
