"""Compute what a stream costs under each of the service's pricing modes. Pure.

Prices are in no code: they come from a dated file, `prices.yaml`, which users may replace.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from headwater.errors import UsageError

__all__ = ["Cost", "OnDemand", "Prices", "Provisioned", "Usage", "compare", "load_prices", "on_demand", "provisioned"]

MONTH_HOURS = 730.0
GB = 1024.0**3


@dataclass(frozen=True)
class Provisioned:
    """Hold the prices of provisioned mode, in dollars per unit; `prices.yaml` says what each unit is."""

    shard_hour: float
    put_units_million: float
    put_unit_bytes: float
    fan_out_shard_hour: float
    fan_out_gb: float
    extended_shard_hour: float


@dataclass(frozen=True)
class OnDemand:
    """Hold the prices of an on-demand mode, in dollars per unit.

    The minimums are what the account commits to pay for, in bytes per second.
    """

    stream_hour: float
    in_gb: float
    out_gb: float
    fan_out_gb: float
    extended_gb_month: float
    record_rounding_bytes: float
    minimum_in_bytes: float = 0.0
    minimum_out_bytes: float = 0.0


@dataclass(frozen=True)
class Prices:
    """Hold a price table, its date, and the pages that its numbers were taken from."""

    date: str
    region: str
    currency: str
    sources: tuple[str, ...]
    provisioned: Provisioned
    on_demand_standard: OnDemand
    on_demand_advantage: OnDemand


@dataclass(frozen=True)
class Usage:
    """Hold what a stream is priced for: mean bytes and records per second, its readers, and the retention in hours.

    `bytes_s` includes the partition keys.
    """

    bytes_s: float
    records_s: float
    consumers: int = 1
    """Readers that share the 2 MB/s of a shard (GetRecords)."""
    fan_out: int = 0
    """Readers with enhanced fan-out."""
    retention_hours: float = 24.0

    @property
    def record_bytes(self) -> float:
        """Return the mean size of a record in bytes, 0 without records.

        >>> Usage(bytes_s=1_000_000, records_s=100).record_bytes
        10000.0
        """
        return self.bytes_s / self.records_s if self.records_s > 1e-9 else 0.0


@dataclass(frozen=True)
class Cost:
    """Hold dollars per hour by item.

    >>> cost = Cost({"shards": 0.06, "puts": 0.04})
    >>> cost.hour, cost.month
    (0.1, 73.0)
    """

    items: Mapping[str, float]

    @property
    def hour(self) -> float:
        """Return the dollars per hour, all items together."""
        return math.fsum(self.items.values())

    @property
    def month(self) -> float:
        """Return the dollars per month of 730 hours."""
        return self.hour * MONTH_HOURS

    def to_json(self) -> dict[str, Any]:
        """Return the cost as a JSON document: `hour`, `month` and the `items`, all in dollars."""
        return {"hour": self.hour, "month": self.month, "items": dict(self.items)}


def load_prices(path: str | Path | None = None) -> Prices:
    """Return the price table at `path`, or the shipped one.

    Raises UsageError with one line when the file cannot be read or lacks a price.

    >>> load_prices().currency
    'USD'
    """
    try:
        text = (
            (files("headwater.processors.scaling") / "prices.yaml").read_text()
            if path is None
            else Path(path).read_text()
        )
        raw = yaml.safe_load(text)
        return Prices(
            date=str(raw["date"]),
            region=str(raw["region"]),
            currency=str(raw["currency"]),
            sources=tuple(str(source) for source in raw["sources"]),
            provisioned=Provisioned(**_floats(raw["provisioned"])),
            on_demand_standard=OnDemand(**_floats(raw["on_demand_standard"])),
            on_demand_advantage=OnDemand(**_floats(raw["on_demand_advantage"])),
        )
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())
        raise UsageError(f"{path or 'prices.yaml'}: not a price table: {what}; see the shipped prices.yaml") from None


def _floats(raw: Mapping[str, Any]) -> dict[str, float]:
    """Return the values as floats: YAML gives an integer where a price has no cents."""
    return {name: float(value) for name, value in raw.items()}


def provisioned(prices: Prices, usage: Usage, shards: float) -> Cost:
    """Return the hourly cost of provisioned mode with `shards` shards.

    A record is billed in units of 25 KB, rounded up. The units are counted for the mean record size, so a mix of small
    and large records may cost somewhat more or less.

    >>> cost = provisioned(load_prices(), Usage(bytes_s=1_000_000, records_s=100), shards=4)
    >>> sorted(cost.items)
    ['fan-out', 'puts', 'retention', 'shards']
    """
    p = prices.provisioned
    units = math.ceil(usage.record_bytes / p.put_unit_bytes) if usage.records_s else 0
    out = usage.bytes_s * 3600 / GB
    # The first 24 hours of retention are in the price of a shard hour.
    return Cost(
        {
            "shards": shards * p.shard_hour,
            "puts": usage.records_s * 3600 * units / 1e6 * p.put_units_million,
            "fan-out": usage.fan_out * (shards * p.fan_out_shard_hour + out * p.fan_out_gb),
            "retention": shards * p.extended_shard_hour if usage.retention_hours > 24 else 0.0,
        }
    )


def on_demand(price: OnDemand, usage: Usage) -> Cost:
    """Return the hourly cost of the on-demand mode that `price` belongs to.

    The account's commitment is charged to this stream alone, although other streams may share it: the cost is an upper
    bound.

    >>> prices = load_prices()
    >>> cost = on_demand(prices.on_demand_standard, Usage(bytes_s=0, records_s=0))
    >>> cost.hour == prices.on_demand_standard.stream_hour
    True
    """
    rounding = price.record_rounding_bytes
    billed = usage.records_s * math.ceil(usage.record_bytes / rounding) * rounding if usage.records_s else 0.0
    into = max(billed, price.minimum_in_bytes) * 3600 / GB
    shared, fanned = usage.consumers * billed, usage.fan_out * billed
    # Traffic of fan-out readers counts towards the commitment, but has a price of its own.
    lacking = max(0.0, price.minimum_out_bytes - shared - fanned)
    extended = max(0.0, usage.retention_hours - 24) * 3600 * billed / GB
    return Cost(
        {
            "stream": price.stream_hour,
            "in": into * price.in_gb,
            "out": (shared + lacking) * 3600 / GB * price.out_gb,
            "fan-out": fanned * 3600 / GB * price.fan_out_gb,
            "retention": extended * price.extended_gb_month / MONTH_HOURS,
        }
    )


def compare(prices: Prices, usage: Usage, shards: int) -> dict[str, Cost]:
    """Return the cost of each mode by name, with shared readers and with all readers on enhanced fan-out.

    >>> for name in compare(load_prices(), Usage(bytes_s=1_000_000, records_s=100), shards=2):
    ...     print(name)
    provisioned
    on-demand standard
    on-demand advantage
    provisioned + fan-out
    on-demand standard + fan-out
    on-demand advantage + fan-out
    """
    fanned = replace(usage, consumers=0, fan_out=usage.consumers + usage.fan_out)
    out = {}
    for suffix, use in (("", usage), (" + fan-out", fanned)):
        out[f"provisioned{suffix}"] = provisioned(prices, use, shards)
        out[f"on-demand standard{suffix}"] = on_demand(prices.on_demand_standard, use)
        out[f"on-demand advantage{suffix}"] = on_demand(prices.on_demand_advantage, use)
    return out
