"""Every page in a real browser: links to one thing, a phone, the keyboard, and what axe finds (WCAG, by Deque).

Over data whose every name is hostile, so that the links hold for any name.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from headwater.serving.console.places import SECTIONS, link_to
from tests.chromium import browser
from tests.hostile import BIDI, hostile, world

__all__ = ["browser", "world"]

WIDE: Any = {"width": 1280, "height": 1000}
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
PHONE: Any = {"width": 390, "height": 844}
expect.set_options(timeout=40_000)


@pytest.fixture
def page(world: dict[str, Any], browser: Browser) -> Iterator[Page]:
    """Signed in to the console."""
    context = browser.new_context(viewport=WIDE, color_scheme="light")
    context.add_cookies([{"name": "headwater_key", "value": world["key"], "url": world["console"]}])
    made = context.new_page()
    made.set_default_timeout(40_000)
    yield made
    context.close()


def section(page: Page, name: str) -> Any:
    return page.locator(f"[data-place={name}]")


def shown(page: Page) -> list[str]:
    """The sections that can be seen."""
    script = (
        "[...document.querySelectorAll('[data-place]')].filter(one => one.offsetHeight).map(one => one.dataset.place)"
    )
    found: list[str] = page.evaluate(script)
    return found


def legible(name: str) -> str:
    return name.translate(dict.fromkeys(map(ord, BIDI), "·"))


def test_each_thing_has_a_link(world: dict[str, Any], page: Page) -> None:
    """It is shown alone; back and forward work; the link of a row is the same as the one that was sent."""
    things = {
        "shards": (hostile("shard0"), "owner"),
        "audit": (hostile("origin"), "not in lake"),
        "jobs": (hostile("job", ""), "message"),
    }
    page.goto(world["console"])
    expect(section(page, "flow").get_by_role("listitem", name="stream")).to_contain_text("/s")
    expect(section(page, "flow").locator("svg.spark")).to_have_count(5)
    assert shown(page) == list(SECTIONS)
    for name, (thing, fact) in things.items():
        link = link_to(name, thing)
        page.goto(world["console"] + "/" + link)
        place = section(page, name)
        expect(place.get_by_role("heading", name=legible(thing))).to_be_visible()
        expect(place.get_by_role("cell", name=fact, exact=True)).to_be_visible()
        page.wait_for_function(f"document.body.dataset.at === '{name}'")
        assert shown(page) == [name]
        place.get_by_role("link", name="←").click()
        row = place.locator(f"td a[href='{link}']")
        expect(row).to_be_visible()
        assert shown(page) == list(SECTIONS)
        page.go_back()
        expect(place.get_by_role("heading", name=legible(thing))).to_be_visible()
        expect(row).to_be_hidden()
        page.go_forward()
        row.click()
        expect(place.get_by_role("heading", name=legible(thing))).to_be_visible()
        assert page.url.endswith(link)
    page.goto(world["console"] + "/" + link_to("shards", "nosuch"))
    expect(section(page, "shards")).to_contain_text("not known")


def test_a_link_holds_through_the_login(world: dict[str, Any], browser: Browser) -> None:
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    link = link_to("shards", hostile("shard0"))
    page.goto(world["console"] + "/" + link)
    assert page.url == world["console"] + "/login" + link
    page.get_by_label("API key").fill(world["key"])
    page.keyboard.press("Enter")
    expect(section(page, "shards").get_by_role("cell", name="owner", exact=True)).to_be_visible()
    assert page.url == world["console"] + "/" + link
    context.close()


def test_what_is_chosen_of_a_view_has_a_link(world: dict[str, Any], page: Page) -> None:
    page.goto(world["console"] + "/" + link_to("views", "nosuch", "", "nosuch", "nosuch"))
    views = section(page, "views")
    expect(views).to_contain_text("as of")
    views.get_by_label("key begins with").fill("no/such key")
    expect(views).to_contain_text("no such key as of")
    views.get_by_label("time", exact=True).click()
    page.get_by_role("option", name="last day").click()
    page.wait_for_url(lambda url: url.endswith("/1d"))
    assert "/no%2Fsuch%20key/" in page.url
    page.reload()
    expect(views.get_by_label("key begins with")).to_have_value("no/such key")
    expect(views.get_by_label("time", exact=True)).to_have_value("last day")
    assert shown(page) == ["views"]


def test_a_phone_shows_one_section_at_a_time(world: dict[str, Any], page: Page) -> None:
    """Each is one press away, and no section needs more than a few screens."""
    page.set_viewport_size(PHONE)
    page.goto(world["console"])
    expect(section(page, "flow").get_by_role("listitem", name="stream")).to_contain_text("/s")
    page.wait_for_function("document.querySelector('nav [aria-current]')")
    assert shown(page) == ["flow"]
    for name in SECTIONS:
        link = page.get_by_role("navigation").locator(f"a[href='{link_to(name)}']")
        box = link.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        link.click()
        expect(link).to_have_attribute("aria-current", "page")
        assert shown(page) == [name]
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_headings_sort_by_keyboard(world: dict[str, Any], page: Page) -> None:
    page.goto(world["console"] + "/" + link_to("shards"))
    expect(section(page, "shards").locator("tbody a")).to_have_count(2)
    expect(section(page, "shards").locator("svg.heat rect")).to_have_count(2)
    heading = section(page, "shards").get_by_role("columnheader", name="shard", exact=True)
    expect(heading).to_have_attribute("aria-sort", "none")
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        heading.get_by_role("button").press(key)  # in one call: the page is drawn anew every second
        expect(heading).to_have_attribute("aria-sort", order)
    expect(section(page, "shards").locator("tbody tr").first).to_contain_text("shard1")


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_what_has_the_focus_keeps_it(world: dict[str, Any], page: Page, size: Any) -> None:
    """Draw the page anew every second; whoever has left an element is not called back."""
    page.set_viewport_size(size)
    page.goto(world["console"] + "/" + link_to("shards"))
    shards = section(page, "shards")
    expect(shards.locator(".q-table__container a.inward")).to_have_count(2)
    links = shards.locator(".q-table__container a.inward")
    for held in [links.last] if size == PHONE else [shards.locator("button.sorts").nth(2), links.last]:
        held.focus()
        page.evaluate("window.had = document.activeElement")
        page.wait_for_function("!had.isConnected")
        for _ in range(20):
            expect(held).to_be_focused()
            page.wait_for_timeout(200)
    page.evaluate("document.activeElement.blur(); window.had = document.querySelector('.q-table__container a.inward')")
    page.wait_for_function("!had.isConnected")
    page.wait_for_timeout(1_000)
    assert page.evaluate("document.activeElement === document.body")


def test_what_cannot_be_read_says_so(world: dict[str, Any], page: Page) -> None:
    """In its section, in one line, while all others are shown."""
    page.goto(world["console"])
    failed = section(page, "table").get_by_role("alert")
    expect(failed).to_contain_text("cannot be read now: RuntimeError: error")
    assert "\n" not in failed.inner_text()
    expect(section(page, "table").get_by_role("row", name="publisher")).to_be_visible()
    page.goto(world["console"] + "/nosuch")
    expect(page.get_by_text("This page doesn't exist.")).to_be_visible()
    assert "Traceback" not in page.content()


AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
SETTLED = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  await frame(), await frame();
  for (const motion of document.getAnimations()) {
    if (Number.isFinite(motion.effect.getComputedTiming().endTime)) motion.finish();
  }
}"""
"""Waits until what follows a change of colours has followed; what fades in counts as it is then."""


def violations(page: Page, scheme: Scheme) -> list[str]:
    """Return what axe finds in the light or dark, of whatever weight: the rule, and the first element."""
    page.emulate_media(color_scheme=scheme)
    if page.evaluate("'at' in document.body.dataset"):
        page.wait_for_function(f"document.body.classList.contains('body--dark') === {json.dumps(scheme == 'dark')}")
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE)
    page.evaluate(SETTLED)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)")
    return [f"{one['impact']} {one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    if "#" in url or url.endswith("/"):
        expect(page.get_by_role("banner")).to_contain_text("as of")
        page.wait_for_function("document.body.dataset.at")
    return page


def test_axe_finds_nothing(world: dict[str, Any], page: Page) -> None:
    """On any page, in the light and in the dark."""
    console = world["console"]
    (gateway,) = (base for base, paths in world["paths"].items() if "/health/ready" in paths and "/" in paths)
    for url in (f"{gateway}/?", f"{console}/docs", f"{console}/login"):
        page.goto(url)
        for scheme in SCHEMES:
            assert violations(page, scheme) == [], (url, scheme)
    for place in (link_to("shards", hostile("shard0")), ""):
        opened(page, f"{console}/{place}")
        for scheme in SCHEMES:
            assert violations(page, scheme) == [], (place, scheme)


def test_axe_finds_nothing_on_a_phone(world: dict[str, Any], page: Page) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"{world['console']}/docs")
    assert violations(page, "dark") == []
    for name in SECTIONS:
        assert violations(opened(page, f"{world['console']}/{link_to(name)}"), "dark") == [], name
