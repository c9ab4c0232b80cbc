"""Make the events of a fleet in the `telemetry` contract: many devices, eight metrics each, as sensors round them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headwater.arrays import Ints
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
_START_MS = 1_762_160_400_000

Codes = np.ndarray[tuple[int], np.dtype[np.int32]]
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Fleet:
    """Describe a fleet; the same arguments give the same events.

    Devices report in turn, each about every `report_seconds`, all metrics of a device at a time. Of the readings the
    share `late` arrives with an event time one to ten minutes old, and the share `duplicates` comes again, a little
    later and in addition: the same row, which is the same event only under a contract with its own id.

    >>> table = next(Fleet(devices=2).batches(events=16, batch=16))
    >>> table.num_rows, table.column_names[:3]
    (16, ['device', 'metric', 'ts'])
    """

    devices: int = 5_000
    seed: int = 1
    duplicates: float = 0.0
    start_ms: int | None = None
    """Event time of the first reading, epoch ms; None is a fixed day, so that runs can be compared."""
    report_seconds: float = 10.0
    late: float = 0.001

    def batches(self, events: int, batch: int) -> Iterator[pa.Table]:
        """Yield tables of up to `batch` rows (more by the duplicates), `events` readings in all, in order of arrival.

        Strings are dictionary-encoded; all tables share their dictionaries.
        """
        random = np.random.default_rng(self.seed)
        names = pa.array([f"dev-{number:05d}" for number in range(1, self.devices + 1)])
        level = random.standard_normal(self.devices * len(_METRICS))
        home = random.integers(0, len(_REGIONS), self.devices, np.int32)
        firmware = random.integers(0, len(_FIRMWARE), self.devices, np.int32)
        start_ms = _START_MS if self.start_ms is None else self.start_ms
        ms_each = self.report_seconds * 1000 / (self.devices * len(_METRICS))
        schema = load_contract("telemetry").arrow_schema
        for first in range(0, events, batch):
            number = np.arange(first, min(first + batch, events))
            report = number // len(_METRICS)
            device = (report % self.devices).astype(np.int32)
            metric = (number - report * len(_METRICS)).astype(np.int32)
            ts = start_ms + (number * ms_each).astype(np.int64) - self._delays(random, len(number))
            columns = {
                "device": _coded(device, names),
                "metric": _coded(metric, [one[0] for one in _METRICS]),
                "ts": pa.array(ts).cast(pa.timestamp("ms", "UTC")),
                "value": pa.array(self._values(random, level, device, metric, ts - start_ms)),
                "unit": _coded(metric, [one[1] for one in _METRICS]),
                "region": _coded(home[device], _REGIONS),
                "firmware": _coded(firmware[device], _FIRMWARE),
                "status": _coded((random.random(len(number), np.float32) > 0.99).astype(np.int32), _STATUS),
            }
            table = pa.table([columns[name] for name in schema.names], names=schema.names)
            yield self._with_duplicates(random, table) if self.duplicates else table

    def _delays(self, random: np.random.Generator, size: int) -> Ints:
        """Return the age of readings on arrival: about 80 ms, and minutes for the late ones."""
        old = np.exp(random.standard_normal(size, np.float32) * np.float32(0.6)) * np.float32(80)
        delays: Ints = old.astype(np.int64)
        behind = np.flatnonzero(random.random(size, np.float32) < self.late)
        delays[behind] += random.integers(60_000, 600_000, len(behind))
        return delays

    def _with_duplicates(self, random: np.random.Generator, table: pa.Table) -> pa.Table:
        again = np.flatnonzero(random.random(table.num_rows, np.float32) < self.duplicates)
        place = again + random.uniform(1, 1_000, len(again))
        order = np.argsort(np.concatenate([np.arange(table.num_rows), place]), kind="stable")
        return table.take(pa.array(np.concatenate([np.arange(table.num_rows), again])[order]))

    @staticmethod
    def _values(random: np.random.Generator, level: Floats, device: Codes, metric: Codes, elapsed_ms: Ints) -> Floats:
        """A level of the device's own, a slow swing, and a little noise, rounded to the sensor's resolution."""
        resolution, mean, spread = (np.array([one[i] for one in _METRICS])[metric] for i in (2, 3, 4))
        swing = np.sin((elapsed_ms / 600_000 + device).astype(np.float32))
        noise = random.standard_normal(len(device), np.float32)
        raw = mean + spread * (0.5 * level[device * len(_METRICS) + metric] + 0.4 * swing + 0.05 * noise)
        values: Floats = np.round(np.round(raw / resolution) * resolution, 2)
        return values


def _coded(codes: Codes, names: object) -> pa.DictionaryArray:
    values = names if isinstance(names, pa.Array) else pa.array(names)
    return pa.DictionaryArray.from_arrays(pa.array(codes), values)
