"""Aggregates as commutative monoids: definitions, columnar state, partials and their merge.

A partial is a small JSON document, readable wherever it turns up. The state of many slots at once is `Columns`.
"""

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

__all__ = [
    "Aggregate",
    "count",
    "distinct",
    "first",
    "last",
    "max",
    "mean",
    "min",
    "quantile",
    "sum",
    "variance",
]
