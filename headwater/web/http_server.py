"""Serve an ASGI app over HTTP: in the main thread until SIGTERM, or in a thread of this process, on loopback."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import uvicorn

from headwater.clock import SystemClock
from headwater.errors import HeadwaterError, UsageError
from headwater.web.protocol import ConnectionLimits, bounded_protocol

__all__ = ["bound_socket", "run_server", "serve_in_thread"]

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@contextmanager
def bound_socket(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Yield a bound socket and its URL's authority; UsageError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise UsageError(f"port {port} of {host} cannot be used: {error.strerror}") from None
        name = f"[{host}]" if ":" in host else host
        yield listener, f"{name}:{listener.getsockname()[1]}"


def run_server(config: uvicorn.Config, listener: socket.socket, started: Callable[[], object]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way. Blocks; to be called in the main thread."""
    server = _ToldServer(config, started)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn's own take their place, and raise the signal again at the end
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if not server.started:
        raise HeadwaterError("the HTTP service did not start; its log says why")


class _ToldServer(uvicorn.Server):
    """Call `started` once connections are accepted."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_start = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then call `started`."""
        await super().startup(sockets)
        if self.started:
            self._on_start()


@contextmanager
def serve_in_thread(app: Any, port: int, limits: ConnectionLimits | None = None) -> Iterator[str]:
    """Serve on loopback and yield the URL once the app answers; port 0 takes a free one. UsageError for one in use."""
    clock = SystemClock()
    with bound_socket("127.0.0.1", port) as (listener, authority):
        server = uvicorn.Server(
            uvicorn.Config(app, http=bounded_protocol(limits), log_level="warning", timeout_graceful_shutdown=2)
        )
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
        thread.start()
        deadline = clock.now_ms() + round(_START_SECONDS * 1000)
        while not server.started:
            if not thread.is_alive() or clock.now_ms() > deadline:
                raise HeadwaterError("the HTTP service did not start")
            clock.sleep(0.02)
        try:
            yield f"http://{authority}"
        finally:
            server.should_exit = True
            thread.join(_STOP_SECONDS)
