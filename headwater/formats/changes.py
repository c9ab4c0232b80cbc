"""Decode records of changed rows: DynamoDB's, Debezium's and those of the AWS Database Migration Service."""

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from headwater.codec.jsonrows import json_objects
from headwater.codec.records import Decoder
from headwater.codec.rows import Row, RowColumns, Values
from headwater.contract import Field
from headwater.contract.conversion import micros_column
from headwater.contract.values import read_value
from headwater.errors import InvalidRecord

__all__ = ["debezium", "dms", "dynamodb_changes"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = date(1970, 1, 1)
_PRECISIONS = {"MILLISECOND": 1_000, "MICROSECOND": 1}
"""Microseconds in the unit of ApproximateCreationDateTime."""
_MICROS = {
    "io.debezium.time.Timestamp": 1_000,
    "io.debezium.time.MicroTimestamp": 1,
    "org.apache.kafka.connect.data.Timestamp": 1_000,
}
_NANOS_OF_DAY = {
    "io.debezium.time.Time": 1_000_000,
    "io.debezium.time.MicroTime": 1_000,
    "io.debezium.time.NanoTime": 1,
    "org.apache.kafka.connect.data.Time": 1_000_000,
}
_MOST_DIGITS = 400
"""Digits before the point of a number, and behind it: more than a double or any field has."""
_TIME = Field("time", "time")


def dynamodb_changes() -> Decoder:
    """Return a decoder of DynamoDB's change records in a Kinesis data stream: a row for each change.

    A row has `eventID`, `eventName` (INSERT, MODIFY or REMOVE), `tableName`, `awsRegion`, `at` (when it happened),
    `keys`, `new` and `old` (plain values, `{}` where the record has no image), `item` (the new image, else the old one,
    else the keys) and `sizeBytes`. Numbers are int or Decimal, exactly; sets are sorted lists
    (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/kds.html).
    """
    return _Changes()


class _Changes:
    """Read change records of DynamoDB."""

    def __call__(self, data: bytes) -> list[Row]:
        return [*_columns([data], lambda micros: [_EPOCH + timedelta(0, 0, one) for one in micros])]

    def together(self, datas: Sequence[bytes]) -> RowColumns:
        """Return the rows of some records."""
        return _columns(datas, micros_column)


_NAMES = ("eventID", "eventName", "tableName", "awsRegion", "userIdentity", "keys", "new", "old", "item", "sizeBytes",
          "at")  # fmt: skip


def _columns(datas: Sequence[bytes], times: Callable[[Sequence[int]], Values]) -> RowColumns:
    rows, counts = list[tuple[Any, ...]](), list[int]()
    for data in datas:
        found = json_objects(data)
        rows += map(_change, found)
        counts.append(len(found))
    *values, micros = zip(*rows, strict=True) if rows else [()] * len(_NAMES)
    return RowColumns(_NAMES, [*values, times(micros)], counts)


def _change(found: Any) -> tuple[Any, ...]:
    """Return the values of `_NAMES`, the time in microseconds since 1970."""
    get = _object(found).get
    change = get("dynamodb")
    if not isinstance(change, dict) or "eventName" not in found:
        raise InvalidRecord("no change record of DynamoDB: it has an eventName and dynamodb")
    of = change.get
    unit = _PRECISIONS.get(str(of("ApproximateCreationDateTimePrecision", "MILLISECOND")))
    stamp = of("ApproximateCreationDateTime")
    if unit is None or type(stamp) is not int:
        raise InvalidRecord("no change record of DynamoDB: its time is none")
    keys, new, old = of("Keys"), of("NewImage"), of("OldImage")
    keys, new, old = _image(keys) if keys else {}, _image(new) if new else {}, _image(old) if old else {}
    item, size = new or old or keys, of("SizeBytes")
    return (get("eventID"), get("eventName"), get("tableName"), get("awsRegion"), get("userIdentity"), keys, new, old,
            item, size, stamp * unit)  # fmt: skip


def _image(image: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of an item. Short texts and whole numbers, which most are, are read here."""
    plain: dict[str, Any] = {}
    for name, value in image.items():
        if len(value) == 1:
            content = value.get("S")
            if type(content) is str:
                plain[name] = content
                continue
            content = value.get("N")
            if type(content) is str and len(content) < 41 and content.isdecimal() and content.isascii():
                plain[name] = int(content)
                continue
        plain[name] = _attribute(value, 32)
    return plain


def _attribute(value: Any, depth: int) -> Any:
    """Return the plain value of an attribute; DynamoDB nests up to 32 levels."""
    if not isinstance(value, dict) or len(value) != 1 or depth < 0:
        raise InvalidRecord("an attribute that is none of DynamoDB's")
    ((kind, content),) = value.items()
    try:
        if kind == "M":
            return {name: _attribute(one, depth - 1) for name, one in content.items()}
        if kind == "L":
            return [_attribute(one, depth - 1) for one in content]
        if kind == "NULL":
            return None
        if kind in ("NS", "SS", "BS"):
            return sorted(_SCALARS[kind[0]](one) for one in content)
        return _SCALARS[kind](content)
    except (KeyError, AttributeError, TypeError, ValueError, InvalidOperation) as error:
        raise InvalidRecord(f"an attribute of the type {kind[:8]} that cannot be read") from error


def _number(text: Any) -> int | Decimal:
    if isinstance(text, str) and text.isdecimal() and text.isascii() and len(text) <= 40:
        return int(text)
    if isinstance(text, str) and len(text) > 2 * _MOST_DIGITS:
        raise ValueError("too many digits")
    found = _bounded(Decimal(text))
    return int(found) if found == found.to_integral_value() and found.adjusted() < 40 else found


def _bounded(found: Decimal) -> Decimal:
    """Refuse what is no finite number, or one that would take a text of any length to be written out."""
    _, digits, exponent = found.as_tuple()
    if not isinstance(exponent, int) or len(digits) > 2 * _MOST_DIGITS or abs(exponent) > _MOST_DIGITS:
        raise ValueError("not finite, or too many digits")
    return found


def _typed(kind: type) -> Any:
    def read(value: object) -> object:
        if not isinstance(value, kind):
            raise TypeError(type(value).__name__)
        return value

    return read


_SCALARS: dict[str, Any] = {
    "S": _typed(str),
    "N": _number,
    "BOOL": _typed(bool),
    "B": lambda text: base64.b64decode(text, validate=True),
}


def debezium() -> Decoder:
    """Return a decoder of Debezium's change events in JSON, with or without their schema: a row for each change.

    A row is the envelope (`op`, `before`, `after`, `source`, `ts_ms`, `transaction`) with `row`, the values after the
    change, or before a deletion, and `deleted`. With the schema, decimals, dates and times in `before`, `after` and
    `row` are values; without it they are as Debezium writes them. A tombstone and a heartbeat have no events
    (https://debezium.io/documentation/reference/stable/connectors/postgresql.html).

    >>> debezium()(b'{"before": {"id": 1}, "after": null, "op": "d", "ts_ms": 1772366400100}')[0]["row"]
    {'id': 1}
    """
    return _debezium


def _debezium(data: bytes) -> list[Row]:
    rows: list[Row] = []
    for one in json_objects(data):
        found = _object(one)
        schema = None
        if found.keys() == {"schema", "payload"}:
            schema, found = found["schema"], found["payload"]
        if found is None or (isinstance(found, dict) and found.keys() <= {"ts_ms"}):
            continue
        if not isinstance(found, dict) or "op" not in found:
            raise InvalidRecord("no change event of Debezium: it has an op, before and after")
        row: dict[str, Any] = found
        row.setdefault("before", None)
        row.setdefault("after", None)
        if schema is not None:
            for name in ("before", "after"):
                row[name] = _typed_row(row[name], _fields(schema, name))
        deleted = row["deleted"] = found["op"] == "d"
        row["row"] = row["before"] if deleted else row["after"]
        rows.append(row)
    return rows


def _fields(schema: Any, name: str) -> dict[str, Any]:
    """Return the schemas of the fields of `before` or `after`, by name."""
    for part in _list(schema, "fields"):
        if isinstance(part, dict) and part.get("field") == name:
            return {str(one.get("field")): one for one in _list(part, "fields") if isinstance(one, dict)}
    return {}


def _list(schema: Any, name: str) -> list[Any]:
    found = schema.get(name) if isinstance(schema, dict) else None
    return found if isinstance(found, list) else []


def _typed_row(row: Any, fields: Mapping[str, Any]) -> Any:
    if not isinstance(row, dict):
        return row
    return {name: value if value is None else _typed_value(value, fields.get(name, {})) for name, value in row.items()}


def _typed_value(value: Any, schema: Mapping[str, Any]) -> Any:
    kind = schema.get("name")
    try:
        if kind == "org.apache.kafka.connect.data.Decimal":
            unscaled = int.from_bytes(base64.b64decode(value, validate=True), "big", signed=True)
            # exactly, whatever its digits
            return _bounded(Decimal(f"{unscaled}E{-int(schema['parameters']['scale'])}"))
        if kind in _MICROS:
            return _EPOCH + timedelta(microseconds=value * _MICROS[kind])
        if kind == "io.debezium.time.NanoTimestamp":
            return _EPOCH + timedelta(microseconds=value // 1_000)
        if kind in _NANOS_OF_DAY:
            return read_value(_TIME, value * _NANOS_OF_DAY[kind] // 1_000)
        if kind in ("io.debezium.time.Date", "org.apache.kafka.connect.data.Date"):
            return _DAY + timedelta(days=value)
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise InvalidRecord(f"a value of {kind} that cannot be read: {str(value)[:40]}") from error
    return value


def dms() -> Decoder:
    """Return a decoder of the AWS Database Migration Service: a row for each changed row, with `data` and `metadata`.

    Records about tables (`record-type` control) have no events
    (https://docs.aws.amazon.com/dms/latest/userguide/CHAP_Target.Kinesis.html).

    >>> dms()(b'{"metadata": {"record-type": "control", "operation": "create-table"}}')
    []
    """
    return _dms


def _dms(data: bytes) -> list[Row]:
    rows: list[Row] = []
    for one in json_objects(data):
        found = _object(one)
        metadata = found.get("metadata")
        if not isinstance(metadata, dict) or "record-type" not in metadata:
            raise InvalidRecord("no record of the Database Migration Service: its metadata has a record-type")
        if metadata["record-type"] != "control":
            rows.append(found)
    return rows


def _object(found: Any) -> dict[str, Any]:
    # floats are read as Decimal nowhere: JSON numbers of databases are doubles, or text
    if not isinstance(found, dict):
        raise InvalidRecord("not a JSON object")
    return found
