"""Refuse arguments of a wrong type where they are written, in one line that says what is right.

What a user writes is checked against the annotations that type checkers read, so the two cannot differ. Only calls that
define something are checked so, once each: on the path of an event every check is a line of its own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from headwater.clock import DAY_MS, HOUR_MS
from headwater.errors import UsageError

__all__ = ["check_arguments", "check_fields", "duration_ms", "shown"]

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": HOUR_MS, "d": DAY_MS}


def check_arguments(function: Callable[..., object], values: Mapping[str, object], /, **right: str) -> None:
    """Raise UsageError for the first argument whose type is not the annotated one.

    `values` has the arguments by name, as `locals()` does in the first line of a function; names that are no parameters
    are left out, and so are those of `*args` and `**kwargs`. `right` says for a parameter in words what it takes, where
    its type alone would not help.

    >>> def wait(seconds: float) -> None:
    ...     check_arguments(wait, locals())
    >>> wait("long")
    Traceback (most recent call last):
    headwater.errors.UsageError: wait: seconds must be a number, not the text 'long'
    """
    what = function.__qualname__.removesuffix(".__init__").rpartition("<locals>.")[2]
    code = function.__code__
    for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        if name in values:
            _check(what, name, values[name], _hints(function).get(name, Any), right, UsageError)


def check_fields(made: object, error: type[UsageError] = UsageError, /, **right: str) -> None:
    """Raise the error for the first field of a dataclass whose value is not of the annotated type.

    For `__post_init__`. `right` is as in `check_arguments`.
    """
    hints = _hints(type(made))  # type: ignore[arg-type]  # a dataclass, which no type says
    for one in fields(made):  # type: ignore[arg-type]  # the same
        _check(type(made).__name__, one.name, getattr(made, one.name), hints[one.name], right, error)


def shown(value: object) -> str:
    """Return the value as an error names it: its type, and what it is as far as that is short.

    >>> shown("1m"), shown(5), shown([])
    ("the text '1m'", '5 (int)', '[] (list)')
    """
    if value is None:
        return "None"
    # what is large is not written out: a table would take seconds, and a number of many digits cannot be
    short = isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() < 128)
    short = short or (isinstance(value, str | bytes | list | tuple | dict | set) and len(value) <= 50)
    text = repr(value) if short else ""
    if not text or len(text) > 60:
        return f"a {type(value).__name__}"
    return f"the text {text}" if isinstance(value, str) else f"{text} ({type(value).__name__})"


@lru_cache(maxsize=256)
def _hints(of: Any) -> dict[str, Any]:
    return get_type_hints(of)


def _check(what: str, name: str, value: object, hint: Any, right: Mapping[str, str], error: type[UsageError]) -> None:
    if not _is_of(value, hint):
        raise error(f"{what}: {name} must be {right.get(name) or _words(hint)}, not {shown(value)}")


def _is_of(value: object, hint: Any) -> bool:
    """Return whether the value is of an annotated type, as deep as the annotation goes."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in (Any, object):
        return True
    if origin in (Union, UnionType):
        return any(_is_of(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if hint is float or hint is int:
        # numpy's numbers are as good as Python's own; True is a number for Python, and a mistake here
        return isinstance(value, Real if hint is float else Integral) and not isinstance(value, bool)
    kind = origin or hint
    if kind in _LISTS:
        # a text is a sequence of texts for Python; where a list is asked for it is a mistake
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            return False
        return not inner or all(_is_of(one, inner[0]) for one in value)
    if not isinstance(value, kind):
        return False
    if isinstance(value, Mapping) and inner:
        return all(_is_of(key, inner[0]) and _is_of(one, inner[1]) for key, one in value.items())
    return True


_LISTS = (tuple, list, Sequence)
_PLAIN = {str: "a text", int: "a whole number", float: "a number", bool: "True or False", NoneType: "None"}


def _words(hint: Any) -> str:
    """Return an annotated type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(one) for one in inner)
    if origin is Literal:
        return " or ".join(repr(one) for one in inner)
    kind = origin or hint
    if isinstance(hint, type) and hint in _PLAIN:
        return _PLAIN[hint]
    if kind is Callable:
        return "a function"
    if kind in _LISTS:
        return f"a list, each of it {_words(inner[0])}" if inner else "a list"
    if kind is Mapping:
        return f"a mapping of {_words(inner[0])} to {_words(inner[1])}" if inner else "a mapping"
    return f"a {getattr(kind, '__name__', kind)}"


def duration_ms(text: str) -> int:
    """Return a duration such as `"90s"`, `"1m"`, `"2h"`, `"1d"` or `"250ms"` in milliseconds.

    Raises UsageError for any other text, and for no time at all.

    >>> duration_ms("90s")
    90000
    """
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text) if isinstance(text, str) else None
    if not match or int(match[1]) == 0:
        raise UsageError(f"{shown(text)} is no duration: write a whole number and ms, s, m, h or d, as in '5m'")
    return int(match[1]) * _UNITS[match[2]]
