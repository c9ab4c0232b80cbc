"""What the console shows, and who may see it."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from headwater.clock import ManualClock
from headwater.config import GatewaySettings, ServeSettings, Settings
from headwater.console.charts import age, shard_options
from headwater.console.collector import Collector
from headwater.console.gate import Gate
from headwater.console.overview import TableState, Totals, hops, rates, shard_rows, totals_of
from headwater.console.page import gaps
from headwater.errors import UsageError
from headwater.ledger import PendingFile, ShardEntry
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.web.auth import Authenticator
from headwater.web.keys import KeyStore
from processors.pipeline import load
from processors.services import Services
from processors.shards.heat import Sample, heat
from processors.shards.topology import Shard, Topology

HALF = 1 << 127
TOPOLOGY = Topology(
    "s",
    (
        Shard("shardId-000000000000", 0, 2 * HALF - 1, closed=True),
        Shard("shardId-000000000001", 0, HALF - 1, parent="shardId-000000000000"),
        Shard("shardId-000000000002", HALF, 2 * HALF - 1, parent="shardId-000000000000"),
    ),
)


def entry(shard_id: str, events: int, **more: Any) -> ShardEntry:
    return ShardEntry("p", shard_id, 1, "owner", counts={"events": events, "lake": events - 1}, **more)


def test_rates_are_per_second_over_the_last_minute() -> None:
    history = [Totals(at * 1000, events=at * 10, lake=at * 5) for at in range(0, 301, 2)]
    assert rates(history) == {"events": 10.0, "duplicates": 0.0, "dead": 0.0, "lake": 5.0, "published": 0.0}
    assert set(rates(history[:1]).values()) == {0.0}
    restarted = [*history, Totals(302_000)]
    assert rates(restarted)["events"] == 0.0


def test_hops_and_shards() -> None:
    """Totals over all shards, lags of the slowest, the hash space in its order."""
    file = PendingFile("t", "s3://b/k", 5, 100)
    entries = [
        entry("shardId-000000000000", 100, closed=True, updated_ms=1_000),
        entry("shardId-000000000001", 11, updated_ms=50_000, pending=(file,)),
        entry("shardId-000000000002", 21, updated_ms=58_000),
    ]
    sample = Sample("shardId-000000000001", 60_000, 60, 500_000, 10, 300, lag_ms={"p": 1_500})
    warm = heat(TOPOLOGY, [sample])
    table = TableState(rows=128, files=3, snapshot_ms=55_000)
    history = [totals_of(entries, table, 60_000)]
    found = {hop.name: hop for hop in hops(history, warm, entries, table, 60_000)}
    assert (found["stream"].per_second, found["stream"].note) == (300, "2 open shards")
    assert (found["processor"].total, found["processor"].lag_ms) == (132, 1_500)
    assert (found["lake files"].lag_ms, found["lake files"].note) == (10_000, "1 files wait")
    assert (found["table"].total, found["table"].lag_ms) == (128, 5_000)
    rows = shard_rows(TOPOLOGY, warm, entries)
    assert [(row.shard_id[-1], row.open, row.width, row.hottest) for row in rows] == [
        ("1", True, 0.5, 0.5),
        ("0", False, 1.0, None),
        ("2", True, 0.5, None),
    ]
    assert [one["data"] for one in shard_options(rows)["series"]] == [[0.5], [0.5]]


def test_words() -> None:
    assert [age(ms) for ms in (None, 40, 1_500, 90_000, 7_200_000)] == ["–", "40 ms", "2 s", "90 s", "2 h"]
    assert gaps([(3, 4), (7, 12)]) == "3, 7–11"
    assert gaps([(n, n + 1) for n in range(0, 14, 2)]) == "0, 2, 4, 6, 8 and 2 more"


@pytest.fixture
def store() -> KeyStore:
    memory = MemoryDynamoDB()
    memory.create_table(TableName="keys", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}])
    return KeyStore(memory, "keys", ManualClock())


@pytest.fixture
def client(store: KeyStore) -> TestClient:
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("in")
        await websocket.close()

    app = Starlette(
        routes=[
            Route("/", lambda _: PlainTextResponse("the page")),
            Route("/v1/views", lambda _: PlainTextResponse("the API")),
            WebSocketRoute("/socket", socket),
        ]
    )
    authenticator = Authenticator(GatewaySettings(), store, None, ManualClock())
    return TestClient(Gate(app, authenticator, others=("/v1/",)), follow_redirects=False)


def test_the_page_needs_a_key(client: TestClient, store: KeyStore) -> None:
    """No key, a wrong one, one for something else, the right one; the API's paths have their own check."""
    assert client.get("/").headers["location"] == "/login"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket"):
        pass
    assert client.get("/v1/views").text == "the API"
    form = client.get("/login")
    assert "frame-ancestors 'none'" in form.headers["content-security-policy"]
    assert client.post("/login", data={"key": "hw_000000000000_" + "0" * 64}).status_code == 401
    _, writer = store.create("writer", frozenset({"telemetry"}))
    assert client.post("/login", data={"key": writer}).status_code == 401
    assert client.post("/login", content=b"key=" + b"x" * 100_000).status_code == 401
    _, key = store.create("operator", frozenset({"console"}))
    answer = client.post("/login", data={"key": key})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert client.get("/").text == "the page"
    with client.websocket_connect("/socket") as socket:
        assert socket.receive_text() == "in"


def test_a_console_that_only_reads_sends_nothing_again() -> None:
    settings = Settings(serve=ServeSettings(controls=False))
    with pytest.raises(UsageError, match="HEADWATER_SERVE_CONTROLS"):
        Collector(Services(settings, load(settings.pipeline))).redrive([])
