"""What a view may be called, and what the OpenAPI document says of it."""

from typing import Any

import pytest

from headwater.aggregates import count, distinct, first, last, max, mean, min, quantile, sum
from headwater.config import GatewaySettings
from headwater.errors import UsageError
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.web.auth import Authenticator
from headwater.web.keys import KeyStore
from tests.unit.serving_world import World

EMPTY = Pipeline("p", "telemetry")


@pytest.mark.parametrize("name", ["a/b", "{x}", "a}", "a?b", "a#b", " a", "a ", "a@b"])
def test_names_that_no_path_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be named"):
        EMPTY.view(name, by=["device"], n=count())


def test_final_is_no_column() -> None:
    with pytest.raises(UsageError, match="'final'"):
        EMPTY.view("v", by=["device"], final=count())
    with pytest.raises(UsageError, match="'final'"):
        EMPTY.map(lambda table: table, adds={"final": "string"}).view("v", by=["final"], n=count())


@pytest.mark.parametrize("name", ["_n", "model_config", "model_dump", "copy", "schema"])
def test_aggregates_of_any_name(name: str) -> None:
    aggregates: dict[str, Any] = {name: count()}
    world = World(EMPTY.view("v", by=["device"], window=tumbling("1m"), **aggregates))
    world.write("v", ("a",), 0, device=["a"])
    api = world.asking()
    assert api.get("/v1/views/v/a").json()["rows"][0][name] == 1
    assert name in api.get("/openapi.json").json()["components"]["schemas"]["v_row"]["properties"]


def document(world: World, authenticator: Authenticator | None = None) -> dict[str, Any]:
    found: dict[str, Any] = world.asking(authenticator).get("/openapi.json").json()
    return found


def kinds(schema: dict[str, Any]) -> set[str]:
    return {one.get("type", "any") for one in schema.get("anyOf", [schema])}


def test_columns_have_their_types() -> None:
    """Those of the contract, or of the function; of all versions of a view."""
    columns: dict[str, Any] = {"n": count(), "few": distinct("device"), "m": mean("value"), "q": quantile("value", 0.5)}
    columns |= {"total": sum("value"), "most": max("value"), "least": min("rank"), "who": first("device")}
    columns |= {"at": last("ts"), "mixed": last("rank")}
    pipeline = EMPTY.map(lambda table: table, adds={"rank": "int", "ok": "boolean"})
    pipeline = pipeline.view("v", by=["device", "ok", "value"], window=tumbling("1m"), **columns)
    pipeline = pipeline.view("v", version=2, by=["device"], window=tumbling("1m"), mixed=last("device"))
    found = document(World(pipeline))["components"]["schemas"]["v_row"]
    assert {name: kinds(one) for name, one in found["properties"].items()} == {
        "n": {"integer"},
        "few": {"integer"},
        "m": {"number", "null"},
        "q": {"number", "null"},
        "total": {"number", "null"},
        "most": {"number", "null"},
        "least": {"integer", "null"},
        "who": {"string", "null"},
        "at": {"string", "null"},
        "mixed": {"string", "integer", "null"},
        "device": {"string", "null"},
        "ok": {"boolean", "null"},
        "value": {"number", "string", "null"},
        "window_start": {"string"},
        "window_end": {"string"},
        "final": {"boolean"},
    }
    assert set(found["required"]) == {"device", "window_start", "window_end", "final"}


def test_views_and_event_streams_say_what_they_are() -> None:
    paths = document(World(EMPTY.view("v", by=["device"], n=count())))["paths"]
    assert list(paths["/v1/views/v/stream"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
    views = paths["/v1/views"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert views == {"$ref": "#/components/schemas/ViewList"}


def test_how_a_key_is_sent() -> None:
    """Where there are keys, on every operation; where there are none, nowhere."""
    world = World(EMPTY.view("v", by=["device"], n=count()))
    store = KeyStore(world.tables, "keys", world.clock)
    found = document(world, Authenticator(GatewaySettings(), store, None, world.clock))
    schemes = found["components"]["securitySchemes"]
    assert {(one["type"], one.get("scheme"), one.get("name")) for one in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-Api-Key"),
    }
    ways: list[Any] = sorted([{name: []} for name in schemes], key=str)
    for path in found["paths"].values():
        for operation in path.values():
            assert sorted(operation["security"], key=str) == ways
    assert "securitySchemes" not in document(world)["components"]
