"""Columnar state of one part over all slots. Rows are folded strictly in order, so no cut into calls shows in a bit."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headwater.aggregates.rows import Int64s, Rows, kind_of
from headwater.errors import UsageError

__all__ = ["Cell", "Counter", "Edge", "Extreme", "Moments", "Total"]

_LEAST, _MOST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_LOW = (1 << 32) - 1


class Cell:
    """State arrays ("lanes") with one element a slot. What is not yet set holds the lane's fill."""

    kinds: ClassVar[frozenset[str]] = frozenset({"int", "bool", "time", "date", "float", "str"})

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kind: str | None = None
        self.lanes: dict[str, npt.NDArray[Any]] = {}
        self._fills: dict[str, Any] = {}

    def lane(self, name: str, dtype: Any, fill: Any) -> None:
        self.lanes[name] = np.full(self.capacity, fill, dtype=dtype)
        self._fills[name] = fill

    def grow(self, capacity: int) -> None:
        for name, lane in self.lanes.items():
            wider = np.full(capacity, self._fills[name], dtype=lane.dtype)
            wider[: len(lane)] = lane
            self.lanes[name] = wider
        self.capacity = capacity

    def keep(self, idx: Int64s, capacity: int) -> None:
        for name, lane in self.lanes.items():
            fewer = np.full(capacity, self._fills[name], dtype=lane.dtype)
            fewer[: len(idx)] = lane[idx]
            self.lanes[name] = fewer
        self.capacity = capacity

    def bind(self, kind: str, field: str | None) -> None:
        """Lanes are typed by the first values seen."""
        if self.kind is None:
            if kind not in self.kinds:
                raise UsageError(f"column {field!r} holds {kind} values, of which there is no such aggregate")
            self.kind = kind
            self.create(kind)
        elif self.kind != kind:
            raise UsageError(f"column {field!r} was {self.kind} and is now {kind}: give it one type")

    def create(self, kind: str) -> None:
        raise NotImplementedError

    def fold(self, rows: Rows) -> None:
        raise NotImplementedError

    def partials(self, idx: Int64s) -> list[Any]:
        """JSON values; None where the slot has seen no value."""
        raise NotImplementedError

    def load(self, i: int, value: Any) -> None:
        raise NotImplementedError

    def columns(self, n: int) -> dict[str, pa.Array]:
        """The lanes as Arrow, for a snapshot."""
        return {
            name: pa.array(lane[:n].tolist(), pa.string()) if lane.dtype == object else pa.array(lane[:n])
            for name, lane in self.lanes.items()
        }

    def restore(self, columns: dict[str, pa.Array]) -> None:
        for name, column in columns.items():
            lane = self.lanes[name]
            lane[: len(column)] = column.to_pylist() if lane.dtype == object else column.to_numpy()


class Counter(Cell):
    """Rows, or the values of a column that are not null."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.kind = "int"
        self.lane("n", np.int64, 0)

    def bind(self, kind: str, field: str | None) -> None:
        """Anything can be counted."""

    def fold(self, rows: Rows) -> None:
        self.count(rows.slots)

    def count(self, slots: Int64s) -> None:
        np.add.at(self.lanes["n"], slots, 1)

    def partials(self, idx: Int64s) -> list[Any]:
        found: list[Any] = self.lanes["n"][idx].tolist()
        return found

    def load(self, i: int, value: Any) -> None:
        self.lanes["n"][i] = value


class _Counted(Cell):
    """A part that the count of its column's values goes with."""

    def __init__(self, capacity: int, counter: Counter) -> None:
        super().__init__(capacity)
        self.counter = counter

    def partials(self, idx: Int64s) -> list[Any]:
        if self.kind is None:
            return [None] * len(idx)
        found = self.found(idx)
        empty = np.flatnonzero(self.counter.lanes["n"][idx] == 0)
        for at in empty.tolist():
            found[at] = None
        return found

    def found(self, idx: Int64s) -> list[Any]:
        raise NotImplementedError


class Total(_Counted):
    """Sums. Those of integers are exact: high and low half apart, for up to 2^31 rows a slot."""

    kinds = frozenset({"int", "bool", "float"})

    def create(self, kind: str) -> None:
        if kind == "float":
            self.lane("sum", np.float64, 0.0)
        else:
            self.lane("high", np.int64, 0)
            self.lane("low", np.int64, 0)

    def fold(self, rows: Rows) -> None:
        if self.kind == "float":
            np.add.at(self.lanes["sum"], rows.slots, rows.values)
        else:
            np.add.at(self.lanes["high"], rows.slots, rows.values >> 32)
            np.add.at(self.lanes["low"], rows.slots, rows.values & _LOW)

    def found(self, idx: Int64s) -> list[Any]:
        if self.kind == "float":
            found: list[Any] = self.lanes["sum"][idx].tolist()
            return found
        halves = zip(self.lanes["high"][idx].tolist(), self.lanes["low"][idx].tolist(), strict=True)
        return [(high << 32) + low for high, low in halves]

    def load(self, i: int, value: Any) -> None:
        if isinstance(value, str):
            raise ValueError("a merged sum cannot be folded into: load the partial of one slot")
        self.bind("bool" if self.kind == "bool" else kind_of(value), None)
        if self.kind == "float":
            self.lanes["sum"][i] = value
        else:
            self.lanes["high"][i], self.lanes["low"][i] = value >> 32, value & _LOW


class Extreme(_Counted):
    """min or max."""

    def __init__(self, capacity: int, counter: Counter, largest: bool) -> None:
        super().__init__(capacity, counter)
        self.largest = largest
        self.choose: Any = np.maximum if largest else np.minimum

    def create(self, kind: str) -> None:
        _value_lane(self, "value", kind, self.largest)

    def fold(self, rows: Rows) -> None:
        lane = self.lanes["value"]
        if rows.words is None:
            self.choose.at(lane, rows.slots, rows.values)
            return
        touched, where = np.unique(rows.slots, return_inverse=True)
        best = np.full(len(touched), _LEAST if self.largest else _MOST)
        self.choose.at(best, where, rows.values)
        for slot, word in zip(touched.tolist(), rows.words[best].tolist(), strict=True):
            held = lane[slot]
            if held is None or (word > held if self.largest else word < held):
                lane[slot] = word

    def found(self, idx: Int64s) -> list[Any]:
        return _tagged(self.kind, self.lanes["value"][idx])

    def load(self, i: int, value: Any) -> None:
        self.bind(kind_of(value), None)
        self.lanes["value"][i] = _untagged(value)


class Edge(Extreme):
    """first or last by event time; of equal times the smaller or larger value, so that order does not matter."""

    def create(self, kind: str) -> None:
        super().create(kind)
        self.lane("time", np.int64, _LEAST if self.largest else _MOST)

    def fold(self, rows: Rows) -> None:
        if rows.words is not None:
            self._fold_words(rows)
            return
        time, value = self.lanes["time"], self.lanes["value"]
        before = time[rows.slots]
        self.choose.at(time, rows.slots, rows.ts_ms)
        after = time[rows.slots]
        # a slot whose time moved forgets the value it had
        value[rows.slots[before != after]] = self._fills["value"]
        best = np.flatnonzero(rows.ts_ms == after)
        self.choose.at(value, rows.slots[best], rows.values[best])

    def _fold_words(self, rows: Rows) -> None:
        assert rows.words is not None
        touched, where = np.unique(rows.slots, return_inverse=True)
        worst = _LEAST if self.largest else _MOST
        times, ranks = np.full(len(touched), worst), np.full(len(touched), worst)
        self.choose.at(times, where, rows.ts_ms)
        best = np.flatnonzero(rows.ts_ms == times[where])
        self.choose.at(ranks, where[best], rows.values[best])
        time, value = self.lanes["time"], self.lanes["value"]
        for slot, at, word in zip(touched.tolist(), times.tolist(), rows.words[ranks].tolist(), strict=True):
            held = (int(time[slot]), value[slot])
            if held[1] is None or ((at, word) > held if self.largest else (at, word) < held):
                time[slot], value[slot] = at, word

    def found(self, idx: Int64s) -> list[Any]:
        times = self.lanes["time"][idx].tolist()
        return [list(pair) for pair in zip(times, super().found(idx), strict=True)]

    def load(self, i: int, value: Any) -> None:
        super().load(i, value[1])
        self.lanes["time"][i] = value[0]


class Moments(Cell):
    """Count, sum and sum of squares of the values less the slot's first one, which keeps the digits of a variance."""

    kinds = frozenset({"int", "bool", "float"})

    def bind(self, kind: str, field: str | None) -> None:
        # integers and floats alike are held as floats
        super().bind("float" if kind in self.kinds else kind, field)

    def create(self, kind: str) -> None:  # noqa: ARG002 (one kind of lanes for all)
        self.lane("n", np.int64, 0)
        for name in ("shift", "sum", "squares"):
            self.lane(name, np.float64, 0.0)

    def fold(self, rows: Rows) -> None:
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
        if self.kind is None:
            return [None] * len(idx)
        lanes = [self.lanes[name][idx].tolist() for name in ("n", "shift", "sum", "squares")]
        return [list(one) if one[0] else None for one in zip(*lanes, strict=True)]

    def load(self, i: int, value: Any) -> None:
        if isinstance(value, dict):
            raise ValueError("a merged variance cannot be folded into: load the partial of one slot")
        self.bind("float", None)
        for name, one in zip(("n", "shift", "sum", "squares"), value, strict=True):
            self.lanes[name][i] = one


def _value_lane(cell: Cell, name: str, kind: str, largest: bool) -> None:
    if kind == "str":
        cell.lane(name, object, None)
    elif kind == "float":
        cell.lane(name, np.float64, -np.inf if largest else np.inf)
    else:
        cell.lane(name, np.int64, _LEAST if largest else _MOST)


def _tagged(kind: str | None, values: npt.NDArray[Any]) -> list[Any]:
    """JSON values that tell timestamps and dates from integers."""
    if kind == "float":
        # -0.0 and 0.0 are equal, so which one is kept would show the order
        values = values + 0.0
    plain: list[Any] = values.tolist()
    if kind in ("time", "date"):
        return [{kind[0]: value} for value in plain]  # {"t": ms} or {"d": days}
    return [bool(value) for value in plain] if kind == "bool" else plain


def _untagged(value: Any) -> Any:
    return next(iter(value.values())) if isinstance(value, dict) else value
