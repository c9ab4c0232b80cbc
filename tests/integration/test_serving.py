"""The query API over views in DynamoDB (moto): pages, ranges, watermarks, ETags, event streams, keys."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance

from headwater.aggregates.columns import Columns
from headwater.clock import ManualClock
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.commands.serving import open_reader
from headwater.config import GatewaySettings, ServeSettings, Settings
from headwater.ledger import Commit
from headwater.processors.definition.loading import load
from headwater.processors.jobs import Jobs
from headwater.processors.services import Services
from headwater.serving.api.app import create_app
from headwater.sinks.views.slots import Upsert
from headwater.web.auth import Authenticator
from headwater.web.http_server import serve_in_thread
from headwater.web.keys import KeyStore

START = 1_762_160_400_000
MINUTE = 60_000
SETTINGS = Settings()


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def write(services: Services, device: str, window: int, value: float, version: int = 1) -> None:
    spec = services.view_specs["device_10m"]
    columns = Columns(spec.aggregates)
    columns.grow(1)
    start = START + window * 10 * MINUTE
    columns.fold(np.zeros(1, np.int64), pa.table({"device": [device], "value": [value]}), np.array([start], np.int64))
    upsert = Upsert((device,), start, start + 10 * MINUTE, "s0", str(version).zfill(56), columns.partial(0))
    spread = 3 if device == "dev-3" else 1
    services.views.write(replace(spec, spread=spread), [upsert])


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Ten devices with six windows; two shards, of which the slower has read into the fourth window."""
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        services = Services(SETTINGS, load(SETTINGS.pipeline), ManualClock(START + 80 * MINUTE))
        for device in range(10):
            for window in range(6):
                write(services, f"dev-{device}", window, device + window / 10)
        write(services, "a|b", 0, 1.0)
        for window, odd in enumerate((float("nan"), float("inf"), -float("inf"))):
            write(services, "void", window, odd)
        for shard, minutes in (("shardId-000000000000", 70), ("shardId-000000000001", 35)):
            entry = services.ledger.claim(shard, "me", None, START)
            mark = START + minutes * MINUTE
            change = Commit("1".zfill(56), b"", None, (), {}, mark, closed=False, now_ms=START + 79 * MINUTE)
            services.ledger.commit(entry, change)
        yield services


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    with serve_in_thread(create_app(open_reader(services), ServeSettings(cache_seconds=0), None), 0) as found:
        yield found


def test_what_there_is(url: str) -> None:
    (first, *_) = httpx.get(f"{url}/v1/views").json()["views"]
    assert first["name"] == "device_10m"
    assert first["by"] == ["device"]
    assert first["window"] == {"size_ms": 600_000, "every_ms": 600_000}
    assert {"name": "mean", "function": "mean", "field": "value", "where": None} in first["aggregates"]


def test_windows_of_a_key(url: str) -> None:
    """In order, in a range, in pages; final is what the slowest shard's watermark has passed."""
    answer = httpx.get(f"{url}/v1/views/device_10m/dev-3").json()
    assert [row["window_start"] for row in answer["rows"]] == [iso(START + n * 10 * MINUTE) for n in range(6)]
    assert [row["mean"] for row in answer["rows"]] == pytest.approx([3 + n / 10 for n in range(6)])
    assert [row["final"] for row in answer["rows"]] == [True] * 3 + [False] * 3
    assert datetime.fromisoformat(answer["watermark"]).timestamp() * 1000 == START + 35 * MINUTE
    assert answer["freshness_ms"] == MINUTE
    some: dict[str, Any] = {"from": iso(START + 10 * MINUTE), "to": iso(START + 50 * MINUTE), "limit": 3}
    page = httpx.get(f"{url}/v1/views/device_10m/dev-3", params=some).json()
    rest = httpx.get(f"{url}/v1/views/device_10m/dev-3", params=some | {"next": page["next"]}).json()
    found = [row["window_start"] for part in (page, rest) for row in part["rows"]]
    assert found == [iso(START + n * 10 * MINUTE) for n in range(1, 5)]
    assert rest["next"] is None
    escaped = httpx.get(f"{url}/v1/views/device_10m/a%5C%7Cb").json()
    assert [row["device"] for row in escaped["rows"]] == ["a|b"]
    assert httpx.get(f"{url}/v1/views/device_10m/nobody").json()["rows"] == []


def test_rows_below_a_prefix_in_pages(url: str) -> None:
    found, after = [], ""
    for _ in range(40):
        page = httpx.get(f"{url}/v1/views/device_10m", params={"prefix": "dev-", "limit": 7, "next": after}).json()
        assert len(page["rows"]) <= 7
        found += [(row["device"], row["window_start"]) for row in page["rows"]]
        after = page["next"]
        if after is None:
            break
    assert found == [(f"dev-{device}", iso(START + n * 10 * MINUTE)) for device in range(10) for n in range(6)]


def test_rows_below_a_prefix_of_a_time(url: str) -> None:
    """What the whole fleet had in two windows."""
    some: dict[str, Any] = {"prefix": "dev-", "from": iso(START + 10 * MINUTE), "to": iso(START + 30 * MINUTE)}
    found, after = [], ""
    while after is not None:
        page = httpx.get(f"{url}/v1/views/device_10m", params=some | {"limit": 3, "next": after}).json()
        found += [(row["device"], row["window_start"]) for row in page["rows"]]
        after = page["next"]
    assert found == [(f"dev-{device}", iso(START + n * 10 * MINUTE)) for device in range(10) for n in (1, 2)]
    backwards = httpx.get(f"{url}/v1/views/device_10m", params=some | {"to": some["from"]})
    assert (backwards.status_code, backwards.json()["rows"]) == (200, [])


def test_the_newest_windows_of_a_key_first(url: str) -> None:
    found, after = [], ""
    while after is not None:
        asked: dict[str, Any] = {"order": "desc", "limit": 4, "next": after}
        page = httpx.get(f"{url}/v1/views/device_10m/dev-3", params=asked).json()
        found += [row["window_start"] for row in page["rows"]]
        after = page["next"]
    assert found == [iso(START + n * 10 * MINUTE) for n in reversed(range(6))]


def test_not_changed(url: str, services: Services) -> None:
    """While nothing is written the answer grows older, and stays the same."""
    first = httpx.get(f"{url}/v1/views/device_10m/dev-5")
    assert isinstance(services.clock, ManualClock)
    services.clock.advance(1_500)
    assert httpx.get(first.url).json()["freshness_ms"] == first.json()["freshness_ms"] + 1_500
    assert httpx.get(first.url, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    write(services, "dev-5", 5, 50.0, version=2)
    again = httpx.get(first.url, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.json()["rows"][5]["mean"]) == (200, 50.0)


def test_refusals_are_problem_details(url: str) -> None:
    for path, status in (
        ("/v1/views/none/x", 404),
        ("/v1/views/device_10m/a|b", 404),
        ("/v1/views/device_10m?next=x", 400),
        ("/v1/views/device_10m?limit=0", 422),
        ("/v1/views/device_10m/a?from=yesterday", 422),
    ):
        answer = httpx.get(url + path)
        assert answer.status_code == status, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


def test_changes_come_as_events(url: str, services: Services) -> None:
    """The last windows at first, then each of them that changes, and new ones."""

    async def listen() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        asked = {"key": "dev-7", "limit": 4}
        changes: dict[str, Any] = {"url": f"{url}/v1/views/device_10m/stream", "params": asked}
        async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", **changes) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if not line.startswith("data:"):
                    continue
                found.append(json.loads(line[5:]))
                if len(found) == 4:
                    await asyncio.to_thread(write, services, "dev-7", 3, 70.0, 2)
                if len(found) == 5:
                    await asyncio.to_thread(write, services, "dev-7", 6, 71.0, 2)
                if len(found) == 6:
                    break
        return found

    found = asyncio.run(listen())
    assert [row["window_start"] for row in found[:4]] == [iso(START + n * 10 * MINUTE) for n in range(2, 6)]
    assert (found[4]["window_start"], found[4]["mean"]) == (iso(START + 30 * MINUTE), 70.0)
    assert (found[5]["window_start"], found[5]["mean"]) == (iso(START + 60 * MINUTE), 71.0)


def test_a_key_for_views(services: Services) -> None:
    store = KeyStore(services.client("dynamodb"), SETTINGS.gateway.keys_table, services.clock)
    store.ensure_table()
    _, reader = store.create("reader", frozenset({"views"}))
    _, writer = store.create("writer", frozenset({"telemetry"}))
    authenticator = Authenticator(GatewaySettings(), store, None, services.clock)
    with serve_in_thread(create_app(open_reader(services), ServeSettings(), authenticator), 0) as url:
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer nonsense"}, 401),
            ({"Authorization": f"Bearer {writer}"}, 403),
            ({"Authorization": f"Bearer {reader}"}, 200),
        ):
            for path in ("/v1/views", "/v1/views/device_10m/dev-1", "/v1/jobs"):
                assert httpx.get(url + path, headers=headers).status_code == status
            refused = httpx.post(f"{url}/v1/jobs/none/cancel", headers=headers)
            assert refused.status_code == (401 if status == 401 else 403), "a reader's key does not act"
        assert httpx.get(f"{url}/health").status_code == 200


def test_a_job_is_seen_and_cancelled(services: Services, url: str) -> None:
    jobs = Jobs(services.ledger, services.clock)
    with jobs.run("replay", "lake to stream x", "me", total=100):
        (job,) = httpx.get(f"{url}/v1/jobs").json()["jobs"]
        assert (job["state"], job["subject"], job["total"]) == ("running", "lake to stream x", 100)
        assert httpx.post(f"{url}/v1/jobs/{job['id']}/cancel").status_code == 202
        assert httpx.get(f"{url}/v1/jobs").json()["jobs"][0]["state"] == "cancelling"
    assert httpx.post(f"{url}/v1/jobs/{job['id']}/cancel").status_code == 409, "it has ended"
    assert httpx.post(f"{url}/v1/jobs/nobody/cancel").status_code == 404
    reads = create_app(open_reader(services), ServeSettings(controls=False), None)
    with serve_in_thread(reads, 0) as other:
        assert httpx.post(f"{other}/v1/jobs/{job['id']}/cancel").status_code == 403


@pytest.mark.parametrize("asked", ["open", "with a key", "without one"])
def test_schemathesis_finds_nothing(services: Services, asked: str) -> None:
    """The OpenAPI document holds, whatever is asked and by whom; the endless event streams are left out."""
    store = KeyStore(services.client("dynamodb"), "schemathesis-keys", services.clock)
    store.ensure_table()
    key = store.create("reader", frozenset({"views"}))[1]
    guard = None if asked == "open" else Authenticator(GatewaySettings(), store, None, services.clock)
    app = create_app(open_reader(services), ServeSettings(), guard)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app).exclude(path_regex="/stream$")
    assert app.openapi()["openapi"].startswith("3.1")
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]  # an error has no `ok` and fails the test
    most, statuses = 60 if asked == "open" else 25, set[int]()

    @settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of([operation.as_strategy() for operation in operations]))
    def holds(case: Any) -> None:
        # that `next` has to come from an earlier answer no schema can say
        given = {"Authorization": f"Bearer {key}"} if asked == "with a key" else None
        if asked == "without one":
            case.headers = {name: one for name, one in (case.headers or {}).items() if name.lower() == "if-none-match"}
            statuses.add(case.call().status_code)
        else:
            statuses.add(case.call_and_validate(headers=given, excluded_checks=[positive_data_acceptance]).status_code)

    holds()
    assert statuses == {401} if asked == "without one" else 200 in statuses


def test_no_window_is_final_while_a_shard_waits_to_be_read() -> None:
    """A shard is split and read to its end; until its children have been read too, its own watermark holds."""
    first, second = "shardId-000000000000", "shardId-000000000001"
    with EmbeddedAws() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        provision(SETTINGS, shards=2)
        services = Services(SETTINGS, load(SETTINGS.pipeline), ManualClock(START))
        reader = open_reader(services)

        def committed(shard: str, minutes: int, *, closed: bool = False) -> int | None:
            entry = services.ledger.claim(shard, "me", None, START)
            mark = START + minutes * MINUTE
            later = START + 120 * MINUTE
            change = Commit(str(minutes).zfill(56), b"", None, (), {}, mark, closed=closed, now_ms=later)
            services.ledger.commit(entry, change)
            assert isinstance(services.clock, ManualClock)
            services.clock.advance(1_000)
            found = reader.progress().watermark_ms
            return None if found is None else (found - START) // MINUTE

        assert committed(first, 30) is None, "the other shard has not been read"
        assert committed(second, 40) == 30
        key = str(1 << 126)
        services.kinesis.split_shard(StreamName=SETTINGS.stream, ShardToSplit=first, NewStartingHashKey=key)
        assert committed(first, 35, closed=True) == 35
        assert committed(second, 50) == 35, "no child has been claimed"
        assert committed("shardId-000000000002", 45) == 35
        assert committed("shardId-000000000003", 60) == 45
