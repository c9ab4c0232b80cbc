"""Decode JSON in which several events stand under one name."""

from headwater.codec.jsonrows import json_objects
from headwater.codec.records import Decoder
from headwater.codec.rows import Row

__all__ = ["telegraf"]


def telegraf() -> Decoder:
    """Return a decoder of Telegraf's JSON format: a row for each metric, also where `metrics` batches them.

    A row has `name`, `tags`, `fields` and `timestamp`, in seconds as Telegraf's default is
    (https://docs.influxdata.com/telegraf/v1/data_formats/output/json/).

    >>> telegraf()(b'{"metrics": [{"name": "cpu", "tags": {}, "fields": {"idle": 91.5}, "timestamp": 1772366400}]}')
    [{'name': 'cpu', 'tags': {}, 'fields': {'idle': 91.5}, 'timestamp': 1772366400}]
    """
    return _telegraf


def _telegraf(data: bytes) -> list[Row]:
    rows: list[Row] = []
    for found in json_objects(data):
        batch = isinstance(found, dict) and isinstance(found.get("metrics"), list)
        rows += found["metrics"] if batch else [found]
    return rows
