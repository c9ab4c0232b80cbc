"""Every page of every service in a real browser, over data whose every name is hostile: no script of a name runs.

The paths come from the services' own routes, and whatever can be pressed on a page is pressed: a new page or section is
tested by itself.
"""

from contextlib import suppress
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from playwright.sync_api import Error as PlaywrightError

from headwater.serving.console.places import SECTIONS, link_to
from tests.chromium import browser
from tests.hostile import BIDI, world

__all__ = ["browser", "world"]

SHOWN = (
    *("shard0", "owner", "heavy", "leader", "action", "why", "job", "subject", "message", "lettershard", "reason"),
    *("payload", "summary", "alertkey", "origin", "error", "count", "value", "aggregate", ":column"),
)
"""Kinds of names that the console's page shows; without them the test would show nothing."""
WIDE, PHONE = {"width": 1280, "height": 1000}, {"width": 390, "height": 844}
WAIT_MS = 40_000
ROUNDS = 60
"""Things pressed on a page at most."""


class Watched:
    """A page that notes what must not happen: scripts of names, dialogs, requests of other hosts, faults."""

    def __init__(self, context: BrowserContext, own: str) -> None:
        self.seen: list[str] = []
        self.own = urlsplit(own).netloc
        context.expose_binding("hurt", lambda _, kind: self.seen.append(f"the script of {kind} ran"))
        self.page: Page = context.new_page()
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)
        self.page.on("pageerror", lambda error: self.seen.append(f"fault: {error}"))

    def _dialog(self, dialog: Any) -> None:
        self.seen.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme in ("http", "https", "ws", "wss") and url.netloc != self.own:
            self.seen.append(f"a request of {request.url}")

    def check(self) -> None:
        script = (
            "[...document.querySelectorAll('[href],[src],[action]')].flatMap(one => [one.href, one.src, one.action])"
            ".filter(one => String(one).toLowerCase().startsWith('javascript:'))"
        )
        assert self.page.evaluate(script) == []
        inserted = "document.querySelectorAll('[onerror],[onmouseover],img[src*=\"foreign\"]').length"
        assert self.page.evaluate(inserted) == 0
        assert self.seen == []


def opened(browser: Browser, world: dict[str, Any], base: str, *, signed_in: bool, size: Any) -> Watched:
    context = browser.new_context(viewport=size, extra_http_headers={"x-api-key": world["key"]})
    if signed_in:
        context.add_cookies([{"name": "headwater_key", "value": world["key"], "url": base}])
    return Watched(context, base)


def test_every_path_is_safe_in_a_browser(world: dict[str, Any], browser: Browser) -> None:
    """With a key and without: what is no page is not taken for one, and each page has a policy that names no host."""
    pages = set()
    for base, paths in world["paths"].items():
        for signed_in in (True, False):
            watched = opened(browser, world, base, signed_in=signed_in, size=WIDE)
            for path in paths:
                answer = watched.page.goto(base + path, wait_until="commit", timeout=WAIT_MS)
                assert answer is not None
                headers = answer.headers
                assert headers["x-content-type-options"] == "nosniff", path
                policy = headers["content-security-policy"]
                assert "default-src 'none'" in policy or "default-src 'self'" in policy
                assert not any(other in policy for other in ("http", "ws:", "wss:", "*"))
                assert "frame-ancestors 'none'" in policy
                if headers.get("content-type", "").startswith("text/html"):
                    pages.add(urlsplit(answer.url).path)
                    watched.page.wait_for_load_state("load")
                    watched.page.wait_for_timeout(300)
                watched.check()
            watched.page.context.close()
    assert {"/", "/login"} <= pages


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_whatever_is_pressed_on_a_page(world: dict[str, Any], browser: Browser, size: Any) -> None:
    """Boxes, buttons, choices and charts, one after the other; what is shown is shown as it is, in its own order."""
    for base, paths in world["paths"].items():
        watched = opened(browser, world, base, signed_in=True, size=size)
        for path in paths:
            if _is_page(base + path, world["key"]):
                places = [""]
                if base == world["console"] and path == "/":
                    places = [link_to(name) for name in SECTIONS] if size is PHONE else places
                    _await_names(watched.page, [base + path + place for place in places])
                for place in places:
                    watched.page.goto(base + path + place)
                    _press_all(watched, base + path + place)
                    watched.check()
        watched.page.context.close()


def _is_page(url: str, key: str) -> bool:
    with httpx.stream("GET", url, headers={"x-api-key": key, "cookie": f"headwater_key={key}"}, timeout=30) as answer:
        return str(answer.headers.get("content-type", "")).startswith("text/html")


def _await_names(page: Page, urls: list[str]) -> None:
    """Shown twice: as the page is made, and as it changes; on a phone, a section at a time."""
    for _ in range(2):
        missing = {*SHOWN}
        ends = monotonic() + WAIT_MS / 1000
        while missing:
            assert monotonic() < ends, missing
            for url in urls:
                page.goto(url)
                page.wait_for_function("document.body.dataset.at", timeout=WAIT_MS)
                for button in page.locator(".q-expansion-item--collapsed:visible").all():
                    button.click()
                page.wait_for_timeout(500)
                text = page.evaluate("document.body.innerText")
                assert not any(mark in text for mark in BIDI)
                missing -= {kind for kind in missing if kind in text}
        assert "<script>hurt(" in text
        page.reload()


def _press_all(watched: Watched, url: str) -> None:
    page = watched.page
    for box in page.get_by_role("checkbox").all():
        box.click(timeout=WAIT_MS)
    for at in range(ROUNDS):
        buttons = page.locator(
            "button:not(.sorts):visible:enabled, [role=combobox]:visible, .nicegui-echart:visible, a:visible:not(nav a)"
        )
        if at >= buttons.count():
            break
        with suppress(PlaywrightError):  # it may be gone, or under another, by now
            buttons.nth(at).hover(timeout=1_000)
            buttons.nth(at).click(timeout=1_000)
        page.wait_for_timeout(150)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_timeout(150)
        if page.url != url:
            watched.check()
            page.goto(url)
        page.keyboard.press("Escape")
        watched.check()
    else:
        pytest.fail(f"more than {ROUNDS} things to press at {url}")
