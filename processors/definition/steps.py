"""Make the steps of a pipeline of functions or of SQL, which become functions of a table that cannot fail."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.errors import UsageError
from headwater.expressions.compiling import Expression, condition, projections
from headwater.processors.definition.naming import check_column_types
from headwater.processors.definition.parts import Map, Where

__all__ = ["map_step", "where_step"]


@dataclass(frozen=True)
class _Filter:
    """Tell of each row of a table whether a condition is true."""

    expression: Expression

    def __call__(self, table: pa.Table) -> pa.Array:
        return pa.array(np.asarray(self.expression.mask(table)))


@dataclass(frozen=True)
class _Projection:
    """Compute columns of a table."""

    expressions: Mapping[str, Expression]

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.table({name: one.evaluate(table) for name, one in self.expressions.items()})


def where_step(pipeline: str, schema: pa.Schema, function: Callable[[pa.Table], Any] | str) -> Where:
    """Return the step of a function, or of a condition in SQL over the schema's columns."""
    if not isinstance(function, str):
        return Where(function)
    try:
        made = condition(function, schema)
    except UsageError as error:
        raise UsageError(f"pipeline {pipeline}, where: {error}") from None
    return Where(_Filter(made), made.columns)


def map_step(
    pipeline: str,
    schema: pa.Schema,
    function: Callable[[Any], Any] | str,
    adds: Mapping[str, str] | None,
    pandas: bool,
    pure: bool,
) -> Map:
    """Return the step of a function that adds columns, or of SQL, which tells itself what it adds."""
    if isinstance(function, str):
        if adds is not None or pandas or not pure:
            raise UsageError(
                f"pipeline {pipeline}, map: SQL is given alone, since it tells the columns and their types"
            )
        try:
            made = projections(function, schema)
        except UsageError as error:
            raise UsageError(f"pipeline {pipeline}, map: {error}") from None
        reads = tuple(sorted({name for one in made.values() for name in one.columns}))
        return Map(_Projection(made), {name: one.kind for name, one in made.items()}, reads=reads)
    if adds is None:
        raise UsageError(f"pipeline {pipeline}, map: say what the function adds, as in adds={{'value_f': 'double'}}")
    check_column_types(f"pipeline {pipeline}", adds)
    if pandas and importlib.util.find_spec("pandas") is None:
        raise UsageError("map: a function of DataFrames needs pandas: pip install 'headwater[pandas]'")
    return Map(function, dict(adds), pandas, pure)
