"""Measure a cold start of the Lambda function: imports and wiring, the first batch, later ones, and its bundle's size.

From the deployment bundle alone, under Amazon's runtime client, AWS emulated on the same machine.
Run: python -m bench.cold_start
"""

import argparse
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from headwater.clock import SystemClock
from headwater.codec import encode_batch
from headwater.commands.local.embedded import EmbeddedAws
from headwater.commands.local.provision import provision
from headwater.config import Settings
from headwater.processors.definition.loading import load
from headwater.processors.services import Services
from headwater.testing.fleet import Fleet
from infra.lambda_bundle import build, sizes
from tests.lambda_mapping import kinesis_event
from tests.lambda_runtime import Container


def starts(bundle: Path, runs: int, batches: int = 5) -> None:
    """Print what each start took: a new container on the same shard restores a snapshot, then processes batches."""
    settings = Settings(stream="cold")
    inits: list[float] = []
    firsts: list[float] = []
    warm: list[float] = []
    with EmbeddedAws() as aws, tempfile.TemporaryDirectory() as folder:
        aws.use()
        provision(settings, shards=1)
        services = Services(settings, load(settings.pipeline), SystemClock())
        environment = os.environ | {"HEADWATER_STREAM": "cold"}
        tables = Fleet(devices=50, start_ms=1_790_000_000_000).batches((runs + 1) * batches * 1000, 1000)
        for run in range(-1, runs):  # the first warms the emulator up
            container = Container(
                "headwater.processors.runners.serverless.handler.handler", environment, Path(folder) / "log", bundle
            )
            for at in range(batches):
                event = _put(services, next(tables), (run + 1) * batches + at)
                started = time.monotonic()
                answer = container.invoke(event, 30)
                seconds = time.monotonic() - started
                if answer.error:
                    raise SystemExit(answer.error)
                if run >= 0:
                    (warm if at else firsts).append(seconds)
            if run >= 0:
                inits.append(container.init_seconds)
            container.kill()
    together = [init + first for init, first in zip(inits, firsts, strict=True)]
    print(f"cold starts: {runs} (median, worst)")
    for name, values in (("init", inits), ("first batch", firsts), ("together", together), ("warm batch", warm)):
        print(f"  {name:12} {statistics.median(values):6.2f} s {max(values):6.2f} s")


def _put(services: Services, table: pa.Table, number: int) -> dict[str, Any]:
    """A record of a thousand events on the stream, and the event that the mapping would make of it."""
    body = encode_batch(table, services.pipeline.contract, origin="bench", first_seq=number * 1000)
    put = services.kinesis.put_record(StreamName="cold", Data=body, PartitionKey="k")
    record = {
        "SequenceNumber": put["SequenceNumber"],
        "ApproximateArrivalTimestamp": datetime.now(UTC),
        "PartitionKey": "k",
        "Data": body,
    }
    return kinesis_event("cold", put["ShardId"], [record])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        found = sizes(Path(folder))
        print(f"bundle: {sum(found.values()) / 1e6:.0f} MB unpacked (a zip may have 250 MB)")
        print("  " + ", ".join(f"{name} {size / 1e6:.0f}" for name, size in list(found.items())[:8]))
        starts(Path(folder), options.runs)


if __name__ == "__main__":
    main()
