"""Join events with reference tables and apply the user's functions. Pure, but for what a user's function does."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater.arrays import whole
from headwater.contract.checks import refused_rows
from headwater.contract.definition import Field
from headwater.contract.types import TYPES
from headwater.contract.written import key_texts
from headwater.errors import UsageError
from headwater.processors.definition.parts import Enrich, Map, Reference, Where

_TIMES = {TYPES[kind]: kind for kind in ("timestamp", "timestamp_us", "date")}

__all__ = ["ReferenceTable", "apply_map", "apply_where", "enrich"]


@dataclass(frozen=True)
class ReferenceTable:
    """Hold one version of a reference table, ready to join: unique keys, string columns dictionary-encoded."""

    reference: Reference
    table: pa.Table

    @cached_property
    def keys(self) -> pa.Array:
        """Return the keys, in the order of the rows."""
        return whole(self.table.column(self.reference.key))

    @cached_property
    def columns(self) -> dict[str, pa.Array]:
        """Return the declared columns by name, cast to their types."""
        out = {}
        for name, kind in self.reference.columns.items():
            column = _cast(whole(self.table.column(name)), pa.field(name, TYPES[kind]))
            out[name] = column.dictionary_encode() if pa.types.is_string(column.type) else column
        return out

    @classmethod
    def of(cls, reference: Reference, table: pa.Table) -> "ReferenceTable":
        """Return a table with unique keys; of rows with equal keys the last one is kept, rows with a null key are not.

        Raises UsageError when a column is missing.
        """
        missing = {reference.key, *reference.columns} - set(table.column_names)
        if missing:
            raise UsageError(
                f"reference table {reference.name} ({reference.source}) has no column {sorted(missing)[0]!r}; "
                f"it has {table.column_names}"
            )
        table = table.set_column(
            table.column_names.index(reference.key), reference.key, key_texts(table.column(reference.key))
        )
        last = {key: at for at, key in enumerate(table.column(reference.key).to_pylist()) if key is not None}
        return cls(reference, table.take(pa.array(sorted(last.values()), pa.int64())))


def enrich(table: pa.Table, step: Enrich, reference: ReferenceTable) -> pa.Table:
    """Append the reference's columns by a left join on one column; they are null where there is no match."""
    on = whole(table.column(step.on))
    if pa.types.is_dictionary(on.type):
        # look up each distinct value once, not each row
        found = pc.index_in(on.dictionary, value_set=reference.keys)
        at = found.take(on.indices)
    else:
        at = pc.index_in(key_texts(on), value_set=reference.keys)
    for name, column in reference.columns.items():
        table = table.append_column(step.prefix + name, column.take(at))
    return table


def apply_map(table: pa.Table, step: Map) -> pa.Table:
    """Append the declared columns that the user's function returns; raise ValueError when they do not fit."""
    plain = _given(table, step)
    result = step.function(plain.to_pandas() if step.pandas else plain)
    name = getattr(step.function, "__name__", "function")
    for field in step.adds():
        column = _result_column(result, field, name)
        if len(column) != table.num_rows:
            raise ValueError(f"{name} returned {len(column)} rows for {table.num_rows}")
        column = column.dictionary_encode() if pa.types.is_string(field.type) else column
        table = table.append_column(field.name, column)
    return table


def apply_where(table: pa.Table, step: Where) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return the mask that the user's function returns; null counts as false."""
    mask = pa.array(np.asarray(pc.fill_null(_array(step.function(_given(table, step))).cast(pa.bool_()), False)))
    if len(mask) != table.num_rows:
        raise ValueError(
            f"{getattr(step.function, '__name__', 'where')} returned {len(mask)} answers for {table.num_rows}"
        )
    out: np.ndarray[tuple[int], np.dtype[np.bool_]] = mask.to_numpy(zero_copy_only=False).astype(np.bool_)
    return out


def _given(table: pa.Table, step: Map | Where) -> pa.Table:
    """Return what the step's function takes."""
    return plain_strings(table) if step.reads is None else table.select(list(step.reads))


def plain_strings(table: pa.Table) -> pa.Table:
    """Return the table with plain string columns, as a user's function expects them."""
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(at, field.name, table.column(at).cast(field.type.value_type))
    return table


def _result_column(result: object, field: pa.Field, function: str) -> pa.Array:
    names = list(result) if isinstance(result, Mapping) else getattr(result, "column_names", None)
    if names is None:
        names = list(getattr(result, "columns", ()))
    if field.name not in names:
        raise ValueError(f"{function} returned no column {field.name!r}")
    column = result.column(field.name) if isinstance(result, pa.Table) else result[field.name]  # type: ignore[index]  # a table, a frame or a mapping
    return _cast(_array(column), field)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    """Return the column in the field's type; raise ArrowInvalid for times that Iceberg or its readers cannot hold."""
    found = column.cast(field.type)
    kind = _TIMES.get(field.type)
    refused = kind and refused_rows(Field(field.name, kind), pa.chunked_array([found]))
    if refused is not None and len(refused):
        raise pa.ArrowInvalid(f"column {field.name}: a {kind} lies in the years 1 to 9999")
    return found


def _array(values: object) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return whole(values)
    return values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
