"""The console in a real browser, over `headwater up`: rates move, poison appears and is redriven, a reshard shows."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from headwater.config import Settings
from processors.jobs import Jobs
from processors.pipeline import load
from processors.services import Services
from producers import Producer
from producers.fleet import Fleet

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
SHOTS = Path(os.environ.get("HEADWATER_SCREENSHOTS", "build/screenshots"))
HOSTILE = '<img src=x onerror="document.title=1">\'"&{{7*7}}'
WAIT_MS = 40_000


@pytest.fixture(scope="module")
def up() -> Iterator[dict[str, Any]]:
    """`headwater up` as a process; yields what it printed."""
    environment = os.environ | {
        "HEADWATER_SERVE_PORT": "0",
        "HEADWATER_GATEWAY_PORT": "0",
        "HEADWATER_COMMIT_SECONDS": "2",
    }
    command = [sys.executable, "-c", "from headwater.cli import main; main()", "up", "--shards", "2", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        reason = "Chromium is missing: apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


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
    expect(flow.get_by_role("row", name="processor")).to_contain_text("401", timeout=WAIT_MS)
    expect(flow.get_by_role("row", name="table")).to_contain_text("401", timeout=WAIT_MS)
    section(page, "Audit").get_by_role("button", name="Audit now").click()
    expect(section(page, "Audit")).to_contain_text("401 processed, 401 in the lake", timeout=WAIT_MS)
    expect(page.get_by_role("banner").get_by_role("status")).to_have_text("exact")

    kinesis.put_record(StreamName=up["stream"], Data=HOSTILE.encode(), PartitionKey="p")
    letters = section(page, "Dead letters")
    expect(letters).to_contain_text("neither a batch nor JSON", timeout=WAIT_MS)
    expect(letters).to_contain_text(HOSTILE)
    shot(page, "poison")
    letters.get_by_role("button", name="Redrive all").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 sent again")).to_be_visible(timeout=WAIT_MS)

    shards = section(page, "Shards")
    command = [sys.executable, "-c", "from headwater.cli import main; main()", "autoscale"]
    command += ["--floor", "2", "--period", "1"]
    autoscaler = subprocess.Popen(command, env=os.environ | up["settings"], stdout=subprocess.DEVNULL)
    try:
        shards.get_by_text("What the autoscaler decided").click()
        decided = shards.get_by_role("row", name="hold")
        expect(decided).to_have_count(1, timeout=WAIT_MS)
        expect(decided).to_contain_text("no shard over 70%", timeout=WAIT_MS)
        decided.scroll_into_view_if_needed()
        shot(page, "autoscaler")
    finally:
        autoscaler.send_signal(signal.SIGTERM)
        assert autoscaler.wait(timeout=60) == 0

    (first, _) = kinesis.list_shards(StreamName=up["stream"])["Shards"]
    quarter = str(int(first["HashKeyRange"]["EndingHashKey"]) // 2)
    kinesis.split_shard(StreamName=up["stream"], ShardToSplit=first["ShardId"], NewStartingHashKey=quarter)
    expect(shards.get_by_role("row", name="25.0%")).to_have_count(2, timeout=WAIT_MS)
    expect(shards).to_contain_text("(closed)")

    views = section(page, "Views")
    views.get_by_role("button", name="Show").click()
    expect(views).to_contain_text(HOSTILE, timeout=WAIT_MS)
    page.wait_for_timeout(1_000)
    shot(page, "wide")
    assert page.title() == "headwater"
    assert hosts == {up["console"].split("/")[2]}
    assert faults == []
    page.close()


def test_a_job_is_seen_and_cancelled(up: dict[str, Any], browser: Browser, kinesis: Any) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(up["console"])
    services = Services(Settings(), load(Settings().pipeline))
    jobs, panel = Jobs(services.ledger, services.clock), section(page, "Jobs")
    with jobs.run("replay", HOSTILE, "me", total=4):
        row = panel.get_by_role("row", name="replay-")
        expect(row).to_contain_text("running", timeout=WAIT_MS)
        expect(row).to_contain_text(HOSTILE)
        row.get_by_role("checkbox").click()
        panel.get_by_role("button", name="Cancel selected").click()
        expect(row).to_contain_text("cancelling", timeout=WAIT_MS)
        panel.screenshot(path=SHOTS / "jobs.png")
    assert jobs.all()[0].message == "cancelled by the console"
    page.close()


def test_on_a_phone_in_the_dark(up: dict[str, Any], browser: Browser) -> None:
    """Nothing is wider than the screen, the sections are there, and the policy names no other host."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    answer = page.goto(up["console"])
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    expect(section(page, "Shards").get_by_role("row").nth(1)).to_be_visible(timeout=WAIT_MS)
    page.wait_for_timeout(1_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot(page, "phone")
    page.close()


def test_a_console_that_only_reads_has_no_button_for_it(up: dict[str, Any], browser: Browser) -> None:
    given = {"HEADWATER_SERVE_PORT": "0", "HEADWATER_SERVE_AUTH": "none", "HEADWATER_SERVE_CONTROLS": "false"}
    command = [sys.executable, "-c", "from headwater.cli import main; main()", "serve"]
    process = subprocess.Popen(command, env=os.environ | up["settings"] | given, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        page = browser.new_page()
        page.goto(process.stdout.readline().split()[2].removesuffix("v1/views"))
        letters = section(page, "Dead letters")
        expect(letters).to_be_visible(timeout=WAIT_MS)
        expect(letters.get_by_role("button", name="Redrive")).to_have_count(0)
        page.close()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
