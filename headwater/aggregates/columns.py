"""The state of many slots at once: one cell a part, and the partials that views store.

A slot here is a number; which window and key it is, the view's operator knows.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headwater.aggregates.cells import Cell, Counter, Extreme, FirstLast, Moments, Total
from headwater.aggregates.definition import Aggregate, StatePart, plan
from headwater.aggregates.merging import decode, encode
from headwater.aggregates.rows import ColumnRows, Int64s, column_rows
from headwater.aggregates.sketchcells import Digests, Distincts
from headwater.arrays import Mask, whole
from headwater.errors import UsageError
from headwater.expressions.compiling import condition
from headwater.expressions.parsing import columns_of

__all__ = ["Columns"]

_KINDS = b"headwater.kinds"
_SLOTS = "slots"


class Columns:
    """Hold the columnar state of slots 0 to len - 1.

    The bits depend on the rows and their order only: not on how they are cut into calls, not on `keep`, not on
    snapshots in between.

    >>> import numpy as np
    >>> import pyarrow as pa
    >>> from headwater.aggregates import count, mean
    >>> state = Columns((count(), mean("value")))
    >>> state.grow(2)
    >>> state.fold(np.array([0, 0, 1]), pa.table({"value": [1.0, 3.0, 5.0]}), np.array([0, 0, 0]))
    >>> state.partial(0)
    b'[2,2,4.0]'
    """

    def __init__(self, aggregates: Sequence[Aggregate]) -> None:
        self.aggregates = tuple(aggregates)
        self._n = 0
        self._capacity = 64
        self._cells: dict[StatePart, Cell] = {}
        for part in plan(self.aggregates):
            self._cells[part] = self._cell(part)

    def __len__(self) -> int:
        """Return the number of slots."""
        return self._n

    def grow(self, n: int) -> None:
        """Have at least n slots from now on; new ones are empty."""
        self._n = max(self._n, n)
        if self._n > self._capacity:
            self._capacity = max(2 * self._capacity, self._n)
            for cell in self._cells.values():
                cell.grow(self._capacity)

    def fold(self, slots: Int64s, table: pa.Table, ts_ms: Int64s) -> None:
        """Take in the table's rows, in order: row r goes to slot slots[r] and has event time ts_ms[r] (ms, UTC)."""
        if not len(slots):
            return
        if int(slots.max()) >= self._n or int(slots.min()) < 0:
            raise IndexError(f"slot {int(slots.max())} of {self._n}: grow first")
        seen: dict[tuple[str, str | None], ColumnRows | None] = {}
        taken: dict[str | None, tuple[Int64s, pa.Table, Int64s]] = {None: (slots, table, ts_ms)}
        for part, cell in self._cells.items():
            if part.where not in taken:
                mask = _mask(str(part.where), table)
                taken[part.where] = (slots[mask], table.filter(pa.array(mask)), ts_ms[mask])
            of = taken[part.where]
            if part.field is None:
                assert isinstance(cell, Counter)
                cell.count(of[0])
                continue
            if (part.field, part.where) not in seen:
                seen[part.field, part.where] = column_rows(of[1], part.field, of[0], of[2])
            rows = seen[part.field, part.where]
            if rows is not None:
                cell.bind(rows.kind, part.field)
                cell.fold(rows)

    def partial(self, i: int) -> bytes:
        """Return the partial of one slot."""
        return self.partials(np.array([i]))[0]

    def partials(self, idx: Int64s) -> list[bytes]:
        """Return the partials of these slots; equal states give equal bytes."""
        parts = [cell.partials(idx) for cell in self._cells.values()]
        return [encode(one) for one in zip(*parts, strict=True)]

    def load(self, i: int, partial: bytes) -> None:
        """Set an empty slot to a partial made by `partial`, not by `merge`: those cannot be folded into."""
        for part, value in decode(self.aggregates, partial).items():
            if value is not None:
                self._cells[part].load(i, value)

    def keep(self, idx: Int64s) -> None:
        """Keep these slots only: idx[j] becomes j."""
        self._n = len(idx)
        self._capacity = max(64, self._n)
        for cell in self._cells.values():
            cell.keep(idx, self._capacity)

    def to_table(self) -> pa.Table:
        """Return the whole state as a table with a row a slot."""
        columns: dict[str, pa.Array] = {_SLOTS: pa.array(np.arange(self._n))}
        for part, cell in self._cells.items():
            for name, column in cell.columns(self._n).items():
                columns[f"{part.key}.{name}"] = column
        kinds = {part.key: cell.kind for part, cell in self._cells.items()}
        return pa.table(columns).replace_schema_metadata({_KINDS: json.dumps(kinds).encode()})

    @classmethod
    def from_table(cls, aggregates: Sequence[Aggregate], table: pa.Table) -> "Columns":
        """Return the state that `to_table` wrote. Raise UsageError when it was made for other aggregates."""
        kinds = json.loads((table.schema.metadata or {}).get(_KINDS, b"{}"))
        state = cls(aggregates)
        if set(kinds) != {part.key for part in state._cells}:
            raise UsageError(f"the snapshot holds {', '.join(sorted(kinds))}: the view's aggregates were changed")
        state.grow(table.num_rows)
        for part, cell in state._cells.items():
            if kinds[part.key] is not None:
                cell.bind(kinds[part.key], part.field)
            head = f"{part.key}."
            names = [name for name in table.column_names if name.startswith(head)]
            cell.restore({name.removeprefix(head): whole(table.column(name)) for name in names})
        return state

    def _cell(self, part: StatePart) -> Cell:
        function, capacity = part.function, self._capacity
        if function in ("rows", "n"):
            return Counter(capacity)
        if function == "moments":
            return Moments(capacity)
        if function == "distinct":
            return Distincts(capacity, part.size)
        if function == "digest":
            return Digests(capacity, part.size)
        counter = self._cells[StatePart("n", part.field, where=part.where)]
        assert isinstance(counter, Counter)
        if function == "sum":
            return Total(capacity, counter)
        if function in ("min", "max"):
            return Extreme(capacity, counter, function == "max")
        return FirstLast(capacity, counter, function == "last")


def _mask(where: str, table: pa.Table) -> Mask:
    """Tell for each row whether the condition is true."""
    read = pa.schema([table.schema.field(name) for name in columns_of(where)])
    return condition(where, read).mask(table)
