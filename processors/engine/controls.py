"""Read what control records say, whole before anything of it is taken. Pure.

Anybody who may write to the stream may write a control record, so every value is checked; ValueError says what is
wrong with one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.lineage.origins import OriginSets
from headwater.processors.engine.bounds import MAX_ORIGIN_BYTES

__all__ = ["ReceiptRecord", "ReferenceVersion", "bound_version", "owner_of", "read_receipt", "read_reference"]

_FEW = 64
"""Intervals up to which one at a time is cheaper than a union, which passes over all that are known."""
_KINDS = (pa.string(), pa.int64(), pa.int64())
_LOW, _HIGH = -(2**63), 2**63 - 1
_HIGHEST_VERSION = 2**53
"""Versions count up by one from 1; up to here any reader of JSON has them exact."""
_MOST_AHEAD = 1_000
"""Versions that a shard may have missed. Each is announced on every open shard, so there are few."""
_BOUND = re.compile(r"(\d{10})-[0-9a-f]{16}\.parquet")
"""The name of a version's file: who may write to the bucket has bound the version to what is in it."""


@dataclass(frozen=True)
class ReferenceVersion:
    """Hold a new version of a reference table."""

    name: str
    version: int
    uri: str

    @property
    def owner(self) -> str | None:
        """Return the pipeline whose version it is, None where its file does not say."""
        return owner_of(self.name, self.uri)

    def replaces(self, version: int, uri: str) -> bool:
        """Return True when this version takes effect on a shard where that one, at its URI, is in force.

        Any writer to the stream can announce an old file under a high number, and all versions after it would be
        ignored. So a version is bound to its file by the file's name, and one that is so bound replaces any that is
        not. Raise ValueError, which says why, for a version that cannot be one: it is not what its file's name says,
        or far ahead of that in force, or not bound where another already is.

        >>> ReferenceVersion("sites", 3, "s3://b/reference/p/sites/0000000003-0123456789abcdef.parquet").replaces(
        ...     900, "s3://b/reference/p/sites/fedcba9876543210.parquet"
        ... )
        True
        """
        what = f"version {self.version} of reference table {self.name} is announced"
        if self.owner and owner_of(self.name, uri) not in (None, self.owner):
            return True  # another pipeline's, taken by code that could not tell
        mine, other = bound_version(self.name, self.uri), bound_version(self.name, uri)
        if mine is not None and mine != self.version:
            raise ValueError(f"{what} with the file of version {mine}")
        if (mine is None) != (other is None):
            if mine is None and self.version > version:
                raise ValueError(f"{what} with a file that has no version in its name; version {version} in force has")
            return mine is not None
        if self.version > version + _MOST_AHEAD:
            raise ValueError(f"{what}, and version {version} is in force: versions count up by one")
        return self.version > version


def owner_of(name: str, uri: str) -> str | None:
    """Return the pipeline that wrote this file of the reference table, by its folder; None where that does not say.

    Two pipelines on one stream may each have a table of this name, and each shard hears of the versions of both.

    >>> owner_of("sites", "s3://b/reference/clicks/sites/0000000003-0123456789abcdef.parquet")
    'clicks'
    """
    root, *folders = uri.split("/")[-4:-1] or [""]
    return folders[0] if root == "reference" and folders[1:] == [name] else None


def bound_version(name: str, uri: str) -> int | None:
    """Return the version that a file of the reference table says in its name; None where names had none yet."""
    folder, _, file = uri.rpartition("/")
    found = _BOUND.fullmatch(file)
    return int(found[1]) if found is not None and folder.endswith(f"/{name}") else None


@dataclass(frozen=True)
class ReceiptRecord:
    """Hold what a producer reports: the events of its origins that were accepted, as half-open intervals, and how many
    records each shard has refused by its limits.
    """

    contract: str
    intervals: Mapping[str, tuple[tuple[int, int], ...]]
    refused: Mapping[str, int]

    def add_to(self, accepted: OriginSets, arrived_ms: int) -> None:
        """Add the events to those accepted."""
        if sum(map(len, self.intervals.values())) <= _FEW:
            for origin, intervals in self.intervals.items():
                accepted.add_intervals(origin, intervals, arrived_ms)
            return
        # one at a time a record of 40,000 origins would take 20 s;
        # the stop after the highest number wraps, as in a snapshot
        rows = [
            (origin, start, stop if stop <= _HIGH else _LOW)
            for origin, intervals in self.intervals.items()
            for start, stop in intervals
            if start < stop
        ]
        columns = zip(*rows, strict=True) if rows else ([], [], [])
        origins, starts, stops = (pa.array(column, kind) for column, kind in zip(columns, _KINDS, strict=True))
        seen = pa.array(np.full(len(rows), arrived_ms, np.int64))
        columns_of = {"origin": pa.chunked_array([origins]), "lo": starts, "hi": stops, "seen_ms": seen}
        accepted.update(OriginSets.from_table(pa.table(columns_of)))


def read_reference(body: Mapping[str, Any]) -> ReferenceVersion:
    """Read the body of a `reference` record."""
    version = _whole(body.get("version"), "version")
    if not 1 <= version < _HIGHEST_VERSION:
        raise ValueError("its version is out of range")
    return ReferenceVersion(_text(body.get("name"), "name"), version, _text(body.get("uri"), "uri"))


def read_receipt(body: Mapping[str, Any]) -> ReceiptRecord:
    """Read the body of a `receipt` record."""
    intervals, refused = body.get("intervals"), body.get("refused", {})
    if not isinstance(intervals, Mapping) or not isinstance(refused, Mapping):
        raise ValueError("its intervals or refused are no objects")
    return ReceiptRecord(
        _text(body.get("contract"), "contract"),
        {_text(origin, "origin"): tuple(map(_interval, _list(spans))) for origin, spans in intervals.items()},
        {shard: min(max(0, _whole(count, "refused")), _HIGH) for shard, count in refused.items()},
    )


def _interval(span: object) -> tuple[int, int]:
    start, stop = (_whole(one, "interval") for one in _pair(span))
    if not _LOW <= start <= stop <= _HIGH + 1:
        raise ValueError("an interval is out of range")
    return start, stop


def _pair(span: object) -> list[object]:
    found = _list(span)
    if len(found) != 2:
        raise ValueError("an interval is no pair")
    return found


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("its intervals are no lists")
    return value


def _whole(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"its {what} is no whole number")
    return value


def _text(value: object, what: str) -> str:
    """Return text that can be encoded and is not too long to be kept."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"its {what} is no text")
    if len(value.encode()) > MAX_ORIGIN_BYTES:  # UnicodeEncodeError, of a lone surrogate, is a ValueError
        raise ValueError(f"its {what} is longer than {MAX_ORIGIN_BYTES:,} bytes")
    return value
