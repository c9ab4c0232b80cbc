"""Name the kinds of settings, each with its bounds: a value outside of them is refused when the settings are read.

>>> from pydantic import TypeAdapter
>>> TypeAdapter(Seconds).validate_python("2.5")
2.5
"""

import re
import shlex
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

__all__ = [
    "Bucket",
    "Bytes",
    "Count",
    "Host",
    "LogLevel",
    "Milliseconds",
    "Name",
    "NameOrNone",
    "Options",
    "Origins",
    "Port",
    "PortOrNone",
    "Region",
    "Seconds",
    "SecondsOrZero",
    "Text",
    "Url",
]

_DAY = 86_400.0


def _matching(pattern: str, words: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"it is to be {words}")
        return value

    return AfterValidator(check)


Seconds = Annotated[float, Field(ge=0.05, le=_DAY, allow_inf_nan=False)]
"""A time that something is done after, or for: never so short that it becomes a busy loop."""
SecondsOrZero = Annotated[float, Field(ge=0, le=_DAY, allow_inf_nan=False)]
Milliseconds = Annotated[int, Field(ge=0, le=60_000)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Bytes = Annotated[int, Field(ge=1, le=1 << 40)]
Port = Annotated[int, Field(ge=0, le=65_535)]
"""0 is a free one."""
PortOrNone = Annotated[int, Field(ge=-1, le=65_535)]
"""0 is a free one, -1 none."""

Text = Annotated[str, _matching(r"[^\x00]*\S[^\x00]*", "a text that is not empty")]
Name = Annotated[str, _matching(r"[A-Za-z0-9_.-]{1,255}", "letters, digits and . _ - (255 at most)")]
"""A stream, a table or a database of AWS."""
NameOrNone = Annotated[str, _matching(r"[A-Za-z0-9_.-]{0,255}", "empty, or letters, digits and . _ - (255 at most)")]
Bucket = Annotated[str, _matching(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", "a bucket's name, such as my-lake")]
Region = Annotated[str, _matching(r"[a-z]{2,}(-[a-z0-9]+)+", "a region of AWS, such as eu-central-1")]
Host = Annotated[str, _matching(r"[A-Za-z0-9.:_%-]+", "a host name or an IP address")]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


def _url(value: str) -> str:
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("it is to be empty, or an http(s) URL")
    _ = parts.port  # raises ValueError for one out of range
    return value


Url = Annotated[str, AfterValidator(_url)]


def _origins(value: str) -> str:
    for one in (one.strip() for one in value.split(",") if one.strip()):
        if one != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s]+", one):
            raise ValueError(f"{one!r} is no origin, such as https://app.example.org")
    return value


Origins = Annotated[str, AfterValidator(_origins)]


def _options(value: str) -> str:
    shlex.split(value)  # raises ValueError for a quotation mark that is left open
    return value


Options = Annotated[str, AfterValidator(_options)]
"""Options of a command, as a shell takes them."""
