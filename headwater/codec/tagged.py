"""Write values of Python that JSON has no type for into JSON, and read them back as they were. Pure.

So that an event that a decoder gave is read the second time just as it was the first: bytes may be a UUID, a tuple a
pair of a map, a number one of any digits.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np

from headwater.contract.scalars import DECIMAL_TEXT, JsonNumber, Refused
from headwater.contract.values import python_value

__all__ = ["tagged", "untagged"]

_NUMBER = re.compile(DECIMAL_TEXT, re.ASCII)


def tagged(value: Any) -> tuple[Any, bool]:
    """Return a value with texts in place of what JSON lacks, and whether there are any.

    >>> tagged({"a": [1, b"x"]})
    ({'a': [1, {'$bytes': 'eA=='}]}, True)
    """
    found: list[str] = []
    return _tagged(value, found), bool(found)


def _tagged(value: Any, found: list[str]) -> Any:
    if isinstance(value, np.generic):
        found.append("number")
        value = _of_numpy(value)
    if value is None or isinstance(value, str | bool | int | JsonNumber):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        made = {name: _tagged(one, found) for name, one in value.items()}
        return {"$": made} if _is_tag(made) else made
    if isinstance(value, list):
        return [_tagged(one, found) for one in value]
    if isinstance(value, tuple):
        found.append("tuple")
        return {"$tuple": [_tagged(one, found) for one in value]}
    for name, (kinds, write, _) in _TAGS.items():
        if isinstance(value, kinds):
            found.append(name)
            return {f"${name}": write(value)}
    return value


def untagged(value: Any) -> Any:
    """Return what `tagged` was given. Raise ValueError for a type of a later version.

    >>> untagged({"a": [1, {"$bytes": "eA=="}]})
    {'a': [1, b'x']}
    """
    if isinstance(value, list):
        return [untagged(one) for one in value]
    if not isinstance(value, dict):
        return value
    if not _is_tag(value):
        return {name: untagged(one) for name, one in value.items()}
    ((name, held),) = value.items()
    if name == "$" and isinstance(held, dict):
        return {name: untagged(one) for name, one in held.items()}
    if name == "$tuple" and isinstance(held, list):
        return tuple(untagged(one) for one in held)
    if name[1:] not in _TAGS or not isinstance(held, str):
        raise ValueError(f"{name[:40]!r} is no type that this version writes down")
    try:
        return _TAGS[name[1:]][2](held)
    except (ValueError, binascii.Error):  # such as a time that is none
        return held


def _is_tag(value: Mapping[Any, Any]) -> bool:
    return len(value) == 1 and str(next(iter(value))).startswith("$")


def _of_numpy(value: np.generic) -> Any:
    try:
        return python_value(value)
    except Refused:  # a time that no datetime is: its text is refused as well
        return str(value)


def _decimal(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return Decimal(text)


def _no_number(text: str) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise ValueError(text)
    return float(text)


_Tag = tuple[type | tuple[type, ...], Callable[[Any], str], Callable[[str], object]]
_TAGS: dict[str, _Tag] = {
    "bytes": (
        (bytes, bytearray, memoryview),
        lambda value: base64.b64encode(value).decode(),
        lambda text: base64.b64decode(text, validate=True),
    ),
    "decimal": (Decimal, str, _decimal),
    "float": (float, lambda value: str(float(value)), _no_number),
    # by their own methods: what is no time in pandas is a datetime whose text by Python's is a time of the year 1
    "datetime": (datetime, lambda value: value.isoformat(), datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "uuid": (UUID, str, UUID),
}
"""The types, how each is written, and read. A datetime is a date, too, and comes first."""
