"""The parts of a contract as values: fields, own id, the contract itself.

Every instance is consistent: the constructors raise InvalidContract. How a contract is read, shown and applied to
events is in the modules beside; none of them is imported here.
"""

import re
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

import pyarrow as pa

from headwater.arguments import check_fields, shown
from headwater.clock import DAY_MS
from headwater.contract.types import NESTED, NOT_KEYS, TIMES, Kind, parse_type
from headwater.errors import InvalidContract

__all__ = [
    "EPOCHS",
    "INTEGER_BOUNDS",
    "MAX_IDENTIFIER_BYTES",
    "MAX_TEXT_BYTES",
    "Contract",
    "Field",
    "Number",
    "OwnId",
    "as_float32",
]

EPOCHS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""The units that a time may be counted in since 1970, in nanoseconds."""
EARLIEST_MS = 946_684_800_000
"""The year 2000. A number that would be an earlier time is counted in another unit, or is no time: 20260301 as
milliseconds is in January 1970, and so are today's seconds."""
MAX_IDENTIFIER_BYTES = 1_024
"""Maximum size of a key or an own id that is a text, in UTF-8: the limit of a DynamoDB sort key."""
MAX_TEXT_BYTES = 262_144
"""Maximum size of any other text or JSON value, where the contract does not say."""
INTEGER_BOUNDS = {"int": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
SIZED = NESTED | {"string", "json", "binary"}
"""Types whose values may be long, and have a maximum of bytes."""
_FLOATS = ("float", "double")
_MAX = sys.float_info.max
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_CONTRACT_NAME = re.compile(r"[a-z][a-z0-9_-]*")

Number = int | float | Decimal


def as_float32(value: float) -> float:
    """Return the nearest float32. Raise OverflowError beyond its range."""
    nearest: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return nearest


def _quoted(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class Field:
    """Hold one column. `was` lists its earlier names, `values` all the values it may have (strings and whole numbers).

    `path` is where the value lies in events that others write, such as `("detail", "user", "id")`; without one it lies
    under the field's name. For a timestamp, `epoch` is the unit of times that are numbers (s, ms, us or ns), `format`
    the strptime format of times that are text where it is not ISO 8601, and `earliest_ms` the earliest time that a
    number may stand for, in epoch ms. `ahead_ms` is how far the contract's time may lie after the record's arrival.
    `max_bytes` is how long a text, JSON or binary value may be, texts in UTF-8; of a list, map or struct all its texts
    and 8 for each other part.

    >>> Field("value", "double", minimum=0, unit="°C").bounds
    (0.0, None)
    """

    name: str
    type: str
    required: bool = True
    doc: str = ""
    unit: str = ""
    minimum: int | float | None = None
    maximum: int | float | None = None
    values: tuple[str | int, ...] = ()
    was: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    epoch: str = "ms"
    format: str = ""
    earliest_ms: int = EARLIEST_MS
    ahead_ms: int = DAY_MS
    max_bytes: int = MAX_TEXT_BYTES

    def __post_init__(self) -> None:
        for listed in ("values", "was", "path"):
            if not isinstance(getattr(self, listed), list | tuple):
                raise InvalidContract(f"field {self.name}: {listed} is a list, not {shown(getattr(self, listed))}")
            object.__setattr__(self, listed, tuple(getattr(self, listed)))
        if not isinstance(self.name, str) or not _FIELD_NAME.fullmatch(self.name):
            raise InvalidContract(f"field name {_quoted(self.name)} is not letters, digits and _ after a letter")
        reason = self._type_fault() or self._bounds_fault() or self._values_fault() or self._was_fault()
        reason = reason or self._reading_fault()
        if reason:
            raise InvalidContract(f"field {self.name}: {reason}")

    @property
    def arrow_type(self) -> pa.DataType:
        """Return the Arrow type of a conformed column; strings may be dictionary-encoded instead."""
        return self.kind.arrow

    @cached_property
    def kind(self) -> Kind:
        """Return the type, taken apart."""
        return parse_type(self.type)

    @cached_property
    def bounds(self) -> tuple[Number | None, Number | None]:
        """Return minimum and maximum as values are compared with them: of a float field, rounded as its values are."""
        if self.kind.name == "decimal":
            least, most = (None if bound is None else Decimal(repr(bound)) for bound in (self.minimum, self.maximum))
            return least, most
        if self.type not in _FLOATS:
            return self.minimum, self.maximum
        rounded = as_float32 if self.type == "float" else float
        low, high = (None if bound is None else rounded(bound) for bound in (self.minimum, self.maximum))
        return low, high

    @cached_property
    def value_set(self) -> pa.Array:
        """Return `values` as an Arrow array of the field's type."""
        return pa.array(self.values, self.arrow_type)

    def _type_fault(self) -> str:
        if not isinstance(self.type, str):
            return f"type {_quoted(self.type)} is no text"
        try:
            object.__setattr__(self, "type", parse_type(self.type).text)
        except ValueError as error:
            return f"type {_quoted(self.type)} {error}"
        if not isinstance(self.required, bool):
            return f"required is True or False, not {shown(self.required)}"
        texts = {"doc": self.doc, "unit": self.unit}
        return next((f"{n} is a text, not {shown(text)}" for n, text in texts.items() if not isinstance(text, str)), "")

    def _bounds_fault(self) -> str:
        for name, bound in (("minimum", self.minimum), ("maximum", self.maximum)):
            if bound is None:
                continue
            if self.type not in (*INTEGER_BOUNDS, *_FLOATS) and self.kind.name != "decimal":
                return f"{name} is only for numbers, not for {self.type}"
            if isinstance(bound, bool) or not isinstance(bound, int | float) or not abs(bound) <= _MAX:
                return f"{name} {_quoted(bound)} is not a number"
            if self.type in INTEGER_BOUNDS and not self._is_own_integer(bound):
                return f"{name} {_quoted(bound)} is no {self.type}"
            if self.type == "float" and abs(bound) > 3.4e38:
                return f"{name} {_quoted(bound)} does not fit float"
            if self.kind.name == "decimal" and not self.kind.holds(Decimal(repr(bound))):
                return f"{name} {_quoted(bound)} is no {self.type}"
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

    def _reading_fault(self) -> str:
        if any(not isinstance(name, str) or not name for name in self.path):
            return f"from {_quoted(self.path)} is no path of names"
        if self.epoch not in EPOCHS:
            return f"epoch {_quoted(self.epoch)} is none of {', '.join(EPOCHS)}"
        if not isinstance(self.format, str) or (self.format and "%" not in self.format):
            return f"format {_quoted(self.format)} is no strptime format such as %d/%b/%Y:%H:%M:%S %z"
        if isinstance(self.earliest_ms, bool) or not isinstance(self.earliest_ms, int):
            return f"earliest {_quoted(self.earliest_ms)} is no date"
        if isinstance(self.ahead_ms, bool) or not isinstance(self.ahead_ms, int) or self.ahead_ms < 1:
            return f"ahead {_quoted(self.ahead_ms)} is no duration"
        if isinstance(self.max_bytes, bool) or not isinstance(self.max_bytes, int) or self.max_bytes < 1:
            return f"max_bytes {_quoted(self.max_bytes)} is not a whole number from 1"
        if self.max_bytes != MAX_TEXT_BYTES and self.kind.name not in SIZED:
            return f"max_bytes is only for string, json, binary and what is made of others, not for {self.type}"
        given = (self.epoch, self.format, self.earliest_ms) != ("ms", "", EARLIEST_MS)
        return (
            f"epoch, format and earliest are for timestamps, not for {self.type}"
            if (given and self.type not in TIMES)
            else ""
        )

    def _is_own_integer(self, value: object) -> bool:
        low, high = INTEGER_BOUNDS[self.type]
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@dataclass(frozen=True)
class OwnId:
    """Hold which fields number the events at their source: a name of the source and a number in it, or one unique
    text.

    `origin` is a string field. `seq` is an int or long field, any of whose numbers may come in any order: the lowest,
    the highest and random ones are as good as counted ones. Without `seq` the origin alone is the id, such as a UUID.
    Counted numbers are cheapest to remember (see docs/guarantees.md).

    `partitions` is the number of chains that ordered placement spreads the origins over; it never changes, for all
    copies of an event must land on one chain.

    >>> OwnId("device", "n")
    OwnId(origin='device', seq='n', partitions=16)
    """

    origin: str
    seq: str | None = None
    partitions: int = 16

    def __post_init__(self) -> None:
        for name, value in (("origin", self.origin), ("seq", self.seq)):
            if not isinstance(value, str) and (name, value) != ("seq", None):
                raise InvalidContract(f"id: {name} must be the name of a field, not {shown(value)}")
        if isinstance(self.partitions, bool) or not isinstance(self.partitions, int) or self.partitions < 1:
            raise InvalidContract(f"id: partitions {_quoted(self.partitions)} is not a whole number from 1")


@dataclass(frozen=True)
class Contract:
    """Hold an event type: its fields in order, the key that events are grouped by and the time that they happened.

    >>> from headwater.contract import load_contract
    >>> contract = load_contract("telemetry")
    >>> contract.key, contract.time
    ('device', 'ts')
    """

    name: str
    version: int
    fields: tuple[Field, ...]
    key: str
    time: str
    id: OwnId | None = None
    description: str = ""
    unknown: str = "refuse"
    """Treatment of fields that the contract does not know: `refuse`, `ignore`, or the name of the json field that
    keeps them."""

    def __post_init__(self) -> None:
        if not isinstance(self.fields, list | tuple) or not all(isinstance(one, Field) for one in self.fields):
            raise InvalidContract(f"fields: a list of Field, not {shown(self.fields)}")
        object.__setattr__(self, "fields", tuple(self.fields))
        if not isinstance(self.name, str) or not _CONTRACT_NAME.fullmatch(self.name):
            raise InvalidContract(f"name {_quoted(self.name)} is not small letters, digits, _ and - after a letter")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise InvalidContract(f"version {_quoted(self.version)} is not a whole number from 1")
        check_fields(self, InvalidContract, key="the name of a field", time="the name of a field")
        self._check_names()
        self._check_role("key", self.key)
        if self.field(self.key).kind.name in NOT_KEYS:
            raise InvalidContract(f"key: field {self.key} is a {self.field(self.key).type}, which has no one text")
        self._check_role("time", self.time, TIMES)
        for field in self.fields:
            if field.ahead_ms != DAY_MS and field.name != self.time:
                raise InvalidContract(f"field {field.name}: ahead is for the field that is the time, {self.time}")
        if self.id is not None:
            self._check_role("id: origin", self.id.origin, ("string",))
            if self.id.seq is not None:
                self._check_role("id: seq", self.id.seq, tuple(INTEGER_BOUNDS))
        if self.unknown not in ("refuse", "ignore"):
            rest = self._by_name.get(self.unknown)
            if rest is None or rest.type != "json" or rest.required:
                raise InvalidContract(
                    f"unknown {_quoted(self.unknown)} is neither refuse nor ignore nor an optional field of type json"
                )

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

    def _check_role(self, role: str, name: str, types: Sequence[str] = ()) -> None:
        field = self._by_name.get(name)
        if field is None:
            raise InvalidContract(f"{role}: there is no field {_quoted(name)}")
        if not field.required:
            raise InvalidContract(f"{role}: field {name} is not required")
        if types and field.type not in types:
            raise InvalidContract(f"{role}: field {name} is a {field.type}, not a {' or '.join(types)}")

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    @cached_property
    def selects(self) -> bool:
        """Return True when an event's fields must be looked for, or its values read one by one, to be columns."""
        return self.unknown != "refuse" or any(
            field.path or field.type == "json" or field.kind.name in NESTED for field in self.fields
        )

    @cached_property
    def places(self) -> tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]:
        """Return for each field the paths at which an event may have it, the first before the others.

        The field that keeps what no other takes has none.
        """
        return tuple(
            (field.name, (field.path,) if field.path else tuple((name,) for name in (field.name, *field.was)))
            for field in self.fields
            if field.name != self.unknown
        )

    @cached_property
    def identifying(self) -> frozenset[str]:
        """Return the names of the text fields that identify: the key, and what the own id consists of."""
        own = () if self.id is None else (self.id.origin,)
        return frozenset(name for name in (self.key, *own) if self._by_name[name].type in ("string", "json"))

    @cached_property
    def max_bytes(self) -> dict[str, int]:
        """Return how many bytes a value may have, by the names of the fields whose values may be long."""
        return {
            field.name: min(
                field.max_bytes, MAX_IDENTIFIER_BYTES if field.name in self.identifying else field.max_bytes
            )
            for field in self.fields
            if field.kind.name in SIZED
        }

    @cached_property
    def others(self) -> dict[str, tuple[str, ...]]:
        """Return under which names else a field may come in flat rows and tables, by the names of fields that have any:
        earlier ones, and the one that it is `from`, unless that is the name of another field.
        """
        taken = [name for field in self.fields for name in (field.name, *field.was)]
        taken += [field.path[0] for field in self.fields if len(field.path) == 1]
        found = {}
        for field in self.fields:
            own = field.path if len(field.path) == 1 and taken.count(field.path[0]) == 1 else ()
            if field.was or own:
                found[field.name] = (*field.was, *own)
        return found

    @cached_property
    def all_names(self) -> dict[str, str]:
        """Return the names of the fields by all those under which they may come in flat rows and tables."""
        others = {other: name for name, names in self.others.items() for other in names}
        return others | {field.name: field.name for field in self.fields}

    @cached_property
    def exact(self) -> bool:
        """Return True when numbers in JSON are read as they are written: a float is no decimal, and JSON is kept."""
        return any(field.kind.has("decimal") or field.kind.has("json") for field in self.fields)

    def field(self, name: str) -> Field:
        """Return the field of that name. Raise KeyError when there is none."""
        return self._by_name[name]

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """Return the fields in order as an Arrow schema, in plain types and without metadata."""
        return pa.schema([pa.field(field.name, field.arrow_type) for field in self.fields])
