"""The gateway: what is acknowledged is on the stream, and every refusal says what and where."""

import csv
import gzip
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.codec import encode_batch
from headwater.contract import parse_contract
from tests.gateway import TELEMETRY, Served, event, served
from tests.producer_stream import FakeStream
from tests.typed import ipc

OWN = parse_contract(
    "name: own\nversion: 1\nkey: id\ntime: ts\nid: id\nfields:\n  - {name: id, type: string}\n"
    "  - {name: ts, type: timestamp}\n",
    "test",
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with served(max_body_bytes=1 << 20, max_decoded_bytes=2 << 20, max_rows=1_000, contracts=(TELEMETRY, OWN)) as found:
        yield found


@pytest.fixture
def gateway(shared: Served) -> Served:
    shared.stream.records.clear()
    return shared


def as_csv(events: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(events[0]))
    writer.writeheader()
    writer.writerows(events)
    return text.getvalue().encode()


def as_arrow(events: list[dict[str, Any]]) -> bytes:
    return ipc(pa.Table.from_pylist(events))


FORMATS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], bytes]]] = {
    "json": ("application/json", lambda events: json.dumps(events).encode()),
    "ndjson": ("application/x-ndjson", lambda events: "\n".join(map(json.dumps, events)).encode()),
    "csv": ("text/csv; charset=utf-8", as_csv),
    "arrow": ("application/vnd.apache.arrow.stream", as_arrow),
}
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_under_every_encoding(gateway: Served, format_: str, encoding: str) -> None:
    kind, write = FORMATS[format_]
    body = ENCODINGS[encoding](write([event(float(n)) for n in range(7)]))
    answer = gateway.post(body, kind, content_encoding=encoding)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"accepted": 7, "rejected": 0, "in": "stream"}
    assert gateway.values() == [float(n) for n in range(7)]


@pytest.mark.parametrize("format_", ["json", "ndjson", "arrow"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad=st.lists(st.booleans(), min_size=1, max_size=30), named=st.booleans())
def test_what_the_answer_says_of_each_row_is_so(shared: Served, format_: str, bad: list[bool], named: bool) -> None:
    """Accepted rows are on the stream, under their places as numbers when they have an identity; no others are."""
    shared.stream.records.clear()
    events = [event(float(n), unit="x") | ({"ts": "soon"} if one else {}) for n, one in enumerate(bad)]
    kind, write = FORMATS[format_]
    key = {"Idempotency_Key": json.dumps([format_, bad]).replace(" ", "")} if named else {}
    answer = shared.post(write(events), kind, **key)
    good = [n for n, one in enumerate(bad) if not one]
    found = answer.json()
    assert answer.status_code == (422 if not good else 207 if any(bad) else 200), found
    assert (found["accepted"], found.get("rejected", 0)) == (len(good), len(bad) - len(good))
    assert shared.values() == good
    if any(bad):
        assert [one["row"] for one in found["errors"]] == [n for n, one in enumerate(bad) if one]
        assert {one["field"] for one in found["errors"]} == {"ts"}
    if good and any(bad):
        assert [row for start, stop in found["accepted_rows"] for row in range(start, stop)] == good
    if named and good:
        assert shared.stream.identities(TELEMETRY) == [(found["origin"], n) for n in good]


def test_a_single_object_and_an_empty_array(gateway: Served) -> None:
    assert gateway.post(json.dumps(event(4.0), indent=2)).json()["accepted"] == 1
    assert gateway.post(b"[]").json() == {"accepted": 0, "rejected": 0, "in": "stream"}
    assert gateway.values() == [4.0]


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({"content": b"{"}, 400, "malformed-body", "line 1"),
    ({"content": b"[1"}, 400, "malformed-body", "not JSON"),
    ({"content": b"[" * 100_000}, 400, "malformed-body", "nested"),
    ({"content": b"\xff\xfe"}, 400, "malformed-body", "JSON"),
    ({"content": b"x", "kind": "text/html"}, 415, "unsupported-media-type", "text/html"),
    ({"content": b"x", "content_encoding": "br"}, 415, "unsupported-media-type", "br"),
    ({"content": b"x", "content_encoding": "gzip"}, 400, "malformed-body", "gzip"),
    ({"content": b"{}", "to": "other"}, 404, "not-found", "openapi"),
    ({"content": b"x" * (1 << 20) + b"x"}, 413, "too-large", "1048576"),
    ({"content": iter([b"x" * (1 << 19)] * 3)}, 413, "too-large", "1048576"),
    ({"content": gzip.compress(b" " * (3 << 20)), "content_encoding": "gzip"}, 413, "too-large", "2097152"),
    ({"content": b"\n".join([b"{}"] * 1_001), "kind": "application/x-ndjson"}, 413, "too-large", "1000 rows"),
    ({"content": json.dumps([event()] * 1_001)}, 413, "too-large", "1000 rows"),
    ({"content": json.dumps(event(colour=1))}, 422, "invalid-events", "colour"),
    ({"content": b"device\nx\n", "kind": "text/csv"}, 422, "invalid-events", "metric"),
    ({"content": b"ARROW1", "kind": "application/vnd.apache.arrow.stream"}, 400, "malformed-body", "stream format"),
    ({"content": b"{}", "Idempotency_Key": "a" * 256}, 400, "invalid-header", "255"),
    ({"content": b"{}", "Headwater_Origin": "o"}, 400, "invalid-header", "together"),
    ({"content": b"{}", "Headwater_Origin": "o", "Headwater_Seq": "-1"}, 400, "invalid-header", "whole number"),
    ({"content": b"{}", "Headwater_Origin": "o", "Headwater_Seq": "1", "Idempotency_Key": "k"}, 400, "invalid-header",
     "either"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "status", "kind", "words"), REFUSED)
def test_refusals_are_problem_details(
    gateway: Served, request_: dict[str, Any], status: int, kind: str, words: str
) -> None:
    answer = gateway.post(**request_)
    found = answer.json()
    assert (answer.status_code, found["status"]) == (status, status), found
    assert answer.headers["content-type"] == "application/problem+json"
    assert found["type"] == f"urn:headwater:problem:{kind}"
    assert words in found["detail"]
    assert gateway.stream.records == []


@pytest.mark.parametrize("length", [2**63, 2**64 - 1])
def test_any_length_that_is_too_large_is_refused_at_once(gateway: Served, length: int) -> None:
    """And not when the time for a body is over."""
    url = gateway.client.base_url
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        head = "POST /v1/events/telemetry HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        connection.sendall(f"{head}content-length: {length}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_other_methods_and_paths(gateway: Served) -> None:
    answer = gateway.client.get("/v1/events/telemetry")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["type"].endswith("method-not-allowed")
    assert gateway.client.get("/nowhere").json()["type"].endswith("not-found")


def test_a_retry_has_the_same_identity_and_another_body_is_refused(gateway: Served) -> None:
    """Also when the retry is encoded differently; origins of keys differ."""
    body = json.dumps([event(1.0), event(2.0)]).encode()
    first = gateway.post(body, Idempotency_Key="k1").json()
    again = gateway.post(gzip.compress(body), Idempotency_Key="k1", content_encoding="gzip").json()
    other = gateway.post(body, Idempotency_Key="k2").json()
    assert first == again
    assert first["origin"] != other["origin"]
    identities = gateway.stream.identities(TELEMETRY)
    assert len(identities) == 6
    assert set(identities) == {(one["origin"], seq) for one in (first, other) for seq in (0, 1)}
    keys = {record["ExplicitHashKey"] for record in gateway.stream.records[:2]}
    assert len(keys) == 1, "copies go to one chain of shards"
    refused = gateway.post(b"[]", Idempotency_Key="k1")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:headwater:problem:key-reused")


def test_origin_and_seq_by_the_client(gateway: Served) -> None:
    """In headers, or in a batch sealed by the client; never meeting those of another caller."""
    named = {"Headwater_Origin": "truck-7", "Headwater_Seq": "41"}
    found = gateway.post(json.dumps([event(), event(ts="bad"), event()]), **named).json()
    assert (found["origin"], found["first_seq"]) == ("anonymous:truck-7", 41)
    assert gateway.stream.identities(TELEMETRY) == [("anonymous:truck-7", 41), ("anonymous:truck-7", 43)]
    gateway.stream.records.clear()
    table = pa.Table.from_pylist([event()] * 2).set_column(2, "ts", pa.array([1, 2], pa.timestamp("ms", "UTC")))
    sealed = encode_batch(table, TELEMETRY, origin="truck-8", first_seq=5)
    kind = "application/vnd.apache.arrow.stream"
    assert gateway.post(sealed, kind, content_encoding="zstd").status_code == 200
    assert gateway.stream.identities(TELEMETRY) == [("anonymous:truck-8", 5), ("anonymous:truck-8", 6)]


def test_events_with_ids_of_their_own(gateway: Served) -> None:
    """A key is needless, an origin is an error."""
    body = json.dumps({"id": "e1", "ts": 1762160400000})
    assert gateway.post(body, to="own", Idempotency_Key="k").json() == {"accepted": 1, "rejected": 0, "in": "stream"}
    refused = gateway.post(body, to="own", Headwater_Origin="o", Headwater_Seq="0")
    assert (refused.status_code, refused.json()["type"]) == (400, "urn:headwater:problem:invalid-header")


def test_a_sampled_trace_goes_with_the_batch(gateway: Served) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    gateway.post(json.dumps(event()), traceparent=trace)
    gateway.post(json.dumps(event()), traceparent=trace, Idempotency_Key="traced")
    gateway.post(json.dumps(event()), traceparent=trace[:-1] + "0")
    gateway.post(json.dumps(event()), traceparent="nonsense")
    assert [one.traceparent for one in gateway.stream.decoded(TELEMETRY)] == [trace, trace, None, None]


def test_health_metrics_and_page(gateway: Served) -> None:
    gateway.post(json.dumps([event(), event(ts="bad")]))
    assert gateway.client.get("/health/live").json() == {"live": True}
    assert gateway.client.get("/health/ready").json() == {"ready": True}
    text = gateway.client.get("/metrics").text
    for name in (
        'headwater_gateway_events_total{contract="telemetry",outcome="acknowledged"}',
        'headwater_gateway_events_total{contract="telemetry",outcome="rejected"}',
        'headwater_gateway_producer_total{contract="telemetry",what="delivered"}',
        'headwater_gateway_buffered_bytes{contract="telemetry"} 0.0',
        'headwater_gateway_request_seconds_count{route="events"}',
    ):
        assert name in text
    page = gateway.client.get("/").text
    assert "device" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_the_buffer_is_bounded_and_the_answer_is_503() -> None:
    """Kinesis stands still: requests wait, then are turned away with Retry-After; what was taken arrives in the end."""
    stream = FakeStream()
    stream.gate.clear()
    size = 2 << 20
    body = as_arrow([event(float(n), firmware=f"{n:0200d}") for n in range(2_000)])
    bounds: dict[str, Any] = {
        "max_buffer_bytes": size,
        "max_inflight_bytes": 8 << 20,
        "wait_seconds": 0.1,
        "answer_seconds": 20,
    }
    with served(stream, **bounds) as found:
        answers: list[httpx.Response] = []

        def send(number: int) -> None:
            answers.append(found.post(body, FORMATS["arrow"][0], Idempotency_Key=str(number)))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(60)]
        for thread in threads:
            thread.start()
        while len(answers) < 20:
            time.sleep(0.01)
            assert found.gateway.writers["telemetry"].stats.buffered_bytes <= size
        stream.gate.set()
        for thread in threads:
            thread.join()
        refused = [one for one in answers if one.status_code == 503]
        taken = [one for one in answers if one.status_code == 200]
        assert len(refused) + len(taken) == 60
        assert refused
        assert taken
        assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
        assert {one.json()["type"] for one in refused} == {"urn:headwater:problem:overloaded"}
    assert sorted(found.stream.identities(TELEMETRY)) == sorted(
        (one.json()["origin"], seq) for one in taken for seq in range(2_000)
    )


def test_what_kinesis_has_not_confirmed_is_not_acknowledged() -> None:
    stream = FakeStream()
    stream.gate.clear()
    with served(stream, answer_seconds=0.1) as found:
        answer = found.post(json.dumps([event()] * 3))
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:headwater:problem:unconfirmed"
        assert answer.json()["confirmed"] == 0
        assert "retry-after" in answer.headers
        stream.gate.set()


def test_shutdown_drains(tmp_path: Path) -> None:
    """Events answered from the outbox are on the stream when the gateway has ended, or come with the next one."""
    with served(outbox=str(tmp_path), linger_ms=60_000) as found:
        answer = found.post(json.dumps([event(1.0), event(2.0)]))
        named = found.post(json.dumps([event(3.0)]), Idempotency_Key="k")
        assert (answer.status_code, answer.json()["in"]) == (202, "outbox")
        assert named.status_code == 202
    assert sorted(found.values()) == [1.0, 2.0, 3.0]


def test_an_outbox_that_cannot_be_written_takes_nothing(tmp_path: Path) -> None:
    """No 2xx, no 500, and not ready; well again when the disk is."""
    with served(outbox=str(tmp_path)) as found:
        box = found.gateway.writers["telemetry"]._producer._sender.outbox
        assert box is not None
        pages = box._db.execute("pragma page_count").fetchone()[0]
        box._db.execute(f"pragma max_page_count = {pages}")
        large = json.dumps([event(float(n), unit=f"{n:0100d}") for n in range(900)])
        answer = found.post(large)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:headwater:problem:not-ready")
        assert found.client.get("/health/ready").status_code == 503
        box._db.execute("pragma max_page_count = 1000000")
        assert found.post(large).status_code == 202
        assert found.client.get("/health/ready").status_code == 200
    assert len(found.values()) == 900


def test_a_slow_body_is_ended() -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(40):
            yield b" "
            threading.Event().wait(0.05)

    with served(body_seconds=0.2) as found:
        assert found.post(drip()).status_code == 408


HEADERS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([kind for kind, _ in FORMATS.values()]),
        "content_encoding": st.sampled_from(["identity", "identity", "gzip", "zstd"]),
    }
)
PIECES = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b'"', b":", b"\n", b'"ts"', b'"device"', b"1e999", b"-0", b"NaN", b"\\ud800",
     b"device,", b"metric,ts,value", b"\xff\xff\xff\xff", b"\x00", b"\xf0\x9f", b"ts", b"1",
     json.dumps(event()).encode(), as_arrow([event()]), as_arrow([event()])[:99], b'{"ts":{"a":[', b"9" * 400]
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(st.lists(PIECES, max_size=12).map(b"".join), st.binary(max_size=300)),
    headers=HEADERS,
    packed=st.booleans(),
)
def test_no_body_makes_a_5xx_or_a_hang(shared: Served, body: bytes, headers: dict[str, str], packed: bool) -> None:
    content = ENCODINGS[headers["content_encoding"]](body) if packed else body
    answer = shared.post(content, **headers)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2_000), flips=st.binary(min_size=1, max_size=8))
def test_no_damaged_arrow_stream_makes_a_5xx(shared: Served, at: int, flips: bytes) -> None:
    body = bytearray(as_arrow([event(float(n), status=None) for n in range(5)]))
    at %= len(body) - 8
    body[at : at + len(flips)] = flips
    assert shared.post(bytes(body), FORMATS["arrow"][0]).status_code < 500
