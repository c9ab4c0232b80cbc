"""Aggregates as commutative monoids: definitions, columnar state, partials and their merge.

A partial is a small JSON document, readable wherever it turns up. The state of many slots at once is `Columns`.
"""

from headwater.aggregates.columns import Columns
from headwater.aggregates.definition import (
    Aggregate,
    count,
    distinct,
    first,
    last,
    max,
    mean,
    min,
    quantile,
    sum,
    variance,
)
from headwater.aggregates.merging import iso_ms, merge, values

__all__ = [
    "Aggregate",
    "Columns",
    "count",
    "distinct",
    "first",
    "iso_ms",
    "last",
    "max",
    "mean",
    "merge",
    "min",
    "quantile",
    "sum",
    "values",
    "variance",
]
