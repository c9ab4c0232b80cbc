"""Who may see the console: keys, how long they hold, and which pages of a browser may talk to it."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from headwater.clock import ManualClock
from headwater.config import GatewaySettings
from headwater.serving.console.gate import CONTENT_SECURITY_POLICY, LoginGate
from headwater.serving.console.origins import OriginCheck
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.web.auth import Authenticator
from headwater.web.keys import KeyStore

OTHERS = ("/v1/", "/v1", "/health", "/openapi.json")


class Table(MemoryDynamoDB):
    """Answers with an error while there is one."""

    error: Exception | None = None

    def get_item(self, **request: Any) -> Any:
        if self.error is not None:
            raise self.error
        return super().get_item(**request)


@pytest.fixture
def table() -> Table:
    table = Table()
    table.create_table(TableName="keys", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}])
    return table


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(table: Table, clock: ManualClock) -> KeyStore:
    return KeyStore(table, "keys", clock)


async def talk(websocket: WebSocket) -> None:
    """Says what it hears."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


def page(text: str) -> Any:
    return PlainTextResponse(text)


@pytest.fixture
def gate(store: KeyStore, clock: ManualClock) -> LoginGate:
    app = Starlette(
        routes=[
            Route("/", lambda _: page("the page")),
            Route("/v1/views", lambda _: page("the API")),
            Route("/health", lambda _: page("well")),
            WebSocketRoute("/socket", talk),
            Mount("/", Starlette(routes=[Route("/{rest:path}", lambda _: page("the page's"))])),
        ]
    )
    return LoginGate(app, Authenticator(GatewaySettings(), store, None, clock), api_paths=OTHERS, seconds=0.05)


@pytest.fixture
def client(gate: LoginGate) -> TestClient:
    return TestClient(gate, "http://localhost", follow_redirects=False)


@pytest.fixture
def key(store: KeyStore) -> str:
    return store.create("operator", frozenset({"console"}))[1]


def sign_in(client: TestClient, key: str) -> None:
    assert client.post("/login", data={"key": key}).status_code == 303


def open_socket(client: TestClient, key: str) -> Any:
    return client.websocket_connect("/socket", headers={"cookie": f"headwater_key={key}"})


def test_the_page_needs_a_key(client: TestClient, store: KeyStore, key: str) -> None:
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
    answer = client.post("/login", data={"key": key})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert client.get("/").text == "the page"
    with open_socket(client, key) as socket:
        socket.send_text("in")
        assert socket.receive_text() == "in"


def test_paths_of_the_api_are_exact(client: TestClient) -> None:
    assert client.get("/health").text == "well"
    for path in ("/healthfoo", "/openapi.jsonx", "/v1x"):
        assert client.get(path).headers["location"] == "/login"


@pytest.mark.parametrize("neighbour", ['prefs={"a":1}', "bad@name=1", "=", "a=b=c", "\xff=1"])
def test_a_neighbours_cookies_do_no_harm(client: TestClient, key: str, neighbour: str) -> None:
    """Ports of one host share their cookies."""
    cookies = f"{neighbour}; headwater_key={key}; z".encode("latin-1")
    assert client.get("/", headers={b"cookie": cookies}).text == "the page"


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://dynamodb"),
        ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, "GetItem"),
    ],
)
def test_without_the_keys_table_it_is_said_in_words(
    client: TestClient, table: Table, key: str, error: Exception
) -> None:
    table.error = error
    for answer in (
        client.post("/login", data={"key": key}),
        client.get("/", headers={"cookie": f"headwater_key={key}"}),
    ):
        assert answer.status_code == 503
        assert "AWS does not answer" in answer.text
    with pytest.raises(WebSocketDisconnect) as closed, open_socket(client, key):
        pass
    assert closed.value.code == 1013


def test_a_socket_ends_when_its_key_is_revoked(
    client: TestClient, store: KeyStore, clock: ManualClock, key: str
) -> None:
    """And stays while the key is good, or nobody can tell."""
    with open_socket(client, key) as socket:
        clock.sleep(20)
        socket.send_text("still in")
        assert socket.receive_text() == "still in"
        store.revoke(key.split("_")[1])
        clock.sleep(20)
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
        assert closed.value.code == 4401


def test_a_socket_stays_while_nobody_can_tell(client: TestClient, table: Table, clock: ManualClock, key: str) -> None:
    with open_socket(client, key) as socket:
        table.error = EndpointConnectionError(endpoint_url="https://dynamodb")
        clock.sleep(20)
        socket.portal.call(_a_while)
        socket.send_text("still in")
        assert socket.receive_text() == "still in"


async def _a_while() -> None:
    await asyncio.sleep(0.2)


def test_acts_ask_anew(gate: LoginGate, store: KeyStore, key: str) -> None:
    """What is remembered of a key is good enough to look, not to act."""
    cookies = f"headwater_key={key}"
    assert asyncio.run(gate.refusal(cookies)) is None
    store.revoke(key.split("_")[1])
    assert asyncio.run(gate.refusal(cookies)) is None
    refused = asyncio.run(gate.refusal(cookies, True))
    assert refused is not None
    assert refused.status == 401


def test_signing_out_takes_the_cookie_back(client: TestClient, key: str) -> None:
    sign_in(client, key)
    assert client.get("/logout").text == "the page's"
    answer = client.post("/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert client.get("/").headers["location"] == "/login"


@pytest.mark.parametrize(("host", "secure"), [("localhost", False), ("127.0.0.1:8785", False), ("views.example", True)])
def test_the_cookie_goes_over_tls_but_on_this_machine(gate: LoginGate, key: str, host: str, secure: bool) -> None:
    answer = TestClient(gate, f"http://{host}", follow_redirects=False).post("/login", data={"key": key})
    assert ("Secure" in answer.headers["set-cookie"]) is secure


def test_sockets_only_of_the_host_itself() -> None:
    assert "connect-src 'self';" in CONTENT_SECURITY_POLICY


@pytest.fixture
def inner() -> Any:
    return Starlette(
        routes=[
            Route("/", lambda _: page("the page"), methods=["GET", "POST"]),
            WebSocketRoute("/socket", talk),
        ]
    )


def test_other_pages_may_not_talk_to_it(inner: Any) -> None:
    """Sockets and changes come from the host's own pages, or from no browser."""
    client = TestClient(OriginCheck(inner, loopback=False), "http://views.example:8080")
    own, other = {"origin": "http://views.example:8080"}, {"origin": "http://evil.example"}
    assert client.get("/", headers=other).status_code == 200
    assert client.post("/").status_code == client.post("/", headers=own).status_code == 200
    for origin in (other, {"origin": "null"}, {"origin": "http://views.example:81"}):
        refused = client.post("/", headers=origin)
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket", headers=origin):
            pass
    with client.websocket_connect("/socket", headers={"origin": "http://testserver"}) as socket:
        socket.send_text("in")
        assert socket.receive_text() == "in"


@pytest.mark.parametrize("origin", ["http://[", "http://views.example:99999", "://", "views.example:8080", "null"])
def test_an_origin_that_is_none_is_refused_and_no_fault(inner: Any, origin: str) -> None:
    """A header that cannot be read names no page of ours."""
    client = TestClient(OriginCheck(inner, loopback=False), "http://views.example:8080")
    assert client.post("/", headers={"origin": origin}).status_code == 403


def test_the_scheme_counts_and_a_port_may_be_left_out(inner: Any) -> None:
    """A page without TLS is not the one with it; a load balancer may have ended TLS."""
    secure = TestClient(OriginCheck(inner, loopback=False), "https://views.example")
    assert secure.post("/", headers={"origin": "https://views.example"}).status_code == 200
    assert secure.post("/", headers={"origin": "https://views.example:443"}).status_code == 200
    assert secure.post("/", headers={"origin": "http://views.example"}).status_code == 403
    behind = TestClient(OriginCheck(inner, loopback=False), "http://views.example")
    forwarded = {"x-forwarded-proto": "https"}
    assert behind.post("/", headers={"origin": "https://views.example"} | forwarded).status_code == 200
    assert behind.post("/", headers={"origin": "http://views.example"} | forwarded).status_code == 403
    assert behind.post("/", headers={"origin": "http://views.example"}).status_code == 200


def test_a_polled_socket_is_a_socket(inner: Any) -> None:
    """socket.io begins with GETs: a page elsewhere may not read events with the visitor's cookie."""
    client = TestClient(OriginCheck(inner, loopback=False), "http://views.example:8080")
    polled = "/_nicegui_ws/socket.io/?transport=polling"
    assert client.get(polled, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get(polled, headers={"origin": "http://views.example:8080"}).status_code == 404
    assert client.get(polled).status_code == 404


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1:8785", "[::1]:8785", "127.9.9.9", "a.localhost"])
def test_loopback_names_are_taken(inner: Any, host: str) -> None:
    client = TestClient(OriginCheck(inner, loopback=True), "http://localhost")
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8785", "10.0.0.1", "", "[::1", "localhost.evil.example"]
)
def test_without_keys_other_names_are_refused(inner: Any, host: str) -> None:
    """A page whose name is pointed to this machine after it was loaded has that name as its host."""
    client = TestClient(OriginCheck(inner, loopback=True), "http://localhost")
    assert client.get("/", headers={"host": host}).status_code == 403
    assert TestClient(OriginCheck(inner, loopback=False)).get("/", headers={"host": host}).status_code == 200
