"""Name the rows of a view that events belong to, and choose some of them. Pure.

A place is a row of a view: its key as text and the start of its window. Places are compared by a hash of 64 bits, so
that a million of them fit into arrays; of two places in 10**12 a pair is alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import Ints, whole
from headwater.contract.written import as_text
from headwater.processors.definition.parts import View
from headwater.processors.operators.windowing import newest
from headwater.sinks.views.items import key_text

__all__ = ["Place", "Places", "hashed", "lowest", "place_hash", "places_of"]

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]
Place = tuple[str, int | None]
"""The key as text, and the start of the window in epoch ms; None in a view without windows."""
_NO_WINDOW = -(1 << 62)
_NULL = 0x5BD1E9955BD1E995


@dataclass(frozen=True)
class Places:
    """Hold the place of each row of a table, once for each window that the row falls into.

    `at` is the number of the table's row, `key` the number of its key in `keys`.
    """

    keys: pa.Array
    at: Ints
    key: Ints
    start: Ints
    hash: Hashes

    def place(self, number: int) -> Place:
        """Return the place by its number."""
        start = int(self.start[number])
        return self.keys[int(self.key[number])].as_py(), None if start == _NO_WINDOW else start


def places_of(view: View, rows: pa.Table, ts_ms: Ints) -> Places:
    """Return the places of the rows, whose event times are `ts_ms`."""
    text = pa.array([""] * rows.num_rows, pa.string())
    columns = [_key_column(rows[name]) for name in view.by]
    if columns:
        text = pc.binary_join_element_wise(*columns, "|")
    encoded = text.dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    ats, starts = [], []
    for hop in range(view.window.overlap if view.window else 1):
        ats.append(np.arange(rows.num_rows))
        if view.window is None:
            starts.append(np.full(rows.num_rows, _NO_WINDOW))
        else:
            starts.append(newest(view.window, ts_ms) - hop * view.window.every_ms)
    at, start = np.concatenate(ats), np.concatenate(starts)
    key = codes[at]
    names = hashed(encoded.dictionary)
    return Places(encoded.dictionary, at, key, start, _mixed(names[key] if len(names) else names, start))


def place_hash(place: Place) -> int:
    """Return the hash of one place."""
    start = np.array([_NO_WINDOW if place[1] is None else place[1]], np.int64)
    return int(_mixed(hashed(pa.array([place[0]], pa.string())), start)[0])


def hashed(values: pa.Array) -> Hashes:
    """Return a hash of each value, the same in every process; nulls have one of their own."""
    text = values.cast(pa.string()) if not pa.types.is_string(values.type) else values
    hashes = [_NULL if one is None else mmh3.hash64(one, signed=False)[0] for one in text.to_pylist()]
    return np.array(hashes, np.uint64)


def _key_column(column: pa.ChunkedArray) -> pa.Array:
    encoded = as_text(whole(column)).dictionary_encode("encode")
    texts = pa.array([key_text([value]) for value in encoded.dictionary.to_pylist()], pa.string())
    return texts.take(encoded.indices)


def _mixed(names: Hashes, start: Ints) -> Hashes:
    with np.errstate(over="ignore"):
        starts = start.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        starts = (starts ^ (starts >> np.uint64(30))) * np.uint64(0x94D049BB133111EB)  # as splitmix64 does
        mixed: Hashes = (names * np.uint64(0x9E3779B97F4A7C15)) ^ starts ^ (starts >> np.uint64(31))
        return mixed * np.uint64(0xBF58476D1CE4E5B9)


def lowest(hashes: Hashes, count: int) -> Sequence[int]:
    """Return the numbers of the `count` lowest distinct hashes."""
    _, first = np.unique(hashes, return_index=True)
    found: list[int] = first[:count].tolist()
    return found
