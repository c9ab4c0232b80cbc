"""Serve /health/live, /health/ready and /metrics of a fleet over HTTP, by default on loopback."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from headwater.clock import Clock
from headwater.errors import HeadwaterError
from headwater.processors.runners.kcl.status import FleetStatus

__all__ = ["serving"]


@contextmanager
def serving(status: FleetStatus, clock: Clock, host: str, port: int) -> Iterator[int]:
    """Serve while the block runs, and yield the port. Answers 200, or 503 with the reasons as JSON.

    Raises HeadwaterError when the address cannot be listened on.
    """
    try:
        server = ThreadingHTTPServer((host, port), _handler(status, clock))
    except (OSError, UnicodeError) as error:  # the latter for a host such as a..b
        reason = getattr(error, "strerror", None) or error
        raise HeadwaterError(
            f"cannot serve health checks on {host}:{port}: {reason}; set HEADWATER_KCL_HTTP_PORT"
        ) from error
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _handler(status: FleetStatus, clock: Clock) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/health/live":
                self._json(status.live(clock.now_ms()))
            elif path == "/health/ready":
                self._json(status.ready(clock.now_ms()))
            elif path == "/metrics":
                self._send(200, "text/plain; version=0.0.4; charset=utf-8", status.metrics())
            else:
                self._send(404, "text/plain", "there is /health/live, /health/ready and /metrics\n")

        def _json(self, answer: dict[str, Any]) -> None:
            self._send(200 if answer["ok"] else 503, "application/json", json.dumps(answer) + "\n")

        def _send(self, code: int, kind: str, body: str) -> None:
            data = body.encode()
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Leave probes out of the log."""

    return Handler
