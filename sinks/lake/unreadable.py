"""Name what a part of an answer looks like: metadata and files of the lake of which a read brought only the beginning.

Read again they are whole, so a service goes on: it says so, and tries again.
"""

import zlib

import pyarrow as pa
from pydantic import ValidationError

__all__ = ["UNREADABLE"]

UNREADABLE = (ValidationError, zlib.error, pa.ArrowInvalid, EOFError)
"""Errors of pyiceberg and pyarrow for a table's metadata, a manifest or a data file that cannot be read."""
