"""Map keys and origins to lanes, and lanes to hash keys: the same in every process and release.

A lane is a virtual partition: a fixed share of the stream's hash space. Copies of one event must meet on one chain of
shards, so nothing here may ever give another answer for the same input. Pure: no clock, no randomness, no I/O.
"""

from collections.abc import Iterator
from functools import lru_cache
from uuid import UUID

import numpy as np
import pyarrow as pa

from headwater.arrays import coded
from headwater.contract.types import UUID as UUID_BYTES
from headwater.stream.hashkeys import HASH_SPACE, hash_key_of

__all__ = ["by_lane", "lane_hash_key", "lane_of", "origin_hash_key"]


@lru_cache(maxsize=1 << 16)
def lane_of(value: object, lanes: int) -> int:
    """Return the lane of a key or origin, from 0 to `lanes` - 1.

    >>> [lane_of(f"dev-{n:05d}", 16) for n in range(4)]
    [5, 13, 15, 3]
    """
    return hash_key_of(str(value)) * lanes // HASH_SPACE


def lane_hash_key(lane: int, lanes: int) -> int:
    """Return the hash key of all batches of a lane: the middle of its share of the hash space."""
    return (2 * lane + 1) * (HASH_SPACE >> 1) // lanes


def origin_hash_key(origin: str) -> int:
    """Return the hash key of all records of an origin whose events were numbered by the client."""
    return hash_key_of(origin)


def by_lane(table: pa.Table, field: str, lanes: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield each lane that the column `field` leads to, with its rows in their order."""
    column = coded(table.column(field))
    values = column.dictionary.to_pylist()
    if column.dictionary.type == UUID_BYTES:  # of a single event it is a UUID
        values = [UUID(bytes=value) for value in values]
    of_value = np.array([lane_of(value, lanes) for value in values], np.int64)
    of_row = of_value[column.indices.to_numpy()]
    order = np.argsort(of_row, kind="stable")  # stable: a key's events keep their order within the lane
    sorted_ = table.take(pa.array(order))
    found, starts = np.unique(of_row[order], return_index=True)
    stops = np.append(starts[1:], len(of_row))
    for lane, start, stop in zip(found.tolist(), starts.tolist(), stops.tolist(), strict=True):
        yield lane, sorted_.slice(start, stop - start)
