"""Find which rows of a table are in sets of identities. Pure.

The rows are sorted by identity, so each interval of a set is a slice of them: no identity is looked up by itself.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from headwater.arrays import Mask, coded
from headwater.lineage.origins import OriginSets

__all__ = ["member_slices", "members"]


def members(rows: pa.Table, sets: OriginSets) -> Mask:
    """Return which of the rows, sorted by `_origin` and `_seq`, are in the sets."""
    mask = np.zeros(rows.num_rows, np.bool_)
    for start, stop in member_slices(rows, sets):
        mask[start:stop] = True
    return mask


def member_slices(rows: pa.Table, sets: OriginSets) -> Iterator[tuple[int, int]]:
    """Yield the `[start, stop)` of the rows, sorted by `_origin` and `_seq`, that are in the sets."""
    origins, seqs = coded(rows["_origin"]), rows["_seq"].to_numpy()
    bounds = np.flatnonzero(np.diff(origins.indices.to_numpy(), prepend=-1, append=-1))
    for start, stop in pairwise(bounds.tolist()):
        mine = seqs[start:stop]
        for low, high in sets.get(origins[start].as_py()):
            # by its last number: what is behind the highest of 64 bits is no number of theirs
            first, last = np.searchsorted(mine, low), np.searchsorted(mine, high - 1, "right")
            if first < last:
                yield start + int(first), start + int(last)
