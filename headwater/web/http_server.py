"""Serve an ASGI app over HTTP: in the main thread until SIGTERM, or in a thread of this process, on loopback."""

import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn

from headwater.clock import SystemClock
from headwater.errors import HeadwaterError, UsageError
from headwater.web.protocol import ConnectionLimits, bounded_protocol

__all__ = ["KEEP_ALIVE_SECONDS", "bound_socket", "check_tls", "run_server", "serve_in_thread", "serving"]

KEEP_ALIVE_SECONDS = 75
"""Seconds that an idle connection is kept: longer than the 60 of a load balancer, which would else send a request into
a connection that is being closed
(https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html)."""

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@contextmanager
def bound_socket(
    host: str, port: int, setting: str = "", *, or_free: bool = False
) -> Iterator[tuple[socket.socket, str]]:
    """Yield a bound socket and its URL's authority.

    With `or_free` a port that is taken gives way to a free one. Else, and for a host that this machine does not have,
    raises UsageError; it names `setting`, by which another port can be asked for.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            _bind(listener, host, port, or_free)
        except (OSError, UnicodeError) as error:  # the latter for a host such as a..b
            reason = getattr(error, "strerror", None) or error
            more = f"; {setting} asks for another, and 0 for a free one" if setting else ""
            raise UsageError(f"port {port} of {host} cannot be used: {reason}{more}") from None
        name = f"[{host}]" if ":" in host else host
        yield listener, f"{name}:{listener.getsockname()[1]}"


def _bind(listener: socket.socket, host: str, port: int, or_free: bool) -> None:
    try:
        listener.bind((host, port))
    except OSError as error:
        if not or_free or error.errno != errno.EADDRINUSE:
            raise
        listener.bind((host, 0))


def check_tls(head: str, certificate: str, key: str) -> None:
    """Raise UsageError unless the settings `<head>_TLS_CERTIFICATE` and `<head>_TLS_KEY` name files, or nothing."""
    for name, path in (("CERTIFICATE", certificate), ("KEY", key)):
        if path and not Path(path).is_file():
            raise UsageError(f"{head}_TLS_{name}: there is no file {path}")
    if key and not certificate:
        raise UsageError(f"{head}_TLS_KEY needs {head}_TLS_CERTIFICATE beside it")


def run_server(config: uvicorn.Config, listener: socket.socket, started: Callable[[], object]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way. Blocks; to be called in the main thread."""
    config.timeout_keep_alive = KEEP_ALIVE_SECONDS
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
    with bound_socket("127.0.0.1", port) as (listener, authority), serving(app, listener, limits):
        yield f"http://{authority}"


@contextmanager
def serving(app: Any, listener: socket.socket, limits: ConnectionLimits | None = None) -> Iterator[Callable[[], bool]]:
    """Serve on a bound socket, in a thread, while the block runs; yield what tells whether it does."""
    clock = SystemClock()
    server = uvicorn.Server(
        uvicorn.Config(
            app, http=bounded_protocol(limits), log_config=None, log_level="warning", timeout_graceful_shutdown=2
        )
    )
    thread = Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
    thread.start()
    deadline = clock.now_ms() + round(_START_SECONDS * 1000)
    while not server.started:
        if not thread.is_alive() or clock.now_ms() > deadline:
            raise HeadwaterError("the HTTP service did not start")
        clock.sleep(0.02)
    try:
        yield thread.is_alive
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS)
