"""Columnar state of one part over all slots, for every kind of part but the sketches (see `sketchcells`).

Rows are folded strictly in their order, so that however they are cut into calls, the state is the same to the bit.
Merging partials of different shards does not belong here: that is `merging`.
"""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headwater.aggregates.exact import pointed
from headwater.aggregates.rows import DECIMAL, ColumnRows, Int64s, kind_of, scale_of
from headwater.errors import UsageError

__all__ = ["Cell", "Counter", "Extreme", "FirstLast", "Moments", "Total"]

_LEAST, _MOST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_LOW = (1 << 32) - 1


class Cell:
    """Hold the state of one part as arrays ("lanes") with one element a slot.

    What is not yet set holds the lane's fill. Lanes are made when the first value tells their type.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"int", "bool", "time", "date", "float", "str", "decimal"})

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kind: str | None = None
        self.lanes: dict[str, npt.NDArray[Any]] = {}
        self._fills: dict[str, Any] = {}

    def lane(self, name: str, dtype: Any, fill: Any) -> None:
        """Add a lane filled with `fill`."""
        self.lanes[name] = np.full(self.capacity, fill, dtype=dtype)
        self._fills[name] = fill

    def grow(self, capacity: int) -> None:
        """Make room for so many slots; new ones are empty."""
        for name, lane in self.lanes.items():
            wider = np.full(capacity, self._fills[name], dtype=lane.dtype)
            wider[: len(lane)] = lane
            self.lanes[name] = wider
        self.capacity = capacity

    def keep(self, idx: Int64s, capacity: int) -> None:
        """Keep the slots of these indices only, in this order, with room for `capacity`."""
        for name, lane in self.lanes.items():
            fewer = np.full(capacity, self._fills[name], dtype=lane.dtype)
            fewer[: len(idx)] = lane[idx]
            self.lanes[name] = fewer
        self.capacity = capacity

    def bind(self, kind: str, field: str | None) -> None:
        """Make the lanes for this kind of values, or raise UsageError where the column had another kind before."""
        if self.kind is None:
            if kind.split()[0] not in self.kinds:
                raise UsageError(f"column {field!r} holds {kind} values, of which there is no such aggregate")
            self.kind = kind
            self.create(kind)
        elif self.kind != kind:
            raise UsageError(f"column {field!r} was {self.kind} and is now {kind}: give it one type")

    def create(self, kind: str) -> None:
        """Add the lanes for this kind of values."""
        raise NotImplementedError

    def fold(self, rows: ColumnRows) -> None:
        """Take in rows, in their order."""
        raise NotImplementedError

    def partials(self, idx: Int64s) -> list[Any]:
        """Return the JSON value of each of these slots; None for one that has seen no value."""
        raise NotImplementedError

    def load(self, i: int, value: Any) -> None:
        """Set an empty slot to a value that `partials` returned."""
        raise NotImplementedError

    def columns(self, n: int) -> dict[str, pa.Array]:
        """Return the lanes of the first `n` slots as Arrow arrays, for a snapshot."""
        found = {}
        for name, lane in self.lanes.items():
            if lane.dtype != object:
                found[name] = pa.array(lane[:n])
            else:  # texts, or whole numbers of decimals
                found[name] = pa.array([None if one is None else str(one) for one in lane[:n]], pa.string())
        return found

    def restore(self, columns: dict[str, pa.Array]) -> None:
        """Set the lanes to what `columns` returned."""
        for name, column in columns.items():
            lane = self.lanes[name]
            if lane.dtype != object:
                lane[: len(column)] = column.to_numpy()
                continue
            read = int if self.kind is not None and self.kind.startswith(DECIMAL) else str
            lane[: len(column)] = [None if one is None else read(one) for one in column.to_pylist()]


class Counter(Cell):
    """Count rows, or the values of a column that are not null."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.kind = "int"
        self.lane("n", np.int64, 0)

    def bind(self, kind: str, field: str | None) -> None:
        """Do nothing: values of any kind can be counted."""

    def fold(self, rows: ColumnRows) -> None:
        """Count each row."""
        self.count(rows.slots)

    def count(self, slots: Int64s) -> None:
        """Count one for each of these slots."""
        np.add.at(self.lanes["n"], slots, 1)

    def partials(self, idx: Int64s) -> list[Any]:
        """Return the counts."""
        found: list[Any] = self.lanes["n"][idx].tolist()
        return found

    def load(self, i: int, value: Any) -> None:
        """Set a slot's count."""
        self.lanes["n"][i] = value


class _Counted(Cell):
    """Hold a part whose value means something only where its column's counter is not zero."""

    def __init__(self, capacity: int, counter: Counter) -> None:
        super().__init__(capacity)
        self.counter = counter

    def partials(self, idx: Int64s) -> list[Any]:
        """Return what was found; None where nothing was counted."""
        if self.kind is None:
            return [None] * len(idx)
        found = self.found(idx)
        empty = np.flatnonzero(self.counter.lanes["n"][idx] == 0)
        for at in empty.tolist():
            found[at] = None
        return found

    def found(self, idx: Int64s) -> list[Any]:
        """Return the JSON value of each of these slots, whatever its count."""
        raise NotImplementedError


class Total(_Counted):
    """Sum values. Sums of integers are exact: high and low halves are kept apart, for up to 2^31 rows a slot."""

    kinds = frozenset({"int", "bool", "float", "decimal"})

    def create(self, kind: str) -> None:
        """Add one lane for floats, one of whole numbers without their point for decimals, two for integers."""
        if kind == "float":
            self.lane("sum", np.float64, 0.0)
        elif kind.startswith(DECIMAL):
            self.lane("sum", object, 0)
        else:
            self.lane("high", np.int64, 0)
            self.lane("low", np.int64, 0)

    def fold(self, rows: ColumnRows) -> None:
        """Add each value to its slot's sum."""
        if self.kind == "float":
            np.add.at(self.lanes["sum"], rows.slots, rows.values)
        elif rows.texts is not None:
            np.add.at(self.lanes["sum"], rows.slots, rows.texts[rows.values])
        else:
            np.add.at(self.lanes["high"], rows.slots, rows.values >> 32)
            np.add.at(self.lanes["low"], rows.slots, rows.values & _LOW)

    def found(self, idx: Int64s) -> list[Any]:
        """Return the sums: ints of integers, floats of floats."""
        if self.kind == "float":
            found: list[Any] = self.lanes["sum"][idx].tolist()
            return found
        if "sum" in self.lanes:
            return _tagged(self.kind, self.lanes["sum"][idx])
        halves = zip(self.lanes["high"][idx].tolist(), self.lanes["low"][idx].tolist(), strict=True)
        return [(high << 32) + low for high, low in halves]

    def load(self, i: int, value: Any) -> None:
        """Set a slot's sum."""
        if isinstance(value, str):
            raise ValueError("a merged sum cannot be folded into: load the partial of one slot")
        self.bind("bool" if self.kind == "bool" else kind_of(value), None)
        if "sum" in self.lanes:
            self.lanes["sum"][i] = _untagged(value)
        else:
            self.lanes["high"][i], self.lanes["low"][i] = value >> 32, value & _LOW


class Extreme(_Counted):
    """Keep the smallest or the largest value."""

    def __init__(self, capacity: int, counter: Counter, largest: bool) -> None:
        super().__init__(capacity, counter)
        self.largest = largest
        self.choose: Any = np.maximum if largest else np.minimum

    def create(self, kind: str) -> None:
        """Add the lane of values, filled with what any value beats."""
        _value_lane(self, "value", kind, self.largest)

    def fold(self, rows: ColumnRows) -> None:
        """Keep the better of each value and its slot's."""
        lane = self.lanes["value"]
        if rows.texts is None:
            self.choose.at(lane, rows.slots, rows.values)
            return
        touched, where = np.unique(rows.slots, return_inverse=True)
        best = np.full(len(touched), _LEAST if self.largest else _MOST)
        self.choose.at(best, where, rows.values)
        for slot, text in zip(touched.tolist(), rows.texts[best].tolist(), strict=True):
            held = lane[slot]
            if held is None or (text > held if self.largest else text < held):
                lane[slot] = text

    def found(self, idx: Int64s) -> list[Any]:
        """Return the values."""
        return _tagged(self.kind, self.lanes["value"][idx])

    def load(self, i: int, value: Any) -> None:
        """Set a slot's value."""
        self.bind(kind_of(value), None)
        self.lanes["value"][i] = _untagged(value)


class FirstLast(Extreme):
    """Keep the first or the last value by event time; of equal times the smaller or larger value, so order never
    matters.
    """

    def create(self, kind: str) -> None:
        """Add the lanes of values and of their event times."""
        super().create(kind)
        self.lane("time", np.int64, _LEAST if self.largest else _MOST)

    def fold(self, rows: ColumnRows) -> None:
        """Keep each slot's first or last value."""
        if rows.texts is not None:
            self._fold_texts(rows)
            return
        time, value = self.lanes["time"], self.lanes["value"]
        before = time[rows.slots]
        self.choose.at(time, rows.slots, rows.ts_ms)
        after = time[rows.slots]
        # a slot whose time moved forgets the value it had
        value[rows.slots[before != after]] = self._fills["value"]
        best = np.flatnonzero(rows.ts_ms == after)
        self.choose.at(value, rows.slots[best], rows.values[best])

    def _fold_texts(self, rows: ColumnRows) -> None:
        assert rows.texts is not None
        touched, where = np.unique(rows.slots, return_inverse=True)
        worst = _LEAST if self.largest else _MOST
        times, ranks = np.full(len(touched), worst), np.full(len(touched), worst)
        self.choose.at(times, where, rows.ts_ms)
        best = np.flatnonzero(rows.ts_ms == times[where])
        self.choose.at(ranks, where[best], rows.values[best])
        time, value = self.lanes["time"], self.lanes["value"]
        for slot, at, text in zip(touched.tolist(), times.tolist(), rows.texts[ranks].tolist(), strict=True):
            held = (int(time[slot]), value[slot])
            if held[1] is None or ((at, text) > held if self.largest else (at, text) < held):
                time[slot], value[slot] = at, text

    def found(self, idx: Int64s) -> list[Any]:
        """Return [event time in ms, value] of each slot."""
        times = self.lanes["time"][idx].tolist()
        return [list(pair) for pair in zip(times, super().found(idx), strict=True)]

    def load(self, i: int, value: Any) -> None:
        """Set a slot's event time and value."""
        super().load(i, value[1])
        self.lanes["time"][i] = value[0]


class Moments(Cell):
    """Hold count, sum and sum of squares of the values less the slot's first one, which keeps the digits of a
    variance.
    """

    kinds = frozenset({"int", "bool", "float", "decimal"})

    def bind(self, kind: str, field: str | None) -> None:
        """Make the lanes: integers, floats and decimals alike are held as floats."""
        super().bind("float" if kind.split()[0] in self.kinds else kind, field)

    def create(self, kind: str) -> None:  # noqa: ARG002 (one kind of lanes for all)
        """Add the lanes, which are the same for all kinds."""
        self.lane("n", np.int64, 0)
        for name in ("shift", "sum", "squares"):
            self.lane(name, np.float64, 0.0)

    def fold(self, rows: ColumnRows) -> None:
        """Add each value, less its slot's first one, to the sums."""
        lanes, slots, values = self.lanes, rows.slots, rows.floats
        new = np.flatnonzero(lanes["n"][slots] == 0)[::-1]
        # of repeated indices numpy keeps the last assignment: reversed, the slot's first row
        lanes["shift"][slots[new]] = values[new]
        with np.errstate(invalid="ignore", over="ignore"):
            less = values - lanes["shift"][slots]
            np.add.at(lanes["sum"], slots, less)
            np.add.at(lanes["squares"], slots, less * less)
        np.add.at(lanes["n"], slots, 1)

    def partials(self, idx: Int64s) -> list[Any]:
        """Return [count, shift, sum, sum of squares] of each slot; None for one without values."""
        if self.kind is None:
            return [None] * len(idx)
        lanes = [self.lanes[name][idx].tolist() for name in ("n", "shift", "sum", "squares")]
        return [list(one) if one[0] else None for one in zip(*lanes, strict=True)]

    def load(self, i: int, value: Any) -> None:
        """Set a slot's moments."""
        if isinstance(value, dict):
            raise ValueError("a merged variance cannot be folded into: load the partial of one slot")
        self.bind("float", None)
        for name, one in zip(("n", "shift", "sum", "squares"), value, strict=True):
            self.lanes[name][i] = one


def _value_lane(cell: Cell, name: str, kind: str, largest: bool) -> None:
    if kind == "str" or kind.startswith(DECIMAL):
        cell.lane(name, object, None)
    elif kind == "float":
        cell.lane(name, np.float64, -np.inf if largest else np.inf)
    else:
        cell.lane(name, np.int64, _LEAST if largest else _MOST)


def _tagged(kind: str | None, values: npt.NDArray[Any]) -> list[Any]:
    """Return JSON values in which timestamps and dates are told from integers."""
    if kind == "float":
        # -0.0 and 0.0 are equal, so which one is kept would show the order
        values = values + 0.0
    plain: list[Any] = values.tolist()
    if kind is not None and kind.startswith(DECIMAL):
        return [None if one is None else {"n": pointed(one, scale_of(kind))} for one in plain]
    if kind in ("time", "date"):
        return [{kind[0]: value} for value in plain]  # {"t": ms} or {"d": days}
    return [bool(value) for value in plain] if kind == "bool" else plain


def _untagged(value: Any) -> Any:
    if isinstance(value, dict) and "n" in value:
        return int(value["n"].replace(".", ""))
    return next(iter(value.values())) if isinstance(value, dict) else value
