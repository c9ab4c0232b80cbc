"""What a stream costs under each of the service's pricing modes. Pure; the prices are a dated file."""

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
    """Dollars per unit; see prices.yaml."""

    shard_hour: float
    put_units_million: float
    put_unit_bytes: float
    fan_out_shard_hour: float
    fan_out_gb: float
    extended_shard_hour: float


@dataclass(frozen=True)
class OnDemand:
    """Dollars per unit; the minimums are the account's commitment, in bytes per second."""

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
    """A price table and where it comes from."""

    date: str
    region: str
    currency: str
    sources: tuple[str, ...]
    provisioned: Provisioned
    on_demand_standard: OnDemand
    on_demand_advantage: OnDemand


@dataclass(frozen=True)
class Usage:
    """An average month: rates per second, readers, retention."""

    bytes_s: float
    records_s: float
    consumers: int = 1
    """Readers that share the 2 MB/s of a shard (GetRecords)."""
    fan_out: int = 0
    """Readers with enhanced fan-out."""
    retention_hours: float = 24.0

    @property
    def record_bytes(self) -> float:
        return self.bytes_s / self.records_s if self.records_s > 1e-9 else 0.0


@dataclass(frozen=True)
class Cost:
    """Dollars per hour by item."""

    items: Mapping[str, float]

    @property
    def hour(self) -> float:
        return math.fsum(self.items.values())

    @property
    def month(self) -> float:
        return self.hour * MONTH_HOURS

    def to_json(self) -> dict[str, Any]:
        return {"hour": self.hour, "month": self.month, "items": dict(self.items)}


def load_prices(path: str | Path | None = None) -> Prices:
    """The user's table, or the shipped one."""
    try:
        text = (files("processors.shards") / "prices.yaml").read_text() if path is None else Path(path).read_text()
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
    return {name: float(value) for name, value in raw.items()}


def provisioned(prices: Prices, usage: Usage, shards: float) -> Cost:
    """Provisioned mode with so many shards."""
    p = prices.provisioned
    units = math.ceil(usage.record_bytes / p.put_unit_bytes) if usage.records_s else 0
    out = usage.bytes_s * 3600 / GB
    return Cost(
        {
            "shards": shards * p.shard_hour,
            "puts": usage.records_s * 3600 * units / 1e6 * p.put_units_million,
            "fan-out": usage.fan_out * (shards * p.fan_out_shard_hour + out * p.fan_out_gb),
            "retention": shards * p.extended_shard_hour if usage.retention_hours > 24 else 0.0,
        }
    )


def on_demand(price: OnDemand, usage: Usage) -> Cost:
    """On-demand mode; `price` says which. The commitment is laid on this stream alone: others may share it."""
    rounding = price.record_rounding_bytes
    billed = usage.records_s * math.ceil(usage.record_bytes / rounding) * rounding if usage.records_s else 0.0
    into = max(billed, price.minimum_in_bytes) * 3600 / GB
    shared, fanned = usage.consumers * billed, usage.fan_out * billed
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
    """Every mode by name, with the readers shared and with all of them on enhanced fan-out."""
    fanned = replace(usage, consumers=0, fan_out=usage.consumers + usage.fan_out)
    out = {}
    for suffix, use in (("", usage), (" + fan-out", fanned)):
        out[f"provisioned{suffix}"] = provisioned(prices, use, shards)
        out[f"on-demand standard{suffix}"] = on_demand(prices.on_demand_standard, use)
        out[f"on-demand advantage{suffix}"] = on_demand(prices.on_demand_advantage, use)
    return out
