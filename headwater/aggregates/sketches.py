"""Apache DataSketches as state: made the same whatever the cut into calls and however often it is read or restored."""

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from datasketches import hll_sketch, hll_union, tdigest_double, tgt_hll_type

__all__ = ["BLOCK", "digest_block", "distinct_bytes", "distinct_of", "new_distinct", "quantile_of", "read_distinct"]

BLOCK = 256
"""A t-digest takes its values in blocks of this many: reading one compresses it, which must not depend on when."""


def new_distinct(lg_k: int) -> hll_sketch:
    """Make an empty sketch."""
    # HLL_8: its bytes depend on the values alone, while HLL_4 keeps a table of exceptions
    return hll_sketch(lg_k, tgt_hll_type.HLL_8)


def read_distinct(data: bytes) -> hll_sketch:
    """Read a sketch from its bytes."""
    return hll_sketch.deserialize(data)


def distinct_bytes(sketch: hll_sketch) -> bytes:
    """Return a sketch's bytes in canonical form: the coupons of a small sketch (a list or a hash set) are sorted."""
    data = bytes(sketch.serialize_compact())
    mode = data[7] & 3
    if mode > 1:
        return data
    head = 4 * (data[0] & 0x3F)
    return data[:head] + np.sort(np.frombuffer(data, "<u4", offset=head)).tobytes()


def distinct_of(found: Sequence[bytes], lg_k: int) -> int:
    """Estimate the number of different values in the union of sketches."""
    if len(found) == 1:
        alone: float = read_distinct(found[0]).get_estimate()
        return round(alone)
    union = hll_union(lg_k)
    for data in found:
        union.update(read_distinct(data))
    estimate: float = union.get_result(tgt_hll_type.HLL_8).get_estimate()
    return round(estimate)


def update_distinct(sketch: hll_sketch, values: Iterable[Any]) -> None:
    """Add values to a sketch."""
    for value in values:
        # DataSketches passes over empty strings; here they are a value like any other, written as one NUL. So a text of
        # nothing but NULs gets one more: else "" and "\0" would count as one
        sketch.update(value + "\0" if isinstance(value, str) and not value.strip("\0") else value)


def digest_block(digest: bytes | None, block: npt.NDArray[np.float64], k: int) -> bytes:
    """Add a block of values to a digest, or to a new one."""
    sketch = tdigest_double.deserialize(digest) if digest else tdigest_double(k)
    sketch.update(np.ascontiguousarray(block))
    return bytes(sketch.serialize())


def quantile_of(found: Sequence[Any], q: float, k: int) -> float:
    """Estimate the quantile over pairs [digest in base64 or null, further values]."""
    rest = np.sort(np.array([value for _, values in found for value in values], dtype=np.float64))
    digests = [digest for digest, _ in found if digest]
    if not digests:
        return float(np.quantile(rest, q))
    sketch = tdigest_double(k)
    for digest in digests:
        sketch.merge(tdigest_double.deserialize(base64.b64decode(digest)))
    if len(rest):
        sketch.update(rest)
    return float(sketch.get_quantile(q))
