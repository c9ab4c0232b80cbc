"""The events of one record."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints
from headwater.contract import InvalidRow

__all__ = ["Decoded", "kept_rows", "moved"]


@dataclass(frozen=True)
class Decoded:
    """Hold the events of one record, in the order written.

    `table` holds the valid ones in the contract's schema (string columns may be dictionary-encoded), `rows` the place
    of each in the record and `invalid` the others; places count all `total` events from 0. `origin` and `first_seq`
    name the events of a sealed batch: the one at place i is (origin, first_seq + i). Without an origin they have no
    identity from the batch.
    """

    contract: str
    version: int
    table: pa.Table
    rows: Ints
    invalid: tuple[InvalidRow, ...]
    total: int
    origin: str | None = None
    first_seq: int = 0
    traceparent: str | None = None
    digest: str | None = None
    """Digest of the rows as they were sealed, invalid ones included (`headwater.codec.digest`); None without an
    identity, and in batches of older producers."""


def moved(invalid: Iterable[InvalidRow], by: int) -> tuple[InvalidRow, ...]:
    """Return the rows at places that are so many further on."""
    return tuple(InvalidRow(index + by, reason, event) for index, reason, event in invalid)


def kept_rows(total: int, invalid: Sequence[InvalidRow]) -> Ints:
    """Return the places of the valid events among `total`."""
    rows: Ints = np.arange(total, dtype=np.int64)
    if not invalid:
        return rows
    keep = np.ones(total, np.bool_)
    keep[[row.index for row in invalid]] = False
    return rows[keep]
