"""The state of many slots at once."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from headwater.aggregates.cells import Cell, Counter, Edge, Extreme, Moments, Total
from headwater.aggregates.definition import Aggregate, Part, plan
from headwater.aggregates.merging import decode, encode
from headwater.aggregates.rows import Int64s, Rows, column_rows
from headwater.aggregates.sketchcells import Digests, Distincts
from headwater.errors import UsageError

__all__ = ["Columns"]

_KINDS = b"headwater.kinds"
_SLOTS = "slots"


class Columns:
    """Columnar state of slots 0 … len - 1. The bits depend on the rows and their order only: not on how they are cut
    into calls, not on `keep`, not on snapshots in between.
    """

    def __init__(self, aggregates: Sequence[Aggregate]) -> None:
        self.aggregates = tuple(aggregates)
        self._n = 0
        self._capacity = 64
        self._cells: dict[Part, Cell] = {}
        for part in plan(self.aggregates):
            self._cells[part] = self._cell(part)

    def __len__(self) -> int:
        return self._n

    def grow(self, n: int) -> None:
        """There are at least n slots from now on; new ones are empty."""
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
        seen: dict[str, Rows | None] = {}
        for part, cell in self._cells.items():
            if part.field is None:
                assert isinstance(cell, Counter)
                cell.count(slots)
                continue
            if part.field not in seen:
                seen[part.field] = column_rows(table, part.field, slots, ts_ms)
            rows = seen[part.field]
            if rows is not None:
                cell.bind(rows.kind, part.field)
                cell.fold(rows)

    def partial(self, i: int) -> bytes:
        return self.partials(np.array([i]))[0]

    def partials(self, idx: Int64s) -> list[bytes]:
        """The partials of these slots; canonical: equal states give equal bytes."""
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
        """The whole state, a row a slot."""
        columns: dict[str, pa.Array] = {_SLOTS: pa.array(np.arange(self._n))}
        for part, cell in self._cells.items():
            for name, column in cell.columns(self._n).items():
                columns[f"{part.key}.{name}"] = column
        kinds = {part.key: cell.kind for part, cell in self._cells.items()}
        return pa.table(columns).replace_schema_metadata({_KINDS: json.dumps(kinds).encode()})

    @classmethod
    def from_table(cls, aggregates: Sequence[Aggregate], table: pa.Table) -> "Columns":
        """The state as it was; UsageError when the snapshot was made for other aggregates."""
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
            cell.restore({name.removeprefix(head): _whole(table.column(name)) for name in names})
        return state

    def _cell(self, part: Part) -> Cell:
        function, capacity = part.function, self._capacity
        if function in ("rows", "n"):
            return Counter(capacity)
        if function == "moments":
            return Moments(capacity)
        if function == "distinct":
            return Distincts(capacity, part.size)
        if function == "digest":
            return Digests(capacity, part.size)
        counter = self._cells[Part("n", part.field)]
        assert isinstance(counter, Counter)
        if function == "sum":
            return Total(capacity, counter)
        if function in ("min", "max"):
            return Extreme(capacity, counter, function == "max")
        return Edge(capacity, counter, function == "last")


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
