"""The Iceberg table schema of a contract. The only module that imports pyiceberg."""

from collections.abc import Iterator, Mapping
from itertools import count

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    PrimitiveType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from headwater.contract.definition import Contract, Field
from headwater.contract.types import TYPES, Kind
from headwater.errors import InvalidContract

__all__ = ["iceberg_schema", "plain_columns"]

_TYPES: dict[str, PrimitiveType] = {
    "string": StringType(),
    "boolean": BooleanType(),
    "int": IntegerType(),
    "long": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "timestamp": TimestamptzType(),
    "timestamp_us": TimestamptzType(),
    "date": DateType(),
    "time": TimeType(),
    "uuid": UUIDType(),
    "binary": BinaryType(),
    "json": StringType(),
}
_IDENTITY = (
    ("_origin", StringType(), "Where the event was numbered: the producer's session, its own id, or shard and record."),
    ("_seq", LongType(), "The event's number at its origin."),
    ("_arrived_at", TimestamptzType(), "When the stream took the event."),
)
_NO_EXTRA = pa.schema([])


def iceberg_schema(contract: Contract, extra: pa.Schema = _NO_EXTRA) -> Schema:
    """Return the contract's fields, the `extra` columns (optional ones) and the identity columns; field ids count from
    1, those of what is within columns behind them.
    """
    ids = count(len(contract.fields) + len(extra) + len(_IDENTITY) + 1)
    names = [field.name for field in contract.fields] + list(extra.names)
    for name in extra.names:
        if name.startswith("_") or names.count(name) > 1:
            raise InvalidContract(f"column {name} cannot be added to contract {contract.name}: the name is taken")
    columns: list[tuple[str, IcebergType, str, bool]] = [
        (field.name, _type(field.kind, ids), _doc(contract, field), field.required) for field in contract.fields
    ]
    columns += [(field.name, _extra_type(field), "Added by the pipeline.", False) for field in extra]
    columns += [(name, kind, doc, True) for name, kind, doc in _IDENTITY]
    return Schema(
        *(
            NestedField(field_id=number, name=name, field_type=kind, required=required, doc=doc or None)
            for number, (name, kind, doc, required) in enumerate(columns, 1)
        )
    )


def plain_columns(columns: pa.Schema, docs: Mapping[str, str]) -> Schema:
    """Return a table schema of columns without nested types, in their order, each with its text in `docs`."""
    return Schema(
        *(
            NestedField(number, one.name, _extra_type(one), required=not one.nullable, doc=docs.get(one.name))
            for number, one in enumerate(columns, 1)
        )
    )


def _type(kind: Kind, ids: Iterator[int]) -> IcebergType:
    """Return the column's type; what is within it gets the next ids. Parts may be null, as far as the lake can tell:
    whether they are required is the contract's to say, and to change.
    """
    if kind.name == "struct":
        numbers = [next(ids) for _ in kind.members]
        parts = zip(numbers, kind.members, strict=True)
        return StructType(*(NestedField(at, one.name, _type(one.kind, ids), required=False) for at, one in parts))
    if kind.name in ("list", "map"):
        first, (inner,) = next(ids), kind.members
        if kind.name == "list":
            return ListType(first, _type(inner.kind, ids), element_required=False)
        return MapType(first, StringType(), next(ids), _type(inner.kind, ids), value_required=False)
    return DecimalType(kind.precision, kind.scale) if kind.name == "decimal" else _TYPES[kind.name]


def _doc(contract: Contract, field: Field) -> str:
    unit = f"unit: {field.unit}, " if field.unit else ""
    return f"{field.doc} ({unit}from contract {contract.name} {contract.version})".strip()


def _extra_type(field: pa.Field) -> PrimitiveType:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_timestamp(kind):
        return TimestamptzType() if kind.tz else TimestampType()
    if pa.types.is_decimal(kind):
        return DecimalType(kind.precision, kind.scale)
    for name, known in TYPES.items():
        if kind == known:
            return _TYPES[name]
    raise InvalidContract(f"column {field.name} has a type that the lake does not take: {field.type}")
