"""Numbers for strings, for as many as a shard has origins: some forty bytes each besides the text, and no objects.

What a string means does not matter here; when an origin is forgotten is `headwater.lineage`'s business.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import Ints

__all__ = ["StringCodes", "grown"]

Array = np.ndarray[tuple[int], np.dtype[Any]]


def grown(array: Array, length: int) -> Array:
    """Return the array with room for `length` values and some more, zeros behind what it had."""
    out = np.zeros(max(1024, length + length // 8), array.dtype)
    out[: len(array)] = array
    return out


class StringCodes:
    """Number distinct strings, from 0 in order of appearance.

    The text is kept as Arrow keeps it. Few known names, compared with those to look up, are looked up by Arrow, which
    hashes all of them; for many there is a hash table of numbers (open addressing), looked up a batch at a time.

    >>> names = StringCodes()
    >>> names.codes(pa.array(["b", "a", "b"])).tolist()
    [0, 1, 0]
    """

    def __init__(self) -> None:
        self._size = 0
        self._bytes: Array = np.zeros(0, np.uint8)
        self._offsets: Array = np.zeros(1, np.int64)
        self._hashes: Array = np.zeros(0, np.int64)
        self._slots: Array = np.zeros(0, np.int32)
        self._indexed = 0
        self._code: dict[str, int] = {}

    def __len__(self) -> int:
        """Return how many names there are."""
        return self._size

    def __getitem__(self, code: int) -> str:
        """Return the name of a number."""
        start, stop = self._offsets[code : code + 2]
        return self._bytes[start:stop].tobytes().decode()

    def array(self) -> pa.Array:
        """Return all names in the order of their numbers; the array is valid until names are taken in."""
        if not self._size:
            return pa.array([], pa.large_string())
        return pa.LargeStringArray.from_buffers(self._size, pa.py_buffer(self._offsets), pa.py_buffer(self._bytes))

    def get(self, name: str) -> int | None:
        """Return one name's number; None for one not known. The first call pays for a dictionary."""
        if len(self._code) < self._size:
            new = self.array().slice(len(self._code)).to_pylist()
            self._code.update(zip(new, range(len(self._code), self._size), strict=True))
        return self._code.get(name)

    def codes(self, names: pa.Array) -> Ints:
        """Return the number of each string (none of them null); new ones are taken in."""
        names = names.cast(pa.large_string())
        if self._size <= 1024 + 8 * len(names):
            found = pc.index_in(names, value_set=self.array())
            if found.null_count:
                self._take_in(names.filter(found.is_null()).unique())
                found = pc.index_in(names, value_set=self.array())
            codes: Ints = found.to_numpy().astype(np.int64)
            return codes
        hashes = _hashes(names)
        codes = self._look_up(names, hashes)
        if (codes < 0).any():
            self._take_in(names.filter(pa.array(codes < 0)).unique())
            codes = self._look_up(names, hashes)
        return codes

    def _take_in(self, new: pa.Array) -> None:
        _, offsets, text = new.buffers()
        place = np.frombuffer(offsets, np.int64)[new.offset : new.offset + len(new) + 1]
        size, end = self._size, int(self._offsets[self._size])
        stop = end + int(place[-1] - place[0])
        if size + len(new) >= len(self._offsets):
            self._offsets = grown(self._offsets, size + len(new) + 1)
        if stop > len(self._bytes):
            self._bytes = grown(self._bytes, stop)
        self._offsets[size : size + len(new) + 1] = place - place[0] + end
        if stop > end:
            self._bytes[end:stop] = np.frombuffer(text, np.uint8)[place[0] : place[-1]]
        self._size += len(new)

    def _look_up(self, names: pa.Array, hashes: Ints) -> Ints:
        """Return the number of each name, -1 for those not known. Equal hashes are not enough: the text is compared."""
        self._index()
        known, mask = self.array(), len(self._slots) - 1
        codes: Ints = np.full(len(names), -1, np.int64)
        at, open_ = hashes & mask, np.arange(len(names))
        while len(open_):
            found = self._slots[at[open_]] - 1
            used = found >= 0
            open_, found = open_[used], found[used]
            alike = np.flatnonzero(self._hashes[found] == hashes[open_])
            same = np.zeros(len(open_), np.bool_)
            equal = pc.equal(names.take(pa.array(open_[alike])), known.take(pa.array(found[alike])))
            same[alike] = equal.to_numpy(zero_copy_only=False)
            codes[open_[same]] = found[same]
            open_ = open_[~same]
            at[open_] = (at[open_] + 1) & mask
        return codes

    def _index(self) -> None:
        """Bring the hash table up to date; a slot holds a number plus one, 0 is free. At most half of it is used."""
        size = self._size
        if self._indexed == size:
            return
        if len(self._hashes) < size:
            self._hashes = grown(self._hashes, size)
        self._hashes[self._indexed : size] = _hashes(self.array().slice(self._indexed))
        if len(self._slots) < 2 * size:
            self._slots, self._indexed = np.zeros(1 << (2 * size).bit_length(), np.int32), 0
        mask, new = len(self._slots) - 1, np.arange(self._indexed, size)
        at = self._hashes[new] & mask
        while len(new):
            free = self._slots[at] == 0
            self._slots[at[free]] = new[free] + 1  # of several for one slot the last has it
            left = self._slots[at] != new + 1
            new, at = new[left], (at[left] + 1) & mask
        self._indexed = size


def _hashes(names: pa.Array) -> Ints:
    """Return Python's own hashes, which differ from process to process: nobody can prepare names that collide."""
    hashes: list[Ints] = []
    for start in range(0, len(names), 65_536):
        part: Iterable[str] = names.slice(start, 65_536).to_pylist()
        hashes.append(np.fromiter(map(hash, part), np.int64))
    return np.concatenate(hashes) if hashes else np.zeros(0, np.int64)
