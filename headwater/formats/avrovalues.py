"""Give Avro's logical types the values that their writer meant.

fastavro rounds a decimal of more digits than its schema says, wraps a time of day that is none, and gives a field that
the writer did not have its default as it stands in the schema's JSON. Here each such type has a reader of our own,
under a name of our own: what else in this process reads with fastavro reads as before. Defaults are turned into values.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fastavro.read import LOGICAL_READERS

from headwater.contract import Field
from headwater.contract.values import read_value
from headwater.formats.numbers import unscaled

__all__ = ["marked", "with_defaults"]

_TIME = Field("time", "time")
_OURS = "headwater-"


def _decimal(data: bytes, written: Mapping[str, Any], *_: object) -> object:
    return unscaled(data, written.get("scale", 0))


def _of_day(micros: int) -> Callable[..., object]:
    return lambda count, *_: read_value(_TIME, count * micros)


_READERS: dict[tuple[str, str], Any] = {
    ("bytes", "decimal"): _decimal,
    ("fixed", "decimal"): _decimal,
    ("int", "time-millis"): _of_day(1_000),
    ("long", "time-micros"): _of_day(1),
}
LOGICAL_READERS.update({f"{kind}-{_OURS}{name}": reader for (kind, name), reader in _READERS.items()})


def marked(schema: Any) -> Any:
    """Return the schema with our own names for the logical types that are read here.

    >>> marked({"type": "bytes", "logicalType": "decimal", "precision": 4})["logicalType"]
    'headwater-decimal'
    """
    if isinstance(schema, list):
        return [marked(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {name: marked(one) if name in ("type", "items", "values") else one for name, one in schema.items()}
    if isinstance(found.get("fields"), list):
        found["fields"] = [marked(one) for one in found["fields"]]
    kind, logical = found.get("type"), found.get("logicalType")
    if isinstance(kind, str) and isinstance(logical, str) and (kind, logical) in _READERS:
        found["logicalType"] = _OURS + logical
    return found


def with_defaults(schema: Any) -> Any:
    """Turn the defaults of a schema that fastavro has parsed into the values of their types, in place; return it."""
    _Defaults().walk(schema)
    return schema


class _Defaults:
    """Know the named types of a schema."""

    def __init__(self) -> None:
        self._named: dict[str, Any] = {}

    def walk(self, schema: Any) -> None:
        """Turn the defaults of the records in it."""
        if isinstance(schema, list):
            for one in schema:
                self.walk(one)
        if not isinstance(schema, dict):
            return
        if "name" in schema:
            self._named[schema["name"]] = schema
        for part in ("items", "values"):
            self.walk(schema.get(part))
        for field in schema.get("fields", ()):
            self.walk(field["type"])
            if "default" in field:
                field["default"] = self._value(field["type"], field["default"])

    def _value(self, schema: Any, default: Any) -> Any:
        """Return the value for a default in JSON, that of a union for its first type."""
        if isinstance(schema, list):
            return self._value(schema[0], default)
        schema = self._named.get(schema, {"type": schema}) if isinstance(schema, str) else schema
        kind, value = schema["type"], default
        if kind in ("bytes", "fixed"):  # each character is a byte
            value = default.encode("latin-1")
        elif kind == "array":
            value = [self._value(schema["items"], one) for one in default]
        elif kind == "map":
            value = {name: self._value(schema["values"], one) for name, one in default.items()}
        elif kind in ("record", "error"):
            fields = {one["name"]: one for one in schema["fields"]}
            given = {name: one["default"] for name, one in fields.items() if "default" in one}
            value = given | {name: self._value(fields[name]["type"], one) for name, one in default.items()}
        read: Any = LOGICAL_READERS.get(f"{kind}-{schema.get('logicalType')}")
        return value if read is None or default is None else read(value, schema)
