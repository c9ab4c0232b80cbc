"""What the query API says when it cannot answer: problem details, and whether to ask again."""

import logging
from threading import Event
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from starlette.testclient import TestClient

from headwater.aggregates import count
from headwater.config import GatewaySettings
from headwater.errors import Throttled
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.definition.windows import tumbling
from headwater.serving.api import waiting
from headwater.serving.api.reading import ViewReader
from headwater.web.auth import Authenticator
from headwater.web.keys import KeyStore
from tests.unit.serving_world import Failing, World

VIEW = Pipeline("p", "telemetry").view("v", by=["device"], window=tumbling("1m"), n=count())


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "arn:aws:iam::1:role/x"}}, "Query")


def check_problem(answer: Any, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["detail"]
    assert "arn:" not in answer.text


@pytest.mark.parametrize(
    "error",
    [
        refusal("AccessDeniedException"),
        refusal("LimitExceededException"),
        refusal("ResourceNotFoundException"),
        EndpointConnectionError(endpoint_url="http://x"),
        TimeoutError(),
    ],
    ids=["denied", "limited", "no table", "no endpoint", "no time"],
)
@pytest.mark.parametrize("table", ["headwater-views", "headwater-ledger"])
def test_what_aws_refuses_is_to_be_asked_again(table: str, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    world = World(VIEW)
    world.write("v", ("a",), 0, device=["a"])
    api = world.asking()
    world.tables.error, world.tables.table = error, table
    with caplog.at_level(logging.WARNING):
        for path in ("/v1/views/v/a", "/v1/views/v", "/v1/views/v/stream?key=a"):
            answer = api.get(path)
            check_problem(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1
    world.tables.error = None
    assert api.get("/v1/views/v/a").status_code == 200


def test_a_table_of_keys_that_is_throttled() -> None:
    world = World(VIEW)
    world.tables.create_table(TableName="keys", KeySchema=[{"AttributeName": "id"}])
    store = KeyStore(world.tables, "keys", world.clock)
    _, key = store.create("reader", frozenset({"views"}))
    api = world.asking(Authenticator(GatewaySettings(), store, None, world.clock))
    world.tables.error, world.tables.table = refusal("ProvisionedThroughputExceededException"), "keys"
    check_problem(api.get("/v1/views/v/a", headers={"Authorization": f"Bearer {key}"}), 503)


@pytest.mark.parametrize(("error", "status"), [(Throttled("less"), 503), (KeyError("a fault"), 500)])
def test_what_is_raised_is_told(error: Exception, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(ViewReader, "key", raising)
    api = TestClient(World(VIEW).app(None), raise_server_exceptions=False)
    check_problem(api.get("/v1/views/v/a"), status)


def test_tables_that_never_answer_are_said_to_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a request and says nothing; when it is back, all is well."""
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 0.05)
    world, back = World(VIEW), Event()
    world.write("v", ("a",), 0, device=["a"])
    with world.asking() as api:
        monkeypatch.setattr(Failing, "_asked", _hanging(back, Failing._asked))
        for path in ("/v1/views", "/v1/views/v/a", "/v1/views/v", "/v1/jobs", "/v1/views/v/stream?key=a"):
            answer = api.get(path)
            check_problem(answer, 503)
            assert "in time" in answer.json()["detail"]
        check_problem(api.post("/v1/jobs/x/cancel"), 503)
        back.set()
        monkeypatch.setattr(waiting, "ANSWER_SECONDS", 20)
        assert api.get("/v1/views/v/a").status_code == 200


def _hanging(back: Event, ask: Any) -> Any:
    def asked(self: Failing, call: Any, **given: Any) -> Any:
        assert back.wait(20)
        return ask(self, call, **given)

    return asked
