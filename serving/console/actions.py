"""Run what a button of the page does: check the key again, wait for the end, and say how it ended."""

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from headwater.serving.console.elements import set_busy
from headwater.serving.console.formatting import failure, legible
from headwater.web.problems import Problem

__all__ = ["AccessCheck", "PageActions"]

AccessCheck = Callable[[str, bool], Awaitable[Problem | None]]
"""Given a Cookie header, returns why its bearer may not see the page, or None; with True it does not use its memory."""


class PageActions:
    """Run the acts of one open page. Made inside the page, whose request has the cookie."""

    def __init__(self, check_access: AccessCheck) -> None:
        self._check_access = check_access
        self._client = ui.context.client
        request = self._client.request
        self._cookie = "" if request is None else request.headers.get("cookie", "")

    @property
    def is_closed(self) -> bool:
        """Say whether the page is gone."""
        return self._client.id not in type(self._client).instances

    async def run(self, button: Any, work: Callable[[], Awaitable[str]]) -> None:
        """Do the work if the key still holds, and show the text that it returns, or its error, on the page."""
        set_busy(button, True)
        try:
            # an open page outlives its key: what changes something asks the table, not the memory
            why = await self._check_access(self._cookie, True)
            if why is not None:
                raise why
            self._notify(await work(), "positive")
        except Problem as problem:
            self._notify(problem.detail, "negative")
        except Exception as error:  # shown to the user, who decides whether to try again
            self._notify(failure(error), "negative")
        finally:
            if not button.is_deleted:
                set_busy(button, False)

    def _notify(self, text: str, kind: Any) -> None:
        if text and not self.is_closed:
            ui.notify(legible(text), type=kind, multi_line=True)
