"""Decode JSON in which several events stand under one name, or in an envelope."""

from collections.abc import Callable
from typing import Any

from headwater.codec.jsonrows import event_texts, json_objects
from headwater.codec.records import Decoder
from headwater.codec.rows import Row
from headwater.contract import Contract

__all__ = ["JsonDecoder", "telegraf"]


class JsonDecoder:
    """Decode JSON by a function of the values in a record; numbers are as they were written where the contract holds
    decimals or JSON."""

    def __init__(
        self,
        rows: Callable[[list[Any]], list[Row]],
        texts: Callable[[bytes], list[bytes]] = event_texts,
        *,
        exact: bool = False,
        reads_empty: bool = False,
    ) -> None:
        self._rows, self._texts, self._exact, self.reads_empty = rows, texts, exact, reads_empty

    def for_contract(self, contract: Contract) -> Decoder:
        """Return the decoder for events of the contract."""
        return JsonDecoder(self._rows, self._texts, exact=contract.exact, reads_empty=self.reads_empty)

    def __call__(self, data: bytes) -> list[Row]:
        """Return the rows of a record."""
        return self._rows(json_objects(data, self._texts, exact=self._exact))


def telegraf() -> Decoder:
    """Return a decoder of Telegraf's JSON format: a row for each metric, also where `metrics` batches them.

    A row has `name`, `tags`, `fields` and `timestamp`, in seconds as Telegraf's default is
    (https://docs.influxdata.com/telegraf/v1/data_formats/output/json/).

    >>> telegraf()(b'{"metrics": [{"name": "cpu", "tags": {}, "fields": {"idle": 91.5}, "timestamp": 1772366400}]}')
    [{'name': 'cpu', 'tags': {}, 'fields': {'idle': 91.5}, 'timestamp': 1772366400}]
    """
    return JsonDecoder(_telegraf)


def _telegraf(values: list[Any]) -> list[Row]:
    rows: list[Row] = []
    for found in values:
        batch = isinstance(found, dict) and isinstance(found.get("metrics"), list)
        rows += found["metrics"] if batch else [found]
    return rows
