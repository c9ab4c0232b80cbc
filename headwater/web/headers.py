"""Add the headers that keep a browser from taking an answer for more than it is."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["INERT_HEADERS", "PAGE_HEADERS", "InertAnswers"]

INERT_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "referrer-policy": "no-referrer",
}
"""Headers of an answer that is no page: it is of the type that it says, has no scripts, and is shown in no frame."""

PAGE_HEADERS = {
    "content-security-policy": INERT_HEADERS["content-security-policy"] + "; style-src 'unsafe-inline'",
    "cache-control": "no-store",
}
"""Headers of a page without scripts that loads nothing."""

_Message = MutableMapping[str, Any]


class InertAnswers:
    """Add INERT_HEADERS to every answer, but for those that it has already. ASGI middleware.

    Put around all others, so that no route and no error is forgotten.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(
        self, scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
    ) -> None:
        """Answer one request, or pass on what is none."""

        async def inert(message: _Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                there = {bytes(name).lower() for name, _ in given}
                message = {**message, "headers": given + [pair for pair in _PAIRS if pair[0] not in there]}
            await send(message)

        await self._app(scope, receive, inert if scope["type"] == "http" else send)


_PAIRS = [(name.encode(), value.encode()) for name, value in INERT_HEADERS.items()]
