"""Event streams: how many there may be, and when they end."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import FastAPI

from headwater.aggregates import count
from headwater.clock import ManualClock
from headwater.config import GatewaySettings
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.processors.generations import DOCUMENT, Generation, Generations, with_entry
from headwater.serving.api import streams
from headwater.web.auth import Authenticator
from headwater.web.keys import KeyStore
from tests.unit.serving_world import World

VIEW = Pipeline("p", "telemetry").view("v", by=["device"], window=tumbling("1m"), n=count())


class Listener:
    """A client of a stream; one that `stalls` takes nothing after the head."""

    def __init__(self, headers: Mapping[str, str] | None = None, *, stalls: bool = False) -> None:
        self.headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.stalls = stalls
        self.status = 0
        self.text = ""
        self.leaves = asyncio.Event()
        self._asked = False

    async def listen(self, app: FastAPI, query: str = "key=a") -> None:
        path = "/v1/views/v/stream"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": self.headers}
        scope |= {"query_string": query.encode(), "http_version": "1.1", "scheme": "http", "root_path": ""}
        await app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif self.stalls:
            await asyncio.Event().wait()
        else:
            self.text += message["body"].decode()

    async def until(self, text: str) -> None:
        async with asyncio.timeout(10):
            while text not in self.text:
                await asyncio.sleep(0.02)


@pytest.fixture
def world() -> World:
    made = World(VIEW)
    made.write("v", ("a",), 0, device=["a"])
    return made


async def has_room(app: Any) -> None:
    """For one stream more."""
    client = Listener()
    listening = asyncio.create_task(client.listen(app))
    await client.until("event: row")
    client.leaves.set()
    await listening


def test_so_many_streams_and_no_more(world: World) -> None:
    async def run() -> None:
        app = world.app(max_streams=5)
        clients = [Listener() for _ in range(20)]
        tasks = [asyncio.create_task(client.listen(app)) for client in clients]
        async with asyncio.timeout(10):
            while not all(client.status for client in clients):
                await asyncio.sleep(0.02)
        assert sorted(client.status for client in clients) == [200] * 5 + [503] * 15
        for client in clients:
            client.leaves.set()
        await asyncio.gather(*tasks)
        await has_room(app)

    asyncio.run(run())


def test_what_is_refused_takes_no_place(world: World) -> None:
    async def run() -> None:
        app = world.app(max_streams=1)
        for _ in range(3):
            client = Listener()
            await client.listen(app, "key=a|b")
            assert client.status == 404

    asyncio.run(run())


def test_a_client_that_takes_nothing_loses_its_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SEND_SECONDS", 0.1)

    async def run() -> None:
        app = world.app(max_streams=1)
        async with asyncio.timeout(10):
            await Listener(stalls=True).listen(app)
        await has_room(app)

    asyncio.run(run())


def test_a_stream_ends_with_its_key(world: World) -> None:
    """Within the time that a key is believed; while the keys cannot be asked it goes on."""
    world.tables.create_table(TableName="keys", KeySchema=[{"AttributeName": "id"}])
    store = KeyStore(world.tables, "keys", world.clock)
    api_key, text = store.create("reader", frozenset({"views"}))
    app = world.app(Authenticator(GatewaySettings(key_seconds=15), store, None, world.clock))
    assert isinstance(world.clock, ManualClock)

    async def run(clock: ManualClock) -> None:
        client = Listener({"authorization": f"Bearer {text}"})
        task = asyncio.create_task(client.listen(app))
        await client.until("event: row")
        world.tables.error, world.tables.table = OSError("no table"), "keys"
        clock.advance(16_000)
        await asyncio.sleep(0.7)
        assert not task.done()
        world.tables.error = None
        store.revoke(api_key.key_id)
        clock.advance(16_000)  # after a failure the keys are not asked again at once
        async with asyncio.timeout(10):
            await task
        assert client.text.count("event: row") == 1
        assert "event: error" in client.text
        assert "unknown or revoked" in client.text

    asyncio.run(run(world.clock))


def test_a_view_that_is_switched_to_other_keys_ends_its_streams() -> None:
    """With the reason as an event, and no fault in the log."""
    wider = VIEW.view("v", version=2, by=["device", "value"], window=tumbling("1m"), n=count())
    world = World(wider)
    world.write("v", ("a",), 0, device=["a"])

    async def run(clock: ManualClock) -> None:
        client = Listener()
        task = asyncio.create_task(client.listen(world.app()))
        await client.until("event: row")
        switched = Generations(Generation(2, 2), last=2)
        world.ledger.put_document(DOCUMENT, with_entry({}, "v", switched), world.ledger.document(DOCUMENT)[1])
        clock.advance(2_000)
        async with asyncio.timeout(10):
            await task
        assert "event: error" in client.text
        assert "keys of 2 parts" in client.text

    assert isinstance(world.clock, ManualClock)
    asyncio.run(run(world.clock))
