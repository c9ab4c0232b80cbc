"""What a view may be called, and what the OpenAPI document says of it."""

import pytest

from headwater.aggregates import count
from headwater.errors import UsageError
from processors.pipeline import Pipeline
from processors.windows import tumbling
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
    world = World(EMPTY.view("v", by=["device"], window=tumbling("1m"), **{name: count()}))  # type: ignore[arg-type]
    world.write("v", ("a",), 0, device=["a"])
    api = world.asking()
    assert api.get("/v1/views/v/a").json()["rows"][0][name] == 1
    assert name in api.get("/openapi.json").json()["components"]["schemas"]["v_row"]["properties"]
