"""Name the kinds of settings, each with its bounds: a value outside of them is refused when the settings are read.

>>> from pydantic import TypeAdapter
>>> TypeAdapter(Seconds).validate_python("2.5")
2.5
"""

import re
import shlex
from typing import Annotated, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

__all__ = [
    "GLUE",
    "Bucket",
    "Bytes",
    "CatalogName",
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
    "rest_options",
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

GLUE = "glue"
"""The Glue Data Catalog, where boto3 finds it."""
_REST = ("warehouse", "prefix", "scope", "audience", "resource", "oauth2-server-uri")
_SIGNED = ("rest.sigv4-enabled", "rest.signing-name", "rest.signing-region")


def rest_options(value: str) -> dict[str, str]:
    """Return what pyiceberg's REST catalog is opened with, from a URL; raise ValueError for one that is none.

    >>> rest_options("https://me:secret@lake.example.org/catalog?warehouse=events")
    {'warehouse': 'events', 'uri': 'https://lake.example.org/catalog', 'credential': 'me:secret'}
    """
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"it is to be {GLUE}, or the http(s) URL of a catalog that speaks Iceberg's REST protocol")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if parts.port is None else f"{host}:{parts.port}"
    given = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    strange = sorted(given.keys() - {*_REST, *_SIGNED})
    if strange:
        raise ValueError(f"{', '.join(strange)} is no option of a REST catalog: {', '.join((*_REST, *_SIGNED))} are")
    options = given | {"uri": f"{parts.scheme}://{place}{parts.path}"}
    user, secret = (unquote(one or "") for one in (parts.username, parts.password))
    if user and secret:
        options["credential"] = f"{user}:{secret}"
    elif user or secret:
        options["token"] = user or secret
    return options


def _catalog(value: str) -> str:
    if value != GLUE:
        rest_options(value)
    return value


CatalogName = Annotated[str, AfterValidator(_catalog)]
