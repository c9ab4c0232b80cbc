"""Describe the gateway: OpenAPI 3.1 from the contracts. Pure."""

from collections.abc import Sequence
from typing import Any

from headwater.config import GatewaySettings
from headwater.contract import Contract, json_schema
from headwater.producers.gateway.bodies import FORMATS

__all__ = ["document"]

_PROBLEMS = {
    "400": "The body or a header cannot be read; nothing was accepted.",
    "401": "No valid credentials.",
    "403": "The credentials are not for this contract.",
    "408": "The body took too long.",
    "409": "The Idempotency-Key came with another body; nothing was accepted.",
    "413": "More bytes or rows than are taken at once; nothing was accepted.",
    "415": "The format or encoding is not supported.",
    "422": "No event conforms to the contract; nothing was accepted.",
    "429": "More than the key's rate or quota; Retry-After says when.",
    "503": "No room now, or no confirmation in time; Retry-After says when.",
}
_BODIES = "Each plain, or with Content-Encoding gzip or zstd."
_HEADERS = (
    (
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "A retry with the same key and body makes no duplicate.",
    ),
)
_RESULT = {
    "type": "object",
    "properties": {
        "accepted": {"type": "integer", "minimum": 0},
        "rejected": {"type": "integer", "minimum": 0},
        "in": {"enum": ["stream", "outbox"], "description": "Where the accepted events are safe."},
        "origin": {"type": "string"},
        "first_seq": {"type": "integer", "minimum": 0},
        "accepted_rows": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            "description": "Half-open intervals of rows, from 0.",
        },
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/RowError"}},
    },
    "required": ["accepted", "rejected", "in"],
}
_ROW_ERROR = {
    "type": "object",
    "properties": {
        "row": {"type": "integer", "minimum": 0},
        "field": {"type": "string"},
        "detail": {"type": "string"},
    },
    "required": ["row", "detail"],
}
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "accepted": {"type": "integer"},
        "rejected": {"type": "integer"},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/RowError"}},
    },
    "required": ["type", "title", "status", "detail"],
}


def document(contracts: Sequence[Contract], settings: GatewaySettings, *, closed: bool) -> dict[str, Any]:
    """Return the OpenAPI document; `closed` when callers need credentials."""
    paths: dict[str, Any] = {f"/v1/events/{one.name}": {"post": _events(one, settings)} for one in contracts}
    paths["/health/live"] = {"get": _get("live", "Whether the process runs.", _object("live"), ())}
    paths["/health/ready"] = {"get": _get("ready", "Whether events are taken.", _object("ready"), ("503",))}
    schemas = {one.name: _schema(one) for one in contracts}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "headwater gateway",
            "version": "1",
            "description": "Events into the stream. A 2xx says that the accepted events are safe: in the stream, or in "
            "the gateway's outbox on disk.",
        },
        "paths": paths,
        "components": {"schemas": schemas | {"Result": _RESULT, "RowError": _ROW_ERROR, "Problem": _PROBLEM}},
    }
    if closed:
        found["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the issuer."}
        }
        found["security"] = [{"key": []}]
    return found


def _schema(contract: Contract) -> dict[str, Any]:
    schema = json_schema(contract)
    del schema["$schema"]
    return schema


def _events(contract: Contract, settings: GatewaySettings) -> dict[str, Any]:
    one = {"$ref": f"#/components/schemas/{contract.name}"}
    many = {"type": "array", "items": one, "maxItems": settings.max_rows}
    content: dict[str, Any] = {kind: {} for kind in FORMATS}  # JSON Schema says nothing about CSV or Arrow
    content["application/json"] = {"schema": {"oneOf": [one, many]}}
    done = "202" if settings.outbox else "200"
    answers: dict[str, Any] = {
        done: _response("All events are safe.", "application/json", "Result"),
        "207": _response("Some events are safe, the others break the contract.", "application/json", "Result"),
    }
    answers |= {status: _response(text, "application/problem+json", "Problem") for status, text in _PROBLEMS.items()}
    return {
        "operationId": f"write_{contract.name}",
        "summary": f"Write {contract.name} events",
        "description": contract.description,
        "parameters": [
            {"name": name, "in": "header", "required": False, "schema": schema, "description": text}
            for name, schema, text in _HEADERS
        ],
        "requestBody": {"required": True, "description": _BODIES, "content": content},
        "responses": answers,
    }


def _get(name: str, summary: str, schema: dict[str, Any], problems: Sequence[str]) -> dict[str, Any]:
    answers = {"200": {"description": "Yes.", "content": {"application/json": {"schema": schema}}}}
    answers |= {one: _response("No.", "application/problem+json", "Problem") for one in problems}
    return {"operationId": name, "summary": summary, "security": [], "responses": answers}


def _object(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "boolean"}}, "required": [name]}


def _response(text: str, kind: str, schema: str) -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}
