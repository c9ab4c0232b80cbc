"""Check the names that a pipeline's parts are given: they become S3 keys, ledger items, tables and metrics."""

import re
from collections.abc import Mapping

from headwater.errors import UsageError

__all__ = ["check_column_types", "check_name", "check_table_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ADDED = ("string", "boolean", "int", "long", "float", "double", "timestamp", "timestamp_us", "date")
"""Types whose columns are what Arrow's own cast makes them; a uuid or a json text would not be looked at."""
_TABLE = re.compile(r"[a-z0-9_]{1,255}")
"""Glue folds names to lower case, Athena takes letters, digits and _ in them, and a dot would name a database."""


def check_name(what: str, name: str) -> None:
    """Raise UsageError unless the name can be a part of an S3 key, a ledger item and a metric.

    >>> check_name("pipeline", "a/b")
    Traceback (most recent call last):
    headwater.errors.UsageError: a pipeline cannot be named 'a/b': letters, digits and . _ -, 128 at most, and ...
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a {what} cannot be named {name!r}: letters, digits and . _ -, 128 at most, and the first no sign"
        )


def check_table_name(name: str) -> None:
    """Raise UsageError unless the name can be that of a table in Glue and Athena.

    >>> check_table_name("Readings")
    Traceback (most recent call last):
    headwater.errors.UsageError: a lake table cannot be named 'Readings': small letters, digits and _, 255 at most
    """
    if not _TABLE.fullmatch(name):
        raise UsageError(f"a lake table cannot be named {name!r}: small letters, digits and _, 255 at most")


def check_column_types(what: str, columns: Mapping[str, str]) -> None:
    """Raise UsageError for the first column whose type no step can add.

    >>> check_column_types("map", {"value_f": "float64"})
    Traceback (most recent call last):
    headwater.errors.UsageError: map: column value_f has no type 'float64'; use one of string, boolean, int, long, ...
    """
    for column, kind in columns.items():
        if kind not in _ADDED:
            raise UsageError(f"{what}: column {column} has no type {kind!r}; use one of {', '.join(_ADDED)}")
