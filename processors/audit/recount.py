"""Compute rows of a view again from its events, file by file, in memory that the number of rows bounds.

A second implementation, as `rebuild.recompute` is: it shares no code with the engine's aggregates, so that agreement
means something. What is kept of each file is a table with a row for each place and part; tables are united when they
grow. Of different values 4,096 hashes are kept a place, which tell their number to 2 %.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from headwater.aggregates import Aggregate
from headwater.arrays import whole
from headwater.contract.written import as_text
from headwater.expressions.compiling import condition
from headwater.processors.audit.places import Hashes, hashed

__all__ = ["Recount"]

_VALUES = 4_096
_UNITE_ROWS = 500_000
_HALF = 32
"""Bits of a whole number that are added apart, so that no sum of a file overflows 64 bits."""


class Recount:
    """Take in rows that belong to places, and say what each aggregate of a place is.

    `stored` has the values that are to be checked, by hash of the place and name of the aggregate: a quantile is not
    computed, but the rank of the stored value is.
    """

    def __init__(self, aggregates: Sequence[Aggregate], stored: Mapping[int, Mapping[str, Any]]) -> None:
        self._aggregates, self._stored = aggregates, stored
        self._parts: dict[str, list[pd.DataFrame]] = {}

    def take(self, place: Hashes, rows: pa.Table, ts_ms: np.ndarray[Any, Any]) -> None:
        """Take in rows in order with the hashes of their places and their event times."""
        if not len(place):
            return
        self._add("rows", _counted(place))
        for one in {_part(one): one for one in self._aggregates}.values():
            taken = np.ones(len(place), bool)
            if one.where is not None:
                taken = condition(one.where, rows.schema.remove_metadata()).mask(rows)
            if one.field is None:
                if one.where is not None:
                    self._add(_part(one), _counted(place[taken]))
                continue
            column = pa.chunked_array([as_text(whole(rows[one.field]), decimals=False)])
            valid = np.asarray(column.is_valid().to_numpy(), bool) & taken
            frame = pd.DataFrame({"h": place[valid], "ts": ts_ms[valid]})
            values = column.filter(pa.array(valid)).combine_chunks()
            self._add(_part(one), self._partial(one, frame, values))

    def has(self, place: int) -> bool:
        """Tell whether an event belongs to the place."""
        return place in self._united("rows").index

    def places(self) -> list[int]:
        """Return the hashes of all places that an event belongs to."""
        return [int(one) for one in self._united("rows").index]

    def value(self, place: int, one: Aggregate) -> Any:
        """Return the right value; of a quantile the share of values below the stored one, and up to it."""
        if one.field is None:
            rows = self._united(_part(one))
            number: Any = rows.at[place, "n"] if place in rows.index else 0
            return int(number)
        found = self._united(_part(one))
        if one.function == "distinct":
            return self._distinct(found, place)
        if place not in found.index:
            return None
        row: Any = found.loc[place]
        if one.function == "sum":
            return _added(row)
        if one.function == "mean":
            return float(_added(row) / int(row["n"]))
        if one.function == "variance":
            return None if row["n"] < 2 else float(row["m2"]) / (int(row["n"]) - 1)
        if one.function == "quantile":
            return (float(row["below"]) - 1) / row["n"], (float(row["upto"]) + 1) / row["n"]
        return row["value"]

    def _partial(self, one: Aggregate, frame: pd.DataFrame, values: pa.Array) -> pd.DataFrame:
        if one.function in ("sum", "mean"):
            return _sums(frame, values)
        if one.function == "variance":
            return _moments(frame, values)
        if one.function == "distinct":
            return _lowest(frame.assign(v=hashed(values))[["h", "v"]])
        frame["value"] = values.to_pandas()
        if one.function in ("min", "max"):
            return _extreme(frame, one.function)
        if one.function in ("first", "last"):
            return _edge(frame, one.function)
        wanted = frame["h"].map({h: row.get(one.name) for h, row in self._stored.items()})
        known = frame.assign(got=pd.to_numeric(wanted)).dropna(subset=["got"])
        rounding = 1e-9 * known["got"].abs()  # between equal values a digest interpolates a last digit beside them
        known = known.assign(
            n=1, below=known["value"] < known["got"] - rounding, upto=known["value"] <= known["got"] + rounding
        )
        return known.groupby("h", as_index=False)[["n", "below", "upto"]].sum()

    def _add(self, part: str, partial: pd.DataFrame) -> None:
        found = self._parts.setdefault(part, [])
        found.append(partial)
        if len(found) > 1 and sum(map(len, found[1:])) > max(_UNITE_ROWS, len(found[0])):
            self._parts[part] = [_united(part, pd.concat(found, ignore_index=True))]

    def _united(self, part: str) -> pd.DataFrame:
        """Return what is kept of a part, indexed by place."""
        found = self._parts.get(part, [])
        if not found:
            return pd.DataFrame()
        if len(found) > 1 or found[0].index.name != "h":
            whole = _united(part, pd.concat([one.reset_index() if one.index.name == "h" else one for one in found]))
            self._parts[part] = found = [whole.set_index("h")]
        return found[0]

    def _distinct(self, found: pd.DataFrame, place: int) -> float:
        if place not in found.index:
            return 0.0
        lowest = found.loc[[place], "v"]
        if len(lowest) < _VALUES:
            return float(len(lowest))
        return (_VALUES - 1) / (float(lowest.max()) / 2**64)


def _part(one: Aggregate) -> str:
    function = {"mean": "sum", "count": "rows"}.get(one.function, one.function)
    # the rank is that of one stored value, so two quantiles of a column share nothing
    words = (function, one.field, one.name if function == "quantile" else None, one.where and f"where {one.where}")
    return " ".join(word for word in words if word)


def _counted(place: Hashes) -> pd.DataFrame:
    return pd.DataFrame({"h": place, "n": 1}).groupby("h", as_index=False).sum()


def _united(part: str, whole: pd.DataFrame) -> pd.DataFrame:
    function = part.partition(" ")[0]
    if function in ("min", "max"):
        return _extreme(whole, function)
    if function in ("first", "last"):
        return _edge(whole, function)
    if function == "distinct":
        return _lowest(whole)
    if function == "variance":
        return _pooled(whole)
    if function == "sum" and "exact" in whole:
        return whole.groupby("h", as_index=False)[["exact", "n"]].sum()
    if function == "sum" and "float" in whole:
        return whole.groupby("h", as_index=False)[["float", "n"]].sum()
    if function == "sum":  # the halves are small, their sums may not be: as Python's whole numbers
        whole = whole.assign(high=whole["high"].astype(object), low=whole["low"].astype(object))
    return whole.groupby("h", as_index=False).sum()


def _sums(frame: pd.DataFrame, values: pa.Array) -> pd.DataFrame:
    if pa.types.is_decimal(values.type):
        frame["exact"] = pd.Series([Fraction(value) for value in values.to_pylist()], dtype=object)
        return frame.assign(n=1).groupby("h", as_index=False)[["exact", "n"]].sum()
    if pa.types.is_floating(values.type):
        frame["float"] = values.to_numpy(zero_copy_only=False).astype(np.float64)
        return frame.assign(n=1).groupby("h", as_index=False)[["float", "n"]].sum()
    whole = values.cast(pa.int64()).to_numpy()
    frame = frame.assign(high=whole >> _HALF, low=whole & ((1 << _HALF) - 1), n=1)
    return frame.groupby("h", as_index=False)[["high", "low", "n"]].sum()


def _extreme(frame: pd.DataFrame, function: str) -> pd.DataFrame:
    found: pd.DataFrame = frame.groupby("h", as_index=False)[["value"]].agg(function)
    return found


def _added(row: Any) -> Any:
    if "exact" in row:
        return row["exact"]
    return float(row["float"]) if "float" in row else (int(row["high"]) << _HALF) + int(row["low"])


def _moments(frame: pd.DataFrame, values: pa.Array) -> pd.DataFrame:
    frame["value"] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    found = frame.groupby("h")["value"].agg(["count", "mean", "var"]).reset_index()
    found["m2"] = found["var"].fillna(0.0) * (found["count"] - 1)
    return found.rename(columns={"count": "n"})[["h", "n", "mean", "m2"]]


def _pooled(whole: pd.DataFrame) -> pd.DataFrame:
    """Unite counts, means and sums of squares about the mean (Chan, Golub and LeVeque 1979)."""
    weighed = whole.assign(total=whole["mean"] * whole["n"])
    found = weighed.groupby("h", as_index=False)[["n", "total", "m2"]].sum()
    found["mean"] = found["total"] / found["n"]
    beside = whole.merge(found[["h", "mean"]], on="h", suffixes=("", "_all"))
    beside["between"] = beside["n"] * (beside["mean"] - beside["mean_all"]) ** 2
    found["m2"] += found["h"].map(beside.groupby("h")["between"].sum())
    return found[["h", "n", "mean", "m2"]]


def _edge(frame: pd.DataFrame, function: str) -> pd.DataFrame:
    """Return the value of least or greatest event time; of several the least or the greatest value."""
    ordered = frame[["h", "ts", "value"]].sort_values(["h", "ts", "value"])
    return ordered.drop_duplicates("h", keep="first" if function == "first" else "last")


def _lowest(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop_duplicates().sort_values(["h", "v"]).groupby("h").head(_VALUES)
