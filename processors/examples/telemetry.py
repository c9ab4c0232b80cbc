"""Define the shipped pipeline: a fleet's telemetry, joined with its devices, in two views and one lake table."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from headwater import Pipeline, Reference, absent, count, distinct, max, mean, min, quantile, tumbling

devices = Reference(
    "devices",
    str(Path(__file__).with_name("devices.csv")),
    key="device",
    columns={"site": "string", "model": "string", "limit": "double"},
)


def over_limit(events: pa.Table) -> pa.Table:
    """Return which values are above the limit of the device's model."""
    return pa.table({"over_limit": pc.greater(events["value"], events["limit"])})


pipeline = (
    Pipeline("telemetry", contract="telemetry", allowed_lateness="2m")
    .enrich(devices, on="device")
    .map(over_limit, adds={"over_limit": "boolean"})
    .view(
        "device_10m",
        by=["device"],
        window=tumbling("10m"),
        events=count(),
        least=min("value"),
        most=max("value"),
        mean=mean("value"),
    )
    .view(
        "fleet_1m",
        by=["metric"],
        window=tumbling("1m"),
        spread=4,
        events=count(),
        mean=mean("value"),
        p99=quantile("value", 0.99),
        devices=distinct("device"),
    )
    .alert("silent", on="device_10m", when=absent(), for_="30m", summary="A device has sent nothing for half an hour")
    .lake("telemetry", partition="day")
)
