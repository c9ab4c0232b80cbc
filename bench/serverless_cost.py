"""Compute what a million events cost on Lambda, from the work of an invocation and a dated price list.

Kinesis's prices are those of processors/scaling/prices.yaml. The others stand here: US East (N. Virginia), as commonly
quoted on 2026-11-24 and NOT checked against the price lists then; no free tier. Run: python -m bench.serverless_cost
"""

from collections.abc import Mapping
from dataclasses import dataclass

from headwater.processors.scaling.pricing import GB, Usage, load_prices, on_demand, provisioned

LAMBDA_GB_SECOND = 0.0000133334  # arm64
LAMBDA_REQUEST = 0.20e-6
DYNAMODB_WRITE = 0.625e-6  # a write request unit: 1 KB of an item, on demand
DYNAMODB_READ = 0.125e-6  # a read request unit: 4 KB, consistent
S3_PUT = 0.005e-3

MEMORY_GB = 1769 / 1024  # a whole vCPU
BATCH_SECONDS = 0.35
"""Length of a warm invocation, whatever is in it: bench.cold_start, 0.31 s, most of it 70 view rows on an emulator."""
EVENTS_A_SECOND = 1_000_000
"""On that vCPU; bench.path does 2.3 to 2.7 M on one core of this machine."""
PAYLOAD = 6e6 * 3 / 4
"""Bytes of records in one invocation at most: 6 MB of JSON, in which they are base64."""
STATE_KB, VIEW_ROWS, VIEW_KB = 16, 70, 1
PUBLISHER_SECONDS, PUBLISHER_PUTS = 4.0, 4


@dataclass(frozen=True)
class SteadyLoad:
    """Describe a steady rate; `window` is the longest time between two commits."""

    events_s: float
    event_bytes: float
    record_events: float
    shards: int
    window_s: float = 60.0

    def invocations_s(self) -> float:
        """Return the invocations a second of all shards: one when the window is over, or sooner when the payload is
        full.
        """
        return max(self.shards / self.window_s, self.events_s * self.event_bytes / PAYLOAD)


def an_hour(load: SteadyLoad, on_demand_stream: bool) -> Mapping[str, float]:
    """Return dollars by item. The mapping and the function both read the stream: two consumers."""
    prices = load_prices()
    usage = Usage(load.events_s * load.event_bytes, load.events_s / load.record_events, consumers=2)
    stream = (
        on_demand(prices.on_demand_standard, usage) if on_demand_stream else provisioned(prices, usage, load.shards)
    )
    calls = load.invocations_s() * 3600
    seconds = calls * BATCH_SECONDS + load.events_s * 3600 / EVENTS_A_SECOND
    commits = calls * (STATE_KB + 1) * DYNAMODB_WRITE + calls * (STATE_KB / 4) * DYNAMODB_READ
    views = calls * VIEW_ROWS * VIEW_KB * (DYNAMODB_WRITE + DYNAMODB_READ)
    return {
        "Kinesis": stream.hour,
        "Lambda": seconds * MEMORY_GB * LAMBDA_GB_SECOND + calls * LAMBDA_REQUEST,
        "ledger": commits,
        "views": views,
        "S3": calls * S3_PUT,
        "publisher": 60 * (PUBLISHER_SECONDS * MEMORY_GB * LAMBDA_GB_SECOND + PUBLISHER_PUTS * S3_PUT),
    }


def main() -> None:
    """Print the table."""
    loads = {
        "10/s, batches of 100": (SteadyLoad(10, 15, 100, 1), True),
        "1,000/s, batches of 500": (SteadyLoad(1_000, 8.1, 500, 1), False),
        "the same, a window of 5 s": (SteadyLoad(1_000, 8.1, 500, 1, window_s=5), False),
        "100,000/s, batches of 5,000": (SteadyLoad(100_000, 5.4, 5_000, 2), False),
        "1,000/s, single JSON events": (SteadyLoad(1_000, 164, 1, 2), False),
    }
    print(f"US dollars per million events ({load_prices().date}; the others 2026-11-24, unchecked)")
    names = list(an_hour(*loads["10/s, batches of 100"]))
    print(f"{'':30}" + "".join(f"{name:>11}" for name in [*names, "together", "a month"]))
    for what, (load, mode) in loads.items():
        hour = an_hour(load, mode)
        million = load.events_s * 3600 / 1e6
        cells = [hour[name] / million for name in names]
        row = "".join(f"{cell:11.5f}" for cell in [*cells, sum(cells)])
        print(f"{what:30}{row}{sum(hour.values()) * 730:11.0f}")
    stored = 1e6 * 7 / GB
    print(f"Parquet of a million events: {stored * 1024:.1f} MB at 7 bytes an event")


if __name__ == "__main__":
    main()
