"""Number the keys of rows by small integers: a group per key, a slot per (group, window, bucket)."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints, coded
from headwater.contract.written import as_text
from headwater.stringcodes import StringCodes

__all__ = ["GroupIndex", "SlotIndex"]

_DENSE = 1 << 22
"""Up to this many combinations of column values are looked up in an array, more in a dict."""


class _Values:
    """Number the distinct values of a column, null among them."""

    def __init__(self) -> None:
        self._strings = StringCodes()
        self._others: dict[object, int] = {}
        self.list: list[object] = []
        self._of_string: Ints = np.zeros(0, np.int64)

    def of(self, values: pa.Array) -> Ints:
        """Return the number of each value; new values get the next numbers."""
        if not pa.types.is_string(values.type):
            return np.array([self._of_other(value) for value in values.to_pylist()], np.int64)
        codes = self._strings.codes(values)
        known = len(self._of_string)
        if len(self._strings) > known:
            fresh = [self._strings[code] for code in range(known, len(self._strings))]
            self._of_string = np.append(self._of_string, np.arange(len(fresh)) + len(self.list))
            self.list.extend(fresh)
        return self._of_string[codes]

    def of_null(self) -> int:
        """Return the number of null."""
        return self._of_other(None)

    def _of_other(self, value: object) -> int:
        if value not in self._others:
            self._others[value] = len(self.list)
            self.list.append(value)
        return self._others[value]


class GroupIndex:
    """Number the distinct combinations of the values of some columns, from 0 in order of appearance."""

    def __init__(self, columns: int) -> None:
        self._values = [_Values() for _ in range(columns)]
        self._bits = [0] * columns
        self._codes: list[list[int]] = [[] for _ in range(columns)]
        self._count = 0
        self._dense: Ints | None = np.full(1, -1, np.int64)
        self._sparse: dict[int, int] = {}

    def __len__(self) -> int:
        return self._count

    def of(self, columns: Sequence[pa.Array], rows: int) -> Ints:
        """Return the group of each row; new combinations get the next numbers."""
        return self._of([as_text(column) for column in columns], rows)

    def _of(self, columns: Sequence[pa.Array], rows: int) -> Ints:
        codes = [self._column(i, column) for i, column in enumerate(columns)]
        self._widen()
        packed = np.zeros(rows, np.int64)
        for bits, code in zip(self._bits, codes, strict=True):
            packed = (packed << bits) | code
        if self._dense is None:
            return self._look_up_sparse(packed)
        found = self._dense[packed]
        if (found < 0).any():
            fresh, first = np.unique(packed[found < 0], return_index=True)
            self._take_in(fresh[np.argsort(first)])
            found = self._dense[packed]
        return found

    def of_keys(self, keys: Sequence[tuple[object, ...]]) -> Ints:
        """Return the group of each key given as a tuple."""
        columns = [_coded([key[i] for key in keys]) for i in range(len(self._values))]
        return self._of(columns, len(keys))

    def keys(self, groups: Ints) -> list[tuple[object, ...]]:
        """Return the key of each group."""
        if not self._values:
            return [()] * len(groups)
        names = [values.list for values in self._values]
        at = groups.tolist()
        columns = [[name[code[g]] for g in at] for name, code in zip(names, self._codes, strict=True)]
        return list(zip(*columns, strict=True))

    def _column(self, i: int, column: pa.Array) -> Ints:
        """Return the number of each row's value in one column."""
        column = coded(column)
        values = self._values[i]
        codes = values.of(column.dictionary)
        if column.null_count:  # null has no place in the dictionary: give it one behind the last
            codes = np.append(codes, values.of_null())
            indices = column.indices.fill_null(len(codes) - 1).to_numpy()
        else:
            indices = column.indices.to_numpy()
        return codes[indices] if len(codes) else np.zeros(len(indices), np.int64)

    def _widen(self) -> None:
        """Rebuild the look-up when a column has got more values than its bits can number."""
        bits = [max(1, len(values.list).bit_length()) for values in self._values]
        if bits == self._bits:
            return
        # more bits change every packed value, so all known groups are packed again
        self._bits = [max(new, old) for new, old in zip(bits, self._bits, strict=True)]
        size = 1 << sum(self._bits)
        packed = np.zeros(self._count, np.int64)
        for width, code in zip(self._bits, self._codes, strict=True):
            packed = (packed << width) | np.array(code, np.int64)
        if size <= _DENSE:
            self._dense = np.full(size, -1, np.int64)
            self._dense[packed] = np.arange(self._count)
        else:
            self._dense = None
            self._sparse = {key: at for at, key in enumerate(packed.tolist())}

    def _take_in(self, packed: Ints) -> None:
        """Append new groups, given by their packed values."""
        if self._dense is not None:
            self._dense[packed] = np.arange(self._count, self._count + len(packed))
        rest = packed.copy()
        for code, bits in zip(reversed(self._codes), reversed(self._bits), strict=True):
            code.extend((rest & ((1 << bits) - 1)).tolist())
            rest >>= bits
        self._count += len(packed)

    def _look_up_sparse(self, packed: Ints) -> Ints:
        unique, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
        order = np.argsort(first)
        fresh = [key for key in unique[order].tolist() if key not in self._sparse]
        for key in fresh:
            self._sparse[key] = len(self._sparse)
        self._take_in(np.array(fresh, np.int64))
        found: Ints = np.array([self._sparse[key] for key in unique.tolist()], np.int64)[inverse]
        return found


class SlotIndex:
    """Number the distinct (group, window start, bucket), from 0 in order of appearance."""

    def __init__(self) -> None:
        self._by_window: dict[tuple[int, int], dict[int, int] | Ints] = {}
        self._parts: list[tuple[Ints, Ints, Ints]] = []
        self._count = 0
        self._keys: tuple[Ints, Ints, Ints] | None = None

    def __len__(self) -> int:
        return self._count

    def of(self, group: Ints, start: Ints, bucket: Ints, groups: int) -> Ints:
        """Return the slot of each row; `groups` is the number of groups that there are."""
        out = np.empty(len(group), np.int64)
        for rows in _windows(start, bucket):
            out[rows] = self._in_window(group[rows], int(start[rows[0]]), int(bucket[rows[0]]), groups)
        return out

    def load(self, group: Ints, start: Ints, bucket: Ints, groups: int) -> None:
        """Fill an empty index: row i becomes slot i."""
        for rows in _windows(start, bucket):
            table = np.full(groups, -1, np.int64)
            table[group[rows]] = rows
            members = dict(zip(group[rows].tolist(), rows.tolist(), strict=True))
            self._by_window[int(start[rows[0]]), int(bucket[rows[0]])] = table if len(rows) * 16 >= groups else members
        self._parts = [(group, start, bucket)]
        self._count = len(group)

    def _in_window(self, group: Ints, start: int, bucket: int, groups: int) -> Ints:
        table = self._by_window.get((start, bucket))
        # an array for a window with at least a sixteenth of all groups; a dict for a sparse one, to save memory
        if table is None:
            table = np.full(groups, -1, np.int64) if len(group) * 16 >= groups else {}
        if isinstance(table, dict):
            at = [table.get(g, -1) for g in group.tolist()]
            found = np.array(at, np.int64)
            if len(table) * 16 >= groups:
                dense = np.full(groups, -1, np.int64)
                dense[np.fromiter(table.keys(), np.int64, len(table))] = np.fromiter(
                    table.values(), np.int64, len(table)
                )
                table = dense
        if isinstance(table, np.ndarray):
            if len(table) < groups:
                table = np.concatenate([table, np.full(max(groups, 2 * len(table)) - len(table), -1, np.int64)])
            found = table[group]
        self._by_window[start, bucket] = table
        missing = found < 0
        if missing.any():
            fresh, first = np.unique(group[missing], return_index=True)
            fresh = fresh[np.argsort(first)]  # np.unique sorts by value; slots are numbered in order of appearance
            numbers = np.arange(self._count, self._count + len(fresh))
            self._count += len(fresh)
            self._parts.append((fresh, np.full(len(fresh), start), np.full(len(fresh), bucket)))
            self._keys = None
            if isinstance(table, dict):
                table.update(zip(fresh.tolist(), numbers.tolist(), strict=True))
                found = np.array([table[g] for g in group.tolist()], np.int64)
            else:
                table[fresh] = numbers
                found = table[group]
        return found

    def columns(self) -> tuple[Ints, Ints, Ints]:
        """Return the group, window start and bucket of each slot."""
        if self._keys is None:
            empty = np.zeros(0, np.int64)
            columns = zip(*self._parts, strict=True) if self._parts else ([empty], [empty], [empty])
            group, start, bucket = (np.concatenate(list(column)) for column in columns)
            self._keys = (group, start, bucket)
            self._parts = [self._keys] if self._count else []
        return self._keys


def _windows(start: Ints, bucket: Ints) -> list[Ints]:
    """Return the rows of each (start, bucket), in row order."""
    if not len(start):
        return []
    if (start == start[0]).all() and (bucket == bucket[0]).all():
        return [np.arange(len(start))]
    order = np.lexsort((bucket, start))
    s, b = start[order], bucket[order]
    return np.split(order, np.flatnonzero((np.diff(s) != 0) | (np.diff(b) != 0)) + 1)


def _coded(values: list[object]) -> pa.Array:
    place = {value: at for at, value in enumerate(dict.fromkeys(value for value in values if value is not None))}
    indices = pa.array([None if value is None else place[value] for value in values], pa.int32())
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(place)) if place else pa.array([], pa.string()))
