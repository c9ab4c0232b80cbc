"""Who may write what, and how much: keys in the table, tokens of an issuer, limits."""

import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import Random
from typing import Any

import boto3
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from headwater.clock import ManualClock
from headwater.commands.local.embedded import EmbeddedAws
from headwater.config import GatewaySettings
from headwater.contract import load_contract
from headwater.errors import BufferFull, UsageError
from headwater.producers.gateway.bodies import BodyLimits, parse_body
from headwater.rates import Bucket
from headwater.web.auth import JwtVerifier
from headwater.web.keys import KeyStore
from tests.cli import headwater
from tests.gateway import TELEMETRY, Served, event, served
from tests.producer_stream import FakeStream

FLIGHTS = load_contract("flights")
ISSUER, AUDIENCE = "https://issuer.test", "headwater"
BODY = json.dumps([event()] * 10)


@pytest.fixture(scope="module")
def environment() -> Iterator[Mapping[str, str]]:
    with EmbeddedAws() as aws:
        yield aws.environment


@pytest.fixture
def store(environment: Mapping[str, str]) -> KeyStore:
    dynamodb = boto3.client(
        "dynamodb",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="a",
    )
    made = KeyStore(dynamodb, f"keys-{Random().getrandbits(64):x}", ManualClock(), Random(1))
    made.ensure_table()
    made.ensure_table()
    return made


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_keys_open_their_contracts_until_they_are_revoked(store: KeyStore) -> None:
    clock = ManualClock()
    key, text = store.create("truck", frozenset({"telemetry"}))
    _, all_of_them = store.create("all", frozenset({"*"}))
    with served(store=store, clock=clock, contracts=(TELEMETRY, FLIGHTS), auth="keys") as found:
        assert found.post(BODY, **bearer(text)).status_code == 200
        assert found.post(BODY, X_Api_Key=all_of_them).status_code == 200
        forbidden = found.post(b"[]", to="flights", **bearer(text))
        assert (forbidden.status_code, forbidden.json()["type"]) == (403, "urn:headwater:problem:forbidden")
        assert found.post(b"[]", to="flights", **bearer(all_of_them)).status_code == 200
        wrong = text[:-1] + ("0" if text[-1] != "0" else "1")
        for headers in ({}, bearer(wrong), bearer("nonsense"), {"Authorization": "Basic YTpi"}, bearer("a.b.c")):
            refused = found.post(BODY, **headers)
            assert (refused.status_code, "www-authenticate" in refused.headers) == (401, True), headers
        store.revoke(key.key_id)
        clock.advance(16_000)
        assert found.post(BODY, **bearer(text)).status_code == 401
        assert "securitySchemes" in found.client.get("/openapi.json").json()["components"]


def test_the_table_has_no_secret(store: KeyStore) -> None:
    """Only a hash; a copy of the table opens nothing."""
    key, text = store.create("n", frozenset({"*"}))
    secret = text.rsplit("_", 1)[1]
    item = store._client.get_item(TableName=store._table, Key={"id": {"S": key.key_id}})["Item"]
    assert secret not in json.dumps(item)
    assert len(secret) == 64
    with served(store=store, auth="keys") as found:
        assert found.post(BODY, **bearer(f"hw_{key.key_id}_{key.secret_hash}")).status_code == 401


def test_rate_and_quota(store: KeyStore) -> None:
    """The bucket goes into debt by one request at most; the quota holds over gateways and ends with the day."""
    clock = ManualClock()
    _, fast = store.create("rate", frozenset({"*"}), events_per_second=5, burst=10)
    _, quota = store.create("quota", frozenset({"*"}), events_per_day=15)
    with served(store=store, clock=clock, auth="keys") as found:
        assert found.post(BODY, **bearer(fast)).status_code == 200
        refused = found.post(BODY, **bearer(fast))
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:headwater:problem:rate-limited")
        clock.advance(1_000 * int(refused.headers["retry-after"]))
        assert found.post(BODY, **bearer(fast)).status_code == 200
        assert [found.post(BODY, **bearer(quota)).status_code for _ in range(2)] == [200, 429], "10 of 15, 5 are left"
        assert found.post(json.dumps([event()] * 5), **bearer(quota)).status_code == 200
    with served(store=store, clock=clock, auth="keys") as another:
        refused = another.post(BODY, **bearer(quota))
        assert (refused.status_code, refused.json()["type"]) == (429, "urn:headwater:problem:quota-exceeded")
        clock.advance(1_000 * int(refused.headers["retry-after"]))
        assert another.post(BODY, **bearer(quota)).status_code == 200


class OneAtATime:
    """A client whose calls happen one after the other: moto reads and writes an item in two steps, DynamoDB in one."""

    def __init__(self, client: Any) -> None:
        self._client, self._lock = client, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        def call(**given: Any) -> Any:
            with self._lock:
                return getattr(self._client, name)(**given)

        return call


def together(gateways: Sequence[Served], count: int, body: str, **headers: str) -> list[int]:
    """Statuses of requests that are all under way before any of them has sent the end of its body."""
    begun, ending = list[int](), threading.Event()

    def halves(number: int) -> Iterator[bytes]:
        yield body[:10].encode()
        begun.append(number)
        ending.wait(60)
        yield body[10:].encode()

    def post(number: int) -> int:
        return gateways[number % len(gateways)].post(halves(number), **headers).status_code

    with ThreadPoolExecutor(count) as pool:
        answers = [pool.submit(post, number) for number in range(count)]
        while len(begun) < count:
            time.sleep(0.01)
        ending.set()
        return [answer.result() for answer in answers]


def test_a_rate_holds_for_requests_at_the_same_time(store: KeyStore) -> None:
    """One request goes into debt, however many came in before it was counted."""
    _, text = store.create("rate", frozenset({"*"}), events_per_second=5, burst=5)
    body = json.dumps([event()] * 1_000)
    with served(store=store, clock=ManualClock(), auth="keys") as found:
        statuses = together([found], 20, body, **bearer(text))
        assert sorted(set(statuses)) == [200, 429]
        assert statuses.count(200) == 1
        assert len(found.values()) == 1_000


def test_a_quota_holds_for_requests_at_the_same_time_on_two_gateways(store: KeyStore) -> None:
    """Never an event more than the quota; what one gateway reserves and does not use the other has later."""
    _, text = store.create("quota", frozenset({"*"}), events_per_day=1_000)
    store = KeyStore(OneAtATime(store._client), store._table, ManualClock())
    clock, small, large = ManualClock(), json.dumps([event()] * 60), json.dumps([event()] * 900)
    with (
        served(store=store, clock=clock, auth="keys") as one,
        served(store=store, clock=clock, auth="keys") as two,
    ):
        statuses = together([one, two], 20, small, **bearer(text))
        taken = 60 * statuses.count(200)
        assert 900 <= taken <= 1_000
        assert len(one.values()) + len(two.values()) == taken
        assert set(statuses) == {200, 429}
    with served(store=store, clock=clock, auth="keys") as later:
        assert later.post(large, **bearer(text)).status_code == 429
        rest = json.dumps([event()] * (1_000 - taken))
        assert later.post(rest, **bearer(text)).status_code == 200, "given back when the others ended"
        refused = later.post(json.dumps([event()]), **bearer(text))
        assert refused.json()["type"] == "urn:headwater:problem:quota-exceeded"


def test_what_is_not_written_is_not_charged(store: KeyStore) -> None:
    """Bodies that cannot be read cost no quota, nor does a request that finds the buffer full."""
    _, text = store.create("quota", frozenset({"*"}), events_per_second=10, burst=10, events_per_day=10)
    stream = FakeStream()
    stream.gate.clear()
    ten = json.dumps([event(unit=f"{n:010000d}") for n in range(10)])
    bounds: dict[str, Any] = {"max_buffer_bytes": 2 << 20, "wait_seconds": 0.05, "answer_seconds": 20}
    clock = ManualClock()
    with served(stream, store=store, clock=clock, auth="keys", **bounds) as found:
        assert [found.post("[{", **bearer(text)).status_code for _ in range(3)] == [400] * 3
        clock.advance(10_000)
        fill(found, ten)
        assert found.post(ten, **bearer(text)).status_code == 503
        stream.gate.set()
        clock.advance(10_000)
        assert found.post(json.dumps([event()] * 10), **bearer(text)).status_code == 200


def fill(found: Served, body: str) -> None:
    """Put events into the buffer until it takes no more; what the sender seals meanwhile makes room, until it waits."""
    rows = parse_body(body.encode(), "json", TELEMETRY, BodyLimits())
    for _ in range(2):
        with suppress(BufferFull):
            while True:
                found.gateway.writers["telemetry"].put(rows, None, None)
        assert found.stream.asked.wait(60)


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 50)), max_size=50))
def test_a_bucket_lets_no_more_through_than_its_rate(steps: list[tuple[int, int]]) -> None:
    """Over any time: burst, rate times time, and one request of debt."""
    bucket, now, taken = Bucket(10, 20, 20, 0), 0, 0
    for pause, events in steps:
        now += pause
        if not bucket.wait_seconds(now):
            bucket.take(events)
            taken += events
            assert taken <= 20 + 10 * now / 1000 + 50


class Issuer:
    """Its keys, and tokens signed with them."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())

    def fetch(self, url: str) -> dict[str, Any]:
        if url.endswith("openid-configuration"):
            return {"jwks_uri": f"{ISSUER}/keys"}
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [public | {"kid": "one", "alg": "ES256", "use": "sig"}]}

    def token(self, now_ms: int, kid: str = "one", **claims: Any) -> str:
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "exp": now_ms // 1000 + 600, "headwater_contracts": ["*"]}
        return jwt.encode(body | claims, self.key, "ES256", {"kid": kid})


def test_tokens() -> None:
    """Signature, issuer, audience, times and contracts are checked; algorithms with shared secrets are not taken."""
    clock, issuer = ManualClock(), Issuer()
    now = clock.now_ms()
    settings = GatewaySettings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    verifier = JwtVerifier(settings, clock, issuer.fetch)
    public = issuer.fetch("keys")["keys"][0]
    with served(verifier=verifier, clock=clock, contracts=(TELEMETRY, FLIGHTS)) as found:

        def status(token: str, to: str = "telemetry") -> int:
            return found.post(b"[]", to=to, **bearer(token)).status_code

        assert status(issuer.token(now)) == 200
        assert status(issuer.token(now, headwater_contracts="flights telemetry"), "flights") == 200
        assert status(issuer.token(now, headwater_contracts=["telemetry"]), "flights") == 403
        assert status(issuer.token(now, aud="other")) == 401
        assert status(issuer.token(now, iss="https://evil.test")) == 401
        assert status(issuer.token(now, exp=now // 1000 - 100)) == 401
        assert status(issuer.token(now, nbf=now // 1000 + 100)) == 401
        assert status(issuer.token(now, kid="two")) == 401
        assert status(Issuer().token(now)) == 401
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "exp": now // 1000 + 600, "headwater_contracts": "*"}
        assert status(jwt.encode(claims, json.dumps(public) + "x" * 32, "HS256", {"kid": "one"})) == 401
        assert status(jwt.encode(claims, "", "none", {"kid": "one"})) == 401
        long = issuer.token(now, exp=now // 1000 + 20)
        assert status(long) == 200
        clock.advance(60_000)
        assert status(long) == 401, "believed no longer than it holds"


CLAIMS = ("exp", "nbf", "iat", "aud", "iss", "sub", "jti", "headwater_contracts", "headwater_id_prefixes")
ODD: tuple[Any, ...] = (
    10**400,
    -(10**400),
    math.inf,
    -math.inf,
    math.nan,
    None,
    True,
    "",
    "x",
    [],
    {},
    [[]],
    2**63,
    -1,
)


@pytest.mark.parametrize("claim", CLAIMS)
def test_no_claim_makes_a_5xx(claim: str) -> None:
    """Numbers that no float holds, infinities, and types that a claim does not have: refused, or of no harm."""
    clock, issuer = ManualClock(), Issuer()
    settings = GatewaySettings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    verifier = JwtVerifier(settings, clock, issuer.fetch)
    with served(verifier=verifier, clock=clock) as found:
        for value in ODD:
            now = clock.now_ms() // 1000
            body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "exp": now + 600, "headwater_contracts": "*"}
            payload = json.dumps(body | {claim: value}).encode()
            token = jwt.PyJWS().encode(payload, issuer.key, "ES256", {"kid": "one"})
            status = found.post(b"[]", **bearer(token)).status_code
            assert status in (200, 401, 403), (claim, value)
            assert status == 401 or claim not in ("exp", "aud", "iss"), value


def test_a_token_without_audience_is_a_wrong_setting() -> None:
    with pytest.raises(UsageError, match="AUDIENCE"):
        JwtVerifier(GatewaySettings(jwt_issuer=ISSUER), ManualClock())


def test_the_commands(environment: Mapping[str, str]) -> None:
    created = headwater(
        "keys", "create", "truck", "--contracts", "telemetry,flights", "--json", environment=environment
    )
    assert created.code == 0, created
    key = json.loads(created.out)
    listed = headwater("keys", "list", "--json", environment=environment)
    assert [json.loads(line)["id"] for line in listed.out.splitlines()] == [key["id"]]
    assert key["key"].split("_")[2] not in listed.out
    assert headwater("keys", "revoke", key["id"], environment=environment).code == 0
    assert json.loads(headwater("keys", "list", "--json", environment=environment).out)["revoked"]
    headwater("keys", "revoke", "nosuchkey", environment=environment).failed(2, "nosuchkey")
    open_to_all = {"HEADWATER_GATEWAY_AUTH": "none", "HEADWATER_GATEWAY_HOST": "0.0.0.0"}
    headwater("gateway", environment=dict(environment) | open_to_all).failed(2, "loopback")


def test_nothing_answers_for_the_key_table() -> None:
    """The gateway says 503, never 401 and never a traceback, when it cannot look."""
    dynamodb = boto3.client(
        "dynamodb",
        endpoint_url="http://127.0.0.1:9",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="a",
    )
    key = f"hw_{os.urandom(6).hex()}_{os.urandom(32).hex()}"
    with served(store=KeyStore(dynamodb, "none"), auth="keys") as found:
        found.client.timeout = httpx.Timeout(60)
        answer = found.post(BODY, **bearer(key))
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
