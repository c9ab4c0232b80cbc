"""The pages that show an OpenAPI document, of the gateway and of the query API, and the colours of all pages."""

import re
from html import unescape
from urllib.parse import unquote

import pytest

from headwater.aggregates import count
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.web.palette import BRAND, SERIES_COUNT, dark_variables, light_variables
from headwater.web.reference import reference_page
from tests.gateway import served
from tests.unit.serving_world import World

HOSTILE = "a b<script>1</script>'\"><img src=x onerror=1>%41&amp;ü"


def broken_links(page: str) -> set[str]:
    """Links to places of the page that it does not have: a browser looks for the name as it is and decoded."""
    places = {unescape(one) for one in re.findall(r'\bid="([^"]*)"', page)}
    links = [unescape(one) for one in re.findall(r'href="#([^"]*)"', page)]
    assert links
    return {one for one in links if one not in places and unquote(one) not in places}


def test_the_query_api_shows_every_view_and_column() -> None:
    pipeline = Pipeline("p", "telemetry").view("by device", by=["device"], window=tumbling("1m"), readings=count())
    api = World(pipeline).asking()
    found = api.get("/docs")
    assert found.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert "script-src" not in found.headers["content-security-policy"]
    page = found.text
    document = api.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()}</span> {path}<" in page
    for schema in document["components"]["schemas"].values():
        for column in schema.get("properties", {}):
            assert f"<code>{column}</code>" in page
    assert "readings" in page
    assert not re.search("<script|https?://", page)
    assert broken_links(page) == set()


def test_the_gateway_says_what_it_serves() -> None:
    for metrics in (True, False):
        with served(metrics=metrics) as found:
            page = found.client.get("/").text
        assert ('href="/metrics"' in page) is metrics
        assert "POST</span> /v1/events/telemetry<" in page
        assert "Content-Encoding gzip or zstd" in page
        assert broken_links(page) == set()


def test_every_text_of_a_document_is_text_and_every_link_holds() -> None:
    content = {HOSTILE: {"schema": {"$ref": f"#/components/schemas/{HOSTILE}"}}}
    operation = {
        "summary": HOSTILE,
        "description": HOSTILE + HOSTILE,
        "parameters": [{"name": HOSTILE, "in": "query", "schema": {"enum": [HOSTILE]}, "description": HOSTILE}],
        "requestBody": {"description": HOSTILE, "content": content},
        "responses": {"200": {"description": HOSTILE, "content": content}},
    }
    field = {"type": ["string", "null"], "format": HOSTILE, "description": HOSTILE}
    schemas = {HOSTILE: {"description": HOSTILE, "properties": {HOSTILE: field}}, "none": {"type": HOSTILE}}
    page = reference_page(
        {
            "info": {"title": HOSTILE, "description": HOSTILE},
            "paths": {f"/{HOSTILE}": {"get": operation}},
            "components": {"schemas": schemas},
        },
        [(HOSTILE, f"/{HOSTILE}")],
    )
    assert not re.search("<script|<img", page)
    assert set(re.findall(r"""\son\w+=""", re.sub(r"&[^;]*;", "", page))) <= {" onerror="}  # within a text
    assert broken_links(page) == set()


def colours(declared: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+):(#\w{6})", declared))


def contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("declared", [light_variables(), dark_variables()], ids=["light", "dark"])
def test_text_can_be_read_in_the_light_and_in_the_dark(declared: str) -> None:
    found = colours(declared)
    series = [f"series-{number}" for number in range(SERIES_COUNT)]
    for name in ("ink", "soft", "link", "good", "warn", "bad", *series):
        for ground in ("paper", "ground"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)
    assert contrast("#ffffff", BRAND) >= 4.5
    assert contrast(found["focus"], found["paper"]) >= 3
