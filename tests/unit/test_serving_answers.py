"""What the query API answers: JSON that every reader takes."""

import json
from typing import Any

import pytest

from headwater.aggregates import last, max, mean
from headwater.serving.answers import json_text
from processors.pipeline import Pipeline
from processors.windows import tumbling
from tests.unit.serving_world import World

VIEW = Pipeline("p", "telemetry").view(
    "v", by=["device"], window=tumbling("1m"), most=max("value"), mean=mean("value"), last=last("value")
)


def strict(text: str) -> Any:
    def refused(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refused)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_in_json_is_null(value: float) -> None:
    world = World(VIEW)
    world.write("v", ("a",), 0, value=[value])
    answer = strict(world.asking().get("/v1/views/v/a").text)
    assert [row["mean"] for row in answer["rows"]] == [None]
    assert strict(json_text({"alerts": [{"value": value}, (1.5, value)]})) == {"alerts": [{"value": None}, [1.5, None]]}
