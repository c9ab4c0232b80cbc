"""Read lists, maps and structs, one value at a time. Pure.

A value is read by its type, part by part, each by the reader of its own type; what is wrong is named with its place, as
in `lines[2].price`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from headwater.contract.scalars import Refused
from headwater.contract.types import Kind, Member, parse_type
from headwater.contract.written import EXACT

__all__ = ["PART_BYTES", "nested_size", "read_nested"]

ReadLeaf = Callable[[Kind, object], object]
PART_BYTES = 8
"""Bytes that a value counts as, unless it is a text or bytes, and that each part of one counts as in addition."""
_TEXT = parse_type("string")


class _Within(Refused):
    """Refuse a part of a value; its place is built on the way out."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(reason)
        self.place, self.reason = place, reason


def read_nested(kind: Kind, value: object, leaf: ReadLeaf) -> object:
    """Return a list, or a dict for a map or struct. Text is read as JSON. `leaf` reads values of all other types.

    Raise Refused with the place and reason of the first part that is wrong.
    """
    if isinstance(value, str):
        try:
            value = EXACT.decode(value)
        except (ValueError, RecursionError):
            raise Refused(f"is no {kind.name}, and no JSON of one") from None
    try:
        return _read(kind, value, leaf)
    except _Within as error:
        raise Refused(f"has {error.place}: {error.reason}") from None


def _read(kind: Kind, value: object, leaf: ReadLeaf) -> object:
    if kind.name == "list":
        return _list(kind.members[0], value, leaf)
    if kind.name == "map":
        return _map(kind.members[0], value, leaf)
    return _struct(kind.members, value, leaf) if kind.name == "struct" else leaf(kind, value)


def _list(member: Member, value: object, leaf: ReadLeaf) -> list[object]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise Refused("is no list")
    return [_part(member, f"[{at}]", one, leaf) for at, one in enumerate(value)]


def _map(member: Member, value: object, leaf: ReadLeaf) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, one in _pairs(value):
        if not isinstance(key, str):
            raise Refused("has a key that is no text")
        if key in found:
            raise Refused("has a key twice")
        found[str(leaf(_TEXT, key))] = _part(member, f"[{json.dumps(key)[:40]}]", one, leaf)
    return found


def _pairs(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        return value.items()
    # as Arrow has maps
    if isinstance(value, list | tuple) and all(isinstance(one, tuple) and len(one) == 2 for one in value):
        return value
    raise Refused("is no map of texts to values")


def _struct(members: tuple[Member, ...], value: object, leaf: ReadLeaf) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise Refused("is no struct of named values")
    found = {one.name: _part(one, f".{one.name}", value.get(one.name), leaf) for one in members}
    for name in value:
        if name not in found:
            raise Refused(f"has a field {json.dumps(str(name))[:40]} that the type does not know")
    return found


def _part(member: Member, place: str, value: object, leaf: ReadLeaf) -> object:
    if value is None:
        if member.required:
            raise _Within(place, "required, but missing or null")
        return None
    try:
        return _read(member.kind, value, leaf)
    except _Within as error:
        raise _Within(place + error.place, error.reason) from None
    except Refused as error:
        raise _Within(place, str(error)) from None


def nested_size(kind: Kind, value: Any) -> int:
    """Return about what a value that was read takes: bytes of texts, and 8 for anything else and for every part.

    >>> from headwater.contract.types import parse_type
    >>> nested_size(parse_type("list<string>"), ["xy", ""])
    18
    """
    if value is None:
        return 0
    if kind.name == "list":
        return sum(nested_size(kind.members[0].kind, one) + PART_BYTES for one in value)
    if kind.name == "map":
        inner = kind.members[0].kind
        return sum(len(key.encode()) + nested_size(inner, one) + PART_BYTES for key, one in value.items())
    if kind.name == "struct":
        return sum(nested_size(one.kind, value[one.name]) + PART_BYTES for one in kind.members)
    return len(value) if isinstance(value, bytes) else len(value.encode()) if isinstance(value, str) else PART_BYTES
