"""OTLP over gRPC: nothing of a call is read before its caller is known, and then no more than over HTTP."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic
from typing import Any

import grpc
import pytest

from headwater.config import GatewaySettings
from headwater.contract import load_contract
from headwater.producers.gateway.otlpbodies import parse_export
from headwater.web.keys import KeyStore
from headwater.web.problems import Problem
from tests.gateway import Served, served
from tests.memory import MIB, resident

LOGS = load_contract("otel_logs")
NOBODY = KeyStore(None, "none")
"""A table that is not asked: no call in here has what looks like a key."""


def empty_records(number: int, item: bytes = b"\x12\x00") -> bytes:
    """An export of log records of two bytes each, which as messages of Protobuf take a hundred times as much."""
    body = item * number
    for tag in (b"\x12", b"\x0a"):
        size, length = len(body), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        body = tag + length + bytes([size]) + body
    return body


NOTHING = empty_records(0)


def said(gateway: Served, bodies: Iterable[bytes], keys: Sequence[str] = ()) -> tuple[str, bytes | str]:
    """Call Export with messages: the name of the code, and the answer or the reason."""
    metadata = [("authorization", f"Bearer {key}") for key in keys]
    with grpc.insecure_channel(f"127.0.0.1:{gateway.app.state.grpc_port}") as channel:
        call = channel.stream_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        try:
            return "OK", bytes(call(iter(bodies), timeout=60, metadata=metadata))
        except grpc.RpcError as error:
            return error.code().name, str(error.details())


def test_nothing_is_read_before_the_caller_is_known() -> None:
    """15 MB of empty records took a gigabyte, and what is no message was an error in the log, whoever sent it."""
    with served(contracts=(LOGS,), grpc_port=0, auth="keys", store=NOBODY) as gateway:
        body = empty_records(7_500_000)
        before = resident("VmRSS")
        for each in (body, b"\xff" * 99):
            assert said(gateway, [each])[0] == "UNAUTHENTICATED"
            assert said(gateway, [each], keys=["x"])[0] == "UNAUTHENTICATED"
        assert resident("VmRSS") - before < 200 * MIB


def test_two_credentials_are_none() -> None:
    """Whoever checks calls on their way may have looked at the other."""
    with served(contracts=(LOGS,), grpc_port=0, auth="keys", store=NOBODY) as gateway:
        assert said(gateway, [b""], keys=["x", "y"]) == ("UNAUTHENTICATED", "send one API key or token")


@pytest.mark.parametrize(
    ("bodies", "code", "words"),
    [
        ([b"\xff" * 99], "INVALID_ARGUMENT", "64 bits"),
        ([], "INVALID_ARGUMENT", "no message"),
        ([b"x" * 1025], "RESOURCE_EXHAUSTED", "larger"),
        ([empty_records(501)], "RESOURCE_EXHAUSTED", "500 rows"),
    ],
    ids=["no-message-of-protobuf", "nothing", "too-large", "too-many"],
)
def test_what_cannot_be_read_is_said(bodies: list[bytes], code: str, words: str) -> None:
    """As over HTTP, in the codes of gRPC."""
    with served(contracts=(LOGS,), grpc_port=0, max_body_bytes=1024, max_rows=500) as gateway:
        found, reason = said(gateway, bodies)
        assert (found, words in str(reason)) == (code, True), reason


def test_messages_that_are_received_hold_the_memory_of_the_largest() -> None:
    """How large one is is known when it is here; sixty of 16 MiB at once were a gigabyte that nobody had counted."""
    bounds: dict[str, Any] = {"max_body_bytes": MIB, "max_inflight_bytes": 3 * MIB, "wait_seconds": 0.2}
    with served(contracts=(LOGS,), grpc_port=0, **bounds) as one:
        ends = Event()

        def late() -> Iterator[bytes]:
            ends.wait(30)
            yield NOTHING

        with ThreadPoolExecutor() as threads:
            slow = threads.submit(said, one, late())
            deadline = monotonic() + 30
            while said(one, [NOTHING])[0] == "OK":
                assert monotonic() < deadline
            code, words = said(one, [NOTHING])
            assert (code, "no memory for more requests" in str(words)) == ("UNAVAILABLE", True)
            ends.set()
            assert slow.result()[0] == "OK"
        assert said(one, [NOTHING])[0] == "OK"


@pytest.mark.parametrize("item", [b"\x12\x00", b"\x78\x01", b"\x12\x00\x78\x01"], ids=["records", "unknown", "both"])
def test_items_are_counted_before_they_are_read(item: bytes) -> None:
    """16 MiB of two bytes each took 22 s of CPU before the first row of them was counted."""
    with pytest.raises(Problem, match="more than 700000 resources, scopes and items") as refused:
        parse_export(empty_records(701_000, item), False, LOGS, GatewaySettings(), 1)
    assert refused.value.status == 413
