"""Decode records of changed rows: DynamoDB's, Debezium's and those of the AWS Database Migration Service."""

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from headwater.codec.jsonrows import json_objects
from headwater.codec.records import Decoder
from headwater.codec.rows import Row, RowColumns, Values
from headwater.contract import Field
from headwater.contract.conversion import micros_column
from headwater.contract.values import read_value
from headwater.errors import InvalidRecord
from headwater.formats.jsondata import JsonDecoder
from headwater.formats.numbers import decimal_of, unscaled

__all__ = ["debezium", "dms", "dynamodb_changes"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = date(1970, 1, 1)
_PRECISIONS = {"MILLISECOND": 1_000, "MICROSECOND": 1}
"""Microseconds in the unit of ApproximateCreationDateTime."""
_OLDEST, _NEWEST = 946_684_800_000_000, 253_402_300_800_000_000  # microseconds: 2000, and the year 10000
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
    if not _OLDEST <= stamp * unit < _NEWEST:  # DynamoDB Streams count in seconds, and say nothing of it
        raise InvalidRecord(f"a change of DynamoDB whose time {stamp} is counted in another unit than its record says")
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
            return [_attribute(one, depth - 1) for one in _typed(list)(content)]
        if kind == "NULL":
            return None
        if kind in ("NS", "SS", "BS"):
            return sorted(_SCALARS[kind[0]](one) for one in _typed(list)(content))
        return _SCALARS[kind](content)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise InvalidRecord(f"an attribute of the type {kind[:8]} that cannot be read") from error


def _number(text: Any) -> int | Decimal:
    if isinstance(text, str) and text.isdecimal() and text.isascii() and len(text) <= 40:
        return int(text)
    found = decimal_of(text)
    return int(found) if found == found.to_integral_value() and found.adjusted() < 40 else found


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
    `row` are values, also within structs, lists and maps; without it they are as Debezium writes them. A tombstone,
    which Debezium Server writes as an empty record, and a heartbeat have no events
    (https://debezium.io/documentation/reference/stable/connectors/postgresql.html).

    >>> debezium()(b'{"before": {"id": 1}, "after": null, "op": "d", "ts_ms": 1772366400100}')[0]["row"]
    {'id': 1}
    """
    return JsonDecoder(_debezium, reads_empty=True)


def _debezium(values: list[Any]) -> list[Row]:
    rows: list[Row] = []
    for one in values:
        found = _object(one)
        schema = None
        if found.keys() == {"schema", "payload"}:
            schema, found = found["schema"], found["payload"]
        if found is None or (isinstance(found, dict) and found.keys() == {"ts_ms"}):
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
    return _parts(_parts(schema).get(name))


def _parts(schema: Any) -> dict[str, Any]:
    """Return the schemas of a struct's fields, by name."""
    listed = schema.get("fields") if isinstance(schema, dict) else None
    return {str(one.get("field")): one for one in listed if isinstance(one, dict)} if isinstance(listed, list) else {}


def _typed_row(row: Any, fields: Mapping[str, Any]) -> Any:
    if not isinstance(row, dict):
        return row
    return {name: _typed_value(value, fields.get(name)) for name, value in row.items()}


def _typed_value(value: Any, schema: Any) -> Any:
    if value is None or not isinstance(schema, dict):
        return value
    kind = schema.get("name")
    read = _TYPES.get(kind) if isinstance(kind, str) else None
    if read is not None:
        try:
            return read(value, schema)
        except (ValueError, TypeError, KeyError, ArithmeticError) as error:
            raise InvalidRecord(f"a value of {kind} that cannot be read: {str(value)[:40]}") from error
    if isinstance(value, list):
        return [_typed_value(one, schema.get("items")) for one in value]
    if isinstance(value, dict) and "values" in schema:  # a map
        return {name: _typed_value(one, schema["values"]) for name, one in value.items()}
    return _typed_row(value, _parts(schema))


def _decimal(value: Any, schema: Mapping[str, Any]) -> Decimal:
    return unscaled(base64.b64decode(value, validate=True), int(schema["parameters"]["scale"]))


def _scaled_decimal(value: Any, _: object) -> Decimal:
    return unscaled(base64.b64decode(value["value"], validate=True), value["scale"])


def _counted(read: Callable[[int], object]) -> Callable[[Any, Mapping[str, Any]], object]:
    """Return the reader of a type that Debezium counts in whole numbers."""

    def of(value: Any, _: object) -> object:
        if type(value) is not int:
            raise TypeError(type(value).__name__)
        return read(value)

    return of


def _times(micros: int, per: int = 1) -> Callable[[Any, Mapping[str, Any]], object]:
    return _counted(lambda count: _EPOCH + timedelta(microseconds=count * micros // per))


def _times_of_day(micros: int, per: int = 1) -> Callable[[Any, Mapping[str, Any]], object]:
    return _counted(lambda count: read_value(_TIME, count * micros // per))


_DATE = _counted(lambda days: _DAY + timedelta(days=days))
_TYPES: dict[str, Callable[[Any, Mapping[str, Any]], object]] = {
    "org.apache.kafka.connect.data.Decimal": _decimal,
    "io.debezium.data.VariableScaleDecimal": _scaled_decimal,
    "org.apache.kafka.connect.data.Date": _DATE,
    "io.debezium.time.Date": _DATE,
    "org.apache.kafka.connect.data.Timestamp": _times(1_000),
    "io.debezium.time.Timestamp": _times(1_000),
    "io.debezium.time.MicroTimestamp": _times(1),
    "io.debezium.time.NanoTimestamp": _times(1, 1_000),
    "org.apache.kafka.connect.data.Time": _times_of_day(1_000),
    "io.debezium.time.Time": _times_of_day(1_000),
    "io.debezium.time.MicroTime": _times_of_day(1),
    "io.debezium.time.NanoTime": _times_of_day(1, 1_000),
}
"""Readers of values whose type in Connect's schema has a name: the value, and its schema."""


def dms() -> Decoder:
    """Return a decoder of the AWS Database Migration Service: a row for each changed row, with `data` and `metadata`.

    Records about tables (`record-type` control) have no events
    (https://docs.aws.amazon.com/dms/latest/userguide/CHAP_Target.Kinesis.html).

    >>> dms()(b'{"metadata": {"record-type": "control", "operation": "create-table"}}')
    []
    """
    return JsonDecoder(_dms)


def _dms(values: list[Any]) -> list[Row]:
    rows: list[Row] = []
    for one in values:
        found = _object(one)
        metadata = found.get("metadata")
        if not isinstance(metadata, dict) or "record-type" not in metadata:
            raise InvalidRecord("no record of the Database Migration Service: its metadata has a record-type")
        if metadata["record-type"] != "control":
            rows.append(found)
    return rows


def _object(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InvalidRecord("not a JSON object")
    return found
