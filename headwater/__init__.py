"""Exactly-once streaming on Amazon Kinesis: everything a program needs, from one import root.

    from headwater import Pipeline, Producer, count, mean, tumbling

Names are loaded when they are first used: `import headwater` by itself loads neither pyarrow nor boto3, and neither do
the errors, the settings of a producer, the windows, the aggregates and the alert conditions. Only names that a user
writes belong here; what one module of headwater needs of another it imports from where it is defined.

>>> import headwater
>>> headwater.tumbling("1m").size_ms
60000
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.aggregates import (
        Aggregate,
        count,
        distinct,
        first,
        last,
        max,
        mean,
        min,
        quantile,
        sum,
        variance,
    )
    from headwater.config import Settings
    from headwater.contract import Contract, load_contract
    from headwater.errors import (
        BufferFull,
        CommitUnknown,
        Fenced,
        HeadwaterError,
        InvalidContract,
        InvalidEvent,
        InvalidRecord,
        Retryable,
        Throttled,
        UsageError,
    )
    from headwater.processors.alerts import above, absent, below, falling, rising
    from headwater.processors.definition.parts import Reference
    from headwater.processors.definition.pipeline import Pipeline
    from headwater.processors.definition.windows import Window, calendar, hopping, tumbling
    from headwater.producers.producer import Producer
    from headwater.producers.settings import ProducerSettings, ProducerStats, Receipt

__version__ = "0.1.0"

__all__ = [
    "Aggregate",
    "BufferFull",
    "CommitUnknown",
    "Contract",
    "Fenced",
    "HeadwaterError",
    "InvalidContract",
    "InvalidEvent",
    "InvalidRecord",
    "Pipeline",
    "Producer",
    "ProducerSettings",
    "ProducerStats",
    "Receipt",
    "Reference",
    "Retryable",
    "Settings",
    "Throttled",
    "UsageError",
    "Window",
    "__version__",
    "above",
    "absent",
    "below",
    "calendar",
    "count",
    "distinct",
    "falling",
    "first",
    "hopping",
    "last",
    "load_contract",
    "max",
    "mean",
    "min",
    "quantile",
    "rising",
    "sum",
    "tumbling",
    "variance",
]

_MODULES = {
    "headwater.aggregates": ("Aggregate count distinct first last max mean min quantile sum variance"),
    "headwater.config": "Settings",
    "headwater.contract": "Contract load_contract",
    "headwater.errors": (
        "BufferFull CommitUnknown Fenced HeadwaterError InvalidContract InvalidEvent InvalidRecord Retryable Throttled "
        "UsageError"
    ),
    "headwater.processors.alerts": "above absent below falling rising",
    "headwater.processors.definition.parts": "Reference",
    "headwater.processors.definition.pipeline": "Pipeline",
    "headwater.processors.definition.windows": "Window calendar hopping tumbling",
    "headwater.producers.producer": "Producer",
    "headwater.producers.settings": "ProducerSettings ProducerStats Receipt",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}
"""Where each exported name is defined. The imports above say the same to type checkers."""


def __getattr__(name: str) -> Any:
    """Load an exported name at its first use and keep it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """Return the exported names, loaded or not."""
    return sorted({*globals(), *_HOMES})
