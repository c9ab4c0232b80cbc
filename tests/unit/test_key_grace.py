"""Callers that are known go on while DynamoDB does not answer, for a stated time, and nobody else does."""

from random import Random

import pytest
from botocore.exceptions import ClientError

from headwater.clock import ManualClock
from headwater.config import GatewaySettings
from headwater.testing.dynamodb import MemoryDynamoDB, Staleness
from headwater.web.auth import Authenticator
from headwater.web.keys import KeyStore
from headwater.web.problems import Problem
from tests.unit.test_lease import Faulty

ALWAYS = frozenset(range(1, 10_000))


class World:
    """Keys in a table that may stop to answer, and an authenticator that asks it."""

    def __init__(self) -> None:
        self.clock, self.dynamodb = ManualClock(), Faulty(MemoryDynamoDB(Staleness(stale=0.0)))
        self.store = KeyStore(self.dynamodb, "keys", self.clock, Random(1))
        self.dynamodb.real.create_table(TableName="keys", KeySchema=[{"AttributeName": "id"}])
        settings = GatewaySettings(key_seconds=15, key_grace_seconds=600)
        self.authenticator = Authenticator(settings, self.store, None, self.clock)

    def asks(self, text: str) -> str:
        """Return the caller's id, as a request finds it out."""
        found = self.authenticator.cached(text)
        return (found or self.authenticator.authenticate(text)).id


@pytest.fixture
def world() -> World:
    return World()


def test_a_known_key_goes_on_for_the_stated_time(world: World) -> None:
    """Ten minutes of an outage, then it has to be looked up again."""
    key, text = world.store.create("truck", frozenset({"telemetry"}))
    assert world.asks(text) == key.key_id
    world.dynamodb.at = ALWAYS
    for _ in range(59):
        world.clock.sleep(10)
        assert world.asks(text) == key.key_id
    world.clock.sleep(10)
    with pytest.raises(ClientError):
        world.asks(text)
    world.dynamodb.at = frozenset()
    assert world.asks(text) == key.key_id


def test_the_table_is_not_asked_for_each_request(world: World) -> None:
    """Each question waits for an answer that does not come."""
    _, text = world.store.create("truck", frozenset({"telemetry"}))
    world.asks(text)
    world.dynamodb.at = ALWAYS
    world.clock.sleep(20)
    before = world.dynamodb.calls
    for _ in range(100):
        world.asks(text)
    assert world.dynamodb.calls == before + 1


def test_one_request_waits_for_the_table_and_the_others_go_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table takes ten seconds not to answer: those that come meanwhile and just behind it wait for nothing."""
    key, text = world.store.create("truck", frozenset({"telemetry"}))
    world.asks(text)
    world.clock.sleep(20)
    asked, meanwhile = 0, 0

    def slow(_key_id: str) -> None:
        nonlocal asked, meanwhile
        asked += 1
        for _ in range(9):
            world.clock.sleep(1)
            meanwhile += world.asks(text) == key.key_id
        raise OSError("the table does not answer")

    monkeypatch.setattr(world.store, "get", slow)
    for _ in range(100):
        assert world.asks(text) == key.key_id
    assert (asked, meanwhile) == (1, 9)


def test_unknown_revoked_and_wrong_keys_gain_nothing(world: World) -> None:
    """What was never good, and what was found to be revoked, stays out."""
    gone, text = world.store.create("gone", frozenset({"telemetry"}))
    _, unseen = world.store.create("unseen", frozenset({"telemetry"}))
    world.asks(text)
    world.store.revoke(gone.key_id)
    world.clock.sleep(20)
    with pytest.raises(Problem, match="revoked"):
        world.asks(text)
    world.dynamodb.at = ALWAYS
    world.clock.sleep(20)
    for refused in (text, unseen):
        with pytest.raises((Problem, ClientError)):
            world.asks(refused)
    world.dynamodb.at = frozenset()
    _, known = world.store.create("known", frozenset({"telemetry"}))
    world.asks(known)
    world.dynamodb.at = ALWAYS
    world.clock.sleep(20)
    with pytest.raises(Problem, match="unknown"):
        world.asks(known[:-1] + ("0" if known[-1] != "0" else "1"))
