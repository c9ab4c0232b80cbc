"""Lay out a view's rows as DynamoDB items: keys, attributes and sizes. Pure: no I/O.

Everything that a stored item means is said here and nowhere else; `table` sends requests, `store` and `rows` decide.
"""

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from headwater.aggregates import Aggregate
from headwater.aggregates import merging as agg
from headwater.errors import UsageError
from headwater.sinks.views.slots import Slot, Upsert, epoch_of

__all__ = [
    "AFTER_KEYS",
    "EXPIRES",
    "KEY_LISTS",
    "MAX_KEY_BYTES",
    "MAX_SPREAD",
    "Item",
    "ViewSpec",
    "attribute",
    "expires",
    "first_rev",
    "is_part",
    "key_item",
    "key_list",
    "key_of_item",
    "key_parts",
    "key_place",
    "key_sort_key",
    "key_text",
    "latest_expiry",
    "part_key",
    "part_of",
    "partition",
    "parts_head",
    "row_key",
    "sort_key",
]

UNWINDOWED = "-"
EXPIRES = "expires"
"""The attribute with an item's expiry in epoch seconds; DynamoDB's TTL deletes by it."""
MAX_SPREAD = 100
"""Most partitions of a row: one BatchGetItem reads 100 items."""
KEY_LISTS = 8
"""Partitions that list a view's keys, ordered in each."""
_KEYS, _LISTED, AFTER_KEYS = "keys", "=", ">"
"""An `sk` cannot be empty, but a key can: so each listed key begins with a mark."""
MAX_KEY_BYTES = 1_023
"""Most bytes of a key: DynamoDB takes an `sk` of 1,024, one of which is the mark."""
_BIRTHS, _WRITES = 32, 20
"""Bits of a revision that are random at an item's birth, and bits that count its writes."""
_RESERVED = frozenset({"pk", "sk", "rev", "slots", "more", "window_start", "window_end", EXPIRES})
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html: numbers
_DIGITS, _SMALLEST, _LARGEST = 38, 1e-130, 9.9e125


@dataclass(frozen=True)
class ViewSpec:
    """Describe a view: its name, the columns `by` that key its rows, and its values.

    Raise UsageError for a name with `#` or `@@`, a column name that is reserved or used twice, or a spread beyond 1 to
    100.

    >>> from headwater.aggregates import count
    >>> ViewSpec("per_device", ("device",), (count("n"),), keep_ms=60_000).expires(120_000)
    180
    """

    name: str
    by: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    keep_ms: int | None = None
    """Time that a row is kept after its window's end; None is for good."""
    spread: int = 1
    """Partitions that a new row's slots are spread over, 1 to 100; a row keeps what it began with."""

    def __post_init__(self) -> None:
        if not 1 <= self.spread <= MAX_SPREAD:
            raise UsageError(f"view {self.name!r}: spread={self.spread} is not between 1 and {MAX_SPREAD}")
        if not self.name or "#" in self.name or "@@" in self.name:
            raise UsageError(f"a view cannot be named {self.name!r}: a name is not empty and has no '#' or '@@'")
        names = [*self.by, *(aggregate.name for aggregate in self.aggregates)]
        for name in names:
            if name in _RESERVED or names.count(name) > 1:
                raise UsageError(f"view {self.name!r}: {name!r} is reserved or used twice; give it another name")

    def expires(self, window_end_ms: int | None) -> int | None:
        """Return when a row expires, in epoch seconds; None for a row that is kept for good."""
        if self.keep_ms is None or window_end_ms is None:
            return None
        return -(-(window_end_ms + self.keep_ms) // 1000)


@dataclass(frozen=True)
class Item:
    """Hold a row, or a part of one, as it is stored: its slots, and the versions of slots that lie in items of their
    own.

    A row that is spread has neither, but says in `spread` over how many partitions its parts lie.
    """

    rev: int = 0
    slots: Mapping[str, Slot] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    spread: int = 0
    key_is_listed: bool = False
    """True once the row's key is known to be among the view's keys. Not stored."""

    def version(self, slot: str) -> str:
        """Return the version held of a slot; the empty text, below all others, when there is none."""
        return self.slots[slot].version if slot in self.slots else self.more.get(slot, "")

    @property
    def birth(self) -> int:
        """Return a number that differs for an item that was removed and has begun again."""
        return self.rev >> _WRITES

    @property
    def size(self) -> int:
        """Return the bytes of the slots as DynamoDB counts them, rounded up."""
        slots = sum(len(name) * 4 + len(slot.version) + len(slot.partial) + 16 for name, slot in self.slots.items())
        return slots + sum(len(name) * 4 + len(version) + 8 for name, version in self.more.items())

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Item":
        """Read an item from its attributes."""
        if "N" in stored["slots"]:
            return cls(int(stored["rev"]["N"]), spread=int(stored["slots"]["N"]))
        slots = {
            name: Slot(slot["M"]["v"]["S"], bytes(slot["M"]["p"]["B"])) for name, slot in stored["slots"]["M"].items()
        }
        more = {name: version["S"] for name, version in stored.get("more", {"M": {}})["M"].items()}
        return cls(int(stored["rev"]["N"]), slots, more)


def key_text(key: Sequence[object]) -> str:
    r"""Join the values of a key with `|`; within a value `|` and backslash are escaped, and null is backslash N.

    >>> key_text(("a|b", 7, None))
    'a\\|b|7|\\N'
    """
    return "|".join(r"\N" if one is None else _text(one).replace("\\", r"\\").replace("|", r"\|") for one in key)


def key_parts(text: str) -> list[str | None]:
    r"""Split a key that `key_text` has joined into its values, as text.

    >>> key_parts('a\\|b|7|\\N')
    ['a|b', '7', None]
    """
    parts = [""]
    for token in re.findall(r"\\.|.", text, re.DOTALL):
        if token == "|":
            parts.append("")
        else:
            parts[-1] += token
    return [None if part == r"\N" else re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts]


def partition(view: str, key: str) -> str:
    """Return the `pk` of a key's rows."""
    return f"{view}#{key}"


def first_rev(chance: float) -> int:
    """Return the revision that an item begins with: at random, so that a writer that knew a removed one finds out."""
    return 1 + int(chance * (1 << _BIRTHS)) << _WRITES


def part_of(slot: str, spread: int) -> int:
    """Return which of the partitions 1 to `spread` a slot lies in; neighbouring shards lie in different ones."""
    reader = slot.rpartition("/")[0] or slot
    number = re.search(r"[0-9]+$", reader)
    return (int(number[0]) if number else zlib.crc32(reader.encode())) % spread + 1


def part_key(pk: str, part: int) -> str:
    """Return the `pk` of a part of the row. It begins like no view's rows: a stored name has one `@` at most."""
    name, _, key = pk.partition("#")
    return f"{parts_head(name)}{part}#{key}"


def parts_head(name: str) -> str:
    """Return what the `pk` of all parts of a view's rows begin with."""
    return f"{name}@@"


def row_key(item: Mapping[str, Any]) -> str:
    """Return the `pk` of the rows that an item belongs to: a row, a part of one, or an item that lists a key."""
    name, _, key = item["pk"]["S"].partition("#")
    view, at, part = name.partition("@@")
    return partition(view, key_of_item(item) if at and part == _KEYS else key)


def is_part(item: Mapping[str, Any]) -> bool:
    """Return whether the item is a part of a row that is spread."""
    _, at, part = item["pk"]["S"].partition("#")[0].partition("@@")
    return bool(at) and part != _KEYS


def key_place(name: str, key: str) -> tuple[str, str]:
    """Return `pk` and `sk` of the item that lists a key of a view."""
    return key_list(name, zlib.crc32(key.encode()) % KEY_LISTS), key_sort_key(key)


def key_list(name: str, number: int) -> str:
    """Return the `pk` of one partition of a view's listed keys."""
    return f"{parts_head(name)}{_KEYS}#{number}"


def key_sort_key(key: str) -> str:
    """Return the `sk` of the item that lists a key."""
    return _LISTED + key


def key_of_item(item: Mapping[str, Any]) -> str:
    """Return the key that an item lists."""
    key: str = item["sk"]["S"]
    return key.removeprefix(_LISTED)


def key_item(at: tuple[str, str], expires: int | None) -> dict[str, Any]:
    """Return the attributes of the item that lists a key."""
    found: dict[str, Any] = {"pk": {"S": at[0]}, "sk": {"S": at[1]}}
    return found if expires is None else found | {EXPIRES: {"N": str(expires)}}


def sort_key(window_start_ms: int | None) -> str:
    """Return the window's start as ISO text of fixed width, so that windows sort by time."""
    return UNWINDOWED if window_start_ms is None else agg.iso_ms(window_start_ms)


def attribute(value: object) -> dict[str, Any]:
    """Return a plain value as an attribute. Reading a number back gives the same float64 or integer.

    What a DynamoDB number cannot hold (NaN, infinities, more than 38 digits, beyond 1e-130 to 1e126) becomes text.
    """
    if hasattr(value, "item"):
        value = value.item()
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        return {"N": str(value)} if len(str(abs(value))) <= _DIGITS else {"S": str(value)}
    if isinstance(value, float):
        holds = value == 0 or (math.isfinite(value) and _SMALLEST <= abs(value) <= _LARGEST)
        # repr is the shortest text that reads back as the same float: 17 digits at most
        return {"N": repr(value)} if holds else {"S": repr(value)}
    return {"S": _text(value)}


def value_of(value: Mapping[str, Any]) -> object:
    """Return the value of an attribute that `attribute` made of a key column; whole numbers as int."""
    ((kind, held),) = value.items()
    if kind == "NULL":
        return None
    if kind == "N":
        return int(held) if held.lstrip("-").isdigit() else float(held)
    result: object = held
    return result


def row_item(view: ViewSpec, upsert: Upsert, item: Item, overflow: Sequence[bytes]) -> dict[str, Any]:
    """Return the attributes of a row: slots, key columns, window, and the final values over all slots."""
    partials = [*(slot.partial for slot in item.slots.values()), *overflow]
    values = agg.values(view.aggregates, agg.merge(view.aggregates, partials))
    found: dict[str, Any] = {name: attribute(value) for name, value in values.items()}
    return found | _head(view, upsert) | part_item(view, upsert, item, partition(view.name, key_text(upsert.key)))


def part_item(view: ViewSpec, upsert: Upsert, item: Item, pk: str) -> dict[str, Any]:
    """Return the attributes of a part of a row that is spread: its slots alone."""
    found: dict[str, Any] = {
        "pk": {"S": pk},
        "sk": {"S": sort_key(upsert.window_start_ms)},
        "rev": {"N": str(item.rev)},
        "slots": {"M": {n: {"M": {"v": {"S": s.version}, "p": {"B": s.partial}}} for n, s in item.slots.items()}},
    }
    if item.more:
        found["more"] = {"M": {name: {"S": version} for name, version in item.more.items()}}
    return found | expiry(view, upsert)


def spread_row_item(view: ViewSpec, upsert: Upsert, chance: float) -> dict[str, Any]:
    """Return the attributes of a row that is spread: key columns and window. Its values are where its slots are."""
    return (
        _head(view, upsert)
        | {
            "pk": {"S": partition(view.name, key_text(upsert.key))},
            "sk": {"S": sort_key(upsert.window_start_ms)},
            "rev": {"N": str(first_rev(chance))},
            "slots": {"N": str(view.spread)},
        }
        | expiry(view, upsert)
    )


def _head(view: ViewSpec, upsert: Upsert) -> dict[str, Any]:
    """Return the attributes for key columns and window."""
    found: dict[str, Any] = {name: attribute(value) for name, value in zip(view.by, upsert.key, strict=True)}
    if upsert.window_start_ms is not None:
        found["window_start"] = {"S": sort_key(upsert.window_start_ms)}
    if upsert.window_end_ms is not None:
        found["window_end"] = {"S": agg.iso_ms(upsert.window_end_ms)}
    return found


def slot_item(view: ViewSpec, upsert: Upsert, pk: str) -> dict[str, Any]:
    """Return the attributes of a slot in an item of its own."""
    return {
        "pk": {"S": pk},
        "sk": {"S": f"{sort_key(upsert.window_start_ms)}#{upsert.slot}"},
        "v": {"S": upsert.version},
        "e": {"N": str(epoch_of(upsert.version))},
        "p": {"B": upsert.partial},
    } | expiry(view, upsert)


def expiry(view: ViewSpec, upsert: Upsert) -> dict[str, Any]:
    """Return the attribute that lets the row expire; none for a row that is kept for good."""
    ends = view.expires(upsert.window_end_ms)
    return {} if ends is None else {EXPIRES: {"N": str(ends)}}


def expires(found: Mapping[str, Any]) -> int | None:
    """Return when an item expires, in epoch seconds; None is never."""
    return int(found[EXPIRES]["N"]) if EXPIRES in found else None


def latest_expiry(one: int | None, other: int | None) -> int | None:
    """Return the later of two such times."""
    return None if one is None or other is None else max(one, other)


def is_expired(found: Mapping[str, Any], now_ms: int) -> bool:
    """Return whether an item has expired. DynamoDB deletes it up to days later; until then it does not count."""
    return EXPIRES in found and int(found[EXPIRES]["N"]) * 1000 <= now_ms


def merged_row(view: ViewSpec, found: Mapping[str, Any], partials: Sequence[bytes]) -> dict[str, object]:
    """Return a stored row with key columns, window and values, these computed from its partials: exact."""
    head = {name: value_of(found[name]) for name in (*view.by, "window_start", "window_end") if name in found}
    return head | agg.values(view.aggregates, agg.merge(view.aggregates, partials))


def _text(value: object) -> str:
    """Return a value as text, times in ISO form."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)
