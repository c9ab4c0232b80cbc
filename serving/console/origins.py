"""Let no page of another host talk to the service through a visitor's browser."""

from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from headwater.web.problems import Problem, problem_response

__all__ = ["OriginCheck", "header", "host_of", "is_loopback"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_SAFE = ("GET", "HEAD", "OPTIONS")
_SOCKETS = "/_nicegui_ws"
"""Where the console's sockets are, polled ones as well."""


class OriginCheck:
    """Refuse sockets and changing requests from pages of other hosts, by the `Origin` header. ASGI middleware.

    With `loopback` the Host header must be a loopback name, too. A page elsewhere whose name is pointed to this machine
    (DNS rebinding) has the same origin as the service, and where no key is needed nothing else would stop it.
    """

    def __init__(self, app: Any, *, loopback: bool) -> None:
        self._app, self._loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request or socket, or pass it on."""
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
        # a page's socket may begin as GETs that are polled: they carry events of the page like the socket itself
        reads = scope["type"] == "http" and scope["method"] in _SAFE and not scope["path"].startswith(_SOCKETS)
        if not origin or reads:
            return ""
        secure = scope.get("scheme") in ("https", "wss") or header(scope, b"x-forwarded-proto").startswith("https")
        return "" if _is_same(origin, host, secure=secure) else f"not from a page of {origin!r:.100}"


def _is_same(origin: str, host: str, *, secure: bool) -> bool:
    """Return whether a page of the origin is one of ours: the scheme, the host and the port of the request.

    A load balancer may have ended TLS before us, so https is right however the request came here.
    """
    try:
        page, here = urlsplit(origin), urlsplit(f"//{host}")
        usual = {"http": 80, "https": 443}.get(page.scheme)
        ports = page.port or usual, here.port or usual
    except ValueError:
        return False
    same = usual is not None and page.hostname == here.hostname and ports[0] == ports[1]
    return same and (page.scheme == "https" or not secure)


def header(scope: Scope, name: bytes) -> str:
    """Return the first header of that name; empty when there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def host_of(authority: str) -> str:
    """Return the host's name without the port.

    >>> host_of("localhost:8785")
    'localhost'
    """
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Say whether a name or address is a loopback one.

    >>> is_loopback("127.0.0.1"), is_loopback("example.org")
    (True, False)
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
