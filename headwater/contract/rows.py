"""Hold one event, given as a mapping, to its contract."""

from collections.abc import Mapping
from typing import Any

from headwater.arguments import shown as named
from headwater.contract.definition import Contract
from headwater.contract.scalars import Refused
from headwater.contract.types import NESTED
from headwater.contract.values import missing, read_value, shown, size_of, too_long
from headwater.errors import InvalidEvent

__all__ = ["unknown_field", "validate_row"]


def validate_row(contract: Contract, row: Mapping[str, object]) -> dict[str, object]:
    """Return the event with every field of the contract, in order: numbers and times as the contract has them, absent
    as None.

    Times may be ISO 8601 text (without a zone: UTC), milliseconds since 1970 or datetime, and become datetime in UTC,
    rounded down to the field's milliseconds or microseconds. Decimals, UUIDs and bytes may be those of Python or text
    (bytes in base64), and become those of Python. A field's earlier names are taken for it, and so is the one
    name that it is `from`. Raise InvalidEvent, which names the field.
    """
    if not isinstance(row, Mapping):
        raise InvalidEvent(f"an event is a mapping of field names to values, not {named(row)}")
    read: dict[str, object] = {}
    used, limits, others = 0, contract.max_bytes, contract.others
    for field in contract.fields:
        name = field.name
        if name not in row and name in others:
            name = next((other for other in others[name] if other in row), name)
        used += name in row
        value = row.get(name)
        if value is None:
            if field.required:
                raise InvalidEvent(missing(field))
            read[field.name] = None
            continue
        try:
            read[field.name] = read_value(field, value)
        except Refused as refused:
            raise InvalidEvent(str(refused)) from None
        limit = limits.get(field.name)
        if limit is not None:
            sized: Any = read[field.name]
            # of a text as many characters may fit as it has bytes, and a quarter does
            if (field.kind.name in NESTED or len(sized) * 4 > limit) and size_of(field, sized) > limit:
                raise InvalidEvent(too_long(field, sized, limit))
    if used < len(row) and (reason := unknown_field(contract, row)) is not None:
        raise InvalidEvent(reason)
    return read


def unknown_field(contract: Contract, row: Mapping[str, object]) -> str | None:
    """Return the reason when the event has a field that the contract lacks, or one by two of its names."""
    names = contract.all_names
    if len({names[name] for name in row if name in names}) == len(row):
        return None
    for name in row:
        field = names.get(name)
        if field is None:
            return f"field {shown(name)} is not in contract {contract.name} v{contract.version}"
        if field != name:
            given = name if name.isidentifier() else shown(name)
            return f"field {given}: the event has another name of {field} too"
    raise AssertionError("every field is known")
