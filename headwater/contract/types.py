"""The types of a contract's fields: how they are written, and what a column of each is in Arrow. Pure.

A type is a text, so that contracts stay readable: a name such as `long`, one with parameters, `decimal(10, 2)`, or one
made of others, `list<string>`, `map<string, long?>`, `struct<street: string, zip: string?>`. Within another, a type
with `?` may be null.
"""

import re
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from functools import lru_cache

import pyarrow as pa

__all__ = ["MOST_DIGITS", "NESTED", "NOT_KEYS", "TIMES", "TYPES", "UUID", "Kind", "Member", "parse_type", "type_name"]

UUID = pa.binary(16)
"""The column of a uuid: its 16 bytes in the order in which they are written."""
TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("ms", "UTC"),
    "timestamp_us": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "uuid": UUID,
    "binary": pa.binary(),
    "json": pa.string(),
}
"""The Arrow type of each type without parameters. A json field holds any JSON value, as its text."""
TIMES = ("timestamp", "timestamp_us")
"""Points in time, in milliseconds and in microseconds."""
NESTED = frozenset({"list", "map", "struct"})
"""Types that are made of others."""
NOT_KEYS = NESTED | {"json", "binary"}
"""Types whose values cannot be a key: they have no one text."""
MOST_DIGITS = 38
"""Digits of a decimal: what 128 bits hold, and Iceberg and DynamoDB take."""
MOST_DEPTH = 5
"""Types within each other: a list of numbers has two."""
MOST_MEMBERS = 200
"""Fields of all structs of a type together."""
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
_DECIMAL = re.compile(r"decimal *\( *([0-9]{1,3}) *, *([0-9]{1,3}) *\)", re.ASCII)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_MOST_TEXT = 20_000


@dataclass(frozen=True)
class Member:
    """Hold a type within another: a list's `element`, a map's `value`, or a field of a struct."""

    name: str
    kind: "Kind"
    required: bool = True

    @property
    def arrow(self) -> pa.Field:
        """Return the member as a field of Arrow's, which may always be null: it is where what it is within is null."""
        return pa.field(self.name, self.kind.arrow)


@dataclass(frozen=True)
class Kind:
    """Hold a type as it is understood. `text` is its one way of writing, `precision` and `scale` are a decimal's,
    `members` what a list, map or struct consists of.
    """

    name: str
    text: str
    arrow: pa.DataType
    precision: int = 0
    scale: int = 0
    members: tuple[Member, ...] = ()

    @property
    def largest(self) -> Decimal:
        """Return the largest value of a decimal."""
        return Decimal((0, (9,) * self.precision, -self.scale))

    def holds(self, value: Decimal) -> bool:
        """Tell whether a decimal of this type can be the value, with no digit lost."""
        if not value.is_finite():
            return False
        _, digits, exponent = value.normalize(_EXACT).as_tuple()
        assert isinstance(exponent, int)  # it is finite
        return digits == (0,) or (-exponent <= self.scale and len(digits) + exponent <= self.precision - self.scale)

    def has(self, name: str) -> bool:
        """Tell whether this is the type of that name, or one within it is."""
        return self.name == name or any(one.kind.has(name) for one in self.members)


def type_name(arrow: pa.DataType) -> str:
    """Return a column's type by its name in contracts; of lists, maps and structs without what they are made of.

    >>> type_name(pa.decimal128(9, 2)), type_name(pa.binary(16))
    ('decimal(9, 2)', 'uuid')
    """
    made = [one for one in ("list", "map", "struct") if getattr(pa.types, f"is_{one}")(arrow)]
    names = {kind: name for name, kind in reversed(TYPES.items())}
    return made[0] if made else names.get(arrow) or str(arrow).replace("decimal128", "decimal")


@lru_cache(maxsize=1024)
def parse_type(text: str) -> Kind:
    """Return the type that a text names. Raise ValueError with the reason when it names none.

    >>> parse_type("list<decimal(10,2)?>").text
    'list<decimal(10, 2)?>'
    """
    if len(text) > _MOST_TEXT:
        raise ValueError(f"has more than {_MOST_TEXT:,} characters")
    reader = _Reader(text)
    found = reader.kind(1)
    if reader.rest():
        raise ValueError(f"has something behind it: {reader.rest()[:20]!r}")
    return found


class _Reader:
    """Read a type from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._members = 0

    def rest(self) -> str:
        """Return what is not read yet."""
        return self._text[self._at :].strip()

    def kind(self, depth: int) -> Kind:
        """Read a type."""
        if depth > MOST_DEPTH:
            raise ValueError(f"has more than {MOST_DEPTH} types within each other")
        decimal = self._match(_DECIMAL)
        if decimal:
            return _decimal(int(decimal[1]), int(decimal[2]))
        name = self._word()
        if name in NESTED:
            return self._nested(name, depth + 1)
        if name == "decimal":
            raise ValueError("is written with its digits and those of them behind the point, as in decimal(10, 2)")
        if name not in TYPES:
            raise ValueError(
                f"is unknown (one of {', '.join(TYPES)}, decimal(10, 2), list<…>, map<string, …>, struct<…>)"
            )
        return Kind(name, name, TYPES[name])

    def _nested(self, name: str, depth: int) -> Kind:
        self._expect("<", name)
        members = [self._first(name, depth)]
        while name == "struct" and self._take(","):
            members.append(self._field(depth))
        self._expect(">", name)
        if len({one.name.lower() for one in members}) < len(members):
            raise ValueError("has two fields of one name")
        arrow = _ARROW[name](members)
        inner = ", ".join((f"{one.name}: " if name == "struct" else "") + _written(one) for one in members)
        return Kind(name, f"{name}<{'string, ' if name == 'map' else ''}{inner}>", arrow, members=tuple(members))

    def _first(self, name: str, depth: int) -> Member:
        if name == "struct":
            return self._field(depth)
        if name == "list":
            return self._member("element", depth)
        if self._word() != "string" or not self._take(","):
            raise ValueError("has texts as keys: write map<string, …>")
        return self._member("value", depth)

    def _field(self, depth: int) -> Member:
        self._members += 1
        name = self._word()
        if not _NAME.fullmatch(name) or not self._take(":"):
            raise ValueError("has fields with a name and a type: write struct<street: string, zip: string?>")
        if self._members > MOST_MEMBERS:
            raise ValueError(f"has more than {MOST_MEMBERS} fields")
        return self._member(name, depth)

    def _member(self, name: str, depth: int) -> Member:
        kind = self.kind(depth)
        return Member(name, kind, required=not self._take("?"))

    def _expect(self, sign: str, name: str) -> None:
        if not self._take(sign):
            raise ValueError(f"has no {sign}: write {_EXAMPLES[name]}")

    def _take(self, sign: str) -> bool:
        return bool(self._match(re.compile(re.escape(sign))))

    def _word(self) -> str:
        found = self._match(re.compile(r"\w*"))
        return found[0] if found else ""

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read what matches, and the blanks around it."""
        while self._text[self._at : self._at + 1] == " ":
            self._at += 1
        found = pattern.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return found


def _decimal(precision: int, scale: int) -> Kind:
    if not 1 <= precision <= MOST_DIGITS or scale > precision:
        raise ValueError(f"has 1 to {MOST_DIGITS} digits, and as many of them or fewer behind the point")
    return Kind("decimal", f"decimal({precision}, {scale})", pa.decimal128(precision, scale), precision, scale)


def _written(member: Member) -> str:
    return member.kind.text + ("" if member.required else "?")


_EXAMPLES = {"list": "list<string>", "map": "map<string, long>", "struct": "struct<street: string, zip: string?>"}
_ARROW = {
    "list": lambda members: pa.list_(members[0].arrow),
    "map": lambda members: pa.map_(pa.string(), members[0].arrow),
    "struct": lambda members: pa.struct([one.arrow for one in members]),
}
