"""Decode what other writers put on a stream: each name is a decoder for `Pipeline.decode`, or makes one.

    Pipeline("orders", contract="orders.yaml").decode(formats.debezium())

A decoder turns the bytes of a record into rows, whose values the contract's `from` paths name. It is pure and does no
I/O: schemas are given when it is made. JSON of any shape needs none of them. See docs/formats.md for a sample and a
contract of each. Names are loaded when they are first used, so only what is used must be installed.

>>> from headwater import formats
>>> formats.influx()(b"cpu,host=a usage=1.5 1772366400000000000")[0]["fields"]
{'usage': 1.5}
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headwater.codec.records import Decoder
from headwater.codec.rows import ARRIVAL

if TYPE_CHECKING:
    from headwater.formats.avrodata import avro
    from headwater.formats.changes import debezium, dms, dynamodb_changes
    from headwater.formats.cloudwatch import cloudwatch_logs
    from headwater.formats.csvlines import csv
    from headwater.formats.jsondata import telegraf
    from headwater.formats.lineprotocol import influx
    from headwater.formats.opentelemetry import metric_stream, otlp
    from headwater.formats.protobufdata import protobuf

__all__ = [
    "ARRIVAL",
    "Decoder",
    "avro",
    "cloudwatch_logs",
    "csv",
    "debezium",
    "dms",
    "dynamodb_changes",
    "influx",
    "metric_stream",
    "otlp",
    "protobuf",
    "telegraf",
]

_MODULES = {
    "avrodata": "avro",
    "changes": "debezium dms dynamodb_changes",
    "cloudwatch": "cloudwatch_logs",
    "csvlines": "csv",
    "lineprotocol": "influx",
    "jsondata": "telegraf",
    "opentelemetry": "metric_stream otlp",
    "protobufdata": "protobuf",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a decoder at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
