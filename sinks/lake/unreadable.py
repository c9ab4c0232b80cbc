"""Tell what a part of an answer looks like: metadata and files of the lake of which a read brought only the beginning.

Read again they are whole, so a service goes on: it says so, and tries again.
"""

import zlib
from traceback import walk_tb

import pyarrow as pa
from pydantic import ValidationError
from pyiceberg import exceptions

__all__ = ["is_unreadable"]

_TYPES = (ValidationError, exceptions.ValidationError, zlib.error, pa.ArrowInvalid, EOFError)
_READERS = frozenset({"pyiceberg", "pyarrow", "pydantic"})
_HELPERS = frozenset({"json", "struct", "gzip", "codecs", "encodings", "uuid", "decimal", "datetime", "enum"})
"""Modules of Python's own that readers call."""
_SAID = frozenset({"botocore", "boto3", "headwater"})
"""Modules whose errors say what it is, wherever they are raised."""


def is_unreadable(error: Exception) -> bool:
    """Tell whether an error is pyiceberg's or pyarrow's of a table's metadata, a manifest or a data file.

    What parses bytes of which some are missing may raise anything, so it is decided by who raised it.
    """
    if isinstance(error, _TYPES):
        return True
    if type(error).__module__ == exceptions.__name__ or _root(type(error).__module__) in _SAID:
        return False
    raised = [_root(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)]
    while raised and raised[-1] in _HELPERS:
        raised.pop()
    return bool(raised) and raised[-1] in _READERS


def _root(module: str) -> str:
    return module.partition(".")[0]
