"""What browsers and their pages send: other origins, old names of encodings, other charsets, slashes at the end."""

import gzip
import json
import logging
import socket
import threading
from dataclasses import replace

import pytest
import uvicorn

from headwater.producers.gateway.server import server_config
from tests.gateway import TELEMETRY, event, served

PAGE = "https://app.example.org"
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,idempotency-key",
}


def test_pages_of_the_origins_in_the_settings_may_send() -> None:
    """And of no others; no cookie of the browser's counts."""
    with served(cors_origins=f"{PAGE}, https://other.example.org") as gateway:
        asked = gateway.client.options("/v1/events/telemetry", headers=PREFLIGHT)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, PAGE)
        assert "access-control-allow-credentials" not in asked.headers
        answer = gateway.post(json.dumps(event()), origin=PAGE)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        foreign = gateway.client.options("/v1/events/telemetry", headers=PREFLIGHT | {"origin": "https://evil.example"})
        assert foreign.status_code == 400
        assert "access-control-allow-origin" not in foreign.headers


def test_without_origins_in_the_settings_no_page_may() -> None:
    """The default."""
    with served() as gateway:
        assert "access-control-allow-origin" not in gateway.post(json.dumps(event()), origin=PAGE).headers
        assert gateway.client.options("/v1/events/telemetry", headers=PREFLIGHT).status_code == 405


def test_old_names_slashes_and_charsets() -> None:
    """What means the same is taken; what is another encoding is refused with its name."""
    with served() as gateway:
        body = json.dumps(event()).encode()
        assert gateway.post(gzip.compress(body), content_encoding="x-gzip").status_code == 200
        slash = gateway.client.post("/v1/events/telemetry/", content=body, headers={"content-type": "application/json"})
        assert slash.status_code == 200
        for order in ("utf-16", "utf-16-be"):
            text = body.decode().encode(order) if order == "utf-16" else b"\xfe\xff" + body.decode().encode(order)
            answer = gateway.post(text)
            assert (answer.status_code, "UTF-8" in answer.json()["detail"]) == (415, True)


def test_the_page_has_its_headers_and_may_be_shut() -> None:
    """No script, no frame; metrics and description are settings."""
    with served() as gateway:
        headers = gateway.client.get("/").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert gateway.client.get("/metrics").status_code == 200
    with served(metrics=False, docs=False) as gateway:
        assert [gateway.client.get(path).status_code for path in ("/metrics", "/", "/openapi.json")] == [404] * 3
        assert gateway.client.get("/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/v1/events/telemetry", "/metrics"])
def test_an_origin_that_is_none_is_no_fault(path: str) -> None:
    """Whatever the header holds."""
    with served(cors_origins=PAGE) as gateway:
        answer = gateway.client.request("POST", path, content=b"{}", headers={"origin": "http://["})
        assert answer.status_code < 500


SOCKET = "\r\n".join(
    [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: YWJjZGVmZ2hpamtsbW5vcA==",
    ]
)


@pytest.mark.parametrize("more", ["Connection: close", SOCKET], ids=["request", "socket"])
def test_a_key_in_a_query_string_is_in_no_log(more: str, caplog: pytest.LogCaptureFixture) -> None:
    """It does not belong there, and is put there all the same."""
    caplog.set_level(logging.DEBUG)
    with served() as gateway, socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(gateway.gateway))
        # that of another server of this process may have shut the logger off
        logging.getLogger("uvicorn.error").addHandler(caplog.handler)
        logging.getLogger("uvicorn.error").setLevel(logging.DEBUG)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        with socket.create_connection(listener.getsockname(), 20) as client:
            client.sendall(f"GET /v1/events/telemetry?api_key=hw_secret HTTP/1.1\r\nHost: x\r\n{more}\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 40")
        server.should_exit = True
        thread.join(20)
    assert caplog.records
    assert "hw_secret" not in "\n".join([caplog.text, *(str(vars(record)) for record in caplog.records)])


def test_what_a_contract_says_of_itself_is_text_on_the_page() -> None:
    """Names are letters and digits; descriptions, units and listed values are anything."""
    hostile = "<img src=x onerror='document.title=1'><script>1</script>"
    fields = tuple(replace(one, doc=hostile, unit=hostile) if one.name == "value" else one for one in TELEMETRY.fields)
    fields = tuple(replace(one, values=(hostile,)) if one.name == "status" else one for one in fields)
    with served(contracts=(replace(TELEMETRY, description=hostile, fields=fields),)) as found:
        page = found.client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "<img" not in page.text
        assert "<script" not in page.text
        assert "script-src" not in page.headers["content-security-policy"]
        assert found.client.get("/openapi.json").headers["content-type"] == "application/json"
