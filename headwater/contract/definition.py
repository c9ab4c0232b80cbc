"""What a contract consists of. Every instance is consistent: the constructors raise InvalidContract."""

import re
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from headwater.errors import InvalidContract

__all__ = ["INTEGER_BOUNDS", "TYPES", "Contract", "Field", "OwnId", "as_float32"]

TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("ms", "UTC"),
    "date": pa.date32(),
}
INTEGER_BOUNDS = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_FLOATS = ("float", "double")
_MAX = sys.float_info.max
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_CONTRACT_NAME = re.compile(r"[a-z][a-z0-9_-]*")

Number = int | float


def as_float32(value: float) -> float:
    """The nearest float32; OverflowError beyond its range."""
    nearest: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return nearest


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class Field:
    """One column. `was` lists its earlier names, `values` all the values it may have (strings and whole numbers)."""

    name: str
    type: str
    required: bool = True
    doc: str = ""
    unit: str = ""
    minimum: Number | None = None
    maximum: Number | None = None
    values: tuple[str | int, ...] = ()
    was: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for listed in ("values", "was"):
            object.__setattr__(self, listed, tuple(getattr(self, listed)))
        if not isinstance(self.name, str) or not _FIELD_NAME.fullmatch(self.name):
            raise InvalidContract(f"field name {_quoted(self.name)} is not letters, digits and _ after a letter")
        reason = self._type_fault() or self._bounds_fault() or self._values_fault() or self._was_fault()
        if reason:
            raise InvalidContract(f"field {self.name}: {reason}")

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of a conformed column; strings may be dictionary-encoded instead."""
        return TYPES[self.type]

    @cached_property
    def bounds(self) -> tuple[Number | None, Number | None]:
        """Minimum and maximum as values are compared with them: of a float field, rounded as its values are."""
        if self.type not in _FLOATS:
            return self.minimum, self.maximum
        rounded = as_float32 if self.type == "float" else float
        low, high = (None if bound is None else rounded(bound) for bound in (self.minimum, self.maximum))
        return low, high

    @cached_property
    def value_set(self) -> pa.Array:
        """`values` as an Arrow array of the field's type."""
        return pa.array(self.values, self.arrow_type)

    def _type_fault(self) -> str:
        if not isinstance(self.type, str) or self.type not in TYPES:
            return f"type {_quoted(self.type)} is unknown (one of {', '.join(TYPES)})"
        return ""

    def _bounds_fault(self) -> str:
        for name, bound in (("minimum", self.minimum), ("maximum", self.maximum)):
            if bound is None:
                continue
            if self.type not in (*INTEGER_BOUNDS, *_FLOATS):
                return f"{name} is only for numbers, not for {self.type}"
            if isinstance(bound, bool) or not isinstance(bound, int | float) or not abs(bound) <= _MAX:
                return f"{name} {_quoted(bound)} is not a number"
            if self.type in INTEGER_BOUNDS and not self._is_own_integer(bound):
                return f"{name} {_quoted(bound)} is no {self.type}"
            if self.type == "float" and abs(bound) > 3.4e38:
                return f"{name} {_quoted(bound)} does not fit float"
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            return f"minimum {self.minimum} is above maximum {self.maximum}"
        return ""

    def _values_fault(self) -> str:
        if self.values and self.type not in ("string", *INTEGER_BOUNDS):
            return f"values are only for string, int and long, not for {self.type}"
        for value in self.values:
            if self.type == "string" and not isinstance(value, str):
                return f"value {_quoted(value)} is no string: put it in quotes"
            if self.type in INTEGER_BOUNDS and not self._is_own_integer(value):
                return f"value {_quoted(value)} is no {self.type}"
        return "a value is listed twice" if len(set(self.values)) < len(self.values) else ""

    def _was_fault(self) -> str:
        for name in self.was:
            if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):
                return f"was {_quoted(name)} is no field name"
        return ""

    def _is_own_integer(self, value: object) -> bool:
        low, high = INTEGER_BOUNDS[self.type]
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class OwnId:
    """The fields that number the events at their source: a name of the source and a number in it, or one unique text.

    `partitions` is the number of chains that ordered placement spreads the origins over; it never changes, for all
    copies of an event must land on one chain.
    """

    origin: str
    seq: str | None = None
    partitions: int = 16

    def __post_init__(self) -> None:
        if isinstance(self.partitions, bool) or not isinstance(self.partitions, int) or self.partitions < 1:
            raise InvalidContract(f"id: partitions {_quoted(self.partitions)} is not a whole number from 1")


@dataclass(frozen=True)
class Contract:
    """An event type: its fields in order, the key that events are grouped by and the time that they happened."""

    name: str
    version: int
    fields: tuple[Field, ...]
    key: str
    time: str
    id: OwnId | None = None
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        if not isinstance(self.name, str) or not _CONTRACT_NAME.fullmatch(self.name):
            raise InvalidContract(f"name {_quoted(self.name)} is not small letters, digits, _ and - after a letter")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise InvalidContract(f"version {_quoted(self.version)} is not a whole number from 1")
        self._check_names()
        self._check_role("key", self.key, tuple(TYPES))
        self._check_role("time", self.time, ("timestamp",))
        if self.id is not None:
            self._check_role("id: origin", self.id.origin, ("string",))
            if self.id.seq is not None:
                self._check_role("id: seq", self.id.seq, tuple(INTEGER_BOUNDS))

    def _check_names(self) -> None:
        if not self.fields:
            raise InvalidContract("fields: there are none")
        # Query engines take names without regard to case, so two that differ by it alone cannot be told apart.
        taken: dict[str, str] = {}
        for field in self.fields:
            for name in (field.name, *field.was):
                if name.lower() in taken and not (name != field.name and name.lower() == field.name.lower()):
                    raise InvalidContract(f"field {field.name}: the name {name} is also that of {taken[name.lower()]}")
                taken[name.lower()] = field.name

    def _check_role(self, role: str, name: str, types: Sequence[str]) -> None:
        field = self._by_name.get(name)
        if field is None:
            raise InvalidContract(f"{role}: there is no field {_quoted(name)}")
        if not field.required:
            raise InvalidContract(f"{role}: field {name} is not required")
        if field.type not in types:
            raise InvalidContract(f"{role}: field {name} is a {field.type}, not a {' or '.join(types)}")

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    def field(self, name: str) -> Field:
        """The field of that name; KeyError when there is none."""
        return self._by_name[name]

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The fields in order, in plain types and without metadata."""
        return pa.schema([pa.field(field.name, field.arrow_type) for field in self.fields])

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of one event written as a JSON object."""
        from headwater.contract.jsonschema import json_schema

        return json_schema(self)
