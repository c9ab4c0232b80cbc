"""What the query API answers: JSON that every reader takes."""

import asyncio
import json
from threading import Event
from typing import Any

import httpx
import pytest

from headwater.aggregates import last, max, mean
from headwater.config import GatewaySettings
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.serving.api.answers import json_text
from headwater.serving.api.reading import ViewReader
from headwater.web.auth import Authenticator
from headwater.web.keys import KeyStore
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


def test_slow_reads_hold_up_neither_others_nor_who_is_asked_for_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than asyncio has threads; the looking up of keys goes on beside as many as there may be."""
    world, goes_on = World(VIEW), Event()
    store = KeyStore(world.tables, "keys", world.clock)
    world.tables.create_table(TableName="keys", KeySchema=[{"AttributeName": "id"}])
    keys = [store.create(f"reader {n}", frozenset({"views"}))[1] for n in range(2)]
    app = world.app(Authenticator(GatewaySettings(), store, None, world.clock), cache_seconds=0.5)
    monkeypatch.setattr(ViewReader, "prefix", lambda *_, **__: {"held": goes_on.wait(30)})

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:

            async def get(path: str, key: str) -> int:
                return (await client.get(path, headers={"X-Api-Key": key})).status_code

            slow = [asyncio.create_task(get(f"/v1/views/v?prefix={n}", keys[0])) for n in range(30)]
            try:
                async with asyncio.timeout(5):
                    assert await get("/v1/views/v/a", keys[0]) == 200
                    slow += [asyncio.create_task(get(f"/v1/views/v?prefix={n}", keys[0])) for n in range(30, 60)]
                    assert await get("/v1/nothing", keys[1]) == 404
            finally:
                goes_on.set()
            assert set(await asyncio.gather(*slow)) == {200}

    asyncio.run(run())


def test_an_answer_is_given_to_its_own_question_only() -> None:
    """Whatever is in a key, a query or the name of the host."""
    world = World(VIEW)
    for device in ("a", "a?x=1", "b"):
        world.write("v", (device,), 0, value=[1.0])
    api = world.asking(cache_seconds=60)

    def found(path: str, **headers: str) -> list[str]:
        return [row["device"] for row in api.get(path, headers=headers).json()["rows"]]

    assert found("/v1/views/v/a?x=1?limit=5") == ["a"]
    assert found("/v1/views/v/a%3Fx=1?limit=5") == ["a?x=1"]
    assert found("/v1/views/v/a", Host="h/v1/views/v/b?#") == ["a"]
    assert found("/v1/views/v/b") == ["b"]
