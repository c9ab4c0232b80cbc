"""Compute views again, by pandas over a whole table of events, and compare them with what is stored.

Deliberately a second implementation: it shares no code with the engine's aggregates, so that agreement means something.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from headwater.aggregates import Aggregate
from headwater.expressions.compiling import condition
from headwater.processors.definition.parts import Enrich, Map, View
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.operators.enrich import plain_strings
from headwater.processors.operators.windowing import newest

__all__ = ["batch_view", "close_count", "close_rank", "differences", "enriched", "equal_values"]

SKETCH_ERROR = 0.08
"""Relative error allowed to a distinct count, and error in rank to a quantile: several times their standard errors."""


def enriched(pipeline: Pipeline, events: pa.Table, references: Mapping[str, pa.Table]) -> pd.DataFrame:
    """Return the events after the pipeline's steps, each reference table in one version."""
    frame: pd.DataFrame = plain_strings(events).to_pandas()
    for step in pipeline.steps:
        if isinstance(step, Enrich):
            names = list(step.reference.columns)
            lookup = references[step.reference.name].to_pandas().drop_duplicates(step.reference.key, keep="last")
            lookup = lookup.set_index(lookup[step.reference.key].astype(str))[names].add_prefix(step.prefix)
            frame = frame.join(lookup, on=step.on)
        elif isinstance(step, Map):
            table = pa.Table.from_pandas(frame, preserve_index=False)
            result = step.function(frame if step.pandas else table)
            for name in step.columns:
                column = result[name]
                frame[name] = column.to_pandas() if isinstance(column, pa.ChunkedArray | pa.Array) else column
        else:
            mask = step.function(pa.Table.from_pandas(frame, preserve_index=False))
            frame = frame[np.asarray(mask.to_pandas().fillna(False), bool)].reset_index(drop=True)
    return frame


def batch_view(pipeline: Pipeline, view: View, frame: pd.DataFrame) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return rows of the view by (key…, window start or None); sketches as the exact data they approximate."""
    time = frame[pipeline.contract.time]
    ts = (time - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(milliseconds=1)
    conditions = {one.where for one in view.aggregates if one.where is not None}
    masks = {where: condition(where, pipeline.schema).mask(_table(pipeline, frame)) for where in conditions}
    frame = frame.assign(**{f"__where {where}": mask for where, mask in masks.items()})
    keys = [frame[name].astype(object).where(frame[name].notna(), None) for name in view.by]
    parts = []
    for hop in range(view.window.overlap if view.window else 1):
        start = newest(view.window, np.asarray(ts, np.int64)) - hop * view.window.every_ms if view.window else 0
        parts.append(frame.assign(__start=start, __ts=ts))
    whole = pd.concat(parts, ignore_index=True)
    by = [pd.concat([key] * len(parts), ignore_index=True) for key in keys] + [whole["__start"]]
    groups = _Groups(whole, by)
    columns = {aggregate.name: _values(aggregate, groups) for aggregate in view.aggregates}
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for at, (*names, start) in enumerate(groups.keys()):
        place = (*(None if _null(name) else name for name in names), int(start) if view.window else None)
        rows[place] = {name: values[at] for name, values in columns.items()}
    return rows


class _Groups:
    """Cut a frame into groups of equal keys, numbered in the order in which they are met."""

    def __init__(self, whole: pd.DataFrame, by: Sequence[pd.Series]) -> None:
        self.whole, self._by = whole, by
        named = [key.rename(f"__k{i}") for i, key in enumerate(by)]
        self.number = whole.groupby(named, dropna=False, sort=False).ngroup().to_numpy()
        self._order = np.argsort(self.number, kind="stable")
        self._bounds = np.searchsorted(self.number[self._order], np.arange(self.number.max(initial=-1) + 2))

    def keys(self) -> Iterator[tuple[Any, ...]]:
        """Yield each group's key."""
        first = self._order[self._bounds[:-1]]
        return zip(*(key.iloc[first] for key in self._by), strict=True)

    def frames(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield each group's rows."""
        some = self.whole[list(columns)].iloc[self._order]
        return (some.iloc[start:stop] for start, stop in pairwise(self._bounds))


def _values(aggregate: Aggregate, groups: _Groups) -> Sequence[Any]:
    """Return the aggregate's value for each group: of all groups at once where pandas can."""
    field, whole = aggregate.field, groups.whole
    if aggregate.where is None and aggregate.function == "count":
        sizes: list[int] = np.bincount(groups.number).tolist()
        return sizes
    numbers = field is not None and pd.api.types.is_numeric_dtype(whole[field].dtype)
    if numbers and aggregate.where is None and aggregate.function in ("min", "max", "mean"):
        found = whole[field].groupby(groups.number).agg(aggregate.function)
        return [None if pd.isna(value) else value for value in found.tolist()]
    needed = ["__ts", *([field] if field else []), *([f"__where {aggregate.where}"] if aggregate.where else [])]
    return [_value(aggregate, group) for group in groups.frames(needed)]


def _table(pipeline: Pipeline, frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame[[name for name in pipeline.schema.names if name in frame]], preserve_index=False)


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _value(aggregate: Aggregate, group: pd.DataFrame) -> Any:
    if aggregate.where is not None:
        group = group[group[f"__where {aggregate.where}"]]
    if aggregate.function == "count":
        return len(group)
    known = group[group[aggregate.field].notna()]
    column = known[aggregate.field]
    if aggregate.function in ("distinct", "quantile"):
        return column
    if column.empty:
        return None
    if aggregate.function in ("first", "last"):
        bound = known["__ts"].min() if aggregate.function == "first" else known["__ts"].max()
        same = column[known["__ts"] == bound]
        return same.min() if aggregate.function == "first" else same.max()
    if aggregate.function == "sum" and pd.api.types.is_float_dtype(column):
        return math.fsum(column)
    if aggregate.function == "sum" and isinstance(column.iloc[0], Decimal):
        return sum((Fraction(one) for one in column), Fraction(0))
    if aggregate.function == "variance":
        return None if len(column) < 2 else column.var()
    return {"sum": column.sum, "min": column.min, "max": column.max, "mean": column.mean}[aggregate.function]()


def differences(
    view: View, expected: Mapping[tuple[Any, ...], Mapping[str, Any]], stored: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Return what does not agree, a line each; sums of floats may differ by rounding, sketches by their error."""
    out: list[str] = []
    left = dict(expected)
    for row in stored:
        start = None
        if view.window is not None:
            start = round(datetime.fromisoformat(str(row["window_start"])).astimezone(UTC).timestamp() * 1000)
        place = (*(row.get(name) for name in view.by), start)
        want = left.pop(place, None)
        if want is None:
            out.append(f"{view.name} {place}: stored, but no event belongs there")
            continue
        for aggregate in view.aggregates:
            if not _agree(aggregate, want[aggregate.name], row.get(aggregate.name)):
                out.append(
                    f"{view.name} {place} {aggregate.name}: {row.get(aggregate.name)!r} is stored, "
                    f"{_shown(want[aggregate.name])} is right"
                )
    out += [f"{view.name} {place}: not stored" for place in left]
    return out


def _shown(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, pd.Series) else repr(value)


def _agree(aggregate: Aggregate, want: Any, got: Any) -> bool:
    if aggregate.function == "distinct":
        return close_count(want.nunique(), got)
    if aggregate.function == "quantile":
        if want.empty or got is None:
            return want.empty and got is None
        rounding = 1e-9 * abs(got)  # between equal values a digest interpolates to one a last digit beside them
        below = (want < got - rounding).mean() - 1 / len(want)
        upto = (want <= got + rounding).mean() + 1 / len(want)
        return close_rank(aggregate.params[0], below, upto)
    return equal_values(want, got)


def close_count(want: float, got: Any) -> bool:
    """Tell whether a stored number of distinct values is within the sketch's error of the right one.

    >>> close_count(1_000_000, 1_001_000), close_count(1_000_000, 1_500_000)
    (True, False)
    """
    return got is not None and abs(float(got) - want) <= max(1.0, SKETCH_ERROR * want)


def close_rank(q: float, below: float, upto: float) -> bool:
    """Tell whether a stored quantile is close to the quantile `q`.

    `below` and `upto` are the shares of values below the stored one, and below or equal to it.

    >>> close_rank(0.5, below=0.49, upto=0.51), close_rank(0.5, below=0.8, upto=0.9)
    (True, False)
    """
    return bool(below - SKETCH_ERROR <= q <= upto + SKETCH_ERROR)


def equal_values(want: Any, got: Any) -> bool:
    """Tell whether a stored value is the right one, up to the rounding of sums of floats.

    >>> equal_values(0.1 + 0.2, 0.3), equal_values(1.0, None)
    (True, False)
    """
    if _null(want) or got is None:
        return _null(want) and got is None
    if isinstance(want, Decimal | Fraction):
        return Fraction(str(got)) == Fraction(want)
    if isinstance(want, pd.Timestamp):
        return bool(pd.Timestamp(str(got)) == want)
    if isinstance(want, str | bool | np.bool_):
        return str(want) == str(got)
    return math.isclose(float(want), float(got), rel_tol=1e-9, abs_tol=1e-9)
