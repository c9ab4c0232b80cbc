"""Find in a statement's text what the engine does not know: other states of a table, Iceberg's own tables. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from headwater.errors import UsageError

__all__ = ["METADATA_TABLES", "Named", "explained", "instant", "named", "shows_tables", "travelled"]

METADATA_TABLES = ("files", "history", "manifests", "partitions", "refs", "snapshots")

_KEPT = r"(?P<kept>'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/)"
"""Texts and comments."""
_NAME = r'(?:"(?:[^"]|"")+"|\w+)'
_TRAVEL = re.compile(
    rf"{_KEPT}|(?P<name>(?:{_NAME}\.)?{_NAME})\s+FOR\s+(?:SYSTEM_)?(?P<kind>TIMESTAMP|TIME|VERSION)\s+AS\s+OF\s+"
    r"(?:TIMESTAMP\s+)?(?P<at>'[^']*'|\d+)",
    re.IGNORECASE | re.DOTALL,
)
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(?P<analyze>ANALYZE\s+)?(?P<sql>.+)", re.IGNORECASE | re.DOTALL)
_SHOW = re.compile(r"\s*SHOW\s+(ALL\s+)?TABLES\s*;?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Named:
    """Name one state of a table, or one of Iceberg's tables about it.

    `at` is a moment in epoch ms, `version` a snapshot's id or the name of a branch or tag; with neither it is the
    current state. `about` is one of METADATA_TABLES, or empty for the rows.
    """

    table: str
    at: int | None = None
    version: str = ""
    about: str = ""


def travelled(sql: str) -> tuple[str, Mapping[str, Named]]:
    """Return the statement with a name in place of each other state of a table, and what these names stand for.

    >>> sql, states = travelled("SELECT * FROM metric FOR VERSION AS OF 7 WHERE note = 'FOR VERSION AS OF 8'")
    >>> sql
    'SELECT * FROM "metric of 7" WHERE note = \'FOR VERSION AS OF 8\''
    >>> states
    {'metric of 7': Named(table='metric', at=None, version='7', about='')}

    Raise UsageError for a moment that is none.
    """
    found: dict[str, Named] = {}

    def replaced(match: re.Match[str]) -> str:
        if match["kept"]:
            return match[0]
        table, at = match["name"].split(".")[-1].strip('"'), match["at"].strip("'")
        name = f"{table} of {at}"
        by_version = match["kind"].upper() == "VERSION"
        found[name] = Named(table, version=at) if by_version else Named(table, instant(at))
        return f'"{name}"'

    return _TRAVEL.sub(replaced, sql), found


def instant(text: str) -> int:
    """Return the moment in epoch ms; without a zone it is UTC's. Raise UsageError for a text that is no ISO 8601.

    >>> instant("2026-01-01 12:00"), instant("2026-01-01T12:00+02:00")
    (1767268800000, 1767261600000)
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: write it as 2026-01-31T12:00:00Z") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def named(sql: str, tables: Iterable[str]) -> list[Named]:
    """Return the tables, and Iceberg's tables about them, whose names are in the text.

    >>> named('SELECT * FROM lake."metric$files", metrics', ["metric", "metrics", "other"])
    [Named(table='metric', at=None, version='', about='files'), Named(table='metrics', at=None, version='', about='')]
    """
    found = []
    for table in tables:
        pattern = rf"(?<!\w){re.escape(table)}(?:\$(?P<about>\w+)|(?![\w$]))"
        for about in dict.fromkeys((one["about"] or "").lower() for one in re.finditer(pattern, sql, re.IGNORECASE)):
            if about and about not in METADATA_TABLES:
                raise UsageError(f"there is no table {table}${about}; Iceberg has {', '.join(METADATA_TABLES)}")
            found.append(Named(table, about=about))
    return found


def explained(sql: str) -> tuple[str, bool] | None:
    """Return the statement that is to be explained, and whether it is to be run for that; None for any other.

    >>> explained("EXPLAIN ANALYZE SELECT 1"), explained("SELECT 1")
    (('SELECT 1', True), None)
    """
    found = _EXPLAIN.fullmatch(sql)
    return None if found is None else (found["sql"], found["analyze"] is not None)


def shows_tables(sql: str) -> bool:
    """Tell whether the statement asks which tables there are.

    >>> shows_tables("show tables;")
    True
    """
    return _SHOW.fullmatch(sql) is not None
