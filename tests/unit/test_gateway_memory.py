"""The gateway's memory is bounded by what bodies become, not by what comes in."""

import gzip
import http.client
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headwater.codec.inflate import gunzip, unzstd
from headwater.errors import InvalidRecord
from tests.gateway import event, served

MIB = 1 << 20
BUDGET = 48 * MIB
PROGRAM = """
import sys
from tests.gateway import served
from tests.producer_stream import FakeStream

bounds = {"max_inflight_bytes": int(sys.argv[1]), "max_buffer_bytes": 8 << 20, "wait_seconds": 30.0}
with served(FakeStream(), **bounds) as found:
    print(found.client.base_url.netloc.decode(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def gateway() -> Iterator[tuple[str, int]]:
    """Where a gateway in a process of its own listens, and the id of the process."""
    command = [sys.executable, "-c", PROGRAM, str(BUDGET)]
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
    """Its largest resident memory so far, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def post(address: str, body: bytes) -> int:
    connection = http.client.HTTPConnection(address, timeout=120)
    headers = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
    connection.request("POST", "/v1/events/telemetry", body, headers)
    return connection.getresponse().status


def test_small_bodies_that_become_large_wait_for_memory(gateway: tuple[str, int]) -> None:
    """Eight of a few kilobytes that take 35 MB each while they are parsed: never more of them than the budget has."""
    address, process = gateway
    line = json.dumps(event(device="d" * 400)).encode() + b"\n"
    assert post(address, gzip.compress(line * 10)) == 200
    before = peak(process)
    bomb = gzip.compress(line * (5 * MIB // len(line)))
    assert len(bomb) < MIB // 16
    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(lambda _: post(address, bomb), range(8)))
    assert set(found) <= {200, 503}
    # on a slow machine all may wait for each other for too long, and are told to come again
    assert found[200] or post(address, bomb) == 200
    grown = peak(process) - before
    assert grown < 2 * BUDGET, f"{grown >> 20} MiB more"


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
    import zstandard

    content = b"x" * 1_000
    sized = zstandard.ZstdCompressor().compress(content)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    for inflate, data in ((gunzip, gzip.compress(content)), (unzstd, sized), (unzstd, unsized)):
        assert inflate(data, 1_000) == content
        with pytest.raises(InvalidRecord, match="more than 999 bytes when decompressed"):
            inflate(data, 999)
