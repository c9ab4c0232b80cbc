"""The gateway's memory is bounded by what bodies become, not by what comes in."""

import gzip
import http.client
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
import zstandard

from headwater.codec.inflate import gunzip, unzstd
from headwater.config import GatewaySettings
from headwater.errors import InvalidRecord
from headwater.formats.framing import uvarint
from tests.gateway import event, served
from tests.memory import MIB, resident
from tests.typed import ipc

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
ARROW, OTLP, PROTOBUF = "application/vnd.apache.arrow.stream", "application/json", "application/x-protobuf"
LOGS = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":['
BUDGET = 48 * MIB
DECODED = 4 * MIB
PROGRAM = """
import sys
from headwater.contract import load_contract
from tests.gateway import TELEMETRY, served
from tests.producer_stream import FakeStream

asked = [one.partition("=") for one in sys.argv[1:]]
bounds = {"max_buffer_bytes": 8 << 20} | {name: int(size) for name, _, size in asked}
contracts = (TELEMETRY, load_contract("otel_logs"))
with served(FakeStream(), contracts=contracts, wait_seconds=240.0, **bounds) as found:
    print(found.client.base_url.netloc.decode(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Where a gateway in a process of its own listens, and the id of the process."""
    bounds = getattr(request, "param", (f"max_inflight_bytes={BUDGET}", f"max_decoded_bytes={DECODED}"))
    command = [sys.executable, "-c", PROGRAM, *bounds]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": root},
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.stdin.close()
            process.wait(60)


def peak(process: int) -> int:
    return resident("VmHWM", process)


def post(
    address: str, body: bytes, kind: str = NDJSON, encoding: str = "gzip", path: str = "/v1/events/telemetry"
) -> int:
    connection = http.client.HTTPConnection(address, timeout=240)
    connection.request("POST", path, body, {"content-type": kind, "content-encoding": encoding})
    return connection.getresponse().status


def filled(unit: bytes, between: bytes, head: bytes = b"", tail: bytes = b"", most: int = 10_000) -> bytes:
    """As many units as a body may have."""
    size = min(most, (DECODED - len(head) - len(tail)) // (len(unit) + len(between)))
    return head + between.join([unit] * size) + tail


ROW = json.dumps(event(device="d" * 60)).encode()
FOUR_BYTES = '["😀",'.encode()
WARM = [
    (JSON, b"[" + ROW + b", 1]"),
    (NDJSON, ROW + b"\n{}"),
    (CSV, b"device,metric,ts,value\nd,m,2026-01-01T00:00:00Z,1\nd,m,2026-01-01T00:00:00Z,x"),
]
HEADER = b"device,metric,ts,value\n"
ARROW_ROWS = 50_000
KINDS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "rows": lambda: (NDJSON, filled(ROW, b"\n")),
    "rows that break the contract": lambda: (NDJSON, filled(json.dumps(event(value=None)).encode(), b"\n")),
    "one row of many numbers": lambda: (NDJSON, filled(b"1.5", b",", b'{"x":[', b"]}", DECODED)),
    "one row of many fields": lambda: (NDJSON, filled(b'"x":1', b",", b"{", b"}", DECODED)),
    "array": lambda: (JSON, filled(ROW, b",", b"[", b"]")),
    "array with line breaks": lambda: (JSON, filled(ROW.replace(b" ", b" \n"), b" ,\n", b"[", b"]")),
    "array of characters of four bytes": lambda: (
        JSON,
        filled(ROW.replace(b", ", b",\n"), b" , ", '["😀",'.encode(), b"]"),
    ),
    "array of numbers": lambda: (JSON, filled(b"1", b",", b"[", b"]", DECODED)),
    "array of many numbers": lambda: (JSON, filled(b"1.5", b",", b"[[", b"]]", DECODED)),
    "array of empty objects": lambda: (JSON, filled(b"{}", b",", b"[", b"]", DECODED)),
    "CSV": lambda: (CSV, filled(b'"ddddddddd",m,2026-01-01T00:00:00Z,1', b"\n", HEADER)),
    "CSV that breaks the contract": lambda: (CSV, filled(b'"ddddddddd",m,2026-01-01T00:00:00Z,x', b"\n", HEADER)),
    "CSV of many columns": lambda: (CSV, filled(b"12", b",", b"device,", b"\n1", DECODED)),
    "CSV of one wide row": lambda: (CSV, filled(b'"1"', b",", HEADER, b"", DECODED)),
    "Arrow": lambda: (ARROW, columns()),
    "OTLP, rows": lambda: (OTLP, filled(b'{"timeUnixNano":"1","body":{"stringValue":"text"}}', b",", LOGS, b"]}]}]}")),
    "OTLP, one row of many values": lambda: (
        OTLP,
        filled(b'{"intValue":"1"}', b",", LOGS + b'{"body":{"arrayValue":{"values":[', b"]}}}]}]}]}", DECODED),
    ),
    "OTLP, what is not known": lambda: (OTLP, filled(b"1.5", b",", LOGS + b'{"x":[', b"]}]}]}]}", DECODED)),
    "CSV of one row of empty texts": lambda: (CSV, filled(b'""', b",", HEADER, b"", DECODED)),
    "OTLP, a text for all rows": lambda: (
        OTLP,
        filled(
            b'{"timeUnixNano":"1"}', b",", LOGS.replace(b"[{", b'[{"schemaUrl":"' + b"x" * 900 + b'",', 1), b"]}]}]}"
        ),
    ),
    "OTLP in protobuf, a text for all rows": lambda: (PROTOBUF, export(b"\x09" + bytes(8), 10_000, 6_000)),
    "OTLP in protobuf, values in values": lambda: (PROTOBUF, export(nested(), 25_000)),
    "OTLP in protobuf, one row of many values": lambda: (PROTOBUF, export(b"\x32\x07\x0a\x05abcde" * 400_000, 1)),
    "OTLP in protobuf, empty": lambda: (PROTOBUF, b"\x0a\x00" * (DECODED // 2)),
}
"""What is small when compressed, and becomes large in one way or another."""


def within(number: int, content: bytes) -> bytes:
    """A field of protobuf that has a message or a text."""
    return uvarint(number << 3 | 2) + uvarint(len(content)) + content


def nested() -> bytes:
    """A log record whose body is a list in a list in a list, 30 deep."""
    value = within(1, b"x")
    for _ in range(30):
        value = within(5, within(1, value))
    return within(5, value)


def export(record: bytes, rows: int, text: int = 1) -> bytes:
    """An export of log records, whose resource has a schema's address of so many bytes."""
    return within(1, within(2, within(2, record) * rows) + within(3, b"x" * text))


DEFAULT = GatewaySettings().max_decoded_bytes
RECORD = b'{"timeUnixNano":"1","attributes":[%s]}' % b",".join(
    [b'{"key":"http.method","value":{"stringValue":"GET"}}'] * 90
)
LARGE: dict[str, Callable[[], tuple[str, bytes]]] = {
    "OTLP in protobuf, values in values": lambda: (PROTOBUF, export(nested(), 70_000)),
    "OTLP in protobuf, rows of many values": lambda: (PROTOBUF, export(within(6, b"\x0a\x08abcdefgh") * 150, 9_200)),
    "OTLP in protobuf, one resource of many": lambda: (
        PROTOBUF,
        within(1, within(1, within(1, b"\x0a\x08abcdefgh") * 1_390_000) + within(2, within(2, b""))),
    ),
    "OTLP, one row of many values": lambda: (
        OTLP,
        LOGS + b'{"body":{"arrayValue":{"values":[' + b",".join([b'{"intValue":"1"}'] * 699_000) + b"]}}}]}]}]}",
    ),
    "OTLP, rows of many values": lambda: (
        OTLP,
        LOGS + b",".join([RECORD] * (DEFAULT // (len(RECORD) + 1) - 1)) + b"]}]}]}",
    ),
    "OTLP, what is not known": lambda: (OTLP, LOGS + b'{"x":[' + b",".join([b"1.5"] * (4 * MIB - 100)) + b"]}]}]}]}"),
    "one row of many fields": lambda: (NDJSON, b"{" + b",".join([b'"x%06d":1' % n for n in range(420_000)]) + b"}"),
    "CSV of one wide row": lambda: (CSV, HEADER + b",".join([b'"1"'] * (DEFAULT // 4 - 10))),
    "array of numbers": lambda: (JSON, b"[" + b",".join([b"1"] * (DEFAULT // 2 - 10)) + b"]"),
}
"""Allow as many bytes as the default settings take."""


def columns() -> bytes:
    names = pa.DictionaryArray.from_arrays(pa.array([0] * ARROW_ROWS, pa.int8()), pa.array(["d" * 100]))
    times = pa.array([1_772_366_400_000] * ARROW_ROWS, pa.timestamp("ms", "UTC"))
    return ipc(pa.table({"device": names, "metric": names, "ts": times, "value": [1.0] * ARROW_ROWS}))


def packed(name: str, make: Callable[[], tuple[str, bytes]], encoding: str = "gzip") -> tuple[bytes, str, str, str]:
    """A body of a kind compressed, its type and encoding, and where it is sent to."""
    kind, body = make()
    assert len(body) <= DEFAULT
    small = gzip.compress(body, 1) if encoding == "gzip" else zstandard.compress(body)
    return small, kind, encoding, "/v1/logs" if name.startswith("OTLP") else "/v1/events/telemetry"


def test_bodies_of_all_kinds_together_stay_within_the_budget(gateway: tuple[str, int]) -> None:
    """Whatever they become: at any time only as many are read as there is memory for, and usual ones come through."""
    address, process = gateway
    assert post(address, gzip.compress(ROW)) == 200
    bodies = list[tuple[bytes, str, str, str]]()
    for name, make in KINDS.items():
        bodies.append(packed(name, make, "gzip" if len(bodies) % 2 else "zstd"))
        if name == "OTLP, rows":
            assert post(address, LOGS + b"]}]}]}", OTLP, "identity", "/v1/logs") == 200  # imports what it needs
    Random(1).shuffle(bodies)
    before = peak(process)
    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(lambda one: post(address, *one), bodies))
    grown = peak(process) - before
    assert set(found) <= {200, 207, 400, 413, 422}, found
    assert found[200] >= len(KINDS) // 3, found
    assert grown < 3 * BUDGET, f"{grown >> 20} MiB more"  # one that needs more than there is runs alone
    assert post(address, gzip.compress(ROW)) == 200


MEASURE = """
import os, sys
from headwater.config import GatewaySettings
from headwater.contract import load_contract
from headwater.codec.bounds import TooLarge
from headwater.errors import HeadwaterError
from headwater.producers.gateway.bodies import BodyLimits, event_bytes, format_of, parse_body
from headwater.producers.gateway.otlpbodies import export_bytes, parse_export
from headwater.web.problems import Problem
from tests.gateway import TELEMETRY
from tests.memory import resident
from tests.unit import test_gateway_memory
from tests.unit.test_gateway_memory import LOGS, WARM

settings, logs = GatewaySettings(), load_contract("otel_logs")
for kind, body in WARM:  # what is imported once
    parse_body(body, format_of(kind), TELEMETRY, BodyLimits())
parse_export(LOGS + b"{}]}]}]}", True, logs, settings, 0)
for name, make in getattr(test_gateway_memory, sys.argv[1]).items():
    if os.fork() == 0:
        kind, body = make()
        otlp = name.startswith("OTLP")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = resident("VmRSS")
        needs = export_bytes(body, 100_000) if otlp else event_bytes(body, format_of(kind), 100_000)
        try:
            if otlp:
                parse_export(body, kind == "application/json", logs, settings, 1_772_366_400_000, needs // 4)
            else:
                parse_body(body, format_of(kind), TELEMETRY, BodyLimits())
        except (Problem, TooLarge):
            pass
        taken = resident("VmHWM") - before
        print(name, taken >> 20, needs >> 20, sep="|", flush=True)
        os._exit(0)
    os.wait()
"""


def measured(kinds: str) -> dict[str, tuple[int, int]]:
    """MiB taken and MiB reserved by parsing each, in a process of its own."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", MEASURE, kinds]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=240)
    found = [line.split("|") for line in done.stdout.splitlines()]
    return {name: (int(taken), int(reserved)) for name, taken, reserved in found}


def test_parsing_takes_no_more_memory_than_is_reserved_for_it() -> None:
    """Whatever a body holds: measured for each kind in a process of its own."""
    found = measured("KINDS")
    assert list(found) == list(KINDS)
    beyond = {name: one for name, one in found.items() if one[0] > 1.2 * one[1] + 24}
    assert not beyond, "kind, MiB taken, MiB reserved"


def test_a_body_that_runs_alone_is_bounded_as_well() -> None:
    """However many values are in it: no more than the memory beside which it runs was meant for."""
    found = measured("LARGE")
    assert list(found) == list(LARGE)
    assert max(taken for taken, _ in found.values()) < 240, found


@pytest.mark.parametrize("gateway", [()], indirect=True, ids=["default settings"])
def test_the_largest_bodies_together_take_less_than_512_mib(gateway: tuple[str, int]) -> None:
    """The whole process, from its start, as docs/gateway.md says."""
    address, process = gateway
    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(lambda one: post(address, *one), [packed(name, LARGE[name]) for name in LARGE] * 2))
    assert set(found) <= {200, 207, 400, 413, 422}, found
    assert peak(process) < 512 * MIB, f"{peak(process) >> 20} MiB"
    assert post(address, gzip.compress(ROW)) == 200


def test_bodies_that_need_all_memory_come_one_after_the_other(gateway: tuple[str, int]) -> None:
    """None holds a part of it and waits for the rest: so all are taken, though each alone needs most of it."""
    address, _ = gateway
    body = gzip.compress(filled(ROW, b"\n"))
    with ThreadPoolExecutor(8) as pool:
        assert Counter(pool.map(lambda _: post(address, body), range(8))) == {200: 8}


def test_a_body_larger_than_the_budget_runs_alone() -> None:
    """It takes all there is, and gives it back."""
    body = json.dumps([event(float(n)) for n in range(2_000)])
    with served(max_inflight_bytes=1 << 20) as found:
        assert found.post(body).status_code == 200
        assert found.gateway._memory.used == 0
        assert found.post(gzip.compress(body.encode()), content_encoding="gzip").status_code == 200
        assert found.gateway._memory.used == 0


def test_no_more_is_decompressed_than_the_caller_allows() -> None:
    """To the byte, for each of the ways to compress."""
    content = b"x" * 1_000
    sized = zstandard.ZstdCompressor().compress(content)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    for inflate, data in ((gunzip, gzip.compress(content)), (unzstd, sized), (unzstd, unsized)):
        assert inflate(data, 1_000) == content
        with pytest.raises(InvalidRecord, match="more than 999 bytes when decompressed"):
            inflate(data, 999)
