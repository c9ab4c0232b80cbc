"""Serve /health/live, /health/ready and /metrics of a fleet over HTTP, by default on loopback."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread, Timer
from typing import Any

from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.processors.runners.kcl.status import FleetStatus
from headwater.web.headers import INERT_HEADERS

__all__ = ["PATHS", "serving"]

PATHS = ("/health/live", "/health/ready", "/metrics")
"""Paths that are answered."""


_CONNECTIONS = 32
"""Connections at a time; further ones are closed. Probes and a scraper have one each."""
_SECONDS = 10.0
"""Longest time of a connection, whatever of its request has come."""


class _BoundedServer(ThreadingHTTPServer):
    """Serve each connection in a thread, a bounded number of them for a bounded time."""

    daemon_threads = True

    def __init__(self, *args: Any, seconds: float) -> None:
        super().__init__(*args)
        self._seconds = seconds
        self._free = BoundedSemaphore(_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread for a connection, or close it where there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer in this thread; a client that sends a byte now and then is left in time as well."""
        end = Timer(self._seconds, _hang_up, (request,))
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave clients that go away out of the log."""


def _hang_up(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(status: FleetStatus, clock: Clock, host: str, port: int, *, seconds: float = _SECONDS) -> Iterator[int]:
    """Serve while the block runs, and yield the port. Answers 200, or 503 with the reasons as JSON.

    A connection has `seconds` at most, and there are 32 at a time. Raises HeadwaterError when the address cannot be
    listened on.
    """
    try:
        server = _BoundedServer((host, port), _handler(status, clock), seconds=seconds)
    except (OSError, UnicodeError) as error:  # the latter for a host such as a..b
        reason = getattr(error, "strerror", None) or error
        raise HeadwaterError(
            f"cannot serve health checks on {host}:{port}: {reason}; set HEADWATER_KCL_HTTP_PORT"
        ) from error
    thread = Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _handler(status: FleetStatus, clock: Clock) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS  # of each read; the whole is bounded by the server

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            answers = (self._live, self._ready, self._metrics)
            dict(zip(PATHS, answers, strict=True)).get(path, self._unknown)()

        def _live(self) -> None:
            self._json(status.live(clock.now_ms()))

        def _ready(self) -> None:
            self._json(status.ready(clock.now_ms()))

        def _metrics(self) -> None:
            self._send(200, "text/plain; version=0.0.4; charset=utf-8", status.metrics())

        def _unknown(self) -> None:
            self._send(404, "text/plain", f"there is {', '.join(PATHS[:-1])} and {PATHS[-1]}\n")

        def _json(self, answer: dict[str, Any]) -> None:
            self._send(200 if answer["ok"] else 503, "application/json", json.dumps(answer) + "\n")

        def _send(self, code: int, kind: str, body: str) -> None:
            data = body.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in INERT_HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Leave probes out of the log."""

    return Handler
