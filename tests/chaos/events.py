"""What the producers say, known to the last value: event `n` of producer `p` is a function of both."""

import numpy as np
import pyarrow as pa

from headwater.contract import load_contract

__all__ = ["CONTRACT", "events"]

CONTRACT = load_contract("telemetry")
_START_MS = 1_790_000_000_000


def events(producer: int, start: int, stop: int) -> pa.Table:
    """The producer's events `[start, stop)`: values of six devices, of which one in fifty is up to an hour late."""
    n = np.arange(start, stop, dtype=np.int64)
    late = np.where(n * 2_654_435_761 % 50 == 0, (n * 40_503 % 3600) * 1000, 0)
    columns: dict[str, pa.Array] = {
        "device": pa.array([f"dev-{1 + 6 * producer + one:05d}" for one in n % 6]),
        "metric": pa.array([f"metric-{one}" for one in n // 6 % 3]),
        "ts": pa.array(_START_MS + n * 20 - late).cast(pa.timestamp("ms", "UTC")),
        "value": pa.array((n * 7_919 % 10_007).astype(np.float64)),
        "unit": pa.array([f"{producer}:{one}" for one in n]),
        "region": pa.nulls(len(n), pa.string()),
        "firmware": pa.nulls(len(n), pa.string()),
        "status": pa.array(["ok"] * len(n)),
    }
    return pa.table([columns[name] for name in CONTRACT.arrow_schema.names], schema=CONTRACT.arrow_schema)
