"""Callers who share a contract: none can take an identity that is another's, whatever it sends."""

import json
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from headwater.clock import ManualClock
from headwater.codec import encode_batch
from headwater.config import GatewaySettings
from headwater.contract import parse_contract
from headwater.errors import UsageError
from headwater.testing.dynamodb import MemoryDynamoDB
from headwater.web.auth import JwtVerifier
from headwater.web.keys import KeyStore
from tests.gateway import TELEMETRY, Served, event, served
from tests.unit.test_gateway_auth import AUDIENCE, ISSUER, Issuer, bearer

METERS = parse_contract(
    "name: meters\nversion: 1\nkey: device\ntime: ts\nid: {origin: device, seq: n}\nfields:\n"
    "  - {name: device, type: string}\n  - {name: n, type: long}\n  - {name: ts, type: timestamp}\n"
    "  - {name: value, type: double}\n",
    "test",
)
ORDERS = parse_contract(
    "name: orders\nversion: 1\nkey: id\ntime: ts\nid: id\nfields:\n  - {name: id, type: string}\n"
    "  - {name: ts, type: timestamp}\n  - {name: value, type: double}\n",
    "test",
)
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def store() -> KeyStore:
    tables = MemoryDynamoDB()
    tables.create_table(TableName="keys", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}])
    return KeyStore(tables, "keys", ManualClock(), Random(1))


def readings(device: str, value: float, count: int = 3) -> list[dict[str, Any]]:
    return [{"device": device, "n": n, "ts": "2026-03-01T12:00:00Z", "value": value} for n in range(count)]


def kept(found: Served) -> list[Any]:
    """The values whose identity a reader of the stream sees for the first time."""
    seen: set[tuple[str, int]] = set()
    values = []
    for one in found.stream.decoded(METERS):
        for row in one.table.to_pylist():
            if (row["device"], row["n"]) not in seen:
                seen.add((row["device"], row["n"]))
                values.append(row["value"])
    return values


def test_nobody_makes_the_events_of_another_copies(store: KeyStore) -> None:
    """The one who comes first with ids of another's is refused, in every format; the other's events are there."""
    _, mallory = store.create("mallory", frozenset({"meters"}), id_prefixes=frozenset({"mallory-"}))
    _, victim = store.create("victim", frozenset({"meters"}), id_prefixes=frozenset({"meter-7"}))
    with served(store=store, contracts=(METERS,), auth="keys") as found:
        forged = readings("meter-7", -1.0)
        table = pa.Table.from_pylist(forged).set_column(2, "ts", pa.array([1] * 3, pa.timestamp("ms", "UTC")))
        sealed = encode_batch(table, METERS)
        bodies = [
            (json.dumps(forged), "application/json", {}),
            (json.dumps(forged[0]), "application/json", {}),
            ("\n".join(map(json.dumps, forged)), "application/x-ndjson", {}),
            ("device,n,ts,value\nmeter-7,0,2026-03-01T12:00:00Z,-1\n", "text/csv", {}),
            (sealed, ARROW, {"content_encoding": "zstd"}),
            (json.dumps(forged), "application/json", {"Idempotency_Key": "k"}),
        ]
        for body, kind, headers in bodies:
            answer = found.post(body, kind, "meters", **headers, **bearer(mallory))
            assert (answer.status_code, answer.json()["type"]) == (422, "urn:headwater:problem:invalid-events")
            assert answer.json()["errors"][0]["field"] == "device"
        mixed = [*readings("mallory-1", 1.0, 1), *forged[:1], *readings("mallory-2", 2.0, 1)]
        some = found.post(json.dumps(mixed), to="meters", **bearer(mallory))
        assert (some.status_code, some.json()["accepted_rows"]) == (207, [[0, 1], [2, 3]])
        assert found.post(json.dumps(readings("meter-7", 42.0)), to="meters", **bearer(victim)).status_code == 200
        assert kept(found) == [1.0, 2.0, 42.0, 42.0, 42.0]


def test_a_key_without_a_prefix_writes_no_ids_of_its_own(store: KeyStore) -> None:
    """Nothing says which ids are its own, so none is; one for any id is trusted with all."""
    key, text = store.create("old", frozenset({"*"}))
    _, trusted = store.create("importer", frozenset({"orders"}), id_prefixes=frozenset({"*"}))
    body = json.dumps([{"id": "a-1", "ts": "2026-01-01", "value": 1.0}])
    clock = ManualClock()
    with served(store=store, contracts=(ORDERS, TELEMETRY), auth="keys", clock=clock) as found:
        refused = found.post(body, to="orders", **bearer(text))
        assert (refused.status_code, "headwater keys bind" in refused.json()["detail"]) == (403, True)
        assert found.post(json.dumps([event()]), **bearer(text)).status_code == 200, (
            "others are numbered by the gateway"
        )
        assert found.post(body, to="orders", **bearer(trusted)).status_code == 200
        store.bind(key.key_id, frozenset({"a-"}))
        clock.advance(16_000)
        assert found.post(body, to="orders", **bearer(text)).status_code == 200


def test_prefixes_of_two_holders_do_not_overlap(store: KeyStore) -> None:
    """A longer one lies below a shorter one. The same holder may have them twice, as when a key is replaced."""
    old, _ = store.create("seven", frozenset({"meters", "orders"}), id_prefixes=frozenset({"meter-7"}))
    for prefix in ("meter-7", "meter-", "meter-70"):
        for contracts in ({"meters"}, {"*"}):
            with pytest.raises(UsageError, match=f"overlaps 'meter-7' of key {old.key_id}"):
                store.create("other", frozenset(contracts), id_prefixes=frozenset({prefix}))
    eight, _ = store.create("eight", frozenset({"meters"}), id_prefixes=frozenset({"meter-8"}))
    with pytest.raises(UsageError, match="overlaps"):
        store.bind(eight.key_id, frozenset({"meter-71"}))
    store.create("other", frozenset({"telemetry"}), id_prefixes=frozenset({"meter-7"}))
    store.create("seven", frozenset({"meters"}), id_prefixes=frozenset({"meter-7"}))
    store.revoke(old.key_id)
    for bad in ("", "a b", "\u00e9", "x" * 129):
        with pytest.raises(UsageError, match="id prefix"):
            store.create("bad", frozenset({"meters"}), id_prefixes=frozenset({bad}))
    with pytest.raises(UsageError, match="no such key"):
        store.bind("nobody", frozenset({"a"}))


def test_tokens_carry_their_prefixes() -> None:
    """In a claim; without it, or with an empty one, none."""
    clock, issuer = ManualClock(), Issuer()
    settings = GatewaySettings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    verifier = JwtVerifier(settings, clock, issuer.fetch)
    with served(verifier=verifier, clock=clock, contracts=(METERS,)) as found:

        def status(**claims: Any) -> int:
            token = issuer.token(clock.now_ms(), **claims)
            return found.post(json.dumps(readings("meter-7", 1.0)), to="meters", **bearer(token)).status_code

        assert status(headwater_id_prefixes=["meter-7"]) == 200
        assert status(headwater_id_prefixes="other- meter-") == 200
        assert status(headwater_id_prefixes=["other-"]) == 422
        assert [status(), status(headwater_id_prefixes=[""]), status(headwater_id_prefixes={})] == [403] * 3


def test_identities_that_callers_choose_never_meet(store: KeyStore) -> None:
    """Every way to name events, by two callers with the same words: no identity is made twice."""
    texts = [store.create(name, frozenset({"telemetry"}))[1] for name in ("one", "two")]
    body, table = json.dumps([event()]), pa.Table.from_pylist([event()])
    table = table.set_column(2, "ts", pa.array([1], pa.timestamp("ms", "UTC")))
    with served(store=store, auth="keys") as found:
        for text in texts:
            for headers in ({"Idempotency_Key": "k"}, {"Headwater_Origin": "o", "Headwater_Seq": "0"}):
                assert found.post(body, **headers, **bearer(text)).status_code == 200
            sealed = encode_batch(table, TELEMETRY, origin="p", first_seq=0)
            assert found.post(sealed, ARROW, content_encoding="zstd", **bearer(text)).status_code == 200
        identities = found.stream.identities(TELEMETRY)
        assert len(identities) == len(set(identities)) == 6
        # and a caller's own namespaces do not meet either
        made = next(origin for origin, _ in identities if ":key:" in origin).split(":", 1)[1]
        refused = found.post(body, Headwater_Origin=made, Headwater_Seq="0", **bearer(texts[0]))
        assert (refused.status_code, refused.json()["type"]) == (400, "urn:headwater:problem:invalid-header")
