"""Show an OpenAPI document as one HTML page without scripts, for people. Pure.

Whatever the document's texts hold, they are text on the page.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from headwater.web.palette import PAGE_STYLE

__all__ = ["reference_page"]

Links = Sequence[tuple[str, str]]
"""Text and path of each link in the page's head."""
_MOST_VALUES = 20
"""Values of an enumeration that are shown."""


def reference_page(document: Mapping[str, Any], links: Links) -> str:
    """Return the page: the operations, each with its parameters and answers, and the schemas that they name.

    >>> page = reference_page({"info": {"title": "<b>"}, "paths": {}}, [("metrics", "/metrics")])
    >>> "<title>&lt;b&gt;</title>" in page, '<a href="/metrics">metrics</a>' in page
    (True, True)
    """
    title = escape(document["info"]["title"])
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas: Mapping[str, Any] = document.get("components", {}).get("schemas", {})
    head = "".join(f'<a href="{escape(path)}">{escape(text)}</a>' for text, path in links)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{PAGE_STYLE}</style></head><body>",
            f"<header><h1>{title}</h1>{head}</header><main>",
            f"<p>{escape(document['info'].get('description', ''))}</p>",
            _contents(operations, schemas),
            *(_operation(*one) for one in operations),
            *(_schema_section(name, schema) for name, schema in schemas.items()),
            "</main></body></html>",
        ]
    )


def _anchor(*parts: str) -> str:
    """Return the name of a place on the page, which a link can name as it is."""
    return quote("-".join(parts), safe="")


def _link(anchor: str, text: str) -> str:
    return f'<a href="#{anchor}">{text}</a>'


def _contents(operations: Sequence[tuple[str, str, Any]], schemas: Iterable[str]) -> str:
    found = [(_anchor(method, path), _signature(method, path)) for method, path, _ in operations]
    found += [(_anchor("schema", name), f"<code>{escape(name)}</code>") for name in schemas]
    rows = "".join(f"<li>{_link(anchor, text)}" for anchor, text in found)
    return f'<nav aria-label="contents"><h2>Contents</h2><ul>{rows}</ul></nav>'


def _signature(method: str, path: str) -> str:
    return f'<code><span class="method {escape(method)}">{escape(method.upper())}</span> {escape(path)}</code>'


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    said = dict.fromkeys(operation.get(name, "").strip() for name in ("summary", "description"))
    parts = [f'<section id="{_anchor(method, path)}"><h2>{_signature(method, path)}</h2>']
    parts += [f"<p>{escape(text)}</p>" for text in said if text]
    rows: list[Sequence[str]] = [
        (_code(one["name"]), one["in"], _kind(one.get("schema", {})), escape(one.get("description", "")))
        for one in operation.get("parameters", ())
    ]
    if rows:
        parts.append("<h3>Parameters</h3>" + _table(("name", "in", "type", "meaning"), rows))
    body = operation.get("requestBody")
    if body:
        rows = [(_code(kind), _kind(one.get("schema", {}))) for kind, one in body["content"].items()]
        parts.append(f"<h3>Body</h3><p>{escape(body.get('description', ''))}</p>" + _table(("type", "holds"), rows))
    alike: dict[tuple[str, str], list[str]] = {}
    for status, answer in operation["responses"].items():
        said_and_held = escape(answer.get("description", "")), _content(answer.get("content", {}))
        alike.setdefault(said_and_held, []).append(escape(status))
    rows = [(", ".join(statuses), *what) for what, statuses in alike.items()]
    return "".join([*parts, "<h3>Answers</h3>", _table(("status", "meaning", "holds"), rows), "</section>"])


def _content(content: Mapping[str, Any]) -> str:
    return "; ".join(f"{_code(kind)} {_kind(one.get('schema', {}))}" for kind, one in content.items())


def _schema_section(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows: list[Sequence[str]] = [
        (
            _code(field) + ("" if field in required else ' <span class="soft">optional</span>'),
            _kind(found),
            escape(found.get("description", "")),
        )
        for field, found in schema.get("properties", {}).items()
    ]
    said = f"<p>{escape(schema['description'])}</p>" if schema.get("description") else ""
    fields = _table(("field", "type", "meaning"), rows) if rows else f"<p>{_kind(schema)}</p>"
    return f'<section id="{_anchor("schema", name)}"><h2>{_code(name)}</h2>{said}{fields}</section>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    names = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _kind(schema: Mapping[str, Any]) -> str:
    """Return a type in a few words: `string or null`, `array of` a link to a schema."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        return _link(_anchor("schema", name), _code(name))
    for choices in ("anyOf", "oneOf"):
        if choices in schema:
            return " or ".join(dict.fromkeys(map(_kind, schema[choices])))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        more = " …" if len(values) > _MOST_VALUES else ""
        return "one of " + ", ".join(_code(json.dumps(one)) for one in values[:_MOST_VALUES]) + more
    kinds = schema.get("type", "any" if schema else "–")
    text = escape(kinds if isinstance(kinds, str) else " or ".join(kinds))
    if text == "array" and "items" in schema:
        return f"array of {_kind(schema['items'])}"
    return text + (f" ({escape(schema['format'])})" if "format" in schema else "")
