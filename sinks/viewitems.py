"""How a view's rows look as DynamoDB items: keys, attributes and sizes. No I/O."""

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from headwater import aggregates as agg
from headwater.aggregates import Aggregate
from headwater.errors import UsageError

__all__ = [
    "AFTER_KEYS",
    "EXPIRES",
    "KEY_LISTS",
    "LONGEST_KEY",
    "MOST_SPREAD",
    "Item",
    "Slot",
    "Upsert",
    "ViewSpec",
    "attribute",
    "expires",
    "first_rev",
    "is_part",
    "key_list",
    "key_parts",
    "key_text",
    "later",
    "listed",
    "listed_key",
    "listed_sk",
    "listing",
    "part_key",
    "part_of",
    "partition",
    "parts_head",
    "row_key",
    "sort_key",
]

UNWINDOWED = "-"
EXPIRES = "expires"
"""The attribute that tells DynamoDB when to delete an item, in epoch seconds."""
MOST_SPREAD = 100
"""Partitions of a row: a BatchGetItem reads 100 items."""
KEY_LISTS = 8
"""Partitions that a view's keys are spread over, ordered in each."""
_KEYS, _LISTED, AFTER_KEYS = "keys", "=", ">"
"""`sk` cannot be empty, and a key can: so it begins with something."""
LONGEST_KEY = 1_023
"""Bytes of a key: an `sk` has 1,024 at most."""
_BIRTHS, _WRITES = 32, 20
"""Bits of an item's first revision, by chance, and of those that follow it."""
_RESERVED = frozenset({"pk", "sk", "rev", "slots", "more", "window_start", "window_end", EXPIRES})
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html: numbers
_DIGITS, _SMALLEST, _LARGEST = 38, 1e-130, 9.9e125


@dataclass(frozen=True)
class ViewSpec:
    """A view: its name, the columns its rows are keyed by, and its values."""

    name: str
    by: tuple[str, ...]
    aggregates: tuple[Aggregate, ...]
    keep_ms: int | None = None
    """How long after its window's end a row is kept; None is for good."""
    spread: int = 1
    """Partitions that the slots of a row are spread over, 1 to 100; what a row begins with, it keeps."""

    def __post_init__(self) -> None:
        if not 1 <= self.spread <= MOST_SPREAD:
            raise UsageError(f"view {self.name!r}: spread={self.spread} is not between 1 and {MOST_SPREAD}")
        if not self.name or "#" in self.name or "@@" in self.name:
            raise UsageError(f"a view cannot be named {self.name!r}: a name is not empty and has no '#' or '@@'")
        names = [*self.by, *(aggregate.name for aggregate in self.aggregates)]
        for name in names:
            if name in _RESERVED or names.count(name) > 1:
                raise UsageError(f"view {self.name!r}: {name!r} is reserved or used twice; give it another name")

    def expires(self, window_end_ms: int | None) -> int | None:
        """When a row ends, in epoch seconds; None for a row that is kept for good."""
        if self.keep_ms is None or window_end_ms is None:
            return None
        return -(-(window_end_ms + self.keep_ms) // 1000)


@dataclass(frozen=True)
class Upsert:
    """A slot's new partial. `version` is the padded sequence number of the last record in it."""

    key: tuple[object, ...]
    window_start_ms: int | None
    window_end_ms: int | None
    slot: str
    version: str
    partial: bytes


@dataclass(frozen=True)
class Slot:
    version: str
    partial: bytes


@dataclass(frozen=True)
class Item:
    """A row, or a part of one, as stored: its slots, and the versions of those that lie in items of their own.

    A row that is spread has neither here, but says over how many partitions they are.
    """

    rev: int = 0
    slots: Mapping[str, Slot] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    spread: int = 0
    is_listed: bool = False
    """Whether the row's key is known to be among the view's keys. Not stored."""

    def version(self, slot: str) -> str:
        """The version held; the empty text, below all others, when there is none."""
        return self.slots[slot].version if slot in self.slots else self.more.get(slot, "")

    @property
    def birth(self) -> int:
        """Another for an item that was removed and has begun again."""
        return self.rev >> _WRITES

    @property
    def size(self) -> int:
        """Bytes of the slots as DynamoDB counts them, rounded up."""
        slots = sum(len(name) * 4 + len(slot.version) + len(slot.partial) + 16 for name, slot in self.slots.items())
        return slots + sum(len(name) * 4 + len(version) + 8 for name, version in self.more.items())

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Item":
        if "N" in stored["slots"]:
            return cls(int(stored["rev"]["N"]), spread=int(stored["slots"]["N"]))
        slots = {
            name: Slot(slot["M"]["v"]["S"], bytes(slot["M"]["p"]["B"])) for name, slot in stored["slots"]["M"].items()
        }
        more = {name: version["S"] for name, version in stored.get("more", {"M": {}})["M"].items()}
        return cls(int(stored["rev"]["N"]), slots, more)


def key_text(key: Sequence[object]) -> str:
    """The key's values joined with `|`; within a value, `|` and backslash are escaped, and null is backslash N."""
    return "|".join(r"\N" if one is None else _text(one).replace("\\", r"\\").replace("|", r"\|") for one in key)


def key_parts(text: str) -> list[str | None]:
    r"""The values of a key as `key_text` joins them: `|` between, a backslash escapes, null is \N."""
    parts = [""]
    for token in re.findall(r"\\.|.", text, re.DOTALL):
        if token == "|":
            parts.append("")
        else:
            parts[-1] += token
    return [None if part == r"\N" else re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts]


def partition(view: str, key: str) -> str:
    return f"{view}#{key}"


def first_rev(chance: float) -> int:
    """The revision that an item begins with. Who knew one that was removed is to find out."""
    return 1 + int(chance * (1 << _BIRTHS)) << _WRITES


def part_of(slot: str, spread: int) -> int:
    """Which of the partitions 1 to `spread` a slot lies in: neighbouring shards in different ones, evenly."""
    reader = slot.rpartition("/")[0] or slot
    number = re.search(r"[0-9]+$", reader)
    return (int(number[0]) if number else zlib.crc32(reader.encode())) % spread + 1


def part_key(pk: str, part: int) -> str:
    """The `pk` of a part of the row. Its head is none of a view's: a stored name has one `@` at most."""
    name, _, key = pk.partition("#")
    return f"{parts_head(name)}{part}#{key}"


def parts_head(name: str) -> str:
    """What the `pk` of all parts of a view's rows begin with."""
    return f"{name}@@"


def row_key(item: Mapping[str, Any]) -> str:
    """The `pk` of the rows that an item belongs to: a row, a part of one, or one that lists a key."""
    name, _, key = item["pk"]["S"].partition("#")
    view, at, part = name.partition("@@")
    return partition(view, listed_key(item) if at and part == _KEYS else key)


def is_part(item: Mapping[str, Any]) -> bool:
    """Whether it is a part of a row that is spread."""
    _, at, part = item["pk"]["S"].partition("#")[0].partition("@@")
    return bool(at) and part != _KEYS


def listed(name: str, key: str) -> tuple[str, str]:
    """Where a view's keys say that it has this one: `pk` and `sk`."""
    return key_list(name, zlib.crc32(key.encode()) % KEY_LISTS), listed_sk(key)


def key_list(name: str, number: int) -> str:
    """The `pk` of a part of a view's keys."""
    return f"{parts_head(name)}{_KEYS}#{number}"


def listed_sk(key: str) -> str:
    return _LISTED + key


def listed_key(item: Mapping[str, Any]) -> str:
    key: str = item["sk"]["S"]
    return key.removeprefix(_LISTED)


def listing(at: tuple[str, str], expires: int | None) -> dict[str, Any]:
    """The attributes of the item that lists a key."""
    found: dict[str, Any] = {"pk": {"S": at[0]}, "sk": {"S": at[1]}}
    return found if expires is None else found | {EXPIRES: {"N": str(expires)}}


def sort_key(window_start_ms: int | None) -> str:
    """The window's start as ISO text, of fixed width so that windows sort by time."""
    return UNWINDOWED if window_start_ms is None else agg.iso_ms(window_start_ms)


def attribute(value: object) -> dict[str, Any]:
    """A plain value as an attribute. Reading a number back gives the same float64 or integer.

    What a DynamoDB number cannot hold (NaN, infinities, more than 38 digits, beyond 1e-130 … 1e126) becomes text.
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


def plain(value: Mapping[str, Any]) -> object:
    """What `attribute` was given, for the columns of a key; numbers as int where they are whole."""
    ((kind, held),) = value.items()
    if kind == "NULL":
        return None
    if kind == "N":
        return int(held) if held.lstrip("-").isdigit() else float(held)
    result: object = held
    return result


def stored(view: ViewSpec, upsert: Upsert, item: Item, overflow: Sequence[bytes]) -> dict[str, Any]:
    """The attributes of the row: slots, key columns, window, and the final values over all slots."""
    partials = [*(slot.partial for slot in item.slots.values()), *overflow]
    values = agg.values(view.aggregates, agg.merge(view.aggregates, partials))
    found: dict[str, Any] = {name: attribute(value) for name, value in values.items()}
    return found | _head(view, upsert) | stored_part(view, upsert, item, partition(view.name, key_text(upsert.key)))


def stored_part(view: ViewSpec, upsert: Upsert, item: Item, pk: str) -> dict[str, Any]:
    """The attributes of a part of a row that is spread: its slots alone."""
    found: dict[str, Any] = {
        "pk": {"S": pk},
        "sk": {"S": sort_key(upsert.window_start_ms)},
        "rev": {"N": str(item.rev)},
        "slots": {"M": {n: {"M": {"v": {"S": s.version}, "p": {"B": s.partial}}} for n, s in item.slots.items()}},
    }
    if item.more:
        found["more"] = {"M": {name: {"S": version} for name, version in item.more.items()}}
    return found | expiry(view, upsert)


def begun(view: ViewSpec, upsert: Upsert, chance: float) -> dict[str, Any]:
    """The attributes of a row that is spread: key columns and window. Its values are where its slots are."""
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
    """Key columns and window."""
    found: dict[str, Any] = {name: attribute(value) for name, value in zip(view.by, upsert.key, strict=True)}
    if upsert.window_start_ms is not None:
        found["window_start"] = {"S": sort_key(upsert.window_start_ms)}
    if upsert.window_end_ms is not None:
        found["window_end"] = {"S": agg.iso_ms(upsert.window_end_ms)}
    return found


def stored_slot(view: ViewSpec, upsert: Upsert, pk: str) -> dict[str, Any]:
    """The attributes of a slot in an item of its own."""
    return {
        "pk": {"S": pk},
        "sk": {"S": f"{sort_key(upsert.window_start_ms)}#{upsert.slot}"},
        "v": {"S": upsert.version},
        "p": {"B": upsert.partial},
    } | expiry(view, upsert)


def expiry(view: ViewSpec, upsert: Upsert) -> dict[str, Any]:
    ends = view.expires(upsert.window_end_ms)
    return {} if ends is None else {EXPIRES: {"N": str(ends)}}


def expires(found: Mapping[str, Any]) -> int | None:
    """When an item ends, in epoch seconds; None is never."""
    return int(found[EXPIRES]["N"]) if EXPIRES in found else None


def later(one: int | None, other: int | None) -> int | None:
    """Of two such times."""
    return None if one is None or other is None else max(one, other)


def is_expired(found: Mapping[str, Any], now_ms: int) -> bool:
    """DynamoDB deletes a row days after it has ended; until then it is there and does not count."""
    return EXPIRES in found and int(found[EXPIRES]["N"]) * 1000 <= now_ms


def row(view: ViewSpec, found: Mapping[str, Any], partials: Sequence[bytes]) -> dict[str, object]:
    """A stored row with key columns, window and values, these computed from its partials: exact."""
    head = {name: plain(found[name]) for name in (*view.by, "window_start", "window_end") if name in found}
    return head | agg.values(view.aggregates, agg.merge(view.aggregates, partials))


def _text(value: object) -> str:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)
