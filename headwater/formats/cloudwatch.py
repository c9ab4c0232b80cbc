"""Decode what CloudWatch Logs subscriptions put on a stream
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html)."""

from typing import Any

from headwater.codec.jsonrows import split_objects
from headwater.codec.records import Decoder
from headwater.codec.rows import Row
from headwater.errors import InvalidRecord
from headwater.formats.jsondata import JsonDecoder

__all__ = ["cloudwatch_logs"]

_CONTROL, _DATA = "CONTROL_MESSAGE", "DATA_MESSAGE"


def cloudwatch_logs() -> Decoder:
    """Return a decoder of CloudWatch Logs subscriptions: a row for each log event.

    A row has `id`, `timestamp` (ms), `message`, maybe `extractedFields`, and of its record `owner`, `logGroup`,
    `logStream` and `subscriptionFilters`. A CONTROL_MESSAGE, by which CloudWatch checks the stream, has no events.

    >>> cloudwatch_logs()(b'{"messageType": "CONTROL_MESSAGE", "logEvents": [{"id": "", "message": "check"}]}')
    []
    """
    return JsonDecoder(_log_events, split_objects)


def _log_events(records: list[Any]) -> list[Row]:
    rows: list[Row] = []
    for record in records:
        kind = record.get("messageType") if isinstance(record, dict) else None
        if kind == _CONTROL:
            continue
        if kind != _DATA or not isinstance(record.get("logEvents"), list):
            raise InvalidRecord("no record of a CloudWatch Logs subscription: it has a messageType and logEvents")
        shared = {name: value for name, value in record.items() if name not in ("messageType", "logEvents")}
        rows += [shared | event if isinstance(event, dict) else event for event in record["logEvents"]]
    return rows
