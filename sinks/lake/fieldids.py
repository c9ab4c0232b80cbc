"""Give files the numbers that their table has for its columns. Pure.

Iceberg's readers find columns by number. Files without numbers are read by the table's name mapping, which not every
engine follows: Daft refuses such files, and DataFusion reads lists, maps and structs in them as null. The publisher
writes the table's numbers down, in the form of a name mapping, and processors put them into their files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

__all__ = ["FieldIds", "with_field_ids"]

FieldIds = Sequence[Mapping[str, Any]]
"""Columns as in Iceberg's name mappings: each with `field-id`, `names`, and `fields` where it is made of others."""
_NAME = b"PARQUET:field_id"


def with_field_ids(schema: pa.Schema, columns: FieldIds) -> pa.Schema:
    """Return the schema with a number on each column and on each part of one; as it is, when one is not among them.

    A file that has numbers for some of its columns is read without the others.

    >>> numbered = with_field_ids(pa.schema([("a", pa.int64())]), [{"field-id": 7, "names": ["a"]}])
    >>> numbered.field("a").metadata
    {b'PARQUET:field_id': b'7'}
    """
    try:
        return pa.schema(_fields(list(schema), columns))
    except LookupError:
        return schema


def _fields(fields: Sequence[pa.Field], columns: FieldIds) -> list[pa.Field]:
    known = {name: one for one in columns for name in one["names"]}
    return [_field(one, known[one.name]) for one in fields]


def _field(field: pa.Field, column: Mapping[str, Any]) -> pa.Field:
    kind = _type(field.type, column.get("fields", ()))
    return field.with_type(kind).with_metadata({_NAME: str(column["field-id"]).encode()})


def _type(kind: pa.DataType, columns: FieldIds) -> pa.DataType:
    known = {name: one for one in columns for name in one["names"]}
    if pa.types.is_map(kind):
        return pa.map_(_field(kind.key_field, known["key"]), _field(kind.item_field, known["value"]))
    if pa.types.is_list(kind):
        return pa.list_(_field(kind.value_field, known["element"]))
    if pa.types.is_struct(kind):
        return pa.struct(_fields([kind.field(at) for at in range(kind.num_fields)], columns))
    return kind
