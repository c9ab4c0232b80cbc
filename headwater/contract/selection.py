"""Find a contract's fields in an event that others wrote: by path, by earlier name, and the rest by the policy. Pure.

Here an event is any JSON object; what comes out is what `validate_row` takes. Values are not looked at.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headwater.contract.definition import Contract
from headwater.contract.scalars import Refused
from headwater.contract.values import json_text, shown
from headwater.errors import InvalidEvent

__all__ = ["select_column", "select_columns", "select_row", "select_value", "values_within"]

_ABSENT = object()


def select_row(contract: Contract, event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the event's values by the contract's field names; absent ones are left out.

    A field with a `path` is looked for there, all others under their names. What no field takes is refused with
    InvalidEvent, left out, or kept as JSON in the field for it, as the contract's `unknown` says.

    >>> from headwater.contract import parse_contract
    >>> contract = parse_contract('''
    ... {name: c, version: 1, key: user, time: at, unknown: ignore, fields: [
    ...   {name: user, type: string, from: detail.user.id}, {name: at, type: timestamp, from: time}]}''', "here")
    >>> select_row(contract, {"time": "2026-03-01T12:00:00Z", "detail": {"user": {"id": "u"}}, "x": 1})
    {'user': 'u', 'at': '2026-03-01T12:00:00Z'}
    """
    if not contract.selects:
        return event
    found: dict[str, Any] = {}
    taken: list[tuple[str, ...]] = []
    for name, paths in contract.places:
        for path in paths:
            value = event.get(path[0], _ABSENT) if len(path) == 1 else _at(event, path)
            if value is not _ABSENT:
                found[name] = value
                taken.append(path)
                break
    if contract.unknown == "ignore":
        return found
    rest = _without(event, taken)
    if rest and contract.unknown == "refuse":
        name = _first_name(rest)
        raise InvalidEvent(f"field {shown(name)} is not in contract {contract.name} v{contract.version}")
    if rest:
        try:
            found[contract.unknown] = json_text(rest)
        except Refused as refused:
            raise InvalidEvent(f"field {contract.unknown}: {shown(rest)} {refused}") from None
    return found


def select_columns(contract: Contract, events: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """Yield for each field in order what `select_column` does; an object that paths share is looked up once."""
    within: dict[tuple[str, ...], Sequence[Any]] = {(): events}
    places = dict(contract.places)
    for field in contract.fields:
        paths = places.get(field.name, ())
        if len(paths) != 1:
            yield [_first_at(event, paths) for event in events]
            continue
        yield values_within(within, paths[0])


def values_within(within: dict[tuple[str, ...], Sequence[Any]], path: tuple[str, ...]) -> list[Any]:
    """Return the value at a path in each event; None where there is none.

    `within` has what is at shorter paths, at least what this one begins with, and gets more of it.

    >>> values_within({("a",): [{"b": 1}, None]}, ("a", "b"))
    [1, None]
    """
    *above, last = path
    parents = tuple(above)
    found = within.get(parents)
    if found is None:
        found = within[parents] = values_within(within, parents)
    if set(map(type, found)) != {dict}:
        found = within[parents] = [one if isinstance(one, Mapping) else {} for one in found]
    return [one.get(last) for one in found]


def select_column(contract: Contract, name: str, events: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return for each event the value that `select_row` finds for one field; None where the event has none."""
    paths = next((paths for field, paths in contract.places if field == name), ())
    if [len(path) for path in paths] == [1]:
        top = paths[0][0]
        return [event.get(top) for event in events]
    return [_first_at(event, paths) for event in events]


def select_value(contract: Contract, event: Mapping[str, Any], name: str) -> Any:
    """Return the value that `select_row` finds for one field; None where the event has none.

    What else the event has is not looked at: the key of an event that is refused can be read, too.
    """
    return select_column(contract, name, [event])[0]


def _first_at(event: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> Any:
    for path in paths:
        value = _at(event, path)
        if value is not _ABSENT:
            return value
    return None


def _at(event: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(event, Mapping) or name not in event:
            return _ABSENT
        event = event[name]
    return event


def _without(event: Mapping[str, Any], taken: list[tuple[str, ...]]) -> dict[str, Any]:
    """Return what is left of an event; an object of which all was taken is not."""
    whole = {path[0] for path in taken if len(path) == 1}
    within: dict[str, list[tuple[str, ...]]] = {}
    for path in taken:
        if len(path) > 1:
            within.setdefault(path[0], []).append(path[1:])
    left: dict[str, Any] = {}
    for name, value in event.items():
        if name in whole:
            continue
        if name in within:
            value = _without(value, within[name])
            if not value:
                continue
        left[name] = value
    return left


def _first_name(rest: Mapping[str, Any]) -> str:
    """Return the path of the first value in a rest, with points."""
    name, value = next(iter(rest.items()))
    return f"{name}.{_first_name(value)}" if isinstance(value, Mapping) and value else str(name)
