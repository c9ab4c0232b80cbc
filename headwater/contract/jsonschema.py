"""The JSON Schema of a contract, for producers in other languages and for documentation."""

from typing import Any

from headwater.contract.definition import EPOCHS, INTEGER_BOUNDS, Contract, Field
from headwater.contract.scalars import DAY_US, DECIMAL_TEXT
from headwater.contract.types import NESTED, Kind, Member
from headwater.contract.values import MAX_MS, MIN_MS

__all__ = ["json_schema"]

_TYPES = {"string": ["string"], "boolean": ["boolean"], "date": ["string"], "float": ["number"], "double": ["number"]}
_TYPES |= {"timestamp": ["string", "integer"], "timestamp_us": ["string", "integer"], "time": ["string", "integer"]}
_TYPES |= {"decimal": ["string", "number"], "uuid": ["string"], "binary": ["string"]}
_FORMATS = {"timestamp": "date-time", "timestamp_us": "date-time", "date": "date", "uuid": "uuid"}
_TIME = r"^[0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?$"


def json_schema(contract: Contract) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one event as a JSON object.

    Times are ISO 8601 text or milliseconds since 1970 (UTC), decimals text or numbers, bytes text in base64.

    >>> from headwater.contract import load_contract
    >>> json_schema(load_contract("telemetry"))["type"]
    'object'
    """
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{contract.name} v{contract.version}",
        "type": "object",
        "properties": {field.name: _property(contract, field) for field in contract.fields if not field.path},
        "required": [field.name for field in contract.fields if field.required and not field.path],
        "additionalProperties": contract.unknown != "refuse",
    }
    if contract.description:
        schema["description"] = contract.description
    return schema


def _nested(kind: Kind) -> dict[str, Any]:
    """Return the schema of a list, map or struct."""
    if kind.name == "list":
        return {"type": "array", "items": _member(kind.members[0])}
    if kind.name == "map":
        return {"type": "object", "additionalProperties": _member(kind.members[0])}
    return {
        "type": "object",
        "properties": {one.name: _member(one) for one in kind.members},
        "required": [one.name for one in kind.members if one.required],
        "additionalProperties": False,
    }


def _member(member: Member) -> dict[str, Any]:
    """Return the schema of a part, as that of a field of its type, which has no bounds of its own."""
    field = Field("x", member.kind.text, required=member.required)
    key, time = Field("k", "string"), Field("t", "timestamp")
    found = _property(Contract("part", 1, (field, key, time), "k", "t"), field)
    return {name: one for name, one in found.items() if name != "maxLength"}


def _property(contract: Contract, field: Field) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if field.kind.name in NESTED:
        found = _nested(field.kind)
        found |= {} if field.required else {"type": [found["type"], "null"]}
        return found | ({"description": field.doc} if field.doc else {})
    if field.type == "json":
        return {"description": field.doc} if field.doc else {}
    types = [*_TYPES.get(field.kind.name, ["integer"]), *([] if field.required else ["null"])]
    found["type"] = types if len(types) > 1 else types[0]
    if field.type in _FORMATS:
        found["format"] = _FORMATS[field.type]
    if field.type == "binary":
        found["contentEncoding"] = "base64"
    if field.kind.name in ("time", "decimal"):
        found["pattern"] = _TIME if field.type == "time" else f"^{DECIMAL_TEXT}$"
    if field.type == "string" and not field.values:
        found["maxLength"] = contract.max_bytes[field.name]  # in characters: what is shorter may yet have more bytes
    # of a time, bounds concern those that are numbers, in the field's unit: up to year 9999
    per_ms = EPOCHS["ms"] / EPOCHS[field.epoch]
    times = round(max(MIN_MS, field.earliest_ms) * per_ms), int(MAX_MS * per_ms)
    bounds = INTEGER_BOUNDS | {"time": (0, DAY_US - 1), "timestamp": times, "timestamp_us": times}
    low, high = bounds.get(field.type, (None, None))
    if field.minimum is not None or low is not None:
        found["minimum"] = low if field.minimum is None else field.minimum
    if field.maximum is not None or high is not None:
        found["maximum"] = high if field.maximum is None else field.maximum
    if field.values:
        found["enum"] = [*field.values, *([] if field.required else [None])]
    doc = " ".join(part for part in (field.doc, f"(unit: {field.unit})" if field.unit else "") if part)
    if doc:
        found["description"] = doc
    return found
