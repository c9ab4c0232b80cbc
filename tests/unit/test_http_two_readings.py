"""A request is read as any proxy in front reads it: no part of its body is a request, and no trailer a header."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from headwater.web.http_server import serve_in_thread

INNER = b"GET /inner HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADES = [b"h2c", b"WebSocket, foo", b"TLS/1.2"]
POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
SOCKET = (
    b"POST /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the path, the names of the headers and the body."""
    if scope["type"] != "http":
        return
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    names = sorted(name.decode() for name, _ in scope["headers"])
    found = json.dumps({"path": scope["path"], "names": names, "body": body.decode()}).encode() + b"\n"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(found))]})
    await send({"type": "http.response.body", "body": found})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with serve_in_thread(app, 0) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def answers(address: tuple[str, int], *pieces: bytes) -> list[Any]:
    """Send pieces and a last request: what the app said to each, or "400" behind which the connection was closed."""
    with socket.create_connection(address) as connection:
        connection.settimeout(15)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = b""
        for piece in (*pieces, b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"):
            try:
                connection.sendall(piece)
                if piece in pieces:
                    connection.settimeout(0.2)
                    found += connection.recv(65_536)
            except (TimeoutError, BrokenPipeError, ConnectionResetError):
                pass
        connection.settimeout(15)
        try:
            while more := connection.recv(65_536):
                found += more
        except ConnectionResetError:
            pass
    said = [json.loads(line) for line in found.splitlines() if line.startswith(b"{")]
    return [*said, *(["400"] if b"HTTP/1.1 400 " in found else [])]


@pytest.mark.parametrize("upgrade", UPGRADES, ids=repr)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
def test_a_body_behind_an_upgrade_is_a_body(
    address: tuple[str, int], upgrade: bytes, is_chunked: bool, together: bool
) -> None:
    """Whatever protocol is asked for: Java's client and `curl --http2` ask for h2c with their first POST."""
    size = b"transfer-encoding: chunked" if is_chunked else b"content-length: %d" % len(INNER)
    head = b"POST /outer HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: %s\r\n%s\r\n\r\n" % (upgrade, size)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(INNER), INNER) if is_chunked else INNER
    outer, last = answers(address, *([head + body] if together else [head, body[:9], body[9:]]))
    assert (outer["path"], outer["body"], last["path"]) == ("/outer", INNER.decode(), "/last")


def test_many_requests_that_ask_for_an_upgrade_in_one_piece(address: tuple[str, int]) -> None:
    """Each is answered, in order, with what is its own."""
    one = b"POST /%d HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 1\r\n\r\n%d"
    found = answers(address, b"".join(one % (n, n) for n in range(9)))
    assert [(each["path"], each["body"]) for each in found] == [(f"/{n}", f"{n}") for n in range(9)] + [("/last", "")]


def test_trailers_are_no_headers(address: tuple[str, int]) -> None:
    """A proxy checks and sets headers; what comes behind the body it passes on as it is."""
    head = b"POST /outer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    trailers = b"authorization: Bearer x\r\nhost: y\r\norigin: z\r\ncookie: a\r\n"
    outer, last = answers(address, head + b"1\r\na\r\n0\r\n" + trailers + b"\r\n")
    assert (outer["names"], outer["body"]) == (["host", "transfer-encoding"], "a")
    assert last["names"] == ["connection", "host"]


AMBIGUOUS = {
    "two-hosts": b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
    "two-keys": b"GET / HTTP/1.1\r\nhost: x\r\nauthorization: a\r\nAuthorization: b\r\n\r\n",
    "tunnel": b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "length-and-chunks": POST + b"content-length: 1\r\n" + CHUNKED + b"1\r\na\r\n0\r\n\r\n",
    "two-lengths": POST + b"content-length: 1\r\ncontent-length: 1\r\n\r\na",
    "bare-lf": POST.replace(b"\r", b"") + b"content-length: 1\n\na",
    "overflow": POST + CHUNKED + b"10000000000000001\r\na\r\n0\r\n\r\n",
    "folded": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "socket-with-a-body": SOCKET + b"content-length: %d\r\n\r\n" % len(INNER) + INNER,
    "socket-with-chunks": SOCKET + CHUNKED + b"0\r\n\r\n",
}


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused(address: tuple[str, int], request_: bytes) -> None:
    """And the connection is closed: nothing behind it is read."""
    assert answers(address, request_) == ["400"]
