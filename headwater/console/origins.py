"""Which pages of a browser may talk to the service: its own."""

from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from headwater.web.problems import Problem, problem_response

__all__ = ["Origins", "header", "host_of", "is_loopback"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_SAFE = ("GET", "HEAD", "OPTIONS")


class Origins:
    """ASGI middleware. Sockets, and requests that change something, come from pages of the host itself, or from no
    page: a browser says in `Origin` which it is.

    `loopback`: besides, the host is asked for by a loopback name. A page elsewhere whose name has been pointed to
    this machine meanwhile (DNS rebinding) counts as its own, and where no key is asked for nothing else stops it.
    """

    def __init__(self, app: Any, *, loopback: bool) -> None:
        self._app, self._loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or socket."""
        why = self._refusal(scope) if scope["type"] in ("http", "websocket") else ""
        if not why:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4403})
        else:
            await problem_response(Problem(403, "forbidden", why))(scope, receive, send)

    def _refusal(self, scope: Scope) -> str:
        host = header(scope, b"host")
        if self._loopback and not is_loopback(host_of(host)):
            return f"without keys this host is not asked for as {host!r}: use 127.0.0.1 or localhost"
        origin = header(scope, b"origin")
        if not origin or (scope["type"] == "http" and scope["method"] in _SAFE):
            return ""
        return "" if urlsplit(origin).netloc.lower() == host.lower() else f"not from a page of {origin}"


def header(scope: Scope, name: bytes) -> str:
    """The first header of the name; empty when there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def host_of(authority: str) -> str:
    """The host's name without the port."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Whether the name is one of this machine's for itself."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
