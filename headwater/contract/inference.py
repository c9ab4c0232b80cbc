"""Propose a contract from sample events. Pure.

A column's type is the first of the candidates whose reader takes all its values, so that the samples keep the contract
by construction. What no contract can hold, such as NaN, is named and left out.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

import yaml

from headwater.contract.definition import EPOCHS, MAX_IDENTIFIER_BYTES, Contract, Field
from headwater.contract.scalars import Refused
from headwater.contract.text import NULLS, text_value
from headwater.contract.types import MOST_DIGITS, NOT_KEYS, TIMES
from headwater.contract.values import EXACT_FLOATS, read_value, shown
from headwater.errors import UsageError

__all__ = ["NAME", "Samples", "contract_yaml"]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""Pattern of a field's name."""
_MOST_FIELDS = 1_000
_LATEST = datetime(2100, 1, 1, tzinfo=UTC)
"""A number that would be a later time in some unit is counted in a smaller one."""
_TIME_NAME = re.compile(r"(^|_)(ts|time|timestamp|at|date|datetime|when|epoch)(_|$)|[Tt]ime$|[Tt]imestamp$|[a-z]At$")
_KEY_NAME = re.compile(r"(^|_)(id|key|uuid|device|user|customer|account|sensor|host|instance)(_|$)|[a-z](Id|ID|Key)$")
_OF_THEIR_OWN: dict[str, type] = {"time": time, "uuid": UUID, "binary": bytes}
"""Types that are proposed for values of these alone, as Parquet has them, and never for texts."""
_NUMBER_TEXT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class _Candidate:
    """Hold a candidate: a type, of times that are numbers with their unit."""

    type: str
    unit: str = ""

    @cached_property
    def field(self) -> Field:
        return Field("x", self.type, required=False, epoch=self.unit or "ms")


_KINDS = (
    *map(_Candidate, ("boolean", "long", "double", "decimal(38, 0)", "date", *TIMES)),
    *map(_Candidate, ("time", "uuid", "binary", "string", "json")),
    *(_Candidate(type_, unit) for unit in EPOCHS for type_ in TIMES),
)


class _Column:
    """Hold what a column's values may still be, and how many there are."""

    def __init__(self) -> None:
        self.kinds: Sequence[_Candidate] = _KINDS
        self.values = self.texts = self.longest = 0
        self.whole = self.scale = 0

    def see(self, value: Any, kinds: Sequence[_Candidate], *, null: bool) -> None:
        """Take in a value, which leaves these candidates; `null` is of text that is null but in strings."""
        self.kinds = kinds
        self.values += not null
        self.texts += value != ""
        if isinstance(value, str):
            self.longest = max(self.longest, len(value.encode()))
        if isinstance(value, Decimal) and value.is_finite():
            _, digits, exponent = value.as_tuple()
            assert isinstance(exponent, int)  # it is finite
            self.whole, self.scale = max(self.whole, len(digits) + exponent), max(self.scale, -exponent)

    def times(self) -> list[_Candidate]:
        """Return as what times the values can be read."""
        return [kind for kind in self.kinds if kind.type in TIMES] if self.values else []

    def decimal(self) -> str:
        """Return the type of the decimals; JSON where they have too many digits for any."""
        fits = self.whole + self.scale <= MOST_DIGITS
        return f"decimal({MOST_DIGITS}, {self.scale})" if fits else "json"


class Samples:
    """Gather sample events, and propose their contract.

    With `text` the values are those of CSV.

    >>> samples = Samples()
    >>> samples.add({"device": "a", "at": "2026-03-01T12:00:00Z", "value": 1.5})
    ''
    >>> print(contract_yaml(samples.propose("readings")), end="")
    name: readings
    version: 1
    key: device
    time: at
    fields:
      - {name: device, type: string}
      - {name: at, type: timestamp}
      - {name: value, type: double}
    """

    def __init__(self, *, text: bool = False) -> None:
        self._text = text
        self._columns: dict[str, _Column] = {}
        self.rows = 0

    def add(self, row: Mapping[str, Any]) -> str:
        """Take an event in; return the reason when no contract can have it."""
        takes = _takes_text if self._text else _takes
        left = {}
        for name, value in row.items():
            if value is not None:
                kinds = self._columns[name].kinds if name in self._columns else _KINDS
                left[name] = [kind for kind in kinds if takes(kind, value)]
            self._columns.setdefault(name, _Column())
        if len(self._columns) > _MOST_FIELDS:
            raise UsageError(f"more than {_MOST_FIELDS:,} names of fields: are they data? Keep them in one json field")
        for name, kinds in left.items():
            if not kinds:
                return f"field {shown(name)}: {shown(row[name])} can be kept in no type"
        for name, kinds in left.items():
            self._columns[name].see(row[name], kinds, null=self._text and row[name] in NULLS)
        self.rows += 1
        return ""

    def propose(self, name: str, key: str | None = None, time: str | None = None) -> Contract:
        """Return a contract that all events keep. Raise UsageError when nothing can be its key or its time."""
        if not self.rows:
            raise UsageError("there are no events to propose a contract from")
        names = _names(self._columns)
        fields: dict[str, Field] = {}
        for original, column in self._columns.items():
            if original:
                fields[original] = self._field(original, column, names[original])
        time = self._time(fields, time)
        fields[time] = self._as_time(fields[time], self._columns[time])
        for one in set(fields) - {time}:
            if fields[one].type in ("long", "double") and _TIME_NAME.search(one):
                fields[one] = self._as_time(fields[one], self._columns[one])
        key = self._key(fields, key, time)
        rest = [] if all(self._columns) else [Field(_free("rest", names.values()), "json", required=False)]
        unknown = rest[0].name if rest else "refuse"
        return Contract(name, 1, (*fields.values(), *rest), names[key], names[time], unknown=unknown)

    def _field(self, original: str, column: _Column, name: str) -> Field:
        found = next(kind.type for kind in column.kinds if not kind.unit)
        if not column.values:
            found = "string" if self._text else "json"
        if found.startswith("decimal"):
            found = column.decimal()
        there = column.texts if self._text and found == "string" else column.values
        return Field(name, found, required=there == self.rows, path=() if name == original else (original,))

    def _time(self, fields: Mapping[str, Field], asked: str | None) -> str:
        able = [one for one, field in fields.items() if field.required and self._columns[one].times()]
        if asked is not None and asked not in able:
            raise UsageError(f"field {shown(asked)} is no time in all of the events")
        # texts say that they are times, numbers only may be
        order = sorted(able, key=lambda one: (fields[one].type not in (*TIMES, "date"), not _TIME_NAME.search(one)))
        if not order:
            raise UsageError("no field is a time in all of the events: a contract needs one")
        return asked or order[0]

    def _as_time(self, field: Field, column: _Column) -> Field:
        """Return the field as a timestamp, where its values can be one."""
        able = column.times()
        return replace(field, type=able[0].type, epoch=able[0].unit or "ms") if able else field

    def _key(self, fields: Mapping[str, Field], asked: str | None, time: str) -> str:
        def able(one: str) -> bool:
            field = fields[one]
            return (
                field.required
                and field.kind.name not in NOT_KEYS
                and self._columns[one].longest <= MAX_IDENTIFIER_BYTES
            )

        found = [one for one in fields if able(one)]
        if asked is not None and asked not in found:
            raise UsageError(
                f"field {shown(asked)} cannot be the key: it is not in all events, too long, or JSON or bytes"
            )
        likely = sorted(
            found,
            key=lambda one: (
                one == time,
                fields[one].type not in ("string", "long"),
                not _KEY_NAME.search(one),
                fields[one].type != "string",
            ),
        )
        return asked or next(iter(likely), time)


def _takes(kind: _Candidate, value: Any) -> bool:
    """Return True when a value as JSON or Arrow has it is read as one of the kind, and nothing of it is lost."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind.unit:
        return number and _is_plausible(kind, value) and _keeps(kind, value)
    if kind.type in ("date", *TIMES) and not isinstance(value, str | date):
        return False
    if kind.type.startswith("decimal"):
        return isinstance(value, Decimal) and value.is_finite()
    if kind.type in _OF_THEIR_OWN and not isinstance(value, _OF_THEIR_OWN[kind.type]):
        return False  # a text may look like one
    if kind.type in ("long", "double") and not number:
        return False
    if kind.type == "long" and isinstance(value, float):
        return False
    if kind.type == "double" and isinstance(value, int) and abs(value) >= EXACT_FLOATS:
        return False
    return _is_read(kind, value) and _keeps(kind, value)


def _takes_text(kind: _Candidate, text: str) -> bool:
    """Return True when the text of a value in CSV is read as one of the kind, and nothing of it is lost."""
    if kind.type == "json" or kind.type in _OF_THEIR_OWN or kind.type.startswith("decimal"):
        return False
    if text == "" if kind.type == "string" else text in NULLS:
        return True
    if kind.type == "boolean" and text.lower() not in ("true", "false"):
        return False
    if kind.unit or kind.type in ("long", "double"):
        whole = text.removeprefix("-").isdigit()
        if not _NUMBER_TEXT.fullmatch(text) or (kind.type != "double" and not whole):
            return False
        if kind.type == "double" and abs(float(text)) >= EXACT_FLOATS and whole:
            return False
    value = text_value(kind.field, text)
    if kind.type in TIMES and isinstance(value, int) != bool(kind.unit):
        return False
    return (_is_plausible(kind, value) if kind.unit else _is_read(kind, value)) and _keeps(kind, value)


def _keeps(kind: _Candidate, value: object) -> bool:
    """Return True unless the type has milliseconds only and the value, which it can read, is a time with more."""
    if kind.type != "timestamp":
        return True
    return read_value(kind.field, value) == read_value(replace(kind.field, type="timestamp_us"), value)


def _is_plausible(kind: _Candidate, value: object) -> bool:
    return _is_read(kind, value) and read_value(kind.field, value) < _LATEST  # type: ignore[operator]  # it is a time


def _is_read(kind: _Candidate, value: object) -> bool:
    try:
        read_value(kind.field, value)
    except (Refused, ValueError, TypeError, OverflowError, RecursionError):
        return False
    return True


def _names(columns: Iterable[str]) -> dict[str, str]:
    """Return the field's name for each name in the events: letters, digits and _, and none twice but for case."""
    found: dict[str, str] = {}
    for original in columns:
        name = re.sub(r"[^A-Za-z0-9_]+", "_", original).strip("_") or "field"
        name = original if NAME.fullmatch(original) else name
        found[original] = _free(name if name[0].isalpha() else f"f_{name}", found.values())
    return found


def _free(name: str, taken: Iterable[str]) -> str:
    low, number, free = {one.lower() for one in taken}, 1, name
    while free.lower() in low:
        number += 1
        free = f"{name}_{number}"
    return free


def contract_yaml(contract: Contract) -> str:
    """Return a proposed contract as YAML, a field a line."""
    head: dict[str, Any] = {"name": contract.name, "version": contract.version, "key": contract.key}
    head["time"] = contract.time
    if contract.unknown != "refuse":
        head["unknown"] = contract.unknown
    lines = [yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(), "fields:"]
    for field in contract.fields:
        entry: dict[str, Any] = {"name": field.name, "type": field.type}
        if not field.required:
            entry["required"] = False
        if field.path:
            entry["from"] = list(field.path)
        if field.epoch != "ms":
            entry["epoch"] = field.epoch
        lines.append("  - " + yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=1e9).strip())
    return "\n".join(lines) + "\n"
