"""An ASGI app in a thread of this process, on loopback."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import uvicorn

from headwater.clock import Clock, SystemClock
from headwater.errors import HeadwaterError, UsageError

__all__ = ["serving"]

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@contextmanager
def serving(app: Any, port: int, clock: Clock | None = None) -> Iterator[str]:
    """Yields the URL once the app answers; port 0 takes a free one. UsageError when the port is taken."""
    clock = clock or SystemClock()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(f"port {port} of 127.0.0.1 cannot be had: {error.strerror}") from None
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
        thread.start()
        deadline = clock.now_ms() + round(_START_SECONDS * 1000)
        while not server.started:
            if not thread.is_alive() or clock.now_ms() > deadline:
                raise HeadwaterError("the HTTP service did not start")
            clock.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_STOP_SECONDS)
