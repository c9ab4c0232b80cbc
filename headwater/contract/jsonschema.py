"""The JSON Schema of a contract, for producers in other languages and for documentation."""

from typing import Any

from headwater.contract.definition import EPOCHS, INTEGER_BOUNDS, Contract, Field
from headwater.contract.values import MAX_MS, MIN_MS

__all__ = ["json_schema"]

_TYPES = {"string": "string", "boolean": "boolean", "date": "string", "float": "number", "double": "number"}


def json_schema(contract: Contract) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one event as a JSON object.

    Times are ISO 8601 text or milliseconds since 1970 (UTC).

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


def _property(contract: Contract, field: Field) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if field.type == "json":
        return {"description": field.doc} if field.doc else {}
    types = ["string", "integer"] if field.type == "timestamp" else [_TYPES.get(field.type, "integer")]
    if not field.required:
        types.append("null")
    found["type"] = types if len(types) > 1 else types[0]
    if field.type in ("timestamp", "date"):
        found["format"] = "date-time" if field.type == "timestamp" else "date"
    if field.type == "string" and not field.values:
        found["maxLength"] = contract.max_bytes[field.name]  # in characters: what is shorter may yet have more bytes
    # of a time, bounds concern those that are numbers, in the field's unit: up to year 9999
    per_ms = EPOCHS["ms"] / EPOCHS[field.epoch]
    times = round(max(MIN_MS, field.earliest_ms) * per_ms), int(MAX_MS * per_ms)
    low, high = times if field.type == "timestamp" else INTEGER_BOUNDS.get(field.type, (None, None))
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
