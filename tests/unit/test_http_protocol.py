"""What one connection may cost: endless headers, clients that stall, and too many of them are ended."""

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from headwater.web.http_server import serve_in_thread
from headwater.web.protocol import ConnectionLimits

LIMITS = ConnectionLimits(head_bytes=16 << 10, head_seconds=1.0, body_seconds=1.5, send_seconds=1.0, connections=20)
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
ENDED: list[str] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers without looking at the body; /large with more than any buffer holds, /slow after a while."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    body = b"x" * (64 << 20 if scope["path"] == "/large" else 2)
    if scope["path"] == "/read":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
    ENDED.append(scope["path"])


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with serve_in_thread(app, 0, limits=LIMITS) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def ended(connection: socket.socket, piece: bytes, pause: float = 0.0) -> tuple[int, float]:
    """Send pieces until the server ends the connection: how many bytes it took, and after how long."""
    began, sent = time.monotonic(), 0
    connection.settimeout(20)
    while time.monotonic() - began < 20:
        try:
            connection.sendall(piece)
        except OSError:
            return sent, time.monotonic() - began
        sent += len(piece)
        time.sleep(pause)
    raise AssertionError(f"{sent} bytes were taken and the connection is open")


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (HEAD + b"x-a: ", b"a" * 65_536),
        (HEAD, b"x-a: b\r\n" * 1_000),
        (b"GET /", b"a" * 65_536),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1;", b"a" * 65_536),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\nx-a: ", b"a" * 65_536),
        (b"POST /read HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-a: ", b"a" * 65_536),
    ],
    ids=["one-header", "many-headers", "url", "chunk-extension", "trailer", "trailer-of-a-body-that-is-read"],
)
def test_what_never_ends_is_ended(address: tuple[str, int], begin: bytes, piece: bytes) -> None:
    """After the limit and what the sockets' buffers hold, not after 80 MB."""
    with socket.create_connection(address) as connection:
        connection.sendall(begin)
        sent, _ = ended(connection, piece)
        assert sent < 16 << 20


@pytest.mark.parametrize("begin", [b"", b"GET / HT", HEAD, HEAD + b"content-length: 9\r\n\r\n1"], ids=repr)
def test_a_client_that_stalls_is_left(address: tuple[str, int], begin: bytes) -> None:
    """Before its request, within its headers and within its body."""
    with socket.create_connection(address) as connection:
        connection.settimeout(15)
        connection.sendall(begin)
        began = time.monotonic()
        while connection.recv(65_536):
            pass
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("begin", "piece"),
    [(HEAD, b"x-a: b\r\n"), (HEAD + b"content-length: 99999\r\n\r\n", b"1")],
    ids=["headers", "body-that-is-not-read"],
)
def test_a_client_that_drips_is_left(address: tuple[str, int], begin: bytes, piece: bytes) -> None:
    """Each byte does not begin the time anew."""
    with socket.create_connection(address) as connection:
        connection.sendall(begin)
        _, seconds = ended(connection, piece, pause=0.1)
        assert seconds < 10


def test_a_client_that_takes_nothing_is_left(address: tuple[str, int]) -> None:
    """The answer is let go of: what sends it comes to its end."""
    ENDED.clear()
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        until = time.monotonic() + 15
        while not ENDED and time.monotonic() < until:
            time.sleep(0.05)
    assert ENDED == ["/large"]


def test_the_headers_too_large_are_told_so(address: tuple[str, int]) -> None:
    """With a status that proxies and clients know."""
    with socket.create_connection(address) as connection:
        connection.settimeout(15)
        connection.sendall(HEAD + b"x-a: " + b"a" * (20 << 10))
        assert connection.recv(100).startswith(b"HTTP/1.1 431 ")


def test_what_is_usual_goes_on(address: tuple[str, int]) -> None:
    """Several requests over one connection, one that takes longer than headers may, and a large body that is read."""
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", timeout=30) as client:
        for path in ("/", "/slow", "/"):
            assert client.get(path).text == "xx"
        assert client.post("/read", content=b"y" * (4 << 20)).status_code == 200
        assert client.post("/read", content=iter([b"z" * 999] * 50)).status_code == 200
        assert len(client.get("/large").content) == 64 << 20


def test_connections_beyond_the_limit_are_refused() -> None:
    """At once, and with room again when others have gone."""
    with serve_in_thread(app, 0, limits=replace(LIMITS, head_seconds=30.0)) as url:
        parts = urlsplit(url)
        address = str(parts.hostname), int(parts.port or 0)
        held = [socket.create_connection(address) for _ in range(LIMITS.connections)]
        time.sleep(0.5)
        with socket.create_connection(address) as one_more:
            one_more.settimeout(15)
            assert one_more.recv(100).startswith(b"HTTP/1.1 503 ")
        for connection in held:
            connection.close()
        time.sleep(0.5)
        assert httpx.get(url, timeout=15).text == "xx"
