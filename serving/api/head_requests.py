"""Answer HEAD as GET without the body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HeadRequests"]


class HeadRequests:
    """Answer HEAD on the API's paths by running GET. ASGI middleware; not for event streams, which do not end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or not _has_head(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def bodiless(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, bodiless)


def _has_head(path: str) -> bool:
    return path == "/health" or (path.startswith("/v1/") and not path.endswith("/stream"))
