"""Measure the gateway over loopback: events a second, the time of its answers, and its memory.

`python -m bench.gateway [--seconds 6]`. The gateway is a process of its own, with a client that stands for Kinesis: it
keeps nothing and answers at once. The load comes from this process over keep-alive connections, raw sockets so that it
costs little. Two cores for both.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from headwater.testing.fleet import Fleet

__all__ = ["main"]

MARKS = {"json": 50_000, "arrow": 1_000_000}
_READY = "ready "


class Stub:
    """Stand for Kinesis and take everything at once."""

    def put_records(self, *, Records: list[dict[str, Any]], **_: Any) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        return {"Records": [{"ShardId": "shardId-0", "SequenceNumber": "1"} for _ in Records]}

    def put_record(self, **_: Any) -> dict[str, Any]:
        return {"ShardId": "shardId-0", "SequenceNumber": "1"}

    def list_shards(self, **_: Any) -> dict[str, Any]:
        keys = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
        return {"Shards": [{"ShardId": "shardId-0", "HashKeyRange": keys, "SequenceNumberRange": {}}]}


def _serve() -> None:
    from headwater.clock import SystemClock
    from headwater.config import GatewaySettings
    from headwater.contract import load_contract
    from headwater.producers.gateway.app import Gateway
    from headwater.producers.gateway.server import serve
    from headwater.producers.gateway.writer import ContractWriter
    from headwater.web.auth import Authenticator
    from headwater.web.http_server import bound_socket
    from headwater.web.limits import Limits

    settings, clock = GatewaySettings(auth="none", otlp=False), SystemClock()
    contract = load_contract("telemetry")
    writers = {contract.name: ContractWriter(contract, "bench", Stub(), settings, clock)}
    gateway = Gateway(writers, settings, Authenticator(settings, None, None, clock), Limits(), clock)
    with bound_socket("127.0.0.1", 0) as (listener, authority):
        serve(gateway, listener, lambda: print(_READY + authority, flush=True))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"memory_mb": used.ru_maxrss / 1024, "cpu_s": used.ru_utime + used.ru_stime}), flush=True)


@dataclass
class RequestLoad:
    """Send one kind of request again and again."""

    body: bytes
    content_type: str
    events: int
    latencies: list[float] = field(default_factory=list)
    sent: int = 0

    def request(self, authority: str) -> bytes:
        head = f"POST /v1/events/telemetry HTTP/1.1\r\nhost: {authority}\r\ncontent-type: {self.content_type}\r\n"
        return (head + f"content-length: {len(self.body)}\r\n\r\n").encode() + self.body

    async def connection(self, authority: str, until: float) -> None:
        host, port = authority.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = self.request(authority)
        while time.perf_counter() < until:
            started = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the gateway answered {head!r} {body!r}")
            self.latencies.append(time.perf_counter() - started)
            self.sent += self.events
        writer.close()

    async def run(self, authority: str, connections: int, seconds: float) -> float:
        started = time.perf_counter()
        await asyncio.gather(*(self.connection(authority, started + seconds) for _ in range(connections)))
        return self.sent / (time.perf_counter() - started)


def _table(events: int) -> pa.Table:
    return pa.concat_tables(Fleet(devices=500, start_ms=1_762_160_400_000).batches(events, events)).combine_chunks()


def _json(events: int) -> bytes:
    """Times as JavaScript's toISOString writes them."""
    rows = _table(events).to_pylist()
    for row in rows:
        row["ts"] = row["ts"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(rows).encode()


def _arrow(events: int) -> bytes:
    table = _table(events)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _measure(name: str, load: RequestLoad, connections: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.gateway", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            authority = process.stdout.readline().removeprefix(_READY).strip()
            warm = RequestLoad(load.body, load.content_type, load.events)
            asyncio.run(warm.run(authority, connections, min(1.0, seconds)))
            rate = asyncio.run(load.run(authority, connections, seconds))
        finally:
            process.terminate()
        used = json.loads(process.stdout.readline())
    p50, p99 = np.quantile(load.latencies, [0.5, 0.99]) * 1000
    return {
        "what": f"{name}, {load.events} events a request, {connections} connections",
        "events_s": round(rate),
        "mark": MARKS[name],
        "requests_s": round(rate / load.events),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "memory_mb": round(used["memory_mb"]),
        "events_cpu_s": round((warm.sent + load.sent) / used["cpu_s"]),
    }


def main() -> None:
    """Print a line for each kind of request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true", help="be the gateway")
    parser.add_argument("--seconds", type=float, default=6.0)
    wanted = parser.parse_args()
    if wanted.serve:
        _serve()
        return
    loads = {
        "json": (RequestLoad(_json(100), "application/json", 100), 32),
        "arrow": (RequestLoad(_arrow(50_000), "application/vnd.apache.arrow.stream", 50_000), 4),
    }
    for name, (load, connections) in loads.items():
        found = _measure(name, load, connections, wanted.seconds)
        print(
            "{what}: {events_s:,} events/s (mark {mark:,}), {requests_s:,} requests/s, "
            "p50 {p50_ms} ms, p99 {p99_ms} ms, memory at most {memory_mb} MB, "
            "{events_cpu_s:,} events per second of the gateway's CPU (start included)".format(**found)
        )


if __name__ == "__main__":
    main()
