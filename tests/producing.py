"""What tests of the producer put."""

import pyarrow as pa

from headwater.contract import load_contract
from headwater.producers.settings import ProducerSettings
from headwater.testing.fleet import Fleet

TELEMETRY = load_contract("telemetry")


QUICK = ProducerSettings(linger_ms=20, max_events=100)


SMALL = ProducerSettings(max_buffer_bytes=40_000, max_record_bytes=20_000, max_request_bytes=20_000, linger_ms=20)


def fleet(events: int) -> pa.Table:
    return next(Fleet(devices=50).batches(events, events))


def event(**changes: object) -> dict[str, object]:
    return {"device": "a", "metric": "m", "ts": 1_762_160_400_000, "value": 1.0} | changes
