"""Let only holders of a key see the page, and limit what a browser may load for it."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from botocore.exceptions import BotoCoreError, ClientError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from headwater.serving.console.origins import header, host_of, is_loopback
from headwater.web.auth import Authenticator
from headwater.web.palette import PAGE_STYLE
from headwater.web.problems import Problem

__all__ = ["CONTENT_SECURITY_POLICY", "LoginGate"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'self'; object-src 'none'"
)
"""Nothing from any other host. Vue compiles templates in the browser, which needs 'unsafe-eval'."""
_COOKIE = "headwater_key"
_SCOPE = "console"
"""Scope of keys that may see the page."""
_LOGIN, _LOGOUT = "/login", "/logout"
_MOST_FORM_BYTES = 4096
_UNKNOWN = "This key is not known, or may not see the console."
_LATER = "Whether this key is good cannot be found out now, since AWS does not answer. Try again in a moment."
_FORM = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>headwater</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{PAGE_STYLE}</style></head>
<body><main><form method="post"><h1>headwater</h1><label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" autofocus required>
<button>Sign in</button><p role="alert">$message</p></form></main></body></html>"""


class LoginGate:
    """Ask for a key in a cookie, and add security headers, on all paths but those of the API. ASGI middleware.

    `api_paths` are the API's paths, which have a check of their own; one that ends in / stands for all below it.
    Without an authenticator, or with one that is open to everybody, it adds the headers only. A socket is closed when
    the key that opened it is revoked, which is checked every `seconds`; while that cannot be checked it stays open.
    """

    PATHS = (_LOGIN, _LOGOUT)
    """Paths that the gate answers itself."""

    def __init__(
        self,
        app: Any,
        authenticator: Authenticator | None,
        api_paths: tuple[str, ...] = (),
        seconds: float = 15.0,
    ) -> None:
        self._app, self._authenticator, self._api_paths = app, authenticator, api_paths
        self._seconds = seconds
        self.keys = authenticator is not None and not authenticator.is_open
        """True when visitors have to sign in."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or socket, or pass it on."""
        if scope["type"] not in ("http", "websocket") or self._is_api(scope["path"]):
            await self._app(scope, receive, send)
        elif not self.keys:
            await self._app(scope, receive, _guarded(send))
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            answer = await self._answer(scope, receive)
            await (answer or self._app)(scope, receive, _guarded(send))

    def _is_api(self, path: str) -> bool:
        return any(path.startswith(one) if one.endswith("/") else path == one for one in self._api_paths)

    async def refusal(self, cookies: str, fresh: bool = False) -> Problem | None:
        """Return why the sender of a Cookie header may not see the page or act there; None when it may.

        The problem's status is 503 when that cannot be checked. `fresh` looks the key up again instead of remembering.
        """
        return await self._refusal(_key(cookies), fresh) if self.keys else None

    async def _refusal(self, key: str, fresh: bool = False) -> Problem | None:
        assert self._authenticator is not None
        if not key:
            return Problem(401, "unauthorized", "sign in first")
        try:
            caller = None if fresh else self._authenticator.cached(key)
            if caller is None:
                caller = await asyncio.to_thread(self._authenticator.authenticate, key)
        except Problem as problem:
            return problem
        except (ClientError, BotoCoreError, OSError):
            return Problem.retryable(503, "not-ready", _LATER, 5)
        return None if caller.allows(_SCOPE) else Problem(403, "forbidden", f"the key is not for {_SCOPE}")

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """Return the gate's own answer, None when the page answers."""
        if scope["path"] == _LOGIN:
            return await self._login(scope, receive)
        if scope["path"] == _LOGOUT and scope["method"] == "POST":
            answer: Response = RedirectResponse(_LOGIN, 303)
            answer.delete_cookie(_COOKIE, httponly=True, samesite="strict", secure=_is_secure(scope))
            return answer
        why = await self.refusal(header(scope, b"cookie"))
        if why is None:
            return None
        return RedirectResponse(_LOGIN, 303) if why.status < 500 else _form(_LATER, 503)

    async def _login(self, scope: Scope, receive: Receive) -> Response:
        if scope["method"] != "POST":
            return _form("", 200)
        body = b""
        while len(body) <= _MOST_FORM_BYTES:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        key = parse_qs(body.decode(errors="replace")).get("key", [""])[0].strip()
        why = await self._refusal(key)
        if why is not None:
            return _form(_UNKNOWN, 401) if why.status < 500 else _form(_LATER, 503)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(_COOKIE, key, httponly=True, samesite="strict", secure=_is_secure(scope))
        return answer

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        cookies = header(scope, b"cookie")
        why = await self.refusal(cookies)
        if why is not None:
            await send({"type": "websocket.close", "code": 4401 if why.status < 500 else 1013})
            return
        now = asyncio.get_running_loop().time
        due, over = now() + self._seconds, False

        async def receiving() -> Message:
            nonlocal due, over
            while True:
                try:
                    async with asyncio.timeout_at(due):
                        return await receive()
                except TimeoutError:
                    why = await self.refusal(cookies)
                    due = now() + self._seconds
                if why is not None and why.status < 500:
                    over = True
                    await send({"type": "websocket.close", "code": 4401})
                    return {"type": "websocket.disconnect", "code": 4401}

        async def sending(message: Message) -> None:
            if not over:
                await send(message)

        await self._app(scope, receiving, _guarded(sending))


def _form(message: str, status: int) -> Response:
    return HTMLResponse(_FORM.replace("$message", message), status, {"Cache-Control": "no-store"})


def _is_secure(scope: Scope) -> bool:
    """Say whether the cookie goes over TLS only: always, except for a browser on the same machine."""
    return scope.get("scheme") == "https" or not is_loopback(host_of(header(scope, b"host")))


def _key(cookies: str) -> str:
    """Return the key in a Cookie header, empty when there is none.

    By hand: http.cookies drops all cookies when one of them, set by another service of the host, has a bad name.
    """
    for one in cookies.split(";"):
        name, _, value = one.partition("=")
        if name.strip() == _COOKIE:
            return value.strip().strip('"')
    return ""


def _guarded(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message.get("headers", ()),
                (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"same-origin"),  # with no-referrer, forms have no Origin to look at
            ]
        await send(message)

    return with_headers
