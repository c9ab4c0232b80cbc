"""Two pipelines with one lake table or one view name: the second is refused before it writes anything."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from headwater.aggregates import count
from headwater.config import Settings
from headwater.errors import UsageError
from headwater.ledger import Ledger
from headwater.processors.definition.claims import REGISTRY, claim_names, claimed_names, release_names
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.testing.dynamodb import MemoryDynamoDB

SETTINGS = Settings(database="db", views_table="views")


def pipeline(name: str, table: str = "events", view: str = "hourly") -> Pipeline:
    return Pipeline(name, "telemetry").view(view, by=["device"], window=tumbling("1h"), n=count()).lake(table)


@pytest.fixture
def registry() -> Ledger:
    database = MemoryDynamoDB()
    keys = [{"AttributeName": "pipeline", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}]
    database.create_table(TableName="ledger", KeySchema=keys)
    return Ledger(database, "ledger", REGISTRY)


def start(registry: Any, one: Pipeline, settings: Settings = SETTINGS, bucket: str = "lake") -> None:
    claim_names(one, settings, bucket, registry)


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (pipeline("high", view="other"), "lake table events of database db is pipeline low's"),
        (pipeline("high", table="others"), "view hourly in table views is pipeline low's"),
    ],
)
def test_a_second_pipeline_is_refused_in_one_line_and_claims_nothing(
    registry: Ledger, second: Pipeline, what: str
) -> None:
    """The line says whose the name is and what to do."""
    start(registry, pipeline("low"))
    with pytest.raises(UsageError, match=what) as told:
        start(registry, second)
    assert "headwater names release low" in str(told.value)
    assert "\n" not in str(told.value)
    assert {one.pipeline for one in claimed_names(registry)} == {"low"}


def test_the_same_files_in_another_database_are_the_same_files(registry: Ledger) -> None:
    """Objects are named after the table, whatever catalog knows it."""
    start(registry, pipeline("low"))
    other = SETTINGS.model_copy(update={"database": "other"})
    with pytest.raises(UsageError, match="lake table events in bucket lake is pipeline low's"):
        start(registry, pipeline("high", view="other"), other)
    start(registry, pipeline("high", view="other"), other, bucket="another")


def test_a_pipeline_keeps_its_own(registry: Ledger) -> None:
    """Restarts, rebuilds and further views of the same pipeline, and others beside it, are not held up."""
    start(registry, pipeline("low"))
    start(registry, pipeline("low"))
    start(registry, pipeline("low", view="daily"))
    start(registry, pipeline("high", "others", "others"))
    assert {one.name for one in claimed_names(registry) if one.pipeline == "low"} == {"events", "hourly", "daily"}


def test_what_is_released_another_may_have(registry: Ledger) -> None:
    """And its former owner is refused from then on."""
    start(registry, pipeline("low"))
    assert release_names(registry, "low") == 3
    start(registry, pipeline("high"))
    with pytest.raises(UsageError, match="is pipeline high's"):
        start(registry, pipeline("low"))
    with pytest.raises(UsageError, match="pipeline low has claimed nothing"):
        release_names(registry, "low")


class Overtaken:
    """A registry of which another process claims what was found free, before we do."""

    def __init__(self, registry: Ledger, overtake: Callable[[], None]) -> None:
        self._registry, self._overtake = registry, overtake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    def change(self, name: str, make: Callable[[dict[str, Any]], Mapping[str, Any] | None]) -> dict[str, Any]:
        self._overtake()
        return self._registry.change(name, make)


def test_of_two_that_start_at_once_one_is_refused(registry: Ledger) -> None:
    """And two processes of one pipeline are not."""
    with pytest.raises(UsageError, match="is pipeline low's"):
        start(Overtaken(registry, lambda: start(registry, pipeline("low"))), pipeline("high"))
    start(Overtaken(registry, lambda: start(registry, pipeline("new", "t", "v"))), pipeline("new", "t", "v"))
