"""Columnar state of the sketches: an object a slot, made only for the slots touched."""

import base64
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.aggregates import sketches
from headwater.aggregates.cells import Cell
from headwater.aggregates.rows import DECIMAL, ColumnRows, Int64s

__all__ = ["Digests", "Distincts"]


class Distincts(Cell):
    """Hold HyperLogLog sketches of the different values."""

    def __init__(self, capacity: int, lg_k: int) -> None:
        super().__init__(capacity)
        self.lg_k = lg_k
        self.lane("sketch", object, None)

    def create(self, kind: str) -> None:
        """Do nothing: the lane is there from the start, as sketches can be loaded before any value tells the kind."""

    def fold(self, rows: ColumnRows) -> None:
        """Update each slot's sketch by its different values."""
        lane = self.lanes["sketch"]
        codes, texts = (rows.values, rows.texts) if rows.texts is not None else _coded(rows.values)
        # each value once, in the order of first occurrence: a repeated update changes nothing, a permuted one does
        _, at = np.unique(rows.slots * len(texts) + codes, return_index=True)
        at.sort()
        slots, values = rows.slots[at], texts[codes[at]]
        if rows.kind.startswith(DECIMAL):  # as text: a whole number may have too many digits for a sketch
            values = np.array([str(one) for one in values.tolist()], dtype=object)
        order = np.argsort(slots, kind="stable")
        slots, values = slots[order], values[order]
        touched, starts = np.unique(slots, return_index=True)
        ends = [*starts[1:].tolist(), len(slots)]
        for slot, start, end in zip(touched.tolist(), starts.tolist(), ends, strict=True):
            if lane[slot] is None:
                lane[slot] = sketches.new_distinct(self.lg_k)
            sketches.update_distinct(lane[slot], values[start:end].tolist())

    def partials(self, idx: Int64s) -> list[Any]:
        """Return the sketches in base64."""
        return [None if one is None else [_text(sketches.distinct_bytes(one))] for one in self.lanes["sketch"][idx]]

    def load(self, i: int, value: Any) -> None:
        """Set a slot's sketch."""
        if len(value) != 1:
            raise ValueError("a merged sketch cannot be folded into: load the partial of one slot")
        self.lanes["sketch"][i] = sketches.read_distinct(base64.b64decode(value[0]))

    def columns(self, n: int) -> dict[str, pa.Array]:
        """Return the sketches as bytes, for a snapshot."""
        found = [None if one is None else sketches.distinct_bytes(one) for one in self.lanes["sketch"][:n]]
        return {"sketch": pa.array(found, pa.binary())}

    def restore(self, columns: dict[str, pa.Array]) -> None:
        """Set the sketches to what `columns` returned."""
        for at, data in enumerate(columns["sketch"].to_pylist()):
            self.lanes["sketch"][at] = None if data is None else sketches.read_distinct(data)


class Digests(Cell):
    """Hold t-digests, each with the values that do not fill a block yet."""

    kinds = frozenset({"int", "bool", "float", "decimal"})

    def __init__(self, capacity: int, k: int) -> None:
        super().__init__(capacity)
        self.k = k
        self.lane("digest", object, None)
        self.lane("rest", object, None)

    def bind(self, kind: str, field: str | None) -> None:
        """Make the lanes: integers, floats and decimals alike are held as floats."""
        super().bind("float" if kind.split()[0] in self.kinds else kind, field)

    def create(self, kind: str) -> None:
        """Do nothing: the lanes are there from the start."""

    def fold(self, rows: ColumnRows) -> None:
        """Add each value to its slot's block; a full block goes into the digest."""
        digest, rest = self.lanes["digest"], self.lanes["rest"]
        order = np.argsort(rows.slots, kind="stable")
        slots, values = rows.slots[order], rows.floats[order]
        touched, starts = np.unique(slots, return_index=True)
        ends = [*starts[1:].tolist(), len(slots)]
        for slot, start, end in zip(touched.tolist(), starts.tolist(), ends, strict=True):
            held = values[start:end] if rest[slot] is None else np.concatenate((rest[slot], values[start:end]))
            while len(held) >= sketches.BLOCK:
                digest[slot] = sketches.digest_block(digest[slot], held[: sketches.BLOCK], self.k)
                held = held[sketches.BLOCK :]
            rest[slot] = held.copy()

    def partials(self, idx: Int64s) -> list[Any]:
        """Return [digest in base64 or None, values of the open block] of each slot."""
        pairs = zip(self.lanes["digest"][idx], self.lanes["rest"][idx], strict=True)
        return [
            None if rest is None else [[None if digest is None else _text(digest), rest.tolist()]]
            for digest, rest in pairs
        ]

    def load(self, i: int, value: Any) -> None:
        """Set a slot's digest and open block."""
        if len(value) != 1:
            raise ValueError("a merged digest cannot be folded into: load the partial of one slot")
        ((digest, rest),) = value
        self.lanes["digest"][i] = None if digest is None else base64.b64decode(digest)
        self.lanes["rest"][i] = np.array(rest, dtype=np.float64)

    def columns(self, n: int) -> dict[str, pa.Array]:
        """Return digests and open blocks, for a snapshot."""
        return {
            "digest": pa.array(self.lanes["digest"][:n].tolist(), pa.binary()),
            "rest": pa.array(self.lanes["rest"][:n].tolist(), pa.list_(pa.float64())),
        }

    def restore(self, columns: dict[str, pa.Array]) -> None:
        """Set the digests and blocks to what `columns` returned."""
        for at, data in enumerate(columns["digest"].to_pylist()):
            self.lanes["digest"][at] = data
        for at, rest in enumerate(columns["rest"].to_pylist()):
            self.lanes["rest"][at] = None if rest is None else np.array(rest, dtype=np.float64)


def _coded(values: Any) -> tuple[Any, Any]:
    texts, codes = np.unique(values, return_inverse=True)
    return codes, texts


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
