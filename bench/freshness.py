"""Measure how soon an event is in the lake after its put, and what requests that takes.

One shard on the embedded AWS, an event every half second, a processor and a publisher as threads. An event is queryable
once the table's current snapshot has it. With --requests processor and publisher ask through a proxy, which counts, and
breaks a connection now and then: the times are those without it.
Run: python -m bench.freshness --commit 5 --publish 3
"""

import argparse
import logging
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from threading import Event, Thread

from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.processors.definition.pipeline import Pipeline
from headwater.processors.runners.embedded import EmbeddedRunner
from headwater.processors.services import Services, new_owner
from headwater.producers.producer import Producer
from headwater.sinks.lake.catalog import open_table
from headwater.sinks.lake.catalogs import open_catalog

_REQUEST = re.compile(rb"(GET|PUT|POST|DELETE|HEAD) (\S+) HTTP")


class CountingProxy:
    """Pass connections on to a port of this machine, and count the requests in them while `counting`."""

    def __init__(self, port: int) -> None:
        self.requests, self.counting, self._to = Counter[str](), False, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            ours, _ = self._listener.accept()
            theirs = socket.create_connection(("127.0.0.1", self._to))
            Thread(target=self._pump, args=(ours, theirs, True), daemon=True).start()
            Thread(target=self._pump, args=(theirs, ours, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if asks and self.counting and (found := _REQUEST.match(data)):
                    target = re.search(rb"(?i)x-amz-target: *(\S+)", data)
                    self.requests[target[1].decode() if target else f"S3 {found[1].decode()}"] += 1
                sink.sendall(data)
        except OSError:
            pass  # the other side has closed
        finally:
            source.close()
            sink.close()


def measure(settings: Settings, seconds: float, *, counted: bool) -> tuple[list[float], Counter[str]]:
    """Return the seconds from put to queryable of each event, in order of size, and the requests meanwhile."""
    pipeline = Pipeline("fresh", contract="telemetry").lake("fresh")
    with EmbeddedAws() as aws:
        os.environ.update(aws.environment)
        provision(settings, shards=1)
        # beside the proxy: what only watches is not counted
        own, catalog, proxy = Services(settings, pipeline), open_catalog(settings), CountingProxy(aws.port)
        producer = Producer(settings.stream, pipeline.contract, client=own.kinesis)
        if counted:
            os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.port}"
        watched, stop = Services(settings, pipeline), Event()
        runner = EmbeddedRunner(pipeline, watched.kinesis, watched.ports, settings, watched.clock, new_owner())
        publishing = watched.publish_loop(new_owner(), lambda *_: None)
        publishing.prepare()
        threads = [Thread(target=one, args=(stop,)) for one in (runner.run, publishing.run)]
        for thread in threads:
            thread.start()
        proxy.counting, puts, seen = True, list[float](), list[float]()
        began = next_put = time.monotonic()
        while len(seen) < len(puts) or time.monotonic() - began < seconds:
            now = time.monotonic()
            if now - began < seconds and now >= next_put:
                producer.put({"device": "d", "ts": time.time_ns() // 1_000_000, "metric": "m", "value": 1.0})
                puts.append(now)
                next_put = now + 0.5
            snapshot = open_table(settings, "fresh", catalog).current_snapshot()
            rows = int(snapshot.summary["total-records"] or 0) if snapshot and snapshot.summary else 0
            seen += [time.monotonic()] * (min(rows, len(puts)) - len(seen))
            proxy.counting = now - began < seconds
        stop.set()
        for thread in threads:
            thread.join()
        producer.close()
    return sorted(b - a for a, b in zip(puts, seen, strict=True)), proxy.requests


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(format="%(message)s %(reason)s", level=logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", type=float, default=Settings().commit_seconds)
    parser.add_argument("--publish", type=float, default=Settings().publish_seconds)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--requests", action="store_true")
    given = parser.parse_args(arguments)
    settings = Settings(commit_seconds=given.commit, publish_seconds=given.publish)
    waits, requests = measure(settings, given.seconds, counted=given.requests)
    p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
    print(f"put to queryable: p50 {p50:.1f} s, p99 {p99:.1f} s of {len(waits)}")
    commits = max(1, requests["AWSGlue.UpdateTable"])
    for name, count in sorted(requests.items()):
        print(f"  {name}: {count:,}, {count / commits:.1f} a commit of the table")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
