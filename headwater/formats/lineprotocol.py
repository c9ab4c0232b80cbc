"""Decode InfluxDB's line protocol, which Telegraf writes by default
(https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/)."""

import re
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

from headwater.codec.records import Decoder
from headwater.codec.rows import ARRIVAL, Row, Unread
from headwater.errors import InvalidRecord, UsageError

__all__ = ["influx"]

_BOM = b"\xef\xbb\xbf"
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LINE = re.compile(r'(?:="(?:\\.|[^"\\])*+"(?=[, \r\n]|\Z)|[^\n])++', re.DOTALL)
_MEASUREMENT = re.compile(r"(?:\\.|[^, \\])+")
_NAME = re.compile(r"(?:\\.|[^,= \\])+")
_TEXT = re.compile(r'"((?:\\.|[^"\\])*+)"', re.DOTALL)
_BARE = re.compile(r"[^, ]+")
_ESCAPED = re.compile(r"\\([,= \"\\])")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}[iu]")
_LEAST = {"i": -(2**63), "u": 0}
_MOST = {"i": 2**63 - 1, "u": 2**64 - 1}
_BOOLEANS = {text: value for value, texts in ((True, "t T true True TRUE"), (False, "f F false False FALSE"))
             for text in texts.split()}  # fmt: skip
_STAMP = re.compile(r"-?[0-9]{1,19}")


def influx(*, precision: str = "ns", earliest: str = "2000-01-01") -> Decoder:
    """Return a decoder of line protocol: a row for each line with `measurement`, `tags`, `fields` and `time`.

    `precision` is the unit of timestamps: s, ms, us or ns. A line without one takes its record's arrival. A line that
    is none is a dead letter by itself, and so is one whose time is before the day `earliest`: it may be counted in
    another unit. Raise UsageError for another precision, and for what is no day.

    >>> row = influx()(b"weather,city=Bern temp=7.5,ok=t 1772366400000000000")[0]
    >>> row["measurement"], row["tags"], row["fields"], row["time"].isoformat()
    ('weather', {'city': 'Bern'}, {'temp': 7.5, 'ok': True}, '2026-03-01T12:00:00+00:00')
    """
    if precision not in _PER_SECOND:
        raise UsageError(f"influx: precision {precision!r} is none of {', '.join(_PER_SECOND)}")
    try:
        since = datetime.fromisoformat(earliest).replace(tzinfo=UTC)
    except (ValueError, TypeError):
        raise UsageError(f"influx: earliest {earliest!r} is no day as in 2000-01-01") from None

    def decode(data: bytes) -> list[Row | Unread]:
        known = _Known(precision, since)
        data = data.removeprefix(_BOM)
        try:
            return [_row(line, known) for line in _lines(data.decode())]
        except UnicodeDecodeError:
            return [_any_row(line, known) for line in _lines(data.decode(errors="surrogateescape"))]

    return decode


class _Known:
    """Hold what the lines of a record have in common: the same series and times come again and again."""

    def __init__(self, precision: str, earliest: datetime) -> None:
        self.precision, self.earliest = precision, earliest
        self.heads: dict[str, tuple[str, dict[str, str]] | None] = {}
        self.times: dict[str, object] = {}


def _lines(text: str) -> list[str]:
    """Return the lines that are no comments; a line break in a quoted text ends none."""
    if '"' not in text:
        return [line for one in text.split("\n") if (line := one.strip(" \r")) and line[0] != "#"]
    lines = (found[0].strip(" \r") for found in _LINE.finditer(text))
    return [line for line in lines if line and not line.startswith("#")]


def _any_row(line: str, known: _Known) -> Row | Unread:
    """Return the row of a line that may have bytes that are no UTF-8."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return Unread("not UTF-8 text", line.encode(errors="surrogateescape"))
    return _row(line, known)


def _row(line: str, known: _Known) -> Row | Unread:
    try:
        return _plain_row(line, known) or _parsed(line, known)
    except InvalidRecord as error:
        return Unread(str(error), line.encode())


def _plain_row(line: str, known: _Known) -> Row | None:
    """Return the row of a line without quotes, escapes and doubled blanks, as most are; None for another."""
    parts = line.split(" ")
    if len(parts) != 3 or "\\" in line or '"' in line:
        return None
    first, listed, stamp = parts
    head = known.heads[first] if first in known.heads else known.heads.setdefault(first, _head(first))
    if head is None or not listed or not stamp:
        return None
    fields = dict[str, object]()
    for part in listed.split(","):
        name, _, value = part.partition("=")
        if not name or not value:
            return None
        fields[name] = _bare(value)
    if len(fields) <= listed.count(","):
        return None
    time = known.times.get(stamp)
    if time is None:
        time = known.times[stamp] = _time(stamp.strip(), known)
    return {"measurement": head[0], "tags": head[1], "fields": fields, "time": time}


def _head(text: str) -> tuple[str, dict[str, str]] | None:
    """Return the measurement and the tags; None where they are to be read sign by sign."""
    measurement, *rest = text.split(",")
    tags = {}
    for part in rest:
        name, _, value = part.partition("=")
        if not name or not value or "=" in value or name in tags:
            return None
        tags[name] = value
    return (measurement, tags) if measurement else None


def _parsed(line: str, known: _Known) -> Row:
    found, at = _take(_MEASUREMENT, line, 0, "a measurement")
    tags: dict[str, str] = {}
    while line[at : at + 1] == ",":
        name, at = _take(_NAME, line, at + 1, "a tag")
        at = _expect(line, at, "=")
        value, at = _take(_NAME, line, at, "a tag's value")
        _add(tags, name, _plain(value))
    at = _expect(line, at, " ")
    fields: dict[str, object] = {}
    while True:
        name, at = _take(_NAME, line, at, "a field")
        at = _expect(line, at, "=")
        read, at = _field(line, at)
        _add(fields, name, read)
        if line[at : at + 1] != ",":
            break
        at += 1
    return {"measurement": _plain(found), "tags": tags, "fields": fields, "time": _time(line[at:].strip(), known)}


def _add(found: dict[str, Any], name: str, value: object) -> None:
    name = _plain(name)
    if name in found:
        raise InvalidRecord(f"no line protocol: {name[:40]} is there twice")
    found[name] = value


def _field(line: str, at: int) -> tuple[object, int]:
    text = _TEXT.match(line, at)
    if text:
        return re.sub(r'\\(["\\])', r"\1", text[1]), text.end()
    bare, at = _take(_BARE, line, at, "a field's value")
    return _bare(bare), at


def _bare(bare: str) -> float | bool:
    """Return the value of a field that is no text."""
    if (bare.isascii() and bare.replace(".", "", 1).isdigit()) or _NUMBER.fullmatch(bare):
        value = float(bare)
        if isfinite(value):
            return value
    elif _WHOLE.fullmatch(bare):
        count, kind = int(bare[:-1]), bare[-1]
        if _LEAST[kind] <= count <= _MOST[kind]:
            return count
    elif bare in _BOOLEANS:
        return _BOOLEANS[bare]
    raise InvalidRecord(f"no line protocol: {bare[:40]} is no value")


def _time(text: str, known: _Known) -> object:
    if not text:
        return ARRIVAL
    if not _STAMP.fullmatch(text):
        raise InvalidRecord(f"no line protocol: {text[:40]} is no timestamp")
    try:
        # microseconds are the most that a datetime holds, and a timestamp column milliseconds
        found = _EPOCH + timedelta(microseconds=int(text) * 10**6 // _PER_SECOND[known.precision])
    except OverflowError:
        raise InvalidRecord(f"no line protocol: the time {text} is beyond the year 9999") from None
    if found < known.earliest:
        raise InvalidRecord(
            f"the time {text} counted in {known.precision} is before {known.earliest:%Y-%m-%d}: is it in another unit? "
            "Name it with precision, or an earlier day with earliest"
        )
    return found


def _take(pattern: re.Pattern[str], line: str, at: int, what: str) -> tuple[str, int]:
    found = pattern.match(line, at)
    if not found:
        raise InvalidRecord(f"no line protocol: {what} is missing")
    return found[0], found.end()


def _expect(line: str, at: int, sign: str) -> int:
    if line[at : at + 1] != sign:
        raise InvalidRecord(f"no line protocol: {sign!r} is missing")
    while sign == " " and line[at + 1 : at + 2] == " ":
        at += 1
    return at + 1


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text
