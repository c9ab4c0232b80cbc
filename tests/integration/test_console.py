"""The console in a real browser, over `headwater up`: rates move, poison appears and is redriven, a reshard shows."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import boto3
import pytest
from playwright.sync_api import Browser, Page, expect

from headwater.aws import client
from headwater.config import Settings
from headwater.processors.definition.loading import load
from headwater.processors.jobs import Jobs
from headwater.processors.services import Services
from headwater.producers.producer import Producer
from headwater.serving.console.places import SECTIONS, link_to
from headwater.sinks.deadletter import DeadLetter, letters_in
from headwater.testing.fleet import Fleet
from headwater.web.keys import KeyStore
from tests.chaos.proxy import Faults, Proxy
from tests.chromium import browser
from tests.cli import up as headwater_up

__all__ = ["browser"]

SHOTS = Path(os.environ.get("HEADWATER_SCREENSHOTS", "build/screenshots"))
HOSTILE = '<img src=x onerror="document.title=1">\'"&{{7*7}}'
WAIT_MS = 40_000
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def up() -> Iterator[dict[str, Any]]:
    with headwater_up("--shards", "2", HEADWATER_COMMIT_SECONDS="2") as found:
        yield found


@pytest.fixture
def kinesis(up: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in up["settings"].items():
        monkeypatch.setenv(name, value)
    return boto3.client("kinesis")


def section(page: Page, title: str) -> Any:
    return page.locator(".q-card", has=page.get_by_role("heading", name=title, exact=True))


def shot(page: Page, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def test_an_operator_looks_and_acts(up: dict[str, Any], browser: Browser, kinesis: Any) -> None:
    """See the module. Nothing is loaded from another host, no script fails, no hostile text becomes HTML."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    hosts, faults = set(), []
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(up["console"])
    table = next(Fleet(devices=5).batches(400, 400))
    with Producer(up["stream"], "telemetry", client=kinesis) as producer:
        producer.put_batch(table)
        producer.put({"device": HOSTILE, "metric": "m", "ts": "2026-03-01T12:00:00Z", "value": 1.0})
    flow = section(page, "Flow")
    for place in ("processor", "lake files", "table"):
        expect(flow.get_by_role("listitem", name=place)).to_contain_text("401")
    for place in ("stream", "lake files", "views"):
        expect(flow.get_by_role("listitem", name=place)).to_contain_text("up to date")
    section(page, "Audit").get_by_role("button", name="Audit now").click()
    expect(section(page, "Audit")).to_contain_text("401 processed, 401 in the lake")
    expect(page.get_by_role("banner").get_by_role("status", name="audit")).to_have_text("exact")

    kinesis.put_record(StreamName=up["stream"], Data=HOSTILE.encode(), PartitionKey="p")
    letters = section(page, "Dead letters")
    expect(letters).to_contain_text("neither a batch nor JSON")
    expect(letters).to_contain_text(HOSTILE)
    shot(page, "poison")
    letters.get_by_role("button", name="Redrive all").click()
    page.get_by_role("button", name="Send all again").click()
    expect(page.get_by_text("1 sent again")).to_be_visible()

    shards = section(page, "Shards")
    command = [sys.executable, "-c", "from headwater.commands import main; main()", "autoscale"]
    command += ["--floor", "2", "--period", "1"]
    autoscaler = subprocess.Popen(command, env=os.environ | up["settings"], stdout=subprocess.DEVNULL)
    try:
        shards.get_by_text("What the autoscaler decided").click()
        decided = shards.get_by_role("row", name="hold")
        expect(decided).to_have_count(1)
        expect(decided).to_contain_text("no shard over 70%")
        decided.scroll_into_view_if_needed()
        shot(page, "autoscaler")
    finally:
        autoscaler.send_signal(signal.SIGTERM)
        assert autoscaler.wait(timeout=60) == 0

    (first, _) = kinesis.list_shards(StreamName=up["stream"])["Shards"]
    quarter = str(int(first["HashKeyRange"]["EndingHashKey"]) // 2)
    kinesis.split_shard(StreamName=up["stream"], ShardToSplit=first["ShardId"], NewStartingHashKey=quarter)
    expect(shards.get_by_role("row", name="25.0%")).to_have_count(2)
    expect(shards).to_contain_text("(closed, read to its end)")

    views = section(page, "Views")
    views.get_by_label("key begins with").fill(HOSTILE[:4])
    expect(views.get_by_role("row")).to_have_count(2)
    expect(views).to_contain_text(HOSTILE)
    expect(views).to_contain_text("as of")
    views.get_by_label("key begins with").fill("")
    expect(views.get_by_role("row", name="dev-00001").first).to_be_visible()
    said = views.get_by_role("status").filter(has_text="as of")
    expect(said).not_to_have_text(said.inner_text())  # it has just been read, and will be again in ten seconds
    choose(page, views, "view", "fleet_1m")
    expect(views.get_by_role("columnheader", name="device", exact=True)).to_have_count(0, timeout=8_000)
    expect(views.get_by_role("row", name="battery.voltage").first).to_be_visible()
    page.wait_for_timeout(1_000)
    shot(page, "wide")
    assert page.title() == "headwater"
    assert hosts == {up["console"].split("/")[2]}
    assert faults == []
    page.close()


def test_jobs_are_seen_and_cancelled(up: dict[str, Any], browser: Browser, kinesis: Any) -> None:
    """One after the other, although the first has ended when the second is cancelled."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(up["console"])
    services = Services(Settings(), load(Settings().pipeline))
    jobs, panel = Jobs(services.ledger, services.clock), section(page, "Jobs")

    def cancel(of: str) -> None:
        row = panel.get_by_role("row", name=of)
        expect(row).to_contain_text("running")
        row.get_by_role("checkbox", name="choose replay-").click()
        panel.get_by_role("button", name="Cancel selected").click()
        expect(row).to_contain_text("cancelling")
        expect(row.get_by_role("checkbox")).not_to_be_checked()
        panel.screenshot(path=SHOTS / "jobs.png")

    with jobs.run("replay", HOSTILE, "me", total=4):
        cancel(HOSTILE)
    assert jobs.all()[0].cancel
    expect(panel.get_by_role("row", name=HOSTILE)).not_to_contain_text("cancelling")
    with jobs.run("replay", "the second", "me", total=4):
        cancel("the second")
    page.close()


def test_letters_beyond_those_shown_are_sent_once(up: dict[str, Any], browser: Browser, kinesis: Any) -> None:
    """Two who look and both press; with the keyboard alone."""
    services = Services(Settings(), load(Settings().pipeline))
    letters = [
        DeadLetter("shardId-000000000000", str(number), 0, "why", None, None, HOSTILE.encode() + b"x" * 300, "c", 0)
        for number in range(1, 261)
    ]
    services.letters.remove(services.pipeline.name, lambda _: True)
    services.letters.write(services.pipeline.name, letters)
    pages = [browser.new_page(viewport={"width": 1280, "height": 1000}) for _ in range(2)]
    for page in pages:
        page.goto(up["console"])
        panel = section(page, "Dead letters")
        expect(panel).to_contain_text("260 wait, the first 200 are shown")
        expect(section(page, "Flow").get_by_role("listitem", name="dead letters")).to_contain_text("260 wait")
    page = pages[0]
    panel = section(page, "Dead letters")
    assert panel.locator(".q-table__middle").evaluate("one => one.scrollWidth <= one.clientWidth")
    panel.get_by_role("checkbox", name="choose shardId-000000000000:1:0").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Space")
    press(panel, "Show selected")
    expect(page.get_by_role("dialog")).to_contain_text(HOSTILE + "x" * 300)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    sends = []
    for page in pages:
        press(section(page, "Dead letters"), "Redrive all")
        sends.append(page.get_by_role("dialog").get_by_role("button", name="Send all again"))
    for page, send in zip(pages, sends, strict=True):
        expect(page.get_by_role("dialog")).to_contain_text("260")
        send.focus()
    pages[0].keyboard.press("Enter")
    pages[1].keyboard.press("Enter")  # while the first are on their way, or just after
    expect(pages[0].get_by_text("260 sent again")).to_be_visible()
    expect(pages[1].get_by_text(re.compile("sent already|^0 sent again"))).to_be_visible()  # as soon, or later
    for page in pages:
        page.close()
    assert sum(letters_in(key) for key in services.objects.list("redriven/")) == 260


def press(where: Any, name: str) -> None:
    """With the keyboard."""
    button = where.get_by_role("button", name=name)
    button.focus()
    button.press("Enter")


def choose(page: Page, where: Any, label: str, option: str) -> None:
    where.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).click()


TOO_FAINT = (Path(__file__).parent / "test_console_contrast.js").read_text()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_on_a_phone(up: dict[str, Any], browser: Browser, kinesis: Any, scheme: Any) -> None:
    """Nothing is wider than the screen, the sections are there, the policy names no other host, and all can be read."""
    with Producer(up["stream"], "telemetry", client=kinesis) as producer:
        producer.put_batch(next(Fleet(devices=5).batches(400, 400)))
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    answer = page.goto(up["console"])
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert not any(other in policy for other in ("http", "ws:", "wss:"))
    page.goto(up["console"] + "/" + link_to("views"))
    expect(section(page, "Views")).to_contain_text("as of")
    parts = "[...document.querySelectorAll('.q-card, .q-table__middle')]"
    for name in reversed(SECTIONS):
        page.goto(up["console"] + "/" + link_to(name))
        expect(page.locator(f"[data-place={name}]")).to_be_visible()
        page.wait_for_function("document.documentElement.scrollWidth <= 390", timeout=WAIT_MS)
        page.wait_for_function(f"{parts}.every(one => one.scrollWidth <= one.clientWidth)", timeout=WAIT_MS)
        # tables have fewer rows a page once the server has heard that this is a phone
        page.wait_for_function(f"document.documentElement.scrollHeight <= {4 * 844}", timeout=WAIT_MS)
        assert page.evaluate(TOO_FAINT) == []
        shot(page, f"phone-{scheme}-{name}")
    page.goto(up["console"] + "/" + link_to("views"))
    for view in ("fleet_1m", "device_10m", "fleet_1m"):  # each has a table of its own, which is made when it is read
        choose(page, section(page, "Views"), "view", view)
        page.wait_for_url(f"**{link_to('views', view)}**")
        rows = section(page, "Views").locator(".q-table__grid-item")
        expect(rows).to_have_count(4)
    page.goto(up["console"] + "/" + link_to("flow"))
    boxes = [section(page, "Flow").get_by_role("listitem", name=name).bounding_box() for name in ("stream", "table")]
    assert boxes[0]["y"] < boxes[1]["y"]
    assert all(box["width"] > 250 for box in boxes)
    page.close()


def test_light_and_dark(up: dict[str, Any], browser: Browser) -> None:
    """The first press already changes what is seen, and a reload keeps it; in both all can be read."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    page.goto(up["console"])
    expect(section(page, "Views")).to_contain_text("as of")
    dark = "document.body.classList.contains('body--dark')"
    assert page.evaluate(dark)
    assert page.evaluate(TOO_FAINT) == []
    shot(page, "wide-dark")
    page.get_by_role("button", name="Light or dark").click()
    page.wait_for_function(f"!{dark} && document.cookie.includes('headwater_dark=0')")
    page.reload()
    expect(section(page, "Views")).to_contain_text("as of")
    assert not page.evaluate(dark)
    assert page.evaluate(TOO_FAINT) == []
    shot(page, "wide-light")
    page.close()


@contextmanager
def serve(up: dict[str, Any], **more: str) -> Iterator[str]:
    """`headwater serve` as a process; yields its console's URL."""
    environment = os.environ | up["settings"] | {"HEADWATER_SERVE_PORT": "0", "HEADWATER_SERVE_AUTH": "none"} | more
    command = [sys.executable, "-c", "from headwater.commands import main; main()", "serve"]
    with TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "it has ended"
            yield line.split()[2].removesuffix("v1/views")
        finally:
            process.send_signal(signal.SIGTERM)
            ended = process.wait(timeout=60)
        said.seek(0)
        errors = said.read()
    assert ended == 0, errors
    assert "Traceback" not in errors, errors


def test_a_console_that_only_reads_has_no_button_for_it(up: dict[str, Any], browser: Browser) -> None:
    with serve(up, HEADWATER_SERVE_CONTROLS="false") as url:
        page = browser.new_page()
        page.goto(url)
        expect(section(page, "Dead letters")).to_be_visible()
        for name in ("Redrive", "Cancel", "Audit now", "Sign out"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        page.close()


def test_services_that_do_not_answer_are_seen(up: dict[str, Any], browser: Browser) -> None:
    """How old all is counts on, the header says that it is old and why, and all is well when they are back."""
    faults = Faults(1)
    faults.calm()
    with Proxy("aws", up["aws"], faults) as proxy, serve(up, AWS_ENDPOINT_URL=proxy.url) as url:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        head = page.get_by_role("banner")
        expect(head.get_by_role("status", name="audit")).to_have_text("exact")
        expect(head).to_contain_text(re.compile(r"as of [\d:]+ UTC \(\d s ago\)"))
        expect(head.get_by_text("stale")).to_be_hidden()
        faults.down.add("aws")
        proxy.cut()
        expect(head.get_by_text("stale")).to_be_visible()
        expect(head).to_contain_text(re.compile(r"\(1\d s ago\)"))
        expect(head.get_by_role("alert")).to_contain_text("flow: ")
        shot(page, "stale")
        faults.calm()
        expect(head.get_by_text("stale")).to_be_hidden()
        expect(head.get_by_role("alert")).to_have_text("")
        page.close()


def test_an_operator_signs_in_and_is_revoked(up: dict[str, Any], browser: Browser, kinesis: Any) -> None:
    """A wrong key, the right one; signed out; and an open page whose key is revoked neither shows nor acts."""
    keys = KeyStore(client("dynamodb", Settings()), Settings().gateway.keys_table)
    keys.ensure_table()
    key, text = keys.create("operator", frozenset({"console"}))
    with serve(up, HEADWATER_SERVE_AUTH="keys", HEADWATER_GATEWAY_KEY_SECONDS="20") as url:
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(url)
        sign_in(page, "nonsense")
        expect(page.get_by_role("alert")).to_contain_text("not known")
        shot(page, "login")
        sign_in(page, text)
        expect(section(page, "Flow").get_by_role("listitem", name="processor")).to_contain_text("/s")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login", timeout=WAIT_MS)
        page.goto(url)
        assert page.url.endswith("/login")
        sign_in(page, text)
        expect(section(page, "Flow").get_by_role("listitem", name="processor")).to_contain_text("/s")
        keys.revoke(key.key_id)
        section(page, "Audit").get_by_role("button", name="Audit now").click()
        expect(page.get_by_text("unknown or revoked")).to_be_visible()
        page.wait_for_url("**/login", timeout=WAIT_MS)
        page.close()


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_load_state()
