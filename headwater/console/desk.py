"""Through which a page's acts go: who acts is asked anew, one waits for the end, and the end is said."""

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from headwater.console.elements import busy
from headwater.web.problems import Problem

__all__ = ["Allows", "Desk"]

Allows = Callable[[str, bool], Awaitable[Problem | None]]
"""Why the bearer of a Cookie header may not see the page, None when he may; True asks anew, False may remember."""


class Desk:
    """Of one open page."""

    def __init__(self, allows: Allows) -> None:
        self._allows = allows
        self._client = ui.context.client
        request = self._client.request
        self._cookie = "" if request is None else request.headers.get("cookie", "")

    @property
    def closed(self) -> bool:
        return self._client.id not in type(self._client).instances

    async def act(self, button: Any, work: Callable[[], Awaitable[str]]) -> None:
        """Do it if the key still holds, say what `work` says or what went wrong. Nothing is said to a closed page."""
        busy(button, True)
        try:
            why = await self._allows(self._cookie, True)
            if why is not None:
                raise why
            self._say(await work(), "positive")
        except Problem as problem:
            self._say(problem.detail, "negative")
        except Exception as error:  # shown, and asked again by the user
            self._say(f"{type(error).__name__}: {error}", "negative")
        finally:
            if not button.is_deleted:
                busy(button, False)

    def _say(self, text: str, kind: Any) -> None:
        if text and not self.closed:
            ui.notify(text, type=kind, multi_line=True)
