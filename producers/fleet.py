"""A simulated fleet in the `telemetry` contract: many devices, eight metrics each, readings as sensors round them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.contract import load_contract

__all__ = ["Fleet"]

_METRICS: tuple[tuple[str, str, float, float, float], ...] = (
    ("engine.coolant.temperature", "Cel", 0.5, 85.0, 6.0),
    ("battery.voltage", "V", 0.01, 12.6, 0.2),
    ("vehicle.speed", "km/h", 0.1, 60.0, 25.0),
    ("engine.rpm", "/min", 1.0, 2200.0, 600.0),
    ("fuel.level", "%", 0.1, 60.0, 15.0),
    ("tire.pressure.front", "kPa", 0.5, 230.0, 5.0),
    ("cabin.temperature", "Cel", 0.1, 21.0, 2.0),
    ("gps.altitude", "m", 0.1, 200.0, 80.0),
)
"""Name, unit (UCUM), resolution, mean and spread."""
_REGIONS = ("eu-west-1", "eu-central-1", "us-east-1", "us-west-2", "ap-southeast-1", "sa-east-1")
_FIRMWARE = tuple(f"4.{minor}.{patch}" for minor in (10, 11, 12) for patch in range(4))
_STATUS = ("ok", "degraded", "fault")


@dataclass(frozen=True)
class Fleet:
    """The same arguments give the same events.

    Devices report in turn, each about every `report_seconds`, all metrics of a device at a time; the share `late` of
    the readings arrives with an event time up to ten minutes old.
    """

    devices: int = 5_000
    seed: int = 1
    start_ms: int = 1_762_160_400_000
    report_seconds: float = 10.0
    late: float = 0.001

    def batches(self, events: int, batch: int) -> Iterator[pa.Table]:
        """Tables of up to `batch` rows, `events` rows in all, in order of arrival."""
        random = np.random.default_rng(self.seed)
        names = pa.array([f"dev-{number:05d}" for number in range(1, self.devices + 1)])
        level = random.standard_normal((self.devices, len(_METRICS)))
        home = random.integers(0, len(_REGIONS), self.devices)
        firmware = random.integers(0, len(_FIRMWARE), self.devices)
        schema = load_contract("telemetry").arrow_schema
        a_round = self.devices * len(_METRICS)
        for first in range(0, events, batch):
            number = np.arange(first, min(first + batch, events))
            metric, device = number % len(_METRICS), number // len(_METRICS) % self.devices
            ts = self.start_ms + (number / a_round * self.report_seconds * 1000).astype(np.int64)
            ts -= random.lognormal(np.log(80), 0.6, len(number)).astype(np.int64)
            behind = random.random(len(number)) < self.late
            ts[behind] -= random.integers(60_000, 600_000, int(behind.sum()))
            columns = {
                "device": _coded(device, names),
                "metric": _coded(metric, [one[0] for one in _METRICS]),
                "ts": pa.array(ts).cast(pa.timestamp("ms", "UTC")),
                "value": pa.array(self._values(random, level, device, metric, ts)),
                "unit": _coded(metric, [one[1] for one in _METRICS]),
                "region": _coded(home[device], _REGIONS),
                "firmware": _coded(firmware[device], _FIRMWARE),
                "status": _coded((random.random(len(number)) > 0.99).astype(np.int64), _STATUS),
            }
            yield pa.table([columns[name] for name in schema.names], names=schema.names)

    @staticmethod
    def _values(
        random: np.random.Generator,
        level: np.ndarray[tuple[int, int], np.dtype[np.float64]],
        device: np.ndarray[tuple[int], np.dtype[np.int64]],
        metric: np.ndarray[tuple[int], np.dtype[np.int64]],
        ts: np.ndarray[tuple[int], np.dtype[np.int64]],
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """A level of the device's own, a slow swing, and a little noise, rounded to the sensor's resolution."""
        resolution, mean, spread = (np.array([one[i] for one in _METRICS])[metric] for i in (2, 3, 4))
        swing = np.sin(ts / 600_000 + device)
        raw = mean + spread * (0.5 * level[device, metric] + 0.4 * swing + 0.05 * random.standard_normal(len(ts)))
        return np.round(np.round(raw / resolution) * resolution, 2)


def _coded(codes: np.ndarray[tuple[int], np.dtype[np.int64]], names: object) -> pa.DictionaryArray:
    values = names if isinstance(names, pa.Array) else pa.array(names)
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), values)
