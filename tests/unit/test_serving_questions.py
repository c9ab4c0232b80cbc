"""What one may ask the query API: any time, key, prefix and cursor, and none of them is a fault of the service."""

import base64
import json
import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from headwater.aggregates import count
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from tests.unit.serving_world import World

VIEW = (
    Pipeline("p", "telemetry")
    .view("v", by=["device"], window=tumbling("1m"), n=count())
    .view("fleet", by=[], window=tumbling("1m"), n=count())
)
FIRST, SECOND = "2025-11-03T09:00:00.000Z", "2025-11-03T09:01:00.000Z"


def cursor(value: object) -> str:
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=isinstance(value, list) and "\ud800" in value)
    )
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.fixture(scope="module")
def api() -> TestClient:
    world = World(VIEW)
    for minute in (0, 1):
        world.write("v", ("a",), minute, device=["a"])
        world.write("fleet", (), minute, device=["a"])
    return world.asking()


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """A server in Tokyo."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("place", ["/v1/views/v/a", "/v1/views/v"])
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"from": "2025-11-03T09:00:00", "to": "2025-11-03T09:00:01"}, [FIRST]),
        ({"from": "2025-11-03T18:00:00+09:00", "to": "2025-11-03T09:00:01Z"}, [FIRST]),
        ({"from": "2025-11-03T09:00:00.000001Z"}, [SECOND]),
        ({"to": "2025-11-03T09:00:00.000001Z"}, [FIRST]),
        ({"to": "2025-11-03T09:00:00Z"}, []),
        ({"from": "9999-12-31T23:59:59-14:00"}, []),
        ({"to": "9999-12-31T23:59:59-14:00"}, [FIRST, SECOND]),
        ({"from": "0001-01-01T00:00:00+14:00"}, [FIRST, SECOND]),
        ({"to": "0001-01-01T00:00:00+14:00"}, []),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_times(api: TestClient, place: str, asked: dict[str, str], found: list[str]) -> None:
    """The first that is asked for is in, the last is not, to the microsecond; without a zone it is UTC's."""
    answer = api.get(place, params=asked)
    assert [row["window_start"] for row in answer.json()["rows"]] == found


@pytest.mark.parametrize("number", [1 << 53, 1 << 80])
def test_cursors_beyond_all_time(api: TestClient, number: int) -> None:
    """Nothing comes after the one, and nothing before the other."""
    for value, order in ((number, "asc"), (-number, "desc")):
        answer = api.get("/v1/views/v/a", params={"next": cursor(value), "order": order})
        assert (answer.status_code, answer.json()["rows"]) == (200, [])


@pytest.mark.parametrize(
    "value",
    ["[" * 3000, ["v", "k" * 1024, ""], ["v", "é" * 512, ""], ["v", "a", "x" * 65], ["v", "\ud800", ""], ["v", 1, ""]],
    ids=["nested", "long", "many bytes", "no window", "no text", "a number"],
)
def test_cursors_that_no_answer_gave(api: TestClient, value: object) -> None:
    assert api.get("/v1/views/v", params={"next": cursor(value)}).status_code == 400
    assert api.get("/v1/views/v/a", params={"next": cursor(value)}).status_code == 400


@pytest.mark.parametrize("letter", ["é", "\x01"])
def test_the_longest_keys_in_pages(letter: str) -> None:
    world = World(VIEW)
    key = letter * (1_023 // len(letter.encode()))
    for minute in (0, 1):
        world.write("v", (key,), minute, device=[key])
    api = world.asking()
    page = api.get("/v1/views/v", params={"limit": 1}).json()
    rest = api.get("/v1/views/v", params={"limit": 1, "next": page["next"]})
    assert [row["window_start"] for row in rest.json()["rows"]] == [SECOND]


def test_keys_and_prefixes_longer_than_keys_are(api: TestClient) -> None:
    for key, status in (("é" * 511, 200), ("é" * 512, 404), ("k" * 3000, 404), ("\\|" * 600, 404)):
        assert api.get(f"/v1/views/v/{key}").status_code == status
    for prefix, status in (("é" * 511, 200), ("é" * 512, 400), ("k" * 1024, 422)):
        assert api.get("/v1/views/v", params={"prefix": prefix}).status_code == status


def test_a_view_over_all_keys_has_none(api: TestClient) -> None:
    assert len(api.get("/v1/views/fleet/").json()["rows"]) == 2
    assert api.get("/v1/views/fleet/garbage").status_code == 404
    assert api.get("/v1/views/fleet/stream", params={"key": "garbage"}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "taken"),
    [
        ("POST", "/v1/views/v/a", "GET"),
        ("DELETE", "/v1/views", "GET"),
        ("GET", "/v1/jobs/x/cancel", "POST"),
        ("HEAD", "/v1/views/v/stream", "GET"),
        ("PROPFIND", "/v1/views/v/a", "GET"),
    ],
)
def test_methods_that_are_not_taken(api: TestClient, method: str, path: str, taken: str) -> None:
    answer = api.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, taken)


def test_head_is_get_without_a_body(api: TestClient) -> None:
    for path in ("/v1/views", "/v1/views/v", "/v1/views/v/a", "/v1/jobs", "/v1/views/none", "/health"):
        got, head = api.get(path), api.head(path)
        assert head.status_code == got.status_code
        assert head.headers == got.headers
        assert head.text == ""


def test_what_the_client_has_already(api: TestClient) -> None:
    tag = api.get("/v1/views/v/a").headers["etag"]
    for said, status in (("*", 304), (tag, 304), (f'"x", {tag}', 304), (tag.removeprefix("W/"), 304), ('"x"', 200)):
        assert api.get("/v1/views/v/a", headers={"If-None-Match": said}).status_code == status
