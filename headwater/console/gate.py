"""Who may see the page, and what a browser may load for it."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, RedirectResponse, Response

from headwater.web.auth import Authenticator
from headwater.web.problems import Problem

__all__ = ["CONTENT_SECURITY_POLICY", "Gate"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self' ws: wss:; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'self'; object-src 'none'"
)
"""Nothing from any other host. Vue compiles templates in the browser, which needs 'unsafe-eval'."""
_COOKIE = "headwater_key"
_LOGIN = "/login"
_MOST_FORM_BYTES = 4096
_FORM = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>headwater</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root{color-scheme:light dark}body{font:16px system-ui;max-width:24rem;margin:15vh auto;padding:0 1rem}
input,button{font:inherit;width:100%;padding:.5rem;margin:.25rem 0;box-sizing:border-box}</style></head>
<body><h1>headwater</h1><form method="post"><label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" autofocus required>
<button>Sign in</button><p role="alert">$said</p></form></body></html>"""


class Gate:
    """ASGI middleware for all but the paths of the API, which has its own: a key in a cookie, and headers.

    With no authenticator, or one that is open to everybody, only the headers.
    """

    def __init__(
        self, app: Any, authenticator: Authenticator | None, may: str = "console", others: tuple[str, ...] = ()
    ) -> None:
        self._app, self._authenticator, self._may, self._others = app, authenticator, may, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or socket."""
        if scope["type"] not in ("http", "websocket") or scope["path"].startswith(self._others):
            await self._app(scope, receive, send)
            return
        if self._authenticator is None or self._authenticator.open:
            await self._app(scope, receive, _guarded(send))
        elif scope["type"] == "http" and scope["path"] == _LOGIN:
            await (await self._login(scope, receive))(scope, receive, _guarded(send))
        elif await self._known(_cookie(scope)):
            await self._app(scope, receive, _guarded(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401})
        else:
            await RedirectResponse(_LOGIN, 303)(scope, receive, _guarded(send))

    async def _known(self, key: str) -> bool:
        if not key or self._authenticator is None:
            return False
        try:
            who = self._authenticator.known(key) or await asyncio.to_thread(self._authenticator.authenticate, key)
        except Problem:
            return False
        return who is not None and who.may(self._may)

    async def _login(self, scope: Scope, receive: Receive) -> Response:
        if scope["method"] != "POST":
            return HTMLResponse(_FORM.replace("$said", ""))
        body = b""
        while len(body) <= _MOST_FORM_BYTES:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        key = parse_qs(body.decode(errors="replace")).get("key", [""])[0].strip()
        if not await self._known(key):
            return HTMLResponse(_FORM.replace("$said", "This key is not known, or may not see the console."), 401)
        answer = RedirectResponse("/", 303)
        secure = scope.get("scheme") == "https"
        answer.set_cookie(_COOKIE, key, httponly=True, samesite="strict", secure=secure)
        return answer


def _cookie(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"cookie":
            found = SimpleCookie(value.decode("latin-1")).get(_COOKIE)
            return found.value if found else ""
    return ""


def _guarded(send: Send) -> Send:
    async def with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", ()),
                (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
            ]
        await send(message)

    return with_headers
